"""Standard input and output: the one peer is the process that started us.

The wire is taken away from everybody else: from then on a stray `print` lands on standard error, and nothing else
reads standard input. Serving returns when the peer has ended and what was queued has left, or when nobody reads any
more.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from io import FileIO
from typing import cast

import anyio

from interposer.model import Caller

from .files import FileInlet, FileOutlet
from .link import FAREWELL_S, Accept, Inlet, Limits, Link


class Stdio:
    """A `Transport` over two file descriptors of ours; it serves once."""

    def __init__(
        self, in_fd: int = 0, out_fd: int = 1, *, limits: Limits | None = None, peer_pid: int | None = None
    ) -> None:
        """`peer_pid` is the process at the other end; our parent, if absent."""
        self._fds = (in_fd, out_fd)
        self._peer_pid = os.getppid() if peer_pid is None else peer_pid
        self._limits = limits or Limits()
        self._wire: tuple[FileIO, FileIO] | None = None

    def take(self) -> tuple[FileIO, FileIO]:
        """Take both descriptors for the wire: from here on `in_fd` reads nothing and `out_fd` is standard error.

        `serve` does this; call it earlier to protect the wire from what runs before."""
        if self._wire is None:
            in_fd, out_fd = self._fds
            self._wire = (FileIO(os.dup(in_fd), "rb"), FileIO(os.dup(out_fd), "wb"))
            _replace(in_fd, os.open(os.devnull, os.O_RDONLY))
            _replace(out_fd, _stray_output())
        return self._wire

    async def serve(self, accept: Accept, ready: Callable[[str], None]) -> None:
        """Converse until the peer has ended and the receiver has closed, or the peer is gone altogether."""
        source, sink = self.take()
        link = Link(Caller("stdio", uid=os.getuid(), gid=os.getgid(), pid=self._peer_pid), accept, self._limits)
        incoming = _Incoming(link)
        try:
            await _connect(link, incoming, source, sink)
            ready("stdio")
            await link.lost
        finally:
            await link.farewell()
            if incoming.connected:
                with anyio.move_on_after(FAREWELL_S, shield=True):
                    await incoming.lost
            source.close()
            sink.close()


class _Incoming(asyncio.Protocol):
    """What the read pipe tells the link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.data_received = link.data_received  # type: ignore[method-assign]
        self.connected = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.begin(cast("asyncio.ReadTransport", transport))

    def begin(self, inlet: Inlet) -> None:
        self.connected = True
        self._link.read_from(inlet)

    def eof_received(self) -> bool:
        return self._link.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._link.end()
        if not self.lost.done():
            self.lost.set_result(None)


class _Outgoing(asyncio.BaseProtocol):
    """What the write pipe tells the link."""

    def __init__(self, link: Link) -> None:
        self.pause_writing = link.pause_writing  # type: ignore[method-assign]
        self.resume_writing = link.resume_writing  # type: ignore[method-assign]
        self.connection_lost = link.connection_lost  # type: ignore[method-assign]


def _replace(fd: int, by: int) -> None:
    os.dup2(by, fd)
    os.close(by)


def _stray_output() -> int:
    """Where prints go from now on: standard error, or nowhere if that is closed."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


async def _connect(link: Link, incoming: _Incoming, source: FileIO, sink: FileIO) -> None:
    """Put the link on the two descriptors."""
    loop = asyncio.get_running_loop()
    if _same_socket(source, sink):
        await loop.connect_accepted_socket(lambda: link, _socket(source))
        return
    outlet: asyncio.WriteTransport | FileOutlet
    if _is_pipe(sink):
        outlet, _ = await loop.connect_write_pipe(lambda: _Outgoing(link), sink)
    else:
        outlet = FileOutlet(sink.fileno(), link.connection_lost)
    link.write_to(outlet)
    link.begin()
    if _is_pipe(source):
        await loop.connect_read_pipe(lambda: incoming, source)
    else:
        incoming.begin(FileInlet(source.fileno(), incoming))


def _is_pipe(file: FileIO) -> bool:
    mode = os.fstat(file.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _same_socket(one: FileIO, other: FileIO) -> bool:
    # asyncio takes bytes that arrive on a write pipe for its end, so a socket that is both must be one transport.
    first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    return stat.S_ISSOCK(first.st_mode) and (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _socket(file: FileIO) -> socket.socket:
    peer = socket.socket(fileno=os.dup(file.fileno()))
    peer.setblocking(False)
    return peer
