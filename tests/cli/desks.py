"""What `interposer approvals` is run against: a real desk behind a real administration socket."""

from __future__ import annotations

import json
import os
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
from click.testing import CliRunner

from interposer.admin import Administration, AdminSession
from interposer.canonical import canonical, digest_bytes
from interposer.cli.approvals import approvals
from interposer.desk import Desk, DeskLimits
from interposer.errors import ApprovalPending
from interposer.model import (
    Decision,
    Effect,
    Invocation,
    JsonObject,
    MatchedRule,
    Principal,
    Question,
    Skill,
)
from interposer.ports import Connection, Receiver
from interposer.records.memory import MemoryRecordStore
from interposer.terms import ApprovalTerms, GrantCap
from interposer.transports.keyed import KeyedSocket

AGENT = Principal("local", "agent", uid=1)
ANNA = Principal("operator", "anna")
BEN = Principal("operator", "ben")
CAP = GrantCap(for_s=7200.0, uses=10, session=True, matching=True)
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
        limits = DeskLimits(rate=10_000, may_break_glass=lambda principal: principal == ANNA)
        self.desk = Desk(self.store, StillClock(), [], lambda kind: f"{kind}_{self.slot}{next(made):03d}", limits)
        self.desk.review = self.review

    async def review(self, question: Question, amended: bytes) -> None:
        """Policy has nothing against other arguments."""

    @property
    def address(self) -> Path:
        return (self.home / "slots" / self.slot if self.slot else self.home) / "admin.sock"

    async def question(
        self,
        arguments: JsonObject | None = None,
        *,
        quorum: int = 1,
        terms: ApprovalTerms | None = None,
        destructive: bool = False,
    ) -> str:
        exact = canonical(arguments or HOSTILE)
        hints: JsonObject = {"annotations": {"destructiveHint": destructive}}
        skill = Skill("payments.refund", "payments", "refund", "refund", hints, "skill-1")
        call = Invocation("i_1", "s_1", AGENT, skill, {}, exact, digest_bytes(exact))
        terms = terms or ApprovalTerms(quorum=quorum)
        with pytest.raises(ApprovalPending) as ticket:
            await self.desk.obtain(call, Decision(Effect.ASK, (RULE,), "p", "r", terms=terms), hold_s=0.0)
        return ticket.value.question


@asynccontextmanager
async def running(*brokers: Broker) -> AsyncIterator[None]:
    """Every broker's socket, listening."""
    async with anyio.create_task_group() as tasks:
        for broker in brokers:
            administration = Administration(
                broker.desk,
                StillClock(),
                reload=_nothing,
                skills=_nothing,
                pin=_nothing,
                link=lambda id: f"https://console.example/q/{id}",
            )

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


async def here(home: Path, *words: str) -> Said:
    """The command, in this process: for what needs no process of its own."""

    def invoke() -> Said:
        done = CliRunner().invoke(approvals, words, env={"INTERPOSER_HOME": os.fspath(home)})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    with anyio.fail_after(20):
        return await anyio.to_thread.run_sync(invoke)
