"""The outbox: what became of approved calls whose callers have left, and calls that are being made without them.

The store holds the outcomes. Here is only what tells a caller that comes back whether to look, so that a call of which
nothing is kept costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from .errors import ApprovalPending
from .grant import Kept, KeptState, Telling
from .model import Question
from .ports import Clock, RecordStore

_DISCARD_EVERY_S = 60.0


class Outbox:
    """See the module. Calls are named by `ballot.call_digest`."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[str, deque[str]] = {}
        """Call -> the questions whose outcomes nobody was told, oldest first."""
        self._running: dict[str, tuple[Question, anyio.Event]] = {}
        self._discarded_at = float("-inf")

    async def load(self) -> None:
        """What earlier runs left undelivered."""
        for kept in await self._store.waiting():
            if kept.call and kept.state is not KeptState.RUNNING:
                self._put(kept.question, kept.call)

    def __bool__(self) -> bool:
        """Whether anything waits or runs at all."""
        return bool(self._waiting) or bool(self._running)

    async def collect(self, call: str, *, hold_s: float) -> Kept | None:
        """The outcome of this very call that nobody was told, for the first who asks, who then says `told` or `untold`.
        One that is under way without its caller is waited for; raises `ApprovalPending` when that takes longer than
        `hold_s`. Raises `RecordFault`."""
        running = self._running.get(call)
        if running is not None:
            question, ended = running
            with anyio.move_on_after(hold_s):
                await ended.wait()
            if not ended.is_set():
                raise ApprovalPending(
                    question=question.id, expires_at=question.expires_at, retry_after_s=2.0, running=True
                )
        while call in self._waiting:
            with anyio.CancelScope(shield=True):
                kept = await self._store.kept(self._next(call))
            if kept is not None and not kept.delivered and kept.expires_at > self._clock.now():
                return kept
        return None

    async def keep(
        self, question: str, call: str, state: KeptState, body: bytes, withheld: str, telling: Telling
    ) -> None:
        """Raises `RecordFault`."""
        await self._store.keep(question, state, body, withheld, delivered=telling is Telling.TOLD)
        if telling is Telling.WAITING:
            self._put(question, call)

    async def told(self, question: str) -> None:
        """Its caller has had what was collected, or was in hand. Raises `RecordFault`."""
        await self._store.keep(question, KeptState.IN_DOUBT, b"", "", delivered=True)

    def untold(self, question: str, call: str) -> None:
        """Its caller left before it was told: the identical call may collect it."""
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

    async def discard(self) -> None:
        """Delete what nobody collected in time, now and then. Raises `RecordFault`."""
        if self._clock.monotonic() - self._discarded_at >= _DISCARD_EVERY_S:
            self._discarded_at = self._clock.monotonic()
            await self._store.discard(self._clock.now())
