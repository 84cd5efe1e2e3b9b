"""The two ways to a broker, a child process and a Unix socket: bytes only, each end closed by the thread that uses it.

A channel has one reading and one writing thread. A blocked write is never woken by closing its descriptor under it
(that descriptor may already be someone else's): `kill` makes the peer go, and the write fails by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from langchain_interposer.errors import NotExecuted

DISCARD, INHERIT = "discard", "inherit"


class Channel(Protocol):
    """Lines in, bytes out."""

    def read_line(self, limit_bytes: int) -> bytes:
        """The next line, at most `limit_bytes` of it; empty at the end of the stream."""

    def send(self, data: memoryview) -> int:
        """How many bytes went out, at least one. Raises OSError when none can."""

    def end_input(self) -> None:
        """Tell the peer that no more comes. For the writing thread, once."""

    def end_output(self) -> None:
        """Free the reading side. For the reading thread, once."""

    def wait(self, timeout_s: float) -> bool:
        """Whether the peer is gone for good within the time."""

    def kill(self, *, hard: bool) -> None:
        """Make the peer go away, so that blocked reads and writes end."""

    def forget(self) -> None:
        """In a forked child: let go of the parent's descriptors without touching the parent's peer."""


class ProcessChannel:
    """A broker that lives as long as our end of its standard input is open.

    It runs in a session of its own, so that Ctrl-C in a terminal or notebook reaches the agent and not the broker. If
    this process dies in any way, the kernel closes the pipe and the broker ends at the end of its input.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stderr: str | Path = DISCARD,
    ) -> None:
        log = _stderr(stderr)
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - the command is the program's own
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env={**os.environ, **env} if env else None,
                cwd=cwd,
                start_new_session=True,
            )
        except (OSError, ValueError) as fault:
            raise NotExecuted(f"cannot start the broker {command[0]!r}: {fault}. Nothing was executed.") from fault
        finally:
            if not isinstance(log, int | None):
                log.close()
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise NotExecuted("the broker has no standard input and output. Nothing was executed.")
        self._in: IO[bytes] = stdin
        self._out: IO[bytes] = stdout
        self._lines = _Lines(stdout.read)

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_line(self, limit_bytes: int) -> bytes:
        return self._lines.next(limit_bytes)

    def send(self, data: memoryview) -> int:
        return self._in.write(data)

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()

    def end_output(self) -> None:
        with contextlib.suppress(OSError):
            self._out.close()

    def wait(self, timeout_s: float) -> bool:
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self, *, hard: bool) -> None:
        if self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL if hard else signal.SIGTERM)
            else:
                self._process.kill()

    def forget(self) -> None:
        _point_nowhere(self._in)
        _point_nowhere(self._out)
        self._process.returncode = 0  # not our child any more: keeps Popen from waiting for it or warning about it


class SocketChannel:
    """A broker that runs on its own and listens on a Unix socket."""

    def __init__(self, path: str | Path, *, timeout_s: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(str(path))
            self._socket.settimeout(None)
        except OSError as fault:
            self._socket.close()
            raise NotExecuted(f"no broker answers on {path}: {fault}. Nothing was executed.") from fault
        self._lines = _Lines(self._socket.recv)

    def read_line(self, limit_bytes: int) -> bytes:
        return self._lines.next(limit_bytes)

    def send(self, data: memoryview) -> int:
        return self._socket.send(data)

    def end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end_output(self) -> None:
        self._socket.close()

    def wait(self, timeout_s: float) -> bool:
        return True

    def kill(self, *, hard: bool) -> None:
        self.end_input()

    def forget(self) -> None:
        _point_nowhere(self._socket)  # a shutdown would end the parent's conversation


class _Lines:
    """Cuts a stream into lines. A BufferedReader's lock, held over a blocked read, would stay held in a fork."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._rest = bytearray()
        self._searched = 0

    def next(self, limit_bytes: int) -> bytes:
        """The next line with its newline; without one where the stream ends or the line is longer than the limit."""
        while (end := self._rest.find(b"\n", self._searched)) < 0:
            self._searched = len(self._rest)
            chunk = b"" if self._searched > limit_bytes else self._read(65536)
            if not chunk:
                return self._take(self._searched)
            self._rest += chunk
        return self._take(end + 1)

    def _take(self, size: int) -> bytes:
        line = bytes(self._rest[:size])
        del self._rest[:size]
        self._searched = 0
        return line


def _point_nowhere(file: IO[bytes] | socket.socket) -> None:
    """Let go of what a descriptor leads to, but keep its number: whoever owns it closes it later."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, file.fileno(), inheritable=False)
        os.close(nowhere)


def _stderr(where: str | Path) -> IO[bytes] | int | None:
    # The number, not `sys.stderr`: a notebook's has no descriptor.
    if where == INHERIT:
        return None
    if where == DISCARD:
        return subprocess.DEVNULL
    return Path(where).open("ab")
