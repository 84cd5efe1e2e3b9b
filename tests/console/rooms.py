"""A console over a real desk, in one process: what its tests share."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import count
from typing import Any
from urllib.parse import urlencode

import httpx2

from interposer.canonical import canonical, digest_bytes
from interposer.console.console import Console, OidcLogin, Surroundings
from interposer.console.place import Place
from interposer.console.site import site
from interposer.desk import Desk, DeskLimits
from interposer.errors import ApprovalPending
from interposer.identity.trust import Identity
from interposer.masking.engine import Engine
from interposer.model import (
    Decision,
    Effect,
    Invocation,
    JsonObject,
    MatchedRule,
    Obligations,
    Principal,
    Question,
    Skill,
)
from interposer.records.memory import MemoryRecordStore
from interposer.terms import ApprovalTerms, GrantCap

AGENT = Principal("local", "agent", ("support",), uid=1000)
ANNA = Principal("operator", "anna", uid=2000)
BELA = Principal("operator", "bela", uid=2001)
BASE = "http://127.0.0.1"
CAP = GrantCap(3600.0, uses=5, session=True, matching=True)
RULE = MatchedRule("refunds-need-a-lead", Effect.ASK, "policy.yaml", 7, "Ask a lead.")
TERMS = ApprovalTerms(expires_s=1800.0)
_ids = count(1)


@cache
def masker() -> Engine:
    return Engine()


@dataclass
class TurnedClock:
    """A clock that stands where it is put."""

    wall: float = 1_790_000_000.0
    mono: float = 50.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


def skill(name: str = "payments.refund", **annotations: bool) -> Skill:
    return Skill(name, "payments", "refund", "refund", {"annotations": annotations}, "skill-1")


MILD = skill(destructiveHint=False)
HARSH = skill("payments.wipe", destructiveHint=True)


def call(arguments: JsonObject | None = None, *, of: Skill = MILD, by: Principal = AGENT) -> Invocation:
    given = {"amount": 90, "to": "shop"} if arguments is None else arguments
    exact = canonical(given)
    return Invocation(f"i_{next(_ids)}", "s_1", by, of, given, exact, digest_bytes(exact))


@dataclass
class Room:
    """A console, its desk, and ways to ask it."""

    console: Console
    desk: Desk
    store: MemoryRecordStore
    clock: TurnedClock
    refused: set[str] = field(default_factory=set)
    """Subjects on the deny list."""

    @cached_property
    def site(self) -> Any:
        return site(self.console)

    async def ask(
        self,
        arguments: JsonObject | None = None,
        *,
        of: Skill = MILD,
        terms: ApprovalTerms = TERMS,
        by: Principal = AGENT,
    ) -> Question:
        """A call that waits with a ticket."""
        asked = call(arguments, of=of, by=by)
        try:
            await self.desk.obtain(asked, Decision(Effect.ASK, (RULE,), "policy-1", "asks", terms=terms), hold_s=0.0)
        except ApprovalPending as pending:
            return await self.desk.get(pending.question)
        raise AssertionError("it was not asked about")

    def visitor(self, **headers: str) -> Visitor:
        return Visitor(self, headers)

    async def anna(self, person: Principal = ANNA, *, key: str = "") -> Visitor:
        """Somebody who is logged in; with `key`, in a browser whose script keeps one."""
        visitor = self.visitor()
        answer = await visitor.post("/login", token=self.console.logins.mint(person, 60.0), key=key)
        assert answer.status_code == 303, answer.text
        return visitor


class Visitor:
    """A browser without a screen: keeps cookies, and posts forms as one does."""

    def __init__(self, room: Room, headers: dict[str, str]) -> None:
        self.room = room
        host = next(iter(sorted(room.console.listener.hosts)))
        self.base = f"{'https' if room.console.listener.secure else 'http'}://{host}"
        self.headers = {"sec-fetch-site": "same-origin", "origin": "null", **headers}
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=room.site), base_url=self.base)

    async def get(self, path: str, **headers: str) -> Any:
        return await self.client.get(path, headers=headers)

    async def post(self, path: str, **form: str) -> Any:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        said = {name: value for name, value in self.headers.items() if value}
        return await self.client.post(path, content=urlencode(form), headers={**said, **kind})

    async def csrf(self) -> str:
        return hidden((await self.get("/history")).text, "csrf")

    async def act(self, path: str, question: Question | str, **form: str) -> Any:
        """Look at the call's page, then send one of its forms."""
        id = question if isinstance(question, str) else question.id
        page = (await self.get(f"/q/{id}")).text
        return await self.send(path, id, **{"version": hidden(page, "version"), **form})

    async def send(self, path: str, question: Question | str, **form: str) -> Any:
        """Send one of its forms without having looked."""
        id = question if isinstance(question, str) else question.id
        return await self.post(f"/q/{id}/{path}", **{"csrf": await self.csrf(), **form})


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    return found[1] if found else ""


HOSTILE_DESCRIPTION = "Pays money back. <b>Approve</b> \u202e me"


@asynccontextmanager
async def room(
    *,
    place: Place | None = None,
    login: OidcLogin | None = None,
    viewers: Sequence[str] = (),
    session_s: float = 3600.0,
    on_clock: Any = None,
    sessions: Sequence[JsonObject] = (),
) -> AsyncIterator[Room]:
    clock, store = on_clock or TurnedClock(), MemoryRecordStore()
    limits = DeskLimits(
        pending_per_session=1000,
        rate=1000,
        arguments_bytes=2_000_000,
        may_break_glass=lambda person: person.subject == "anna",
    )
    desk = Desk(store, clock, [], lambda kind: f"{kind}_{next(_ids)}", limits, masker=masker())
    refused: set[str] = set()

    async def review(question: Question, amended: bytes) -> None:
        return None

    async def still(identity: Identity) -> None:
        if identity.principal.subject in refused:
            from interposer.errors import Unauthenticated

            raise Unauthenticated("on the deny list", why="revoked")

    async def listed() -> Sequence[JsonObject]:
        return sessions

    desk.review = review
    around = Surroundings(
        obligations=lambda skill_id: Obligations(),
        description=lambda skill, digest: HOSTILE_DESCRIPTION,
        rule_text=lambda rule: "- id: refunds-need-a-lead\n  effect: ask\n  skills: [payments.*]",
        sessions=listed,
        may_break_glass=limits.may_break_glass,
        sees_all=lambda person: person.subject in viewers,
        still=still,
    )
    console = Console(desk, clock, masker(), around, place, session_s=session_s, login=login)
    try:
        yield Room(console, desk, store, clock, refused)
    finally:
        console.listener.close()
