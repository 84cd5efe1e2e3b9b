"""A transport without a wire, for tests: the client side is awaited, the other side is a `Connection` like any other.

Bytes arrive at the receiver before `send` returns, so a test needs no waiting to know that they are there.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from interposer.model import Caller
from interposer.ports import Connection, Receiver

HIGH_WATER = 64 * 1024
LOW_WATER = 16 * 1024

Accept = Callable[[Connection], Receiver]


class MemoryClient:
    """The far end of a `MemoryConnection`."""

    def __init__(self) -> None:
        self._arrived = bytearray()
        self._changed = anyio.Event()
        self._connection: MemoryConnection | None = None

    async def send(self, data: bytes) -> None:
        """Bytes, cut anywhere. Raises `BrokenPipeError` when the other side has hung up."""
        if self._connection is None or self._connection.closed:
            raise BrokenPipeError
        self._connection.deliver(data)

    async def receive(self, limit_bytes: int = 64 * 1024) -> bytes:
        """What has arrived, once there is any; empty when the other side has hung up and nothing is left."""
        while not self._arrived:
            if self._connection is None or self._connection.closed:
                return b""
            await self._changed.wait()
        data = bytes(self._arrived[:limit_bytes])
        del self._arrived[:limit_bytes]
        if self._connection is not None:
            self._connection.taken()
        return data

    async def receive_line(self) -> bytes:
        """One frame, newline included; what is left of one when the other side has hung up."""
        while (end := self._arrived.find(b"\n")) < 0:
            if self._connection is None or self._connection.closed:
                break
            await self._changed.wait()
        return await self.receive(end + 1 if end >= 0 else len(self._arrived) or 1)

    def end(self) -> None:
        """Send no more, and go on receiving."""
        if self._connection is not None:
            self._connection.end()

    def vanish(self) -> None:
        """Be gone, as a killed process is."""
        if self._connection is not None:
            self._connection.lose()

    @property
    def waiting(self) -> int:
        """Bytes that have arrived and were not received."""
        return len(self._arrived)

    def join(self, connection: MemoryConnection) -> None:
        self._connection = connection

    def put(self, data: bytes) -> None:
        self._arrived += data
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class MemoryConnection:
    """A `Connection` to a `MemoryClient`."""

    def __init__(self, caller: Caller, client: MemoryClient) -> None:
        self.caller = caller
        self.closed = False
        self._client = client
        self._receiver: Receiver | None = None
        self._held: list[bytes] = []
        self._paused = False
        self._ending = False
        self._ended = False
        self._full = False

    def begin(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._release()

    def send(self, frame: bytes) -> None:
        if not self.closed:
            self._client.put(frame)
            self._full = self._full or self.backlog > HIGH_WATER

    @property
    def backlog(self) -> int:
        return 0 if self.closed else self._client.waiting

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._release()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._client.wake()
            self._finish()

    # What the client does

    def deliver(self, data: bytes) -> None:
        self._held.append(data)
        self._release()

    def end(self) -> None:
        self._ending = True
        self._release()

    def lose(self) -> None:
        self._held.clear()
        self.close()

    def taken(self) -> None:
        if self._full and self.backlog <= LOW_WATER and not self.closed and self._receiver is not None:
            self._full = False
            self._receiver.drained()

    def _release(self) -> None:
        if self._receiver is None:
            return
        while self._held and not self._paused and not self.closed:
            self._receiver.received(self._held.pop(0))
        if self._ending and not self._held and not self._paused:
            self._finish()

    def _finish(self) -> None:
        if not self._ended and self._receiver is not None:
            self._ended = True
            self._receiver.ended()


def connect(accept: Accept, *, caller: Caller | None = None) -> MemoryClient:
    """A new peer of `accept`, without any listener."""
    client = MemoryClient()
    connection = MemoryConnection(caller or Caller("memory"), client)
    client.join(connection)
    connection.begin(accept(connection))
    return client


class Memory:
    """A `Transport` whose peers come from `connect`."""

    def __init__(self, caller: Caller | None = None) -> None:
        self._caller = caller
        self._accept: Accept | None = None
        self._clients: list[MemoryClient] = []

    async def serve(self, accept: Accept, ready: Callable[[str], None]) -> None:
        self._accept = accept
        try:
            ready("memory")
            await anyio.sleep_forever()
        finally:
            self._accept = None
            for client in self._clients:
                client.vanish()

    def connect(self) -> MemoryClient:
        """A new peer. Raises `ConnectionRefusedError` when nobody serves."""
        if self._accept is None:
            raise ConnectionRefusedError
        client = connect(self._accept, caller=self._caller)
        self._clients.append(client)
        return client
