"""The outbox: what became of approved calls whose callers have left, and calls that are being made without them.

The store holds the outcomes. Here is only what tells a caller that comes back whether to look, so that a call of which
nothing is kept costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from .errors import ApprovalPending
from .grant import Kept, KeptState
from .model import Question
from .ports import Clock, RecordStore

_DISCARD_EVERY_S = 60.0


class Outbox:
    """See the module. Calls are named by `ballot.call_digest`."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: Counter[str] = Counter()
        self._running: dict[str, tuple[Question, anyio.Event]] = {}
        self._discarded_at = float("-inf")

    async def load(self) -> None:
        """What earlier runs left undelivered."""
        self._waiting.update(kept.call for kept in await self._store.waiting())

    def __bool__(self) -> bool:
        """Whether anything waits or runs at all."""
        return bool(self._waiting) or bool(self._running)

    async def collect(self, call: str, *, hold_s: float) -> Kept | None:
        """The outcome of this very call that nobody was told, for the first who asks. One that is under way without its
        caller is waited for; raises `ApprovalPending` when that takes longer than `hold_s`. Raises `RecordFault`."""
        running = self._running.get(call)
        if running is not None:
            question, ended = running
            with anyio.move_on_after(hold_s):
                await ended.wait()
            if not ended.is_set():
                raise ApprovalPending(
                    question=question.id, expires_at=question.expires_at, retry_after_s=2.0, running=True
                )
        if call not in self._waiting:
            return None
        with anyio.CancelScope(shield=True):
            found = await self._store.collect(call, self._clock.now())
            self._waiting[call] -= 1
            if found is None or self._waiting[call] <= 0:
                del self._waiting[call]
        return found

    async def keep(
        self, question: str, call: str, state: KeptState, body: bytes, withheld: str, *, delivered: bool
    ) -> None:
        """Raises `RecordFault`."""
        await self._store.keep(question, state, body, withheld, delivered=delivered)
        if not delivered:
            self._waiting[call] += 1

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

    async def discard(self) -> None:
        """Delete what nobody collected in time, now and then. Raises `RecordFault`."""
        if self._clock.monotonic() - self._discarded_at >= _DISCARD_EVERY_S:
            self._discarded_at = self._clock.monotonic()
            await self._store.discard(self._clock.now())
