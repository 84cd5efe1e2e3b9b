"""A link: one peer on pipes or on a socket, as its conversation sees it.

Bytes enter and leave through the event loop's protocol callbacks: no task and no stream per message. The receiver is
told `ended` exactly once, however the peer ends. What was queued is sent before the link hangs up, and a peer that
does not read is given up: the memory it can hold is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import anyio

from interposer.model import Caller
from interposer.ports import Connection, Receiver

Accept = Callable[[Connection], Receiver]
"""Asked for the receiver of a new peer."""

HIGH_WATER = 64 * 1024
"""Bytes. A receiver that finds the backlog above this is told `drained` once it is below `LOW_WATER` again."""
LOW_WATER = 16 * 1024
FAREWELL_S = 1.0
"""How long queued bytes may take to leave when serving is cancelled."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one listener grants its peers."""

    connections: int = 256
    stall_s: float = 30.0
    """A peer that took nothing for so long, with more than `stall_bytes` queued, is hung up on."""
    stall_bytes: int = 1024 * 1024
    backlog_bytes: int = 256 * 1024 * 1024
    """64 calls in flight with the largest answer each. Beyond it the peer is hung up on at once."""
    authenticate_s: float = 5.0
    backoff_s: float = 0.5
    """How long accepting rests when the process is out of file descriptors."""


class Inlet(Protocol):
    """Where bytes come from: asyncio's read transports, and files."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...


class Outlet(Protocol):
    """Where bytes go: asyncio's write transports, and files."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Link(asyncio.Protocol):
    """A `Connection`. On a socket it is its own protocol; on two pipes their protocols call it."""

    def __init__(self, caller: Caller, accept: Accept, limits: Limits) -> None:
        self.caller = caller
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing can be sent any more and the outlet is released."""
        self._accept = accept
        self._receiver: Receiver | None = None
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._queued_bytes = 0
        self._taken_bytes = 0
        self._full = False
        self._paused = False
        self._ended = False
        self._closed = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        both = cast("asyncio.Transport", transport)
        self.write_to(both)
        self.read_from(both)
        self.begin()

    def write_to(self, outlet: Outlet) -> None:
        """Where this peer's bytes go."""
        self._outlet = outlet
        # Whatever a flush leaves above LOW_WATER must be reported when it has gone: a transport that is never paused
        # never says that it resumes, and the receiver would wait for ever.
        outlet.set_write_buffer_limits(high=LOW_WATER, low=LOW_WATER // 2)

    def read_from(self, inlet: Inlet) -> None:
        """Where this peer's bytes come from."""
        self._inlet = inlet
        if self._closed:
            inlet.close()
        elif self._paused:
            inlet.pause_reading()

    def begin(self) -> None:
        """Start the conversation."""
        try:
            self._receiver = self._accept(self)
        except BaseException:
            self.abort()
            raise

    # What the peer does

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None and not self._closed:
            self._receiver.received(data)

    def eof_received(self) -> bool:
        self.end()
        return True

    def end(self) -> None:
        """The peer sends no more; the receiver hears of it once."""
        if not self._ended and self._receiver is not None:
            self._ended = True
            self._receiver.ended()

    def pause_writing(self) -> None:
        self._full = True
        self._watch()

    def resume_writing(self) -> None:
        if self._patience is not None and not self._closed:
            self._patience.cancel()
            self._patience = None
        self._relieve()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._drop()
        if self._patience is not None:
            self._patience.cancel()
        if not self.lost.done():
            self.lost.set_result(None)
        self.end()

    # What the conversation does

    def send(self, frame: bytes) -> None:
        if self._closed:
            return
        # Answers that become ready in one turn of the loop leave in one write: at 64 in flight that is most of them.
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(frame)
        size = len(frame)
        self._pending_bytes += size
        self._queued_bytes += size
        if self._pending_bytes > HIGH_WATER or self._full:
            self._full = True
            if self.backlog > self.limits.backlog_bytes:
                self.abort()

    @property
    def backlog(self) -> int:
        if self._outlet is None or self.lost.done():
            return 0
        return self._pending_bytes + self._outlet.get_write_buffer_size()

    def pause(self) -> None:
        self._paused = True
        if self._inlet is not None and not self._ended and not self._inlet.is_closing():
            self._inlet.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if self._inlet is not None and not self._ended and not self._inlet.is_closing():
            self._inlet.resume_reading()

    def close(self) -> None:
        if self._closed:
            return
        self._flush()
        self._closed = True
        if self._outlet is None:
            self.connection_lost(None)
            return
        self._outlet.close()
        if self._inlet is not None:
            self._inlet.close()
        if not self.lost.done() and self._patience is None:
            self._watch()

    # What the transport does

    def abort(self) -> None:
        """Hang up at once; what is queued is dropped."""
        self._drop()
        if self._outlet is None:
            self.connection_lost(None)
        # asyncio's write pipe reports its end twice when it is aborted while that report is already under way.
        elif not self._outlet.is_closing() or self._outlet.get_write_buffer_size():
            self._outlet.abort()

    async def farewell(self) -> None:
        """Whatever happened: the receiver knows that it is over, and the outlet is released within two seconds."""
        self.end()
        self.close()
        with anyio.move_on_after(FAREWELL_S, shield=True):
            await asyncio.shield(self.lost)
        if not self.lost.done():
            self.abort()
            with anyio.move_on_after(FAREWELL_S, shield=True):
                await asyncio.shield(self.lost)

    def _drop(self) -> None:
        self._closed = True
        self._pending.clear()
        self._pending_bytes = 0
        if self._inlet is not None:
            self._inlet.close()

    def _flush(self) -> None:
        pending = self._pending
        if not pending or self._outlet is None:
            return
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self._pending_bytes = 0
        self._outlet.write(data)
        self._relieve()

    def _relieve(self) -> None:
        """Tell the receiver that there is room, if it may be waiting for that."""
        if self._full and self.backlog <= LOW_WATER and not self._closed:
            self._full = False
            if self._receiver is not None:
                self._receiver.drained()

    def _watch(self) -> None:
        """Look again in `stall_s` whether the peer has taken anything."""
        if self._patience is not None:
            self._patience.cancel()
        self._taken_bytes = self._queued_bytes - self.backlog
        self._patience = self._loop.call_later(self.limits.stall_s, self._judge)

    def _judge(self) -> None:
        backlog = self.backlog
        stalled = self._queued_bytes - backlog == self._taken_bytes
        # After `close` nobody waits for this peer any more, however little it has left to take.
        if stalled and (backlog > self.limits.stall_bytes or self._closed):
            self.abort()
        else:
            self._watch()
