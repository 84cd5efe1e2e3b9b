"""The processes of `interposer run`: the broker outside, the agent in its sandbox, and an end that leaves nothing.

This process has one thread and stays outside. The agent shares its session and process group, so that a terminal
treats the two as one job; what is typed there reaches the agent from the kernel, and what others send us is passed on.
When we end, however we end, the agent is killed and the broker that we started stops. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from interposer.boundary import hardening
from interposer.boundary.sandbox import Prepared
from interposer.errors import InterposerError

READY_S = 60.0
POLL_S = 0.2
STOP_S = 20.0
GRACE_S = 1.0
"""What the agent left behind has so long to end by itself."""
CONNECT_S = 2.0
CANNOT_EXECUTE, NOT_FOUND = 126, 127
"""As shells say it."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SI_KERNEL = 0x80
_PASSED_ON = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM}
)
_TAIL_BYTES = 4096

_libc = ctypes.CDLL(None, use_errno=True)


class BrokerFailed(InterposerError):
    """The broker did not start. `code` is what it ended with."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class Broker:
    """The broker that serves this run."""

    address: str
    process: subprocess.Popen[bytes] | None = None
    """None: it stood before us, and stays."""
    log: Path | None = None


class Supervision:
    """Use it in a `with`: signals wait until `follow`, and the processes that are left at the end are ended."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._broker: Broker | None = None
        self._mask: set[int] = set()

    def __enter__(self) -> Supervision:
        # Orphans of the agent become our children, so that none is missed at the end.
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
        for descriptor in _descriptors():
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)
        self._mask = {*signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON | {signal.SIGCHLD, signal.SIGTSTP})}
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()
        if self._broker is not None and self._broker.process is not None:
            self._stop(self._broker.process)
            self._clear()  # upstreams of a broker that could not end them
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def start_broker(
        self, words: Sequence[str], log: Path, pass_fds: Sequence[int], environment: Mapping[str, str]
    ) -> Broker:
        """`interposer serve`, once it says `ready`. Raises `BrokerFailed`."""
        entry = Path(__file__).parents[1] / "__main__.py"
        parent = os.getpid()
        with _log(log) as file:
            begun = file.tell()
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", str(entry), "serve", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
                pass_fds=pass_fds,
                env=dict(environment),
                preexec_fn=lambda: self._before_broker(parent),
            )
        self._broker = Broker("", process, log)
        try:
            self._broker.address = _address(process)
        except EOFError:
            code = process.wait(STOP_S)
            said = log.read_bytes()[begun:][-_TAIL_BYTES:].decode(errors="replace").strip()
            raise BrokerFailed(f"the broker did not start:\n{said}", code if code > 0 else 5) from None
        except TimeoutError:
            raise BrokerFailed(f"the broker was not ready after {READY_S:.0f} s; see {log}", 5) from None
        return self._broker

    def start_agent(
        self, program: str, words: Sequence[str], environment: Mapping[str, str], box: Prepared
    ) -> tuple[int, str]:
        """(pid, ""), or (0, why it could not be started)."""
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_agent(program, words, environment, box, parent, writing)
        os.close(writing)
        with open(reading, "rb") as report:
            failed = report.read().decode(errors="replace")
        if failed:
            os.waitpid(pid, 0)
            return 0, failed
        return pid, ""

    def follow(self, agent: int) -> int:
        """Wait for the agent; returns its exit code, 128 + n where signal n ended it."""
        while True:
            heard = signal.sigwaitinfo(_PASSED_ON | {signal.SIGCHLD})
            if heard.si_signo == signal.SIGCHLD:
                for pid, status in self._reaped():
                    if pid == agent and not os.WIFSTOPPED(status):
                        code = os.waitstatus_to_exitcode(status)
                        return code if code >= 0 else 128 - code
                    if pid == agent and os.isatty(2):
                        # The shell waits for us to stop, too, before it takes the terminal back.
                        os.kill(os.getpid(), signal.SIGSTOP)
                        os.kill(agent, signal.SIGCONT)
            elif heard.si_code != _SI_KERNEL:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agent, heard.si_signo)

    def _before_broker(self, parent: int) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _become_agent(
        self,
        program: str,
        words: Sequence[str],
        environment: Mapping[str, str],
        box: Prepared,
        parent: int,
        report: int,
    ) -> NoReturn:
        code = CANNOT_EXECUTE
        try:
            hardening.die_with(parent)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)  # Python ignores them
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            box.enter()
            os.execve(program, list(words), dict(environment))  # noqa: S606
        except (OSError, InterposerError) as error:
            os.write(report, str(error).encode())
        finally:
            os._exit(code)

    def _reaped(self) -> Iterator[tuple[int, int]]:
        """Every child that ended or stopped. The broker's end is remembered, and said."""
        broker = self._broker.process if self._broker else None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if broker is not None and pid == broker.pid and not os.WIFSTOPPED(status):
                broker.returncode = os.waitstatus_to_exitcode(status)
                self._say(f"the broker has ended (code {broker.returncode}); see {self._broker and self._broker.log}")
            else:
                yield pid, status

    def _stop(self, broker: subprocess.Popen[bytes]) -> None:
        """It drains: what is in flight gets its grace, and its outcome is recorded."""
        if broker.returncode is None:
            broker.send_signal(signal.SIGTERM)
            try:
                broker.wait(STOP_S)
            except subprocess.TimeoutExpired:
                broker.kill()
                broker.wait()
        if broker.stdout:
            broker.stdout.close()

    def _clear(self) -> None:
        """End whatever is still below us, except the broker."""
        broker = self._broker.process if self._broker else None
        spared = broker.pid if broker is not None and broker.returncode is None else 0
        begun, number = time.monotonic(), signal.SIGTERM
        while left := [pid for pid in _children() if pid != spared]:
            if time.monotonic() - begun > 10 * GRACE_S:
                self._say(f"{len(left)} processes of the agent could not be ended: {left}")
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            signal.sigtimedwait({signal.SIGCHLD}, GRACE_S / 10)
            for _ in self._reaped():
                pass
            number = signal.SIGKILL if time.monotonic() - begun > GRACE_S else signal.SIGTERM


def answers(address: str) -> bool:
    """Whether somebody accepts connections at a broker's address."""
    try:
        if address.startswith("tcp://"):
            host, _, port = address.removeprefix("tcp://").rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_S)
            probe.connect(address.removeprefix("unix:"))
    except (OSError, ValueError):
        return False
    return True


def _address(broker: subprocess.Popen[bytes]) -> str:
    """Where agents find it, once it is ready. Raises `EOFError` when it ends before, and `TimeoutError`."""
    outlet = broker.stdout.fileno() if broker.stdout else -1
    said = b""
    until = time.monotonic() + READY_S
    while b"\nready\n" not in b"\n" + said:
        if signal.sigpending() & _PASSED_ON:
            raise KeyboardInterrupt
        if not select.select([outlet], [], [], POLL_S)[0]:
            if time.monotonic() > until:
                raise TimeoutError
            continue
        piece = os.read(outlet, 65536)
        if not piece:
            raise EOFError
        said += piece
    lines = said.decode(errors="replace").splitlines()
    return next((line.removeprefix("listening on ") for line in lines if line.startswith("listening on unix:")), "")


def _log(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "ab")


def _descriptors() -> list[int]:
    """All but the standard ones: what was left open to us is not the agent's."""
    return [number for number in map(int, os.listdir("/proc/self/fd")) if number > 2]


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []
