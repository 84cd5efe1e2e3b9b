"""One conversation with one upstream process: our requests out, its answers back to whoever waits for them.

Ids are ours and are never used again, so nothing that comes late, twice or unasked can answer another call. What the
upstream asks of us is refused; what it tells us is dropped unless it is progress of a running call or a changed list.
Frames that are no message cost at most the call they belong to.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import TypeAlias

from interposer.errors import METHOD_NOT_FOUND, BadMessage
from interposer.model import InDoubt, Json, JsonObject, Progress
from interposer.wire import jsonrpc
from interposer.wire.framing import LineFramer, Oversize
from interposer.wire.jsonrpc import Notification, Request, Response
from interposer.wire.mcp import BATCHING_VERSION

from .notices import Notices

MALFORMED_IN_A_ROW = 3
_REMEMBERED = 1024
_WATCH_S = 0.05
"""How late a deadline may be noticed."""
_FEW = 4
"""So many requests are written at once: waiting for others to join costs a turn of the loop (30 µs)."""
# An answer that does not parse can still say whose it is, where serialisers put the id: first or last in the message.
_ID_FIRST = re.compile(rb'\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,')
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')

Reply: TypeAlias = Response | InDoubt


class Waiting:
    """A request that has no answer yet."""

    __slots__ = ("_seen", "due", "future", "invocation", "limit_bytes", "on_progress", "tells")

    def __init__(
        self,
        future: asyncio.Future[Reply],
        *,
        invocation: str = "",
        limit_bytes: int = 0,
        on_progress: Callable[[Progress], None] | None = None,
        tells: bool = True,
    ) -> None:
        self.future = future
        self.invocation = invocation
        self.limit_bytes = limit_bytes
        """0: only the frame limit."""
        self.on_progress = on_progress
        self.tells = tells
        """Whether the upstream is told when the deadline is over: not during its introduction."""
        self.due = float("inf")
        """When the wait is over, by the loop's clock."""
        self._seen = float("-inf")

    def settle(self, reply: Reply) -> None:
        if not self.future.done():
            self.future.set_result(reply)

    def advance(self, params: JsonObject) -> None:
        """MCP, progress: the value must increase; what does not is dropped."""
        progress, total, message = _number(params.get("progress")), _number(params.get("total")), params.get("message")
        if self.on_progress is None or progress is None or not progress > self._seen:
            return
        self._seen = progress
        self.on_progress(Progress(message if isinstance(message, str) else None, progress, total))


MOST_PROGRESS = 2**53
"""Beyond it a float cannot count, and some integers are no float at all."""


class Link:
    """The conversation with one process; `write` takes its bytes, `received` brings the process's."""

    def __init__(
        self,
        *,
        write: Callable[[bytes], None],
        hold: Callable[[float], None],
        frame_bytes: int,
        notices: Notices,
        on_late: Callable[[str], None],
        on_change: Callable[[], None],
        on_unusable: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._write = write
        self._hold = hold
        self._framer = LineFramer(frame_bytes, oversize_at_end=True)
        self._notices = notices
        self._on_late = on_late
        self._on_change = on_change
        self._on_unusable = on_unusable
        self._waiting: dict[int, Waiting] = {}
        self._abandoned: OrderedDict[int, str] = OrderedDict()
        self._last_id = 0
        self._queue: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None
        self._malformed = 0
        self.closed = False
        self.version = ""

    def expect(self, id: int, waiting: Waiting, deadline_s: float | None) -> None:
        """Whoever waits gets the answer to this id, or `InDoubt` at the deadline, which nothing extends."""
        if self.closed:
            waiting.settle(InDoubt("the upstream is gone"))
            return
        self._waiting[id] = waiting
        self._last_id = max(self._last_id, id)
        if deadline_s is not None:
            waiting.due = self._loop.time() + deadline_s
            if self._watch is None:
                self._watch = self._loop.call_later(min(deadline_s, _WATCH_S), self._watch_deadlines)

    def send(self, line: bytes) -> None:
        """Send a line. While other calls are in flight, what is sent in one turn of the loop leaves in one write."""
        if self._queue:
            self._queue.append(line)
        elif len(self._waiting) < _FEW:
            self._write(line)
        else:
            self._queue.append(line)
            self._loop.call_soon(self._flush)

    def abandon(self, id: int, *, tell: str = "") -> None:
        """Nobody waits any more. `tell`: say so upstream, with this reason; a late answer will be reported."""
        waiting = self._waiting.pop(id, None)
        if waiting is None:
            return
        self._abandoned[id] = waiting.invocation
        if len(self._abandoned) > _REMEMBERED:
            self._abandoned.popitem(last=False)
        if tell:
            self.send(jsonrpc.notification("notifications/cancelled", {"requestId": id, "reason": tell}))

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer, or for his deadline; subscriptions have none."""
        return any(waiting.due != float("inf") for waiting in self._waiting.values())

    def settle(self) -> None:
        """A call has ended: the next has a new budget."""
        self._notices.settle()

    def close(self, reason: str) -> None:
        """The process is gone or of no use: every request that was sent is in doubt, and nothing more is heard."""
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.settle(InDoubt(reason))
        self._queue.clear()
        self._notices.settle()

    def received(self, data: bytes) -> None:
        """Bytes from the process's stdout."""
        began = self._loop.time()
        for frame in self._framer.feed(data):
            self._take(frame)
        if self._notices.flooded:
            self._hold(max(0.001, self._loop.time() - began))

    def _take(self, frame: bytes | Oversize) -> None:
        if self.closed:
            return
        if not isinstance(frame, bytes):
            self._oversize(frame)
        elif self._notices.flooded and b'"id"' not in frame:
            # Beyond the budget a notification is not even parsed: no flood takes the loop from other calls.
            self._notices.spend(len(frame))
        else:
            self._frame(frame)

    def _flush(self) -> None:
        if self._queue:
            self._write(b"".join(self._queue))
            self._queue.clear()

    def _watch_deadlines(self) -> None:
        """One timer for all calls: one each would cost every call 3 µs."""
        now = self._loop.time()
        for id, waiting in [each for each in self._waiting.items() if each[1].due <= now]:
            self.abandon(id, tell="deadline exceeded" if waiting.tells else "")
            waiting.settle(InDoubt("the upstream did not answer before the deadline"))
        next_due = min((waiting.due for waiting in self._waiting.values()), default=float("inf"))
        self._watch = None
        if next_due != float("inf"):
            self._watch = self._loop.call_later(min(max(next_due - now, 0.001), _WATCH_S), self._watch_deadlines)

    def _frame(self, frame: bytes) -> None:
        try:
            message = jsonrpc.parse_answer(frame)
        except BadMessage as refused:
            if frame[:1] == b"[" and self.version == BATCHING_VERSION:
                self._batch(frame)
            else:
                self._bad(frame, refused)
            return
        self._malformed = 0
        self._message(message, len(frame))

    def _batch(self, frame: bytes) -> None:
        """MCP 2025-03-26: a client must take batches."""
        try:
            messages = jsonrpc.parse_batch(frame)
        except BadMessage as refused:
            self._bad(frame, refused)
            return
        for message in messages:
            if not isinstance(message, BadMessage):
                self._message(message, len(frame))

    def _message(self, message: jsonrpc.Message, size: int) -> None:
        if type(message) is Response:
            self._answered(message, size)
        elif type(message) is Notification:
            self._notified(message, size)
        elif type(message) is Request:
            self._asked(message, size)

    def _answered(self, response: Response, size: int) -> None:
        waiting = self._waiting.pop(response.id, None) if type(response.id) is int else None
        if waiting is None:
            self._notices.spend(size)
            self._unasked(response.id)
        elif 0 < waiting.limit_bytes < size and response.error is None:
            waiting.settle(InDoubt("the upstream answered with more bytes than this call may return"))
        else:
            waiting.settle(response)

    def _unasked(self, id: int | str) -> None:
        """A late, second or foreign answer: dropped, and told."""
        invocation = self._abandoned.pop(id, None) if isinstance(id, int) else None
        if invocation:
            self._on_late(invocation)
        elif isinstance(id, int) and 0 < id <= self._last_id:
            if invocation is None:
                self._notices.tell("second_answer", f"request {id} was answered before")
        else:
            self._notices.tell("unknown_id", "an answer to no request of ours")

    def _notified(self, notification: Notification, size: int) -> None:
        if not self._notices.spend(size):
            return
        if notification.method == "notifications/progress":
            token = notification.params.get("progressToken")
            waiting = self._waiting.get(token) if type(token) is int else None
            if waiting is not None:
                waiting.advance(notification.params)
        elif notification.method == "notifications/tools/list_changed":
            self._on_change()

    def _asked(self, request: Request, size: int) -> None:
        """Upstreams may ping. Everything else that they ask for is denied: we declared no capability."""
        if not self._notices.spend(size):
            return
        if request.method == "ping":
            self.send(jsonrpc.result(request.id, {}))
        else:
            self._notices.tell("upstream_request", "the upstream sent a request; it was refused")
            self.send(jsonrpc.error(request.id, METHOD_NOT_FOUND, "Method not found"))

    def _bad(self, frame: bytes, refused: BadMessage) -> None:
        if frame[:1] not in (b"{", b"[") or b'"jsonrpc"' not in frame:
            self._notices.spend(len(frame))
            self._notices.tell("stdout_noise", f"{len(frame)} bytes on stdout that are no message")
            return
        id = refused.id if isinstance(refused.id, int) else self._whose(frame[:512], frame[-512:])
        self._spoil(id, "the upstream's answer was malformed")
        self._notices.tell("malformed", f"a malformed message of {len(frame)} bytes")
        self._malformed += 1
        if self._malformed >= MALFORMED_IN_A_ROW:
            self._on_unusable(f"{MALFORMED_IN_A_ROW} malformed messages in a row")

    def _oversize(self, frame: Oversize) -> None:
        self._spoil(self._whose(frame.head, frame.tail), "the upstream's answer was larger than a frame may be")
        self._notices.tell("oversize", "a message beyond the frame limit was thrown away")

    def _whose(self, head: bytes, tail: bytes) -> int | None:
        for found in (_ID_FIRST.match(head), _ID_LAST.search(tail)):
            if found is not None and int(found[1]) in self._waiting:
                return int(found[1])
        return None

    def _spoil(self, id: int | None, reason: str) -> None:
        waiting = self._waiting.pop(id, None) if id is not None else None
        if waiting is not None:
            waiting.settle(InDoubt(reason))


def _number(value: Json) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if not -MOST_PROGRESS <= value <= MOST_PROGRESS:
        return None
    return float(value) if isinstance(value, Decimal) else value
