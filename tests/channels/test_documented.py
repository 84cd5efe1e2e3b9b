"""docs/how-to/approvals.md: its examples work as they stand."""

from __future__ import annotations

import http.client
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer import replies
from interposer.channels.bodies import generic
from interposer.channels.command import CommandHook
from interposer.channels.notice import notice
from interposer.channels.sender import Answer
from interposer.channels.webhook import Webhook
from interposer.clock import SystemClock
from interposer.config import load as load_config
from interposer.errors import APPROVAL_REFUSED, OUTCOME_UNKNOWN, ApprovalPending
from interposer.grant import KEPT_S
from interposer.model import Effect, Facts, Principal, Skill
from interposer.parts import client_profiles
from interposer.policy.engine import load
from interposer.policy.lint import lint
from interposer.ports import Secret
from interposer.reach import DIALOG_S, RETENTION_S, ROUNDS, Profile, poll_ms

from .questions import QUESTION, link

DOCS = Path(__file__).parents[2] / "docs"
PAGE, REFERENCE = DOCS / "how-to/approvals.md", DOCS / "reference/configuration.md"
CLIENTS = DOCS / "reference/clients.md"


def blocks(language: str, marked: str = "", page: Path = PAGE) -> list[str]:
    mark = f"<!-- {marked} -->\n" if marked else ""
    return re.findall(rf"(?s){mark}```{language}\n(.*?)```", page.read_text())


def test_policy_of_the_page_asks_as_the_page_says() -> None:
    """Two people, one of legal, in office hours, for 20 calls at most."""
    policy = load(blocks("yaml")[0], "policy.yaml")
    assert lint(policy) == []
    skill = Skill("payments.refund", "payments", "refund", "refund", {}, "")
    decision = policy.decide(Principal("local", "agent"), skill, {"amount": 90}, "s", Facts())
    assert (decision.effect, decision.terms is not None) == (Effect.ASK, True)
    assert decision.terms is not None
    assert (decision.terms.quorum, decision.terms.minima, decision.terms.reading_s) == (2, (("legal", 1),), 2.0)
    assert decision.terms.cap is not None
    assert (decision.terms.cap.for_s, decision.terms.cap.uses) == (28_800.0, 20)


def test_configuration_of_the_page_is_read(tmp_path: Path) -> None:
    """Both configurations are what the broker takes."""
    found = []
    for number, text in enumerate(blocks("yaml")[1:]):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        found.append(load_config(file).approvals)
    glass, told = found
    assert glass.break_glass is not None
    assert glass.break_glass.groups == ["on-call"]
    assert [each.format if each.command is None else "command" for each in told.notify] == [
        "generic",
        "slack",
        "command",
    ]


def test_configuration_of_the_reference_is_read(tmp_path: Path) -> None:
    """The whole example of docs/reference/configuration.md is what the broker takes."""
    file = tmp_path / "interposer.yaml"
    file.write_text(blocks("yaml", page=REFERENCE)[0])
    assert len(load_config(file).approvals.notify) == 3


def test_profiles_of_the_clients_page_are_read(tmp_path: Path) -> None:
    """The profiles of docs/reference/clients.md are what the broker takes, and mean what the page says."""
    file = tmp_path / "interposer.yaml"
    file.write_text("version: 1\n" + blocks("yaml", page=CLIENTS)[0])
    assert client_profiles(load_config(file).approvals) == {
        "my-agent": Profile(50.0),
        "my-desk": Profile(4.0, "ask_again"),
        "my-batch": Profile(1.0, "never", False),
    }


def test_numbers_of_the_clients_page_are_those_of_the_code() -> None:
    """Rounds, holds, times and texts that client authors go by."""
    page = " ".join(CLIENTS.read_text().replace("\n> ", " ").split())
    assert f"After {ROUNDS} answers" in page
    assert f"| {DIALOG_S:g} s, or `hold` if that is longer |" in page
    assert (RETENTION_S, KEPT_S) == (600.0, 600.0)
    assert (poll_ms(0.0), poll_ms(3600.0)) == (2_000, 10_000)
    pending = ApprovalPending(question="q_7F3K", expires_at=1740.0, retry_after_s=2.0)
    ticket = replies.refused(pending, 0.0, link="https://console.example/q/q_7F3K")
    assert ticket["content"][0]["text"] in page
    assert set(ticket["_meta"]["interposer/pending"]) == {"approval_id", "url", "expires_at", "retry_after_ms"}
    assert f"`code` {APPROVAL_REFUSED}" in page
    assert f"`code` {OUTCOME_UNKNOWN}" in page


async def test_receiver_of_the_page_takes_what_is_ours_alone() -> None:
    """Signed with the key it is taken, once; with another key, with a signature that is none, or changed on the way,
    it is refused."""
    (program,) = blocks("python", "receiver")
    assert len([line for line in program.splitlines() if line]) <= 20
    before, after = program.rstrip().rsplit("\n", 1)
    assert after == 'HTTPServer(("127.0.0.1", 8099), Receiver).serve_forever()'
    anywhere = (
        'server = HTTPServer(("127.0.0.1", 0), Receiver); print(server.server_port, flush=True); server.serve_forever()'
    )
    key = "of-this-test-alone"
    process = await anyio.open_process(
        [sys.executable, "-c", f"{before}\n{anywhere}"], env={**os.environ, "WEBHOOK_KEY": key}, stderr=None
    )
    try:
        with anyio.fail_after(20):
            url = f"http://127.0.0.1:{int(await line(process))}/"
            told = notice(QUESTION, link)
            assert await webhook(url, "another-key").tell(told) == Answer("refused", "403")
            assert [await anyio.to_thread.run_sync(status, url, junk) for junk in JUNK] == [403] * len(JUNK)
            for _ in range(2):
                assert await webhook(url, key).tell(told) == Answer("delivered", "204")
            assert await webhook(url, key).tell(notice(QUESTION, lambda id: "second")) == Answer("delivered", "204")
            assert await webhook(
                url, key, body=b'{"delivery": "d_2", "event": "e", "skill": "s", "requester": "r", "link": "l"}'
            ).tell(told)
            assert await line(process) == "opened payments.refund local:agent https://console.example/q/q_1"
            assert await line(process) == "e s r l"
    finally:
        process.kill()
        await process.aclose()


JUNK = [None, "junk", "", "t=1", "t=x,v1=y", "v1=" + 64 * "0", f"t=1,v1={64 * 'ä'}", f"t={400 * '9'},v1={64 * '0'}"]


def status(url: str, signature: str | None) -> int:
    """What the receiver answers to this signature."""
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=10)
    try:
        connection.request("POST", "/", b"{}", {} if signature is None else {"Interposer-Signature": signature})
        return connection.getresponse().status
    finally:
        connection.close()


def webhook(url: str, key: str, *, body: bytes | None = None) -> Webhook:
    async def address() -> str:
        return url

    async def signing() -> Secret:
        return Secret(key)

    return Webhook(address, generic if body is None else lambda _: body, SystemClock(), key=signing)


async def line(process: Any) -> str:
    said = b""
    while not said.endswith(b"\n"):
        said += await process.stdout.receive(1)
    return said.decode().strip()


async def test_hook_of_the_page_tells_the_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given the notice, and passes skill, requester and link on."""
    (program,) = blocks("python", "hook")
    hook, desktop = tmp_path / "tell-on-call", tmp_path / "notify-send"
    hook.write_text(program.replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
    desktop.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/told\n')
    for file in (hook, desktop):
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with anyio.fail_after(20):
        assert (await CommandHook([str(hook)]).tell(notice(QUESTION, link))).verdict == "delivered"
    assert (tmp_path / "told").read_text().splitlines() == [
        "--",
        "payments.refund waits",
        "local:agent https://console.example/q/q_1",
    ]
