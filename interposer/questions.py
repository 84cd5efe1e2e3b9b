"""The questions that stand: loaded, ended in time, and told of to whoever waits or watches.

Everything durable is in the `RecordStore`; what is kept here is who waits, and the deadlines of this run. Deadlines are
monotonic; the wall clock only shows them and carries them over a restart.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from .ballot import intact, row
from .canonical import canonical
from .docket import DeskLimits, Docket
from .errors import InterposerError, RecordFault
from .grant import Grant
from .model import Json, Kind, Question, QuestionState
from .outbox import Outbox
from .ports import ApprovalChannel, Clock, Masker, RecordStore
from .register import Register

log = logging.getLogger(__name__)

_ANNOUNCE_S = 10.0
_SWEEP_S = 1.0
_IDLE_S = 60.0
_UNHEARD = 1_000
LIVE = (QuestionState.OPEN, QuestionState.GRANTED)


class UnknownQuestion(InterposerError):
    """No question or grant has this id."""

    public = "No such question."


@dataclass(slots=True)
class Waiters:
    """The calls of one digest that wait now."""

    count: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)
    opening: anyio.Lock = field(default_factory=anyio.Lock)

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class Questions:
    """See the module. `new_id("q")` makes ids. While `run` is running, channels hear of questions and questions expire
    by themselves; without it they expire when someone looks."""

    def __init__(
        self,
        store: RecordStore,
        clock: Clock,
        channels: Sequence[ApprovalChannel],
        new_id: Callable[[str], str],
        limits: DeskLimits | None = None,
        *,
        masker: Masker | None = None,
    ) -> None:
        """With a masker, what approvers wrote goes into the record, masked."""
        self._store = store
        self._clock = clock
        self._channels = tuple(channels)
        self._new_id = new_id
        self._limits = limits or DeskLimits()
        self._masker = masker
        self._docket = Docket(clock, self._limits)
        self._register = Register(store, clock)
        self._outbox = Outbox(store, clock)
        self._waiters: dict[str, Waiters] = {}
        self._taken_back: dict[str, None] = {}
        """Questions that ended because somebody took them back, and are not asked again by whoever waited."""
        self._loaded = anyio.Event()
        self._loading = anyio.Lock()
        self._unheard: deque[Question] = deque(maxlen=_UNHEARD)
        self._changed = anyio.Event()
        self.revision = 0
        """Grows with every change of any question or grant."""

    async def get(self, id: str) -> Question:
        """The question as it stands. Raises `UnknownQuestion`."""
        question = await self._store.question(id)
        if question is None:
            raise UnknownQuestion(f"no question {id!r}")
        if not intact(question):
            raise RecordFault(f"{id} is not as it was asked; run `interposer record verify`")
        return question

    async def pending(self) -> list[Question]:
        """The questions that a human can still answer, oldest first."""
        await self.sweep()
        return await self._store.questions(unanswered=True)

    async def questions(self) -> list[Question]:
        """All questions, newest first, at most 1,000."""
        await self.sweep()
        return await self._store.questions(unanswered=False)

    async def earlier(self, question: Question, limit: int = 5) -> list[Question]:
        """What was asked before about the same skill, newest first."""
        found = await self._store.questions(unanswered=False, skill=question.skill, limit=limit + 1)
        return [each for each in found if each.id != question.id][:limit]

    async def grants(self, *, active: bool = True) -> list[Grant]:
        """The active standing grants, oldest first; or all of them, newest first, at most 1,000."""
        await self.sweep()
        return await self._store.grants(active=active)

    async def sweep(self) -> int:
        """End every question, unused yes and grant whose time is over; how many there were."""
        await self._load()
        due = self._docket.due()
        for id in due:
            found = await self._store.question(id)
            if found is None or not intact(found):
                # It is no yes to anything, nobody is shown it, and it keeps no other from ending.
                log.error("%s is not as it was asked; run `interposer record verify`", id)
                self._docket.drop(id)
            else:
                await self._close(id, Kind.EXPIRED)
        over = await self._register.expire()
        if await self._outbox.discard() or over:
            self._stir()
        return len(due) + over

    async def changes(self, since: int, wait_s: float) -> int:
        """The revision, as soon as it is not `since`, or after `wait_s` seconds."""
        with anyio.move_on_after(wait_s):
            while self.revision == since:
                await self._changed.wait()
        return self.revision

    async def run(self) -> None:
        """Announce and expire, until cancelled. What an earlier run left open is announced again: at least once."""
        await self._load()
        if self._channels:
            self._unheard.extend(await self._store.questions(unanswered=True))
        while True:
            changed = self._changed
            await self._announce()
            # Votes and grants look at the deadline themselves; the row is written when the store can again.
            with contextlib.suppress(RecordFault):
                await self.sweep()
            with anyio.move_on_after(_SWEEP_S if self._docket.standing or self._register.standing else _IDLE_S):
                await changed.wait()

    async def _load(self) -> None:
        """Once: what an earlier run left behind. Whoever asked then can only come back as with a ticket."""
        if self._loaded.is_set():
            return
        async with self._loading:
            if self._loaded.is_set():
                return
            for question in await self._store.standing(self._clock.now()):
                if question.state is QuestionState.DENIED:
                    self._docket.refuse(question, self._docket.deadline(question))
                elif question.state in LIVE:
                    self._docket.enter(question).ticketed = True
            await self._register.load()
            await self._outbox.load()
            self._loaded.set()

    async def _close(self, id: str, kind: Kind, *, code: str = "") -> bool:
        """End a question that is open or granted; nothing happens to one that has ended."""
        with anyio.CancelScope(shield=True):
            record = row(await self.get(id), kind, at=self._clock.now(), code=code)
            closed = await self._store.close_question(id, record)
            self._docket.drop(id)
            if closed:
                self._tell(await self.get(id))
        return closed

    def _tell(self, question: Question) -> None:
        """Wake who waits for this question, then everyone who watches."""
        waiters = self._waiters.get(question.digest)
        if waiters is not None:
            waiters.wake()
        if self._channels:
            self._unheard.append(question)
        self._stir()

    def _stir(self) -> None:
        self.revision += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def _announce(self) -> None:
        while self._unheard:
            question = self._unheard.popleft()
            for channel in self._channels:
                # A channel holds no state: who was not told finds the question in the list.
                with contextlib.suppress(InterposerError, OSError, RuntimeError, ValueError):
                    with anyio.move_on_after(_ANNOUNCE_S):
                        await channel.announce(question)

    def _masked(self, said: Json) -> bytes | None:
        """What approvers wrote, fit for the record; None where there is no masker."""
        if self._masker is None:
            return None
        return canonical(self._masker.mask(said, frozenset({"pii", "secrets"})).value)
