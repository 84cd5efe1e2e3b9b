"""Both ends of a wire, for the tests of transports: a receiver that notes what it is told, and a raw peer."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Protocol

import anyio

from interposer.ports import Connection


class Notes:
    """A `Receiver` that remembers, and whose test can wait for what it is told."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.received_bytes = bytearray()
        self.ended_count = 0
        self.drained_count = 0
        self._changed = anyio.Event()

    def received(self, data: bytes) -> None:
        self.received_bytes += data
        self._note()

    def ended(self) -> None:
        self.ended_count += 1
        self._note()

    def drained(self) -> None:
        self.drained_count += 1
        self._note()

    async def until(self, holds: Callable[[], bool]) -> None:
        with anyio.fail_after(5):
            while not holds():
                await self._changed.wait()

    def _note(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Polite(Notes):
    """Hangs up when its peer has ended, as a conversation with nothing left to say does."""

    def ended(self) -> None:
        super().ended()
        self.connection.close()


class Echo(Polite):
    """Sends back what it is told."""

    def received(self, data: bytes) -> None:
        super().received(data)
        self.connection.send(data)


class Peer(Protocol):
    """The far end of a wire."""

    async def send(self, data: bytes) -> None: ...
    async def receive(self, limit_bytes: int = 65536) -> bytes: ...
    def end(self) -> None: ...
    def vanish(self) -> None: ...


class RawPeer:
    """A peer on two non-blocking descriptors, or on one socket."""

    def __init__(self, read_fd: int, write_fd: int, sock: socket.socket | None = None) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._socket = sock
        self._open = {read_fd, write_fd}
        for fd in self._open:
            os.set_blocking(fd, False)

    @classmethod
    def on(cls, sock: socket.socket) -> RawPeer:
        return cls(sock.fileno(), sock.fileno(), sock)

    async def send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            await anyio.wait_writable(self._write_fd)
            left = left[os.write(self._write_fd, left) :]

    async def receive(self, limit_bytes: int = 65536) -> bytes:
        await anyio.wait_readable(self._read_fd)
        try:
            return os.read(self._read_fd, limit_bytes)
        except ConnectionResetError:
            return b""

    def end(self) -> None:
        if self._socket is not None:
            self._socket.shutdown(socket.SHUT_WR)
        else:
            self._close(self._write_fd)

    def vanish(self) -> None:
        if self._socket is not None:
            self._socket.close()
        else:
            self._close(self._read_fd)
            self._close(self._write_fd)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)


async def receive_exactly(peer: Peer, size: int) -> bytes:
    """So many bytes; fewer only when the other side hung up."""
    got = bytearray()
    while len(got) < size and (data := await peer.receive(size - len(got))):
        got += data
    return bytes(got)


async def receive_all(peer: Peer) -> bytes:
    """Everything until the other side hangs up."""
    got = bytearray()
    while data := await peer.receive():
        got += data
    return bytes(got)
