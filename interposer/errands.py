"""Errands: approved calls that are made although their callers do not wait for them.

Where policy says so (`execute_on_approve`), a call is made when it is approved, once, also if its caller left or the
broker was started anew in between. A caller that looks after its own question (a task) has its call made too. A caller
that waits goes first. What came of it is kept (`keeping.py`); here nothing is stored.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio

from .broker import Broker, Carried
from .desk import Desk, UnknownQuestion
from .errors import ApprovalRefused, InterposerError, Refusal
from .grant import KeptState
from .model import Call, Principal, Question, QuestionState

log = logging.getLogger(__name__)

GRACE_S = 0.5
"""How long a caller that waits, or comes back at once, may take to use the yes itself."""
LIMIT = 64
"""Errands that are carried out at once; the others wait for their turn."""
EACH = 4
"""How many of them may be of one principal: whoever has slow calls approved keeps nobody else waiting."""
AGAIN_S = (1.0, 30.0)
"""The first and the longest wait before an errand is tried again that says nothing about its call."""
_LOOK_S = 30.0

_PUBLIC = {
    QuestionState.DENIED: "A human refused this call.",
    QuestionState.EXPIRED: "Nobody approved this call in time.",
}


@dataclass(slots=True)
class _Errand:
    """One approved call on its way."""

    caller: Call | None
    making: bool = False
    """It has its turn; until then nothing is lost by ending it."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class _Turns:
    """One principal's."""

    free: anyio.Semaphore
    wanted: int = 0


class Errands:
    """See the module. `spawn(work, *args)` starts work that ends with the broker (`Tasks.start_soon`)."""

    def __init__(
        self,
        desk: Desk,
        broker: Broker,
        spawn: Callable[..., object],
        *,
        grace_s: float = GRACE_S,
        limit: int = LIMIT,
        each: int = EACH,
    ) -> None:
        self._desk = desk
        self._broker = broker
        self._spawn = spawn
        self._grace_s = grace_s
        self._free = anyio.Semaphore(limit)
        self._each = each
        self._turns: dict[tuple[str, str], _Turns] = {}
        self._under_way: dict[str, _Errand] = {}
        self._executes: dict[str, bool] = {}
        """Granted questions that were looked at, and whether their calls are made without their callers."""
        self._calls: dict[str, anyio.Event] = {}
        """Calls that are being made; the identical one of another question waits for its turn."""
        self._closed = False

    async def run(self) -> None:
        """Make every call that is to be made when it is approved, until cancelled."""
        while True:
            revision = self._desk.revision
            seen = await self._look_around()
            await self._desk.changes(revision if seen else self._desk.revision, _LOOK_S if seen else AGAIN_S[0])

    async def aclose(self, grace_s: float = 5.0) -> None:
        """Nothing new is begun; what is under way gets its grace and is then cut. Call it before upstreams close."""
        self._closed = True
        for errand in self._under_way.values():
            if not errand.making:
                errand.scope.cancel()
        with anyio.move_on_after(grace_s):
            await self._idle()
        with anyio.CancelScope(shield=True):
            for errand in self._under_way.values():
                errand.scope.cancel()
            with anyio.move_on_after(grace_s):
                await self._idle()

    async def look(self, id: str, call: Call) -> Question | Carried | Refusal:
        """How it stands with a question, for whoever asked it (`call` says who looks): the question while it is open or
        its call under way, and when it was withdrawn; what became of the call; or why there will be none. A call that
        was approved is begun.

        Raises `UnknownQuestion`, also for other people's and where nothing is kept any more, `Unauthenticated`,
        `RecordFault`.
        """
        question = await self._own(id, call)
        if question.state is QuestionState.GRANTED and not self._desk.awaited(question):
            self._begin(id, call)
        if question.state in (QuestionState.OPEN, QuestionState.GRANTED, QuestionState.WITHDRAWN):
            return question
        public = _PUBLIC.get(question.state)
        if public is not None:
            return ApprovalRefused(f"{id} was {question.state}", question=id, public=public)
        kept = await self._desk.kept(id)
        if kept is None:
            raise UnknownQuestion(f"nothing is kept of {id!r}")
        if kept.state is KeptState.RUNNING:
            return question
        try:
            return await self._broker.recall(question, kept, call)
        except Refusal as refusal:
            return refusal

    async def cancel(self, id: str, call: Call) -> None:
        """Whoever asked wants no more of it: the question is withdrawn; a call that is under way without its caller is
        cut, and its outcome is in doubt. Raises as `look` does."""
        question = await self._own(id, call)
        if question.state in (QuestionState.OPEN, QuestionState.GRANTED):
            await self._desk.withdraw(id, question.requester)
        errand = self._under_way.get(id)
        if errand is not None:
            errand.scope.cancel()
            await errand.ended.wait()

    async def _own(self, id: str, call: Call) -> Question:
        principal = await self._broker.recognise(call)
        question = await self._desk.get(id)
        if question.requester.identity() != principal.identity():
            raise UnknownQuestion(f"no question {id!r} of this caller's")
        return question

    async def _look_around(self) -> bool:
        """Begin what is to be made; False where some of it could not be looked at."""
        known, self._executes = self._executes, {}
        seen = True
        try:
            granted = await self._desk.granted()
        except InterposerError as fault:
            log.warning("approved calls cannot be looked for: %s", fault)
            return False
        for id in granted:
            try:
                executes = known.get(id)
                if executes is None:
                    executes = (await self._desk.get(id)).terms.execute
            except InterposerError as fault:
                log.warning("the approved call of %s cannot be looked at: %s", id, fault)
                seen = False
                continue
            self._executes[id] = executes
            if executes:
                self._begin(id, None)
        return seen

    def _begin(self, id: str, caller: Call | None) -> None:
        if id not in self._under_way and not self._closed:
            self._under_way[id] = errand = _Errand(caller)
            self._spawn(partial(self._carry_out, id, errand))

    async def _carry_out(self, id: str, errand: _Errand) -> None:
        try:
            with errand.scope:
                if errand.caller is None:
                    await anyio.sleep(self._grace_s)
                await self._carried_out(id, errand)
        finally:
            del self._under_way[id]
            errand.ended.set()

    async def _carried_out(self, id: str, errand: _Errand) -> None:
        wait_s, longest_s = AGAIN_S
        while True:
            try:
                if id not in await self._desk.granted():
                    return
                if await self._made(id, errand):
                    return
            except InterposerError as fault:
                log.warning("the approved call of %s cannot be made now: %s", id, fault)
            errand.making = False
            if errand.caller is not None:
                return  # It will look again.
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    async def _made(self, id: str, errand: _Errand) -> bool:
        """False: its hours have not come."""
        question = await self._desk.get(id)
        # The identical call of another question is waited for without a turn, which others can use meanwhile.
        while (other := self._calls.get(question.call)) is not None:
            await other.wait()
        self._calls[question.call] = ended = anyio.Event()
        try:
            async with self._turn(question.requester):
                question = await self._desk.get(id)
                if question.state is not QuestionState.GRANTED:
                    return True
                if errand.caller is None and not self._desk.in_hours(question):
                    return False
                errand.making = True
                with self._desk.errand(question):
                    await self._broker.carry_out(question, errand.caller)
                return True
        finally:
            del self._calls[question.call]
            ended.set()

    @asynccontextmanager
    async def _turn(self, whose: Principal) -> AsyncIterator[None]:
        key = (whose.issuer, whose.subject)
        turns = self._turns.setdefault(key, _Turns(anyio.Semaphore(self._each)))
        turns.wanted += 1
        try:
            async with turns.free, self._free:
                yield
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._turns[key]

    async def _idle(self) -> None:
        while self._under_way:
            await next(iter(self._under_way.values())).ended.wait()
