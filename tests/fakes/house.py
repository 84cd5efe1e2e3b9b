"""A whole broker in one process: every part real, the world in memory. For tests of what the parts do together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from inspect import iscoroutinefunction
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream, ByteSendStream

from interposer.broker import Broker, Carried
from interposer.callers.everyone import Everyone
from interposer.callers.local import Callers, KnownCaller
from interposer.catalogue import Catalogue
from interposer.crew import Crew
from interposer.desk import Desk, DeskLimits
from interposer.errands import Errands
from interposer.errors import EXPIRED, Unauthenticated
from interposer.facts import MemoryFacts
from interposer.journal import Journal
from interposer.masking.engine import Engine
from interposer.model import Call, Caller, JsonObject, Kind, Principal, Record
from interposer.pages import Pages
from interposer.pins import MemoryPins
from interposer.policy import engine
from interposer.ports import ApprovalChannel, Authenticator, Masker, PolicyDecisionPoint, Upstream
from interposer.reach import Profile
from interposer.records.memory import MemoryRecordStore
from interposer.session import House, Limits, Session
from interposer.transports.memory import MemoryClient, connect
from interposer.upstreams.memory import MemoryUpstream, Skill
from interposer.wire.mcp import ServerFace
from tests.fakes.agent import Agent

ANN = Caller("unix", uid=1000)
BEN = Caller("unix", uid=1001)
MASKER = Engine()
"""Shared, since its detectors take a while to compile; it guards no credential."""
OPERATOR = Principal("operator", "lead", ("leads",), 2000)
PEOPLE = (KnownCaller("ann", ("support",), uid=1000), KnownCaller("ben", uid=1001))


class HandClock:
    """A clock that a test turns by hand."""

    def __init__(self) -> None:
        self.time_s = 1_000.0

    def now(self) -> float:
        return 1_700_000_000.0 + self.time_s

    def monotonic(self) -> float:
        return self.time_s


def definition(**more: Any) -> JsonObject:
    """A skill that takes any text."""
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}
    return {"description": "Says it back.", "inputSchema": schema, **more}


def said(text: str) -> JsonObject:
    return {"content": [{"type": "text", "text": text}]}


async def echo(arguments: JsonObject) -> JsonObject:
    return said(arguments.get("text", ""))


def echoing(name: str = "fake", *more: str) -> MemoryUpstream:
    """An upstream with the skill `echo`, and others that do the same."""
    skills: dict[str, tuple[JsonObject, Skill]] = {skill: (definition(), echo) for skill in ("echo", *more)}
    return MemoryUpstream(name, skills)


def rules(*effects: str) -> str:
    """A policy of rules written as `effect skill`, e.g. `allow fake.echo`."""
    lines = ["version: 1", "rules:"]
    for number, effect in enumerate(effects):
        what, skill = effect.split()
        lines.append(f"  - {{id: r{number}, effect: {what}, skills: ['{skill}']}}")
    return "\n".join(lines) + "\n"


class TokenBook:
    """An `Authenticator` that knows bearer tokens by heart, and asks nobody without one."""

    def __init__(self, **known: Principal) -> None:
        self.known = known

    async def authenticate(self, caller: Caller) -> Principal:
        found = self.known.get(caller.token or "")
        if found is None:
            raise Unauthenticated("a token that is not in the book", why=EXPIRED)
        return found

    async def still(self, principal: Principal, session: str) -> Principal:
        if principal not in self.known.values():
            raise Unauthenticated("nobody of the book", why="revoked")
        return principal


class SlowStore(MemoryRecordStore):
    """A store whose rows of one kind take until the test says so; once handed over they are written, whoever waits."""

    def __init__(self, slow: Kind) -> None:
        super().__init__()
        self.slow = slow
        self.reached = anyio.Event()
        self.go = anyio.Event()

    async def append(self, record: Record) -> int:
        seq = await super().append(record)
        if record.kind is self.slow:
            self.reached.set()
            await self.go.wait()
        return seq


class RestlessStore(MemoryRecordStore):
    """A store that lets everybody else go first, before and after whatever it does: for races."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not iscoroutinefunction(found):
            return found

        async def restless(*args: Any, **more: Any) -> Any:
            # Never cut short: what is handed to a store is written, whoever waits.
            await anyio.lowlevel.cancel_shielded_checkpoint()
            done = await found(*args, **more)
            await anyio.lowlevel.cancel_shielded_checkpoint()
            return done

        return restless


@dataclass
class Indoors:
    """The parts, and ways to turn them."""

    clock: HandClock
    store: MemoryRecordStore
    catalogue: Catalogue
    desk: Desk
    broker: Broker
    house: House
    facts: MemoryFacts
    accept: Callable[[Any], Session]
    standing: list[PolicyDecisionPoint]
    """The policy in force is the last one."""
    errands: Errands
    """They run where a test runs them."""
    sessions: list[Session] = field(default_factory=list)

    def decree(self, text: str) -> None:
        """Put another policy in force, as a reload does."""
        self.standing.append(engine.load(text, "policy.yaml"))
        self.catalogue.rework()

    async def invoke(self, arguments: JsonObject | None = None, *, name: str = "echo", **more: Any) -> Carried:
        call = Call("s_1", ANN, name, arguments if arguments is not None else {"text": "hi"}, hold_s=0.0)
        return await self.broker.invoke(replace(call, **more))

    def join(self, caller: Caller = ANN) -> Agent:
        """A new peer."""
        client = connect(self.accept, caller=caller)
        return Agent(_Inlet(client), _Outlet(client))

    def kinds(self) -> list[str]:
        """What the record tells of calls and questions, in order."""
        about = {Kind.SESSION_OPENED, Kind.SESSION_CLOSED}
        return [record.kind.value for record in self.store.records if record.kind not in about]

    def rows(self, kind: Kind) -> list[Any]:
        return [record for record in self.store.records if record.kind is kind]


@asynccontextmanager
async def indoors(
    policy: str | PolicyDecisionPoint = "",
    upstreams: Sequence[Upstream] | None = None,
    *,
    masker: Masker | None = None,
    limits: Limits | None = None,
    page: int = 250,
    store: MemoryRecordStore | None = None,
    profiles: Mapping[str, Profile] | None = None,
    link: Callable[[str], str | None] = lambda id: None,
    authenticator: Authenticator | None = None,
    channels: Sequence[ApprovalChannel] = (),
    desk_limits: DeskLimits | None = None,
    clock: HandClock | None = None,
) -> AsyncIterator[Indoors]:
    """A broker with one echoing upstream and a policy that allows everything, where nothing else is given."""
    clock, store, ids = clock or HandClock(), store or MemoryRecordStore(), count()
    text = policy or rules("allow *")
    standing: list[PolicyDecisionPoint] = [engine.load(text, "policy.yaml") if isinstance(text, str) else text]
    masker = masker or MASKER

    def new_id(kind: str) -> str:
        return f"{kind}_{next(ids):04d}"

    journal, facts = Journal(store, clock), MemoryFacts(clock)
    catalogue = Catalogue(
        upstreams if upstreams is not None else [echoing()],
        pins=MemoryPins(),
        masker=masker,
        policy=lambda: standing[-1],
        clock=clock,
        new_id=new_id,
    )
    desk = Desk(store, clock, channels, new_id, desk_limits)
    callers = authenticator or Everyone(Callers(PEOPLE, unmapped="refuse"))
    broker = Broker(
        authenticator=callers,
        catalogue=catalogue,
        policy=lambda: standing[-1],
        facts=facts,
        desk=desk,
        journal=journal,
        masker=masker,
    )
    desk.review = broker.review
    crew: list[Crew] = []
    errands = Errands(desk, broker, lambda work: crew[0].start_soon(work), grace_s=0.0)
    house = House(
        broker=broker,
        desk=desk,
        catalogue=catalogue,
        journal=journal,
        masker=masker,
        authenticator=callers,
        facts=facts,
        pages=Pages(b"k" * 32, page),
        face=ServerFace("interposer", "0", "Be careful."),
        clock=clock,
        limits=limits or Limits(hold_s=0.0, grace_s=0.05),
        profiles=dict(profiles or {}),
        link=link,
        errands=errands,
        seal_key=b"s" * 32,
    )
    faults: list[BaseException] = []
    async with Crew(faults.append) as tasks:
        crew.append(tasks)
        sessions: list[Session] = []

        def accept(connection: Any) -> Session:
            sessions.append(Session(new_id("s"), connection, house, tasks))
            return sessions[-1]

        yield Indoors(clock, store, catalogue, desk, broker, house, facts, accept, standing, errands, sessions)
        await errands.aclose(0.0)
    assert not faults


class _Inlet(ByteReceiveStream):
    def __init__(self, client: MemoryClient) -> None:
        self._client = client

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        data = await self._client.receive(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def aclose(self) -> None:
        self._client.vanish()


class _Outlet(ByteSendStream):
    def __init__(self, client: MemoryClient) -> None:
        self._client = client

    async def send(self, item: bytes) -> None:
        await self._client.send(item)

    async def aclose(self) -> None:
        self._client.end()
