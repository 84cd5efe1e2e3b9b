"""One child process: bytes to its stdin, bytes from its stdout, lines from its stderr, and nothing left when it ends.

The command runs under `leash.py`, at the head of its own session, with no descriptors but 0, 1 and 2 and only the
environment it is given. stdin and stdout are sockets and no pipes: another process of the same uid cannot open
`/proc/PID/fd/0` and write to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from io import FileIO

from interposer.display import printable
from interposer.wire.framing import LineFramer

LEASH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "leash.py")
_STDERR_LINE_BYTES = 8 * 1024
_STDERR_BYTES_PER_S = 64 * 1024
_TERM_S = 1.0


class _Reading(asyncio.Protocol):
    """Passes on what a stream brings."""

    def __init__(self, received: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._received = received
        self._ended = ended

    def data_received(self, data: bytes) -> None:
        self._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()


class Child:
    """A running command. `ended` is called once, after its last byte of stdout was passed on."""

    def __init__(
        self,
        *,
        received: Callable[[bytes], None],
        ended: Callable[[int], None],
        mask: Callable[[str], str],
        log: Callable[[str], None],
    ) -> None:
        """`log` gets the lines of stderr, each after `mask`."""
        self._received = received
        self._ended = ended
        self._errors = _Errors(mask, log)
        self._loop = asyncio.get_running_loop()
        self._gone = self._loop.create_future()
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: FileIO | None = None
        self._pidfd = -1
        self._stdin: asyncio.WriteTransport | None = None
        self._stdout: asyncio.ReadTransport | None = None
        self._stderr: asyncio.ReadTransport | None = None
        self._streams = 2
        """Of stdout and stderr, those that have not ended."""
        self._exit_seen = False

    async def start(self, command: Sequence[str], environment: Mapping[str, str], cwd: str | None) -> None:
        """Raises `OSError` when no process can be had. A command that cannot be run ends with status 127."""
        stdin, stdout, stderr = self._spawn(command, environment, cwd)
        said = _Reading(self._errors.received, self._stderr_closed)
        answered = _Reading(self._received, self._stdout_closed)
        self._stderr, _ = await self._loop.connect_read_pipe(lambda: said, stderr)
        self._stdout, _ = await self._loop.connect_accepted_socket(lambda: answered, stdout)
        self._stdin, _ = await self._loop.connect_accepted_socket(asyncio.Protocol, stdin)

    def _spawn(
        self, command: Sequence[str], environment: Mapping[str, str], cwd: str | None
    ) -> tuple[socket.socket, socket.socket, FileIO]:
        """Our ends of its stdin, stdout and stderr; where something fails, every end is closed again."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as its:
            stdin, its_stdin = _sockets(ours, its)
            stdout, its_stdout = _sockets(ours, its)
            stderr, its_stderr = _pipe(ours, its)
            held, leash = _pipe(its, ours)
            # One vfork and exec, 1 ms: not worth a thread. The leash needs no PATH, so nobody can put another in place.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", LEASH, str(held.fileno()), *command],
                stdin=its_stdin.fileno(),
                stdout=its_stdout.fileno(),
                stderr=its_stderr,
                env=dict(environment),
                cwd=cwd,
                pass_fds=(held.fileno(),),
                start_new_session=True,
            )
            self._pidfd = os.pidfd_open(self._process.pid)
            self._loop.add_reader(self._pidfd, self._exited)
            self._leash = leash
            ours.pop_all()
        return stdin, stdout, stderr

    @property
    def pid(self) -> int:
        """The head of the command's process group."""
        return self._process.pid if self._process else 0

    @property
    def backlog(self) -> int:
        """Bytes that the command has not read."""
        return self._stdin.get_write_buffer_size() if self._stdin else 0

    def stderr_tail(self) -> str:
        """The last lines of stderr, masked."""
        return "\n".join(self._errors.tail)

    def write(self, data: bytes) -> None:
        """Queue bytes for stdin; dropped when the command has gone."""
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(data)

    def hold(self, seconds: float) -> None:
        """Read no stdout for a while: a command that floods us waits."""
        if self._stdout is None or self._stdout.is_closing() or not self._stdout.is_reading():
            return
        self._stdout.pause_reading()
        self._loop.call_later(seconds, self._read_on)

    def _read_on(self) -> None:
        if self._stdout is not None and not self._stdout.is_closing():
            self._stdout.resume_reading()

    async def stop(self, patience_s: float) -> None:
        """Close stdin, wait, SIGTERM, wait, SIGKILL: when this returns, no process of the group is left."""
        if self._process is None:
            return
        try:
            if self._stdin is not None:
                self._stdin.close()
            if await self._waited(patience_s):
                return
            self._signal(signal.SIGTERM)
            await self._waited(_TERM_S)
        finally:
            self.kill()
        if not await self._waited(5.0):
            self._signal(signal.SIGKILL)
            await self._waited(5.0)

    def kill(self) -> None:
        """Let go of the leash: it ends the whole group within its grace and sweeps up."""
        if self._leash is not None:
            self._leash.close()

    async def _waited(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._gone)
        return self._gone.done()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and not self._gone.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _exited(self) -> None:
        """The leash has ended, after everything below it; or it was killed, and then its group goes with it."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # Before the leash is reaped: until then nobody else can have its number.
        self._signal(signal.SIGKILL)
        self._exit_seen = True
        if self._streams:
            self._loop.call_later(1.0, self._finish)
        else:
            self._finish()

    def _stdout_closed(self) -> None:
        """No stdout, no answers: whatever still runs is ended. The rest happens when it has."""
        self.kill()
        self._stream_closed()

    def _stderr_closed(self) -> None:
        self._errors.flush()
        self._stream_closed()

    def _stream_closed(self) -> None:
        self._streams -= 1
        if self._exit_seen and not self._streams:
            self._finish()

    def _finish(self) -> None:
        if self._gone.done() or self._process is None:
            return
        self._gone.set_result(None)
        self.kill()
        for stream in (self._stdin, self._stdout, self._stderr):
            if stream is not None:
                stream.close()
        if self._stdin is not None:
            self._stdin.abort()
        self._ended(self._process.wait())


def _sockets(ours: contextlib.ExitStack, its: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair()
    return ours.enter_context(near), its.enter_context(far)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    read, write = os.pipe()
    return reader.enter_context(FileIO(read, "r")), writer.enter_context(FileIO(write, "w"))


class _Errors:
    """stderr as lines: at most 64 KiB a second are passed on, the rest is counted."""

    def __init__(self, mask: Callable[[str], str], log: Callable[[str], None]) -> None:
        self._mask = mask
        self._line = log
        self._framer = LineFramer(_STDERR_LINE_BYTES)
        self._loop = asyncio.get_running_loop()
        self._second = 0
        self._spent = 0
        self._dropped = 0
        self.tail: deque[str] = deque(maxlen=5)

    def received(self, data: bytes) -> None:
        for frame in self._framer.feed(data):
            text = (frame if isinstance(frame, bytes) else frame.head + b" [cut]").decode("utf-8", "replace")
            self._pass(text)

    def flush(self) -> None:
        self.received(b"\n")
        if self._dropped:
            self._line(f"[{self._dropped} bytes of stderr dropped]")
            self._dropped = 0

    def _pass(self, text: str) -> None:
        second = int(self._loop.time())
        if second != self._second:
            if self._dropped:
                self._line(f"[{self._dropped} bytes of stderr dropped]")
            self._second, self._spent, self._dropped = second, 0, 0
        self._spent += len(text)
        if self._spent > _STDERR_BYTES_PER_S:
            self._dropped += len(text)
            return
        masked = printable(self._mask(text))
        self.tail.append(masked)
        self._line(masked)
