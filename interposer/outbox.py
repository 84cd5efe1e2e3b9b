"""The outbox: what became of approved calls whose callers have left, and calls that are being made without them.

The store holds the outcomes. Here is only what tells a caller that comes back whether to look, so that a call of which
nothing is kept costs nothing; and outcomes that the store could not take, until it can.

Deadlines are monotonic; the wall clock only carries them over a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import anyio

from .errors import ApprovalPending, RecordFault
from .grant import KEPT_S, Kept, KeptState, Telling
from .model import Question
from .ports import Clock, RecordStore

_DISCARD_EVERY_S = 60.0
_RETRY_AFTER_S = 2.0


@dataclass(slots=True)
class _Unkept:
    """An outcome that the store did not take: for everybody its call is under way."""

    call: str
    state: KeptState
    body: bytes
    withheld: str
    telling: Telling
    expires_at: float
    """As its caller is told, who is to come back."""
    trying: anyio.Lock = field(default_factory=anyio.Lock)


class Outbox:
    """See the module. Calls are named by `ballot.call_digest`."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[str, deque[str]] = {}
        """Call -> the questions whose outcomes nobody was told, oldest first."""
        self._running: dict[str, tuple[Question, anyio.Event]] = {}
        self._unkept: dict[str, _Unkept] = {}
        self._deadlines: dict[str, tuple[float, float]] = {}
        """Question -> the monotonic deadline of its outcome, and the time of the wall clock that the store knows."""
        self._discarded_at = float("-inf")

    async def load(self) -> None:
        """What earlier runs left undelivered."""
        for kept in await self._store.waiting():
            if kept.call and kept.state is not KeptState.RUNNING:
                self._put(kept.question, kept.call)
                self._note(kept, 0.0)

    def __bool__(self) -> bool:
        """Whether anything waits or runs at all."""
        return bool(self._waiting) or bool(self._running) or bool(self._unkept)

    async def collect(self, call: str, *, hold_s: float) -> Kept | None:
        """The outcome of this very call that nobody was told, for the first who asks, who then says `told` or `untold`.
        One that is under way without its caller is waited for; raises `ApprovalPending` when that takes longer than
        `hold_s`, and while an outcome cannot be kept. Raises `RecordFault`."""
        running = self._running.get(call)
        if running is not None:
            question, ended = running
            with anyio.move_on_after(hold_s):
                await ended.wait()
            if not ended.is_set():
                raise _running(question.id, question.expires_at)
        await self._kept_at_last(call)
        while call in self._waiting:
            with anyio.CancelScope(shield=True):
                kept = await self._store.kept(self._next(call))
            if kept is not None and not kept.delivered and self._left(kept) > 0:
                return kept
        return None

    async def keep(
        self, question: str, call: str, state: KeptState, body: bytes, withheld: str, telling: Telling
    ) -> None:
        """Raises `RecordFault`: then it is kept as soon as the store can, and counts as under way until then."""
        expires_at = self._clock.now() + KEPT_S
        self._unkept[question] = _Unkept(call, state, body, withheld, telling, expires_at)
        await self._try(question)

    async def told(self, question: str) -> None:
        """Its caller has had what was collected, or was in hand. Raises `RecordFault`."""
        unkept = self._unkept.get(question)
        if unkept is not None:
            unkept.telling = Telling.TOLD
            await self._try(question)
        else:
            await self._store.keep(question, KeptState.IN_DOUBT, b"", "", delivered=True)

    def untold(self, question: str, call: str) -> None:
        """Its caller left before it was told: the identical call may collect it."""
        unkept = self._unkept.get(question)
        if unkept is not None:
            unkept.telling = Telling.WAITING
        else:
            self._waiting.setdefault(call, deque()).appendleft(question)

    @contextmanager
    def errand(self, question: Question) -> Iterator[None]:
        """While a question's call is carried out without its caller: the same call, repeated, waits for the outcome."""
        ended = anyio.Event()
        self._running[question.call] = (question, ended)
        try:
            yield
        finally:
            self._running.pop(question.call, None)
            ended.set()

    def _put(self, question: str, call: str) -> None:
        self._waiting.setdefault(call, deque()).append(question)

    def _next(self, call: str) -> str:
        waiting = self._waiting[call]
        question = waiting.popleft()
        if not waiting:
            del self._waiting[call]
        return question

    async def discard(self) -> int:
        """Keep what could not be kept before, and say how many there were; delete what nobody collected, now and
        then. Raises `RecordFault`."""
        late = list(self._unkept)
        with suppress(RecordFault):
            for question in late:
                await self._try(question)
        now = self._clock.monotonic()
        if now - self._discarded_at >= _DISCARD_EVERY_S:
            self._discarded_at = now
            self._deadlines = {id: each for id, each in self._deadlines.items() if each[0] > now}
            # The store compares with `expires_at`: it is told the time at which nothing of this run is over too early.
            left = (expires_at - (deadline - now) for deadline, expires_at in self._deadlines.values())
            await self._store.discard(min(left, default=self._clock.now()))
        return sum(question not in self._unkept for question in late)

    async def _try(self, question: str) -> None:
        unkept = self._unkept.get(question)
        if unkept is None:
            return
        async with unkept.trying:
            if question not in self._unkept:
                return
            delivered = unkept.telling is Telling.TOLD
            await self._store.keep(question, unkept.state, unkept.body, unkept.withheld, delivered=delivered)
            del self._unkept[question]
            if unkept.telling is Telling.WAITING:
                self._put(question, unkept.call)
            elif unkept.telling is Telling.TOLD and not delivered:
                # It was told meanwhile.
                await self._store.keep(question, unkept.state, b"", "", delivered=True)
            with suppress(RecordFault):
                kept = await self._store.kept(question)
                if kept is not None:
                    self._note(kept, KEPT_S)

    async def _kept_at_last(self, call: str) -> None:
        """Raises `ApprovalPending` for a call whose outcome cannot be kept."""
        for question, unkept in list(self._unkept.items()):
            if unkept.call == call:
                try:
                    with anyio.CancelScope(shield=True):
                        await self._try(question)
                except RecordFault:
                    raise _running(question, unkept.expires_at) from None

    def _note(self, kept: Kept, at_least_s: float) -> None:
        left = max(at_least_s, kept.expires_at - self._clock.now())
        self._deadlines.setdefault(kept.question, (self._clock.monotonic() + left, kept.expires_at))

    def _left(self, kept: Kept) -> float:
        self._note(kept, 0.0)
        return self._deadlines[kept.question][0] - self._clock.monotonic()


def _running(question: str, expires_at: float) -> ApprovalPending:
    return ApprovalPending(question=question, expires_at=expires_at, retry_after_s=_RETRY_AFTER_S, running=True)
