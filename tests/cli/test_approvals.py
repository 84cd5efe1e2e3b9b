"""`interposer approvals` as people and scripts use it: a real process, a real socket, a real desk."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from interposer.admin import Administration, AdminSession
from interposer.canonical import canonical, digest_bytes
from interposer.desk import Desk
from interposer.errors import ApprovalPending
from interposer.model import (
    ApprovalTerms,
    Decision,
    Effect,
    Invocation,
    JsonObject,
    MatchedRule,
    Principal,
    Skill,
)
from interposer.ports import Connection, Receiver
from interposer.records.memory import MemoryRecordStore
from interposer.transports.keyed import KeyedSocket

AGENT = Principal("local", "agent", uid=1)
ANNA = Principal("operator", "anna")
RULE = MatchedRule("refunds-need-a-lead", Effect.ASK, "policy.yaml", 7)
HOSTILE = {"amount": 90, "note": "\u202e\x1b]0;x\x07\x7f\nApproved: yes"}
PROGRAM = "from interposer.cli.approvals import approvals; approvals(prog_name='interposer approvals')"


class StillClock:
    def now(self) -> float:
        return 1_000.0

    def monotonic(self) -> float:
        return 10.0


async def _nothing(params: JsonObject | None = None) -> JsonObject:
    return {}


@dataclass
class Broker:
    """A desk behind a real administration socket under `home`."""

    home: Path
    slot: str = ""
    operator: Principal = ANNA
    store: MemoryRecordStore = field(default_factory=MemoryRecordStore)

    def __post_init__(self) -> None:
        made = count(1)
        self.desk = Desk(self.store, StillClock(), [], lambda kind: f"{kind}_{self.slot}{next(made):03d}")

    @property
    def address(self) -> Path:
        return (self.home / "slots" / self.slot if self.slot else self.home) / "admin.sock"

    async def question(self, arguments: JsonObject | None = None, *, quorum: int = 1) -> str:
        exact = canonical(arguments or HOSTILE)
        skill = Skill("payments.refund", "payments", "refund", "refund", {}, "skill-1")
        call = Invocation("i_1", "s_1", AGENT, skill, {}, exact, digest_bytes(exact))
        terms = ApprovalTerms(quorum=quorum)
        with pytest.raises(ApprovalPending) as ticket:
            await self.desk.obtain(call, Decision(Effect.ASK, (RULE,), "p", "r", terms=terms), hold_s=0.0)
        return ticket.value.question


@asynccontextmanager
async def running(*brokers: Broker) -> AsyncIterator[None]:
    """Every broker's socket, listening."""
    async with anyio.create_task_group() as tasks:
        for broker in brokers:
            administration = Administration(broker.desk, StillClock(), reload=_nothing, skills=_nothing, pin=_nothing)

            def accept(
                connection: Connection, broker: Broker = broker, administration: Administration = administration
            ) -> Receiver:
                return AdminSession(connection, broker.operator, administration, tasks.start_soon)

            broker.address.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            listening = anyio.Event()
            transport = KeyedSocket(os.fspath(broker.address), os.fspath(broker.address.with_name("admin.key")))
            tasks.start_soon(transport.serve, accept, lambda _, listening=listening: listening.set())
            with anyio.fail_after(5):
                await listening.wait()
        yield
        tasks.cancel_scope.cancel()


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "INTERPOSER_HOME": os.fspath(home)}


async def run(home: Path, *words: str) -> Said:
    """The command, in a process of its own."""
    with anyio.fail_after(20):
        done = await anyio.run_process([sys.executable, "-c", PROGRAM, *words], check=False, env=environment(home))
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_no_broker_is_said_with_its_own_code(tmp_path: Path) -> None:
    """Where no broker runs, the command says where it looked and exits with 5."""
    said = await run(tmp_path, "list")
    assert (said.code, said.out) == (5, "")
    assert "no broker is running" in said.err


async def test_stale_socket_is_no_broker(tmp_path: Path) -> None:
    """A socket that a dead broker left behind does not hang the command."""
    async with running(broker := Broker(tmp_path)):
        os.link(broker.address, tmp_path / "kept")
    os.rename(tmp_path / "kept", tmp_path / "admin.sock")
    assert (await run(tmp_path, "list")).code == 5


async def test_list_is_text_or_json(tmp_path: Path) -> None:
    """The list is one line per question, or a JSON array; an empty one is no failure."""
    async with running(broker := Broker(tmp_path)):
        empty = await run(tmp_path, "list", "--json")
        id = await broker.question()
        text, listed = await run(tmp_path, "list"), await run(tmp_path, "list", "--json")
    assert (empty.code, empty.json) == (0, [])
    assert text.code == 0
    assert text.out.startswith(f"{id}  30m left  local:agent  payments.refund  ")
    assert [question["id"] for question in listed.json] == [id]


@pytest.mark.parametrize("words", [("list",), ("list", "--json"), ("show", "q_001"), ("show", "q_001", "--json")])
async def test_arguments_cannot_write_to_the_terminal(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Escape codes, direction marks and line ends of a call reach no terminal (M13, M15)."""
    async with running(broker := Broker(tmp_path)):
        await broker.question()
        said = await run(tmp_path, *words)
    assert said.code == 0
    assert said.out.isascii()
    assert all(line.isprintable() for line in said.out.splitlines())
    assert not any(line.startswith("Approved") for line in said.out.splitlines())


async def test_show_prints_the_exact_call_and_its_digest(tmp_path: Path) -> None:
    """The last line is the canonical call, escaped: it parses to the call, and its SHA-256 is above it."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
        said = await run(tmp_path, "show", id)
        digest = (await broker.desk.get(id)).digest
    assert json.loads(said.out.splitlines()[-1]) == HOSTILE
    assert digest_bytes(canonical(HOSTILE)) in said.out
    assert digest in said.out
    assert "refunds-need-a-lead (ask)  policy.yaml:7" in said.out
    assert "local:agent" in said.out


async def test_approve_grants_and_takes_a_short_id(tmp_path: Path) -> None:
    """An unambiguous beginning of an id is enough, and the call is approved."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
        said = await run(tmp_path, "approve", id[:4], "--reason", "customer called")
        question = await broker.desk.get(id)
    assert (said.code, said.out) == (0, f"{id}: approved\n")
    assert question.state == "granted"
    assert question.votes[0].reason == "customer called"


async def test_approve_with_the_wrong_digest_is_refused(tmp_path: Path) -> None:
    """With `--digest`, only the call that was looked at is approved."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
        wrong = await run(tmp_path, "approve", id, "--digest", "0" * 64)
        assert (await broker.desk.get(id)).state == "open"
        right = await run(tmp_path, "approve", id, "--digest", (await broker.desk.get(id)).digest)
    assert (wrong.code, right.code) == (3, 0)
    assert "digest" in wrong.err


async def test_approve_short_of_the_quorum_waits(tmp_path: Path) -> None:
    """A yes that needs company is counted and exits with 4; the same person again is refused with 3."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question(quorum=2)
        first, again = await run(tmp_path, "approve", id), await run(tmp_path, "approve", id)
    assert (first.code, first.out) == (4, f"{id}: 1 of 2 have approved\n")
    assert again.code == 3


async def test_own_call_cannot_be_approved(tmp_path: Path) -> None:
    """Whoever asked is refused with 3."""
    async with running(broker := Broker(tmp_path, operator=AGENT)):
        said = await run(tmp_path, "approve", await broker.question())
    assert said.code == 3
    assert "cannot answer for it" in said.err


async def test_deny_needs_its_reason(tmp_path: Path) -> None:
    """Without a reason it is wrong usage; with one the question ends, and a later yes comes too late."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
        codes = [(await run(tmp_path, "deny", id, *rest)).code for rest in ((), ("--reason", " "))]
        denied = await run(tmp_path, "deny", id, "--reason", "not without a ticket", "--json")
        late = await run(tmp_path, "approve", id)
    assert codes == [2, 2]
    assert (denied.code, denied.json["state"]) == (0, "denied")
    assert late.code == 3


async def test_unknown_and_ambiguous_ids_are_told_apart(tmp_path: Path) -> None:
    """No such question is 1; an id that means several is wrong usage."""
    async with running(broker := Broker(tmp_path)):
        await broker.question({"n": 1})
        await broker.question({"n": 2})
        unknown, ambiguous = await run(tmp_path, "show", "q_zzz"), await run(tmp_path, "approve", "q_")
    assert (unknown.code, ambiguous.code) == (1, 2)
    assert "q_001" in ambiguous.err


async def test_every_broker_of_the_home_is_asked(tmp_path: Path) -> None:
    """Questions of further brokers are listed with the first one's, and answered where they were asked."""
    main, other = Broker(tmp_path), Broker(tmp_path, slot="b")
    async with running(main, other):
        here, there = await main.question(), await other.question()
        listed = await run(tmp_path, "list", "--json")
        assert (await run(tmp_path, "approve", there)).code == 0
        assert (await other.desk.get(there)).state == "granted"
        assert (await main.desk.get(here)).state == "open"
    assert [question["id"] for question in listed.json] == [here, there]


async def test_watch_tells_of_questions_and_ends_on_interrupt(tmp_path: Path) -> None:
    """Questions appear as they come and again as they end; Ctrl-C is a normal end."""
    async with running(broker := Broker(tmp_path)):
        first = await broker.question()
        process = await anyio.open_process(
            [sys.executable, "-c", PROGRAM, "watch", "--json"], env=environment(tmp_path), stdin=subprocess.DEVNULL
        )
        try:
            with anyio.fail_after(20):
                assert process.stdout is not None
                heard = b""
                heard = await until(process.stdout, heard, lines=1)
                await broker.desk.vote(first, ANNA, False, "no")
                heard = await until(process.stdout, heard, lines=2)
                process.send_signal(signal.SIGINT)
                code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()
    states = [(json.loads(line)["id"], json.loads(line)["state"]) for line in heard.splitlines()]
    assert states == [(first, "open"), (first, "denied")]
    assert code == 0


async def until(stream: Any, heard: bytes, *, lines: int) -> bytes:
    while heard.count(b"\n") < lines:
        heard += await stream.receive()
    return heard


async def test_watch_on_a_terminal_takes_answers(tmp_path: Path) -> None:
    """On a terminal, `s` shows and `a` approves, and nothing but printable text comes out (M13)."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
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
                process.send_signal(signal.SIGINT)
                code = await anyio.to_thread.run_sync(process.wait)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(ours)
    assert code == 0
    assert "\x1b" not in text
    assert "\u202e" not in text


async def typed(terminal: int, keys: str, expected: str) -> str:
    """Type, and read until the expected text has come."""
    os.write(terminal, keys.encode())
    seen = ""
    while expected not in seen:
        await anyio.wait_readable(terminal)
        seen += os.read(terminal, 65_536).decode()
    return seen


@pytest.mark.parametrize("words", [(), ("list",), ("show",), ("approve",), ("deny",), ("watch",)])
async def test_help_ends_with_an_example(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Every `--help` ends with an example that can be copied."""
    said = await run(tmp_path, *words, "--help")
    assert said.code == 0
    assert said.out.rstrip().splitlines()[-1].startswith("    interposer approvals ") or said.out.rstrip().splitlines()[
        -1
    ].startswith("  interposer approvals ")
