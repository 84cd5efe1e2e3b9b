"""`interposer approvals watch`: what it tells, and the answers it takes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from interposer.cli.questions import whole
from interposer.cli.watching import answer
from interposer.desk import Proposal
from interposer.terms import ApprovalTerms

from .desks import ANNA, BEN, PROGRAM, Broker, environment, here, running


async def test_watch_tells_of_questions_and_ends_on_interrupt(tmp_path: Path) -> None:
    """Questions appear as they come, as they are changed and as they end; Ctrl-C is a normal end."""
    async with running(broker := Broker(tmp_path)):
        first = await broker.question(quorum=2)
        process = await anyio.open_process(
            [sys.executable, "-c", PROGRAM, "watch", "--json"], env=environment(tmp_path), stdin=subprocess.DEVNULL
        )
        try:
            with anyio.fail_after(20):
                assert process.stdout is not None
                heard = b""
                heard = await until(process.stdout, heard, lines=1)
                await broker.desk.vote(first, ANNA, True, proposal=Proposal(b'{"amount":20}'))
                heard = await until(process.stdout, heard, lines=2)
                await broker.desk.vote(first, BEN, False, "no")
                heard = await until(process.stdout, heard, lines=3)
                process.send_signal(signal.SIGINT)
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()
    said = [json.loads(line) for line in heard.splitlines()]
    assert [(each["id"], each["state"]) for each in said] == [(first, "open"), (first, "open"), (first, "denied")]
    assert [each["amended"] for each in said[:2]] == [False, True]
    assert code == 0


async def until(stream: Any, heard: bytes, *, lines: int) -> bytes:
    while heard.count(b"\n") < lines:
        heard += await stream.receive()
    return heard


async def test_watch_on_a_terminal_takes_answers(tmp_path: Path) -> None:
    """On a terminal, `s` shows, `a` approves, `r` revokes and `b` breaks the glass, all of it printable (M13)."""
    async with running(broker := Broker(tmp_path)):
        id, urgent = await broker.question(), await broker.question({"n": 2}, quorum=3)
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "watch"],
            env=environment(tmp_path),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            with anyio.fail_after(20):
                text = await typed(ours, "", "30m left")
                text = await typed(ours, f"s {id}\n", "SHA-256")
                os.write(ours, f"a {id} looked at it\n".encode())
                while (await broker.desk.get(id)).state == "open":
                    await anyio.sleep(0.01)
                text += await typed(ours, "", "approved")
                text += await typed(ours, f"r {id}\n", "a ID [reason]")
                text += await typed(ours, f"r {id} not so\n", "revoked")
                text += await typed(ours, f"b {urgent} INC-1\n", "*** q_002: GLASS BROKEN by operator:anna")
                process.send_signal(signal.SIGINT)
                code = await anyio.to_thread.run_sync(process.wait)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(ours)
    assert code == 0
    assert f"https://console.example/q/{id}" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


async def test_answer_is_to_what_was_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of 100 characters is no look at a call of 3,000, nor at a schema; `a` and `b` show it first."""
    monkeypatch.setenv("INTERPOSER_HOME", str(tmp_path))
    shown = dict[str, str]()

    async def typed_(text: str) -> str:
        with anyio.fail_after(20):
            return await anyio.to_thread.run_sync(answer, text, shown)

    async with running(broker := Broker(tmp_path)):
        id, risky = (
            await broker.question({"note": "x" * 3_000}),
            await broker.question({"n": 1}, terms=ApprovalTerms(reading_s=1.0)),
        )
        listed = {each["id"]: each for each in (await here(tmp_path, "list", "--json")).json}
        assert {name: whole(each) for name, each in listed.items()} == {id: False, risky: True}
        said = await typed_(f"a {id}")
        assert ("x" * 3_000 in said, (await broker.desk.get(id)).state) == (True, "open")
        assert await typed_(f"a {id}") == f"{id}: approved"
        shown[risky] = listed[risky]["version"]
        said = await typed_(f"b {risky} INC-1")
        assert ('{"n":1}' in said, (await broker.desk.get(risky)).state) == (True, "open")
        assert "GLASS BROKEN" in await typed_(f"b {risky} INC-1")


async def typed(terminal: int, keys: str, expected: str) -> str:
    """Type, and read until the expected text has come."""
    os.write(terminal, keys.encode())
    seen = ""
    while expected not in seen:
        await anyio.wait_readable(terminal)
        seen += os.read(terminal, 65_536).decode()
    return seen
