"""Brokers that are killed while a call waits for a human: the callers, the human, and what becomes of every call.

One broker at a time, on one record. Each life of it begins by settling the call that the last kill cut, and ends with
a `kill -9` at some moment of the next one. Callers repeat the identical call, with its sealed state where they have
one, until they have a result or a report that nobody knows.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from tests.e2e.daemon import doomed
from tests.fakes.agent import COMMAND, META, UPSTREAM, Agent, Object, Operator, configured, environment, operator, unix

ASK = "version: 1\nrules: [{id: ask, effect: ask, skills: ['*'], approval: {expires: 30m}}]\n"
MORE = "approvals: {hold: 150ms, pending_per_session: 1000, rate: 6000/min}\nconsole: {enabled: true}\n"
PAY = {
    "name": "pay",
    "description": "Pays.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "before_ms": {"type": "integer"},
            "after_ms": {"type": "integer"},
        },
    },
}
ATTEMPTS = 60
"""Identical calls until one of them has an end."""
LIFE_S = 30.0
"""The longest that a call may take to its phase, or to its end."""
QUESTION, ANSWER, EXECUTION = "question to answer", "answer to execution", "during execution"
PHASES = (QUESTION, ANSWER, EXECUTION)


@dataclass
class Trial:
    """One call, cut once."""

    number: int
    era: str
    phase: str
    arguments: Object
    state: str = ""
    """The sealed state that the caller has, if it has one."""
    responses: Object = field(default_factory=dict)
    end: str = ""
    """How the caller's asking ended: result, in_doubt, or what else it was told."""
    calls: int = 0
    not_made: int = 0
    """How often the caller was told that nothing was executed, and had to ask anew."""
    stateful: bool = False

    @property
    def text(self) -> str:
        text: str = self.arguments["text"]
        return text

    def params(self) -> Object:
        """The identical call, with what the last answer asked for."""
        self.calls += 1
        params: Object = {"name": "pay", "arguments": self.arguments}
        if self.era == "modern":
            params["_meta"] = {META + "clientCapabilities": {"elicitation": {"form": {}, "url": {}}}}
        if self.state:
            params["requestState"] = self.state
        if self.responses:
            params["inputResponses"] = self.responses
        return params

    def heard(self, answer: Object) -> str:
        """What an answer means to the caller: `wait`, or the end."""
        result = answer.get("result", {})
        self.state, self.responses = "", {}
        if result.get("resultType") == "input_required":
            self.stateful = True
            self.state = result["requestState"]
            self.responses = {key: {"action": "accept"} for key in result.get("inputRequests", {})}
            return "wait"
        meta = result.get("_meta", {})
        if "interposer/pending" in meta:
            return "wait"
        if "result" in answer and not result.get("isError"):
            self.end = "result"
        else:
            reason = meta.get("interposer/decision", {}).get("reason") or str(answer)
            if reason == "not_made":
                # The yes was used up, and certainly nothing was sent: its caller is told so, and may ask again.
                self.not_made += 1
                return "wait"
            self.end = "in_doubt" if reason == "outcome_unknown" else reason
        return self.end


class House:
    """A home that brokers come and go in."""

    def __init__(self, home: Path) -> None:
        self.home = home
        tools = home / "tools"
        tools.write_text(json.dumps(PAY) + "\n")
        upstream = [*UPSTREAM, "--tools", str(tools), "--effects", str(home / "effects"), "--token", self.mark]
        self.config = configured(home, upstream, policy=ASK, more=MORE)

    @property
    def mark(self) -> str:
        """A word on the command line of every upstream of this house."""
        return f"mark={self.home}"

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[Process]:
        async with doomed(self.config, environment(self.home)) as process:
            yield process

    @asynccontextmanager
    async def caller(self, era: str) -> AsyncIterator[Agent]:
        async with unix(self.home / "state/broker.sock") as agent:
            if era == "modern":
                await agent.discover()
            else:
                await agent.initialize()
            yield agent

    def effects(self) -> Counter[str]:
        """How often each call took effect."""
        return Counter(line["text"] for line in self.lines())

    def lines(self) -> list[Object]:
        file = self.home / "effects"
        return [json.loads(line) for line in file.read_bytes().splitlines()] if file.is_file() else []

    def rows(self, kind: str) -> list[tuple[float, str, Any]]:
        """(time, question, payload) of every row of this kind."""
        query = (
            "SELECT e.at, e.question, p.body FROM events e LEFT JOIN payloads p ON p.seq = e.seq "
            "WHERE e.kind = ? ORDER BY e.seq"
        )
        with closing(sqlite3.connect(f"file:{self.home / 'state/record.db'}?mode=ro", uri=True)) as record:
            found = record.execute(query, (kind,)).fetchall()
        return [(at, question, json.loads(body or "null")) for at, question, body in found]

    def verified(self) -> bool:
        words = [*COMMAND, "record", "verify", "--record", str(self.home / "state/record.db")]
        return subprocess.run(words, env=environment(self.home), capture_output=True, timeout=120).returncode == 0


async def open_question(human: Operator, trial: Trial) -> str:
    """The id of the question about this call, if one is open."""
    for question in await human.questions():
        if f'"{trial.text}"' in question["preview"]:
            id: str = question["id"]
            return id
    return ""


async def asked(human: Operator, trial: Trial) -> str:
    """The id of the question about this call, as soon as there is one."""
    revision = -1
    while not (id := await open_question(human, trial)):
        revision = (await human.ask("approvals/watch", {"since": revision, "wait_s": 5}))["revision"]
    return id


async def settle(house: House, trial: Trial) -> None:
    """The identical call, again and again, with a human who says yes, until it has an end."""
    if trial.end:
        return
    async with house.caller(trial.era) as agent, operator(house.home) as human:
        for _ in range(ATTEMPTS):
            if trial.heard(await agent.request("tools/call", trial.params())) != "wait":
                return
            id = await open_question(human, trial)
            if id:
                await human.approve(id)
            else:
                await agent.read_for(0.05)
    trial.end = "no end"


async def until_waiting(agent: Agent, trial: Trial) -> None:
    """Call once; the caller now knows that it has to wait, and nothing is in flight."""
    assert trial.heard(await agent.request("tools/call", trial.params())) == "wait"


async def under_way(house: House, agent: Agent, trial: Trial, dice: random.Random) -> None:
    """Some moment of the execution; half of them soon after the effect, while the answer is on its way."""
    lasts_s = (trial.arguments["before_ms"] + trial.arguments["after_ms"]) / 1000
    if dice.random() < 0.5:
        await agent.read_for(dice.uniform(0.0, lasts_s + 0.04))
        return
    while not house.effects()[trial.text]:
        await agent.read_for(0.001)
    await agent.read_for(trial.arguments["after_ms"] / 1000 + dice.uniform(0.0, 0.01))


async def cut(house: House, broker: Process, trial: Trial, dice: random.Random) -> None:
    """Bring a call to its phase, and kill the broker there."""
    async with house.caller(trial.era) as agent:
        posted: int | str | None = None
        async with operator(house.home) as human:
            if trial.phase == QUESTION:
                posted = await agent.post("tools/call", trial.params())
                await asked(human, trial)
                await agent.read_for(dice.uniform(0.0, 0.25))
            else:
                await until_waiting(agent, trial)
                id = await open_question(human, trial)
                if trial.phase == ANSWER and dice.random() < 0.5:
                    await human.begin_approving(id)
                    await agent.read_for(dice.uniform(0.0, 0.02))
                else:
                    await human.approve(id)
            if trial.phase == EXECUTION:
                posted = await agent.post("tools/call", trial.params())
                await under_way(house, agent, trial, dice)
            broker.kill()
            await broker.wait()
        await agent.to_the_end()
    if posted is not None:
        for answer in agent.answers(posted):
            trial.heard(answer)


async def trials(house: House, count: int, era: str, dice: random.Random, give_up_at: float) -> list[Trial]:
    """So many kills, through all phases by turns; fewer if the time is over."""
    done: list[Trial] = []
    for number in range(count + 1):
        async with house.broker() as broker:
            if done:
                with anyio.fail_after(LIFE_S):
                    await settle(house, done[-1])
            if number == count or time.monotonic() > give_up_at:
                return done
            phase = PHASES[number % len(PHASES)]
            delays = {"before_ms": dice.choice([0, 5, 60]), "after_ms": dice.choice([0, 5, 60])}
            trial = Trial(number, era, phase, {"text": f"{era} {number}", **delays})
            done.append(trial)
            with anyio.fail_after(LIFE_S):
                await cut(house, broker, trial, dice)
    return done


def table(done: list[Trial], effects: Counter[str]) -> str:
    """What came of every phase, for people."""
    ends = Counter((trial.phase, trial.end, effects[trial.text]) for trial in done)
    rows = [f"{'killed':<22}{'told':<12}{'effects':>8}{'kills':>7}"]
    rows += [f"{phase:<22}{end:<12}{count:>8}{kills:>7}" for (phase, end, count), kills in sorted(ends.items())]
    return "\n".join(rows)
