"""The sender: questions are told to one receiver, at least once, while nobody waits for it.

`announce` only queues; `run` tells, and a receiver that is slow or gone delays no other channel and no call. What fails
is tried again, further and further apart, until the receiver refuses it or `give_up_s` is over. What is told of one
question arrives in order. How each delivery ended goes to `on_delivery`, which records it.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import anyio

from interposer.errors import InterposerError
from interposer.model import JsonObject, Question
from interposer.ports import Clock

from .notice import Link, Notice, notice

log = logging.getLogger(__name__)

QUEUE = 1_000
"""The most that one channel has to tell at a time; what comes beyond is in the list of questions all the same."""
BACK_OFF_S = (1.0, 300.0)
RETRY_AFTER_S = 600.0
"""The longest that a receiver may ask us to wait."""
_FAULTS = (
    InterposerError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    ExceptionGroup,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
"""What an attempt may raise, event loops and HTTP libraries included: no receiver is worth the broker."""
_LOUD = "broke_glass"
"""The event that is never dropped."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one attempt."""

    verdict: Literal["delivered", "again", "refused"]
    status: str
    """A short constant or number: of the receiver's words nothing is kept."""
    after_s: float = 0.0
    """The receiver asks not to be told again before."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the telling of one notice ended."""

    question: Question
    """Without its arguments."""
    code: Literal["delivered", "gave_up"]
    payload: JsonObject
    """`channel`, `delivery`, `event`, `attempts`, `status`: no address and nothing of the call."""


Tell = Callable[[Notice], Awaitable[Answer]]
OnDelivery = Callable[[Delivery], Awaitable[None]]
Wait = Callable[[anyio.Event, float | None], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Outstanding:
    notice: Notice
    since: float
    due: float
    attempts: int = 0


async def _wait(changed: anyio.Event, longest_s: float | None) -> None:
    with anyio.move_on_after(longest_s):
        await changed.wait()


class Sender:
    """The `ApprovalChannel` of one receiver, which `tell` reaches. `name` stands for it in the log and the record."""

    def __init__(
        self,
        name: str,
        tell: Tell,
        link: Link,
        on_delivery: OnDelivery,
        clock: Clock,
        *,
        timeout_s: float,
        give_up_s: float,
        jitter: Callable[[], float] = random.random,
        wait: Wait = _wait,
    ) -> None:
        """`jitter` gives numbers from 0 to 1; `wait(event, longest_s)` returns when either is over."""
        self.name = name
        self._tell = tell
        self._link = link
        self._on_delivery = on_delivery
        self._clock = clock
        self._timeout_s = timeout_s
        self._give_up_s = give_up_s
        self._jitter = jitter
        self._wait = wait
        self._waiting: dict[str, deque[_Outstanding]] = {}
        self._held = 0
        self._changed = anyio.Event()
        self._said_full = False
        self._said_failing = False
        self._telling: _Outstanding | None = None
        self.dropped = 0
        """Notices that are not told because too many waited already."""

    async def announce(self, question: Question) -> None:
        """Queued, or dropped where too many wait; that glass was broken takes the place of another one."""
        now = self._clock.monotonic()
        one = _Outstanding(notice(question, self._link), now, now)
        if self._held >= QUEUE:
            self.dropped += 1
            if not self._said_full:
                self._said_full = True
                log.error("%s: %d notices wait; further ones are dropped until there is room", self.name, QUEUE)
            if one.notice.event != _LOUD:
                return
            self._make_room()
        self._waiting.setdefault(question.id, deque()).append(one)
        self._held += 1
        self._changed.set()

    def _make_room(self) -> None:
        """Without the newest of what may be dropped, as if it had come now; none where all of it is loud."""
        ordinary = [
            one
            for queued in self._waiting.values()
            for one in queued
            if one.notice.event != _LOUD and one is not self._telling
        ]
        if ordinary:
            self._remove(max(ordinary, key=lambda one: one.since))

    def _remove(self, one: _Outstanding) -> None:
        id = one.notice.question.id
        queued = self._waiting[id]
        queued.remove(one)
        if not queued:
            del self._waiting[id]
        self._held -= 1

    async def run(self) -> None:
        """Tell what is queued, until cancelled."""
        while True:
            if self._changed.is_set():
                self._changed = anyio.Event()
            soonest = min((queued[0] for queued in self._waiting.values()), key=lambda one: one.due, default=None)
            left = None if soonest is None else soonest.due - self._clock.monotonic()
            if soonest is None or (left is not None and left > 0):
                await self._wait(self._changed, left)
            else:
                await self._attempt(soonest)

    async def _attempt(self, one: _Outstanding) -> None:
        one.attempts += 1
        self._telling = one
        answer = await self._answer(one.notice)
        self._telling = None
        if answer.verdict == "delivered":
            self._said_failing = False
            await self._end(one, "delivered", answer.status)
            return
        if not self._said_failing:
            self._said_failing = True
            log.warning("%s: cannot be told (%s); tried again until it can", self.name, answer.status)
        now = self._clock.monotonic()
        one.due = now + self._pause_s(one.attempts, answer.after_s)
        if answer.verdict == "refused" or one.due > one.since + self._give_up_s:
            await self._end(one, "gave_up", answer.status)

    async def _answer(self, told: Notice) -> Answer:
        try:
            with anyio.move_on_after(self._timeout_s):
                return await self._tell(told)
        except _FAULTS as fault:
            return Answer("again", type(fault).__name__)
        return Answer("again", "timeout")

    def _pause_s(self, attempts: int, after_s: float) -> float:
        first, longest = BACK_OFF_S
        pause_s = min(longest, first * 2.0 ** min(attempts - 1, 32)) * (0.5 + 0.5 * self._jitter())
        return max(pause_s, min(after_s, RETRY_AFTER_S))

    async def _end(self, one: _Outstanding, code: Literal["delivered", "gave_up"], status: str) -> None:
        question = one.notice.question
        self._remove(one)
        self._said_full = False
        if code == "gave_up":
            log.warning("%s: gave up after %d attempts (%s)", self.name, one.attempts, status)
        payload: JsonObject = {
            "channel": self.name,
            "delivery": one.notice.delivery,
            "event": one.notice.event,
            "attempts": one.attempts,
            "status": status,
        }
        try:
            await self._on_delivery(Delivery(question, code, payload))
        except InterposerError as fault:
            log.error("%s: a delivery could not be recorded: %s", self.name, fault)
