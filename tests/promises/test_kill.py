"""The broker is killed with `kill -9`, again and again, with calls in flight; then its record is compared with what
really reached the upstream, which writes one durable line per call it receives.

INTERPOSER_KILLS scales the run (15 lives of 34 calls if absent); INTERPOSER_SEED repeats one.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.fakes.agent import (
    COMMAND,
    UPSTREAM,
    Object,
    configured,
    environment,
    finish,
    gone,
    is_tool_error,
    kill,
    operator,
    processes,
    spawned,
    text_of,
)

LIVES = int(os.environ.get("INTERPOSER_KILLS", "15"))
CALLS = 34
ASK = "version: 1\nrules: [{id: ask, effect: ask, skills: ['*'], approval: {expires: 10m}}]\n"
SHORT_HOLD = "approvals: {hold: 50ms}\n"


class Row(NamedTuple):
    """A row of the record."""

    seq: int
    kind: str
    at: float
    invocation: str
    code: str
    question: str
    payload: Any


@dataclass
class Harness:
    """A broker that is started over and over on the same record and the same upstream."""

    home: Path
    mark: str
    acknowledged: set[str] = field(default_factory=set)
    """The calls whose answer the agent had in its hands."""

    @property
    def record(self) -> Path:
        return self.home / "state" / "record.db"

    def configure(self, **config: str) -> list[str]:
        upstream = [*UPSTREAM, "--truth", str(self.home / "truth"), "--witness", "--token", self.mark]
        return ["stdio", "--config", str(configured(self.home, upstream, **config))]

    def truth(self) -> list[Object]:
        """What the upstream received."""
        file = self.home / "truth"
        return [json.loads(line) for line in file.read_bytes().splitlines()] if file.is_file() else []

    def rows(self) -> list[Row]:
        query = (
            "SELECT e.seq, e.kind, e.at, e.invocation, e.code, e.question, p.body "
            "FROM events e LEFT JOIN payloads p ON p.seq = e.seq ORDER BY e.seq"
        )
        with closing(sqlite3.connect(f"file:{self.record}?mode=ro", uri=True)) as record:
            return [Row._make([*row[:6], json.loads(row[6] or "null")]) for row in record.execute(query)]

    def verified(self) -> bool:
        command = [*COMMAND, "record", "verify", "--record", str(self.record)]
        done = subprocess.run(command, env=environment(self.home), capture_output=True, timeout=60)
        return done.returncode == 0


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path, f"mark-{tmp_path.name}-{os.getpid()}-{time.monotonic_ns()}")


async def one_life(harness: Harness, arguments: list[str], life: int, dice: random.Random) -> None:
    """Start, put all calls in flight at once, and kill at some moment."""
    names = {f"c{n}": f"call {life} of {n}" for n in range(CALLS)}
    async with spawned(harness.home, arguments) as agent:
        opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
        calls: list[Object | bytes] = [{"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": opening}]
        for id, text in names.items():
            skill: Object = {"name": "slow", "arguments": {"ms": dice.choice([0, 0, 1, 5, 40]), "text": text}}
            calls.append({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": skill})
        await agent.send(*calls)
        if dice.random() < 0.6:
            wanted = dice.randint(1, CALLS)
            await agent.until(lambda: len(agent.messages) >= wanted)
        else:
            await agent.read_for(dice.uniform(0.0, 1.0))
        await kill(agent)
        await agent.to_the_end()
        answered = [(id, answer) for id in names for answer in agent.answers(id)]
    assert len(answered) == len({id for id, _ in answered})
    harness.acknowledged |= {names[id] for id, answer in answered if not is_tool_error(answer)}


async def test_killed_broker_forwards_nothing_unrecorded_and_nothing_twice(harness: Harness) -> None:
    """Whenever the broker dies: what reached the upstream has an earlier durable intent, nothing reached it twice,
    every cut call is in doubt after the restart, every acknowledged answer is on record, the chain verifies, and no
    process is left."""
    seed = int(os.environ.get("INTERPOSER_SEED", str(time.time_ns())))
    print(f"INTERPOSER_SEED={seed}")
    dice = random.Random(seed)
    arguments = harness.configure()
    for life in range(LIVES):
        await one_life(harness, arguments, life, dice)
    async with spawned(harness.home, arguments) as agent:
        await agent.initialize()
        assert text_of(await agent.call("echo", {"text": "alive"})) == "alive"
        assert await finish(agent) == 0
    await gone(harness.mark)

    rows, truth = harness.rows(), harness.truth()
    intents = {row.payload["arguments"]["text"]: row for row in rows if row.kind == "intended"}
    assert len(intents) == sum(row.kind == "intended" for row in rows)
    received = Counter(call["arguments"]["text"] for call in truth)
    assert max(received.values()) == 1
    assert all(intents[call["arguments"]["text"]].at <= call["at"] for call in truth)

    ends: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.kind in ("answered", "failed", "in_doubt"):
            ends[row.invocation].append(row.kind)
    assert all(len(ends[intent.invocation]) == 1 for intent in intents.values())
    assert all(ends[intents[text].invocation] == ["answered"] for text in harness.acknowledged)
    cut = [row for row in rows if row.code == "not_known_sent"]
    assert all(row.kind == "in_doubt" for row in cut)
    assert cut, "no call was cut: the harness killed too late"
    assert harness.verified()
    assert not (harness.home / "state" / "slots").exists()
    print(f"{LIVES} kills, {len(intents)} intents, {len(truth)} received, {len(cut)} cut")


async def test_question_survives_a_killed_broker(harness: Harness) -> None:
    """A broker that dies between the question and the answer keeps the question; after the restart a yes to it makes
    the identical call happen, exactly once."""
    arguments = harness.configure(policy=ASK, more="approvals: {hold: 1m}\n")
    async with spawned(harness.home, arguments) as agent:
        await agent.initialize()
        await agent.post("tools/call", {"name": "echo", "arguments": {"text": "pay"}, "_meta": {"progressToken": 1}})
        await agent.until(lambda: bool(agent.notifications("notifications/progress")))
        async with operator(harness.home) as human:
            (before,) = await human.questions()
        await kill(agent)
    assert not harness.truth()

    async with spawned(harness.home, arguments) as agent:
        await agent.initialize()
        async with operator(harness.home) as human:
            (question,) = await human.questions()
            assert (question["id"], question["digest"]) == (before["id"], before["digest"])
            await human.approve(question["id"])
        assert text_of(await agent.call("echo", {"text": "pay"})) == "pay"
        await agent.post("tools/call", {"name": "echo", "arguments": {"text": "pay"}, "_meta": {"progressToken": 2}})
        await agent.until(lambda: bool(agent.notifications("notifications/progress")))
        async with operator(harness.home) as human:
            (again,) = await human.questions()
        assert again["id"] != question["id"]
        await finish(agent)
    await gone(harness.mark)
    assert [call["arguments"]["text"] for call in harness.truth()] == ["pay"]
    assert harness.verified()


async def test_grant_is_good_for_one_execution_however_the_broker_dies(harness: Harness) -> None:
    """An approved call that is cut by a kill is not executed again by that approval: the repeated call asks anew."""
    dice = random.Random(7)
    arguments = harness.configure(policy=ASK, more=SHORT_HOLD)
    for attempt in range(8):
        async with spawned(harness.home, arguments) as agent:
            await agent.initialize()
            if attempt:
                await agent.call("echo", {"text": f"grant {attempt - 1}"})
            text = f"grant {attempt}"
            question = (await agent.call("echo", {"text": text}))["result"]["_meta"]["interposer/pending"]
            async with operator(harness.home) as human:
                await human.approve(question["approval_id"])
            await agent.post("tools/call", {"name": "echo", "arguments": {"text": text}})
            await agent.read_for(dice.uniform(0.0, 0.02))
            await kill(agent)
    await gone(harness.mark)
    executed = Counter(call["arguments"]["text"] for call in harness.truth())
    assert set(executed.values()) <= {1}
    consumed = Counter(row.question for row in harness.rows() if row.kind == "consumed")
    assert set(consumed.values()) == {1}
    assert harness.verified()
    assert not processes(harness.mark)
