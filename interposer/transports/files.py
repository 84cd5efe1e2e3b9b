"""Standard input or output that is no pipe: a terminal, a regular file, `/dev/null`.

What we were given stays blocking, because a terminal shares that flag with the shell that lent it. Reading never blocks
all the same: it happens when the kernel says that there is something, or on a file, where there always is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable

READ_BYTES = 64 * 1024


class FileInlet:
    """Calls a protocol with what a terminal or file holds. The descriptor given stays its opener's."""

    def __init__(self, fd: int, protocol: asyncio.Protocol) -> None:
        self._fd = _own_description(fd)
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._pollable = _is_pollable(fd)
        self._paused = False
        self._closed = False
        self._arm()

    def pause_reading(self) -> None:
        if not self._paused and not self._closed:
            self._paused = True
            self._disarm()

    def resume_reading(self) -> None:
        if self._paused and not self._closed:
            self._paused = False
            self._arm()

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._disarm()
            os.close(self._fd)
            self._loop.call_soon(self._protocol.connection_lost, None)

    def _arm(self) -> None:
        if self._pollable:
            self._loop.add_reader(self._fd, self._read)
        else:
            self._next = self._loop.call_soon(self._read)

    def _disarm(self) -> None:
        if self._pollable:
            self._loop.remove_reader(self._fd)
        else:
            self._next.cancel()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._protocol.eof_received()
            self.close()
            return
        if not self._pollable:
            self._arm()
        self._protocol.data_received(data)


class FileOutlet:
    """Writes at once: the page cache takes it, or a human watches it."""

    def __init__(self, fd: int, lost: Callable[[BaseException | None], None]) -> None:
        self._fd = fd
        self._lost = lost
        self._closed = False

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            self._finish(error)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._finish(None)

    def abort(self) -> None:
        self.close()

    def _finish(self, error: OSError | None) -> None:
        self._closed = True
        asyncio.get_running_loop().call_soon(self._lost, error)


def _own_description(fd: int) -> int:
    # libuv makes whatever it watches non-blocking, so a terminal is opened once more.
    if os.isatty(fd):
        with contextlib.suppress(OSError):
            return os.open(os.ttyname(fd), os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    return os.dup(fd)


def _is_pollable(fd: int) -> bool:
    # epoll refuses regular files and /dev/null with EPERM (epoll_ctl(2)).
    try:
        with select.epoll() as poll:
            poll.register(fd, select.EPOLLIN)
    except PermissionError:
        return False
    return True
