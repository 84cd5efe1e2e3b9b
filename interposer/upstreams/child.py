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
        self._leash = -1
        self._pidfd = -1
        self._stdin: asyncio.WriteTransport | None = None
        self._stdout: asyncio.ReadTransport | None = None
        self._stderr: asyncio.ReadTransport | None = None
        self._stdout_ended = False
        self._exit_seen = False

    async def start(self, command: Sequence[str], environment: Mapping[str, str], cwd: str | None) -> None:
        """Raises `OSError` when no process can be had. A command that cannot be run ends with status 127."""
        loop = self._loop
        ours_in, its_in = socket.socketpair()
        ours_out, its_out = socket.socketpair()
        errors, its_errors = os.pipe()
        held, self._leash = os.pipe()
        try:
            # One vfork and exec, 1 ms: not worth a thread. The leash needs no PATH, so nobody can put another in place.
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603
                [sys.executable, "-I", "-S", LEASH, str(held), *command],
                stdin=its_in.fileno(),
                stdout=its_out.fileno(),
                stderr=its_errors,
                env=dict(environment),
                cwd=cwd,
                pass_fds=(held,),
                start_new_session=True,
            )
        except OSError:
            ours_in.close()
            ours_out.close()
            os.close(errors)
            os.close(self._leash)
            self._leash = -1
            raise
        finally:
            its_in.close()
            its_out.close()
            os.close(its_errors)
            os.close(held)
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pidfd, self._exited)
        stdin, stdout = asyncio.Protocol(), _Reading(self._received, self._stdout_closed)
        stderr = _Reading(self._errors.received, self._errors.flush)
        self._stdin, _ = await loop.connect_accepted_socket(lambda: stdin, ours_in)
        self._stdout, _ = await loop.connect_accepted_socket(lambda: stdout, ours_out)
        self._stderr, _ = await loop.connect_read_pipe(lambda: stderr, os.fdopen(errors, "rb", buffering=0))

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
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

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
        if self._stdout_ended:
            self._finish()
        else:
            self._loop.call_later(1.0, self._finish)

    def _stdout_closed(self) -> None:
        """No stdout, no answers: whatever still runs is ended. The rest happens when it has."""
        self._stdout_ended = True
        self.kill()
        if self._exit_seen:
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
        masked = self._mask(text)
        self.tail.append(masked)
        self._line(masked)
