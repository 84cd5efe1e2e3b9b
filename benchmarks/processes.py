"""Processes under measurement: started in a group of their own, read by the kernel's own books, and gone afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CPUCLOCK_SCHED = 2
_END_S = 5.0
_LIBC = ctypes.CDLL(None)


@contextlib.contextmanager
def started(
    command: Sequence[str], *, folder: Path, home: Path, daemon: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes at its standard input and output; at the end neither it nor what it started is left.

    It works in `folder` (its stderr goes to `folder/stderr`) with `home` as its state and no other setting of
    interposer's. A `daemon` does not end with its standard input: it is told to, also when we die first.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INTERPOSER_")}
    environment["INTERPOSER_HOME"] = str(home)
    with open(folder / "stderr", "ab") as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            cwd=folder,
            env=environment,
            bufsize=0,
            start_new_session=True,
            preexec_fn=_die_with_parent if daemon else None,
        )
    try:
        yield process
    finally:
        _end(process, daemon)


@contextlib.contextmanager
def within(seconds: float, process: subprocess.Popen[bytes], what: str) -> Iterator[None]:
    """Whoever waits for `process` waits no longer than this: it is killed then, and the wait ends with a hang-up.

    Raises `TimeoutError` in its place, which names `what` was waited for.
    """
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise TimeoutError(f"{what}: no answer within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()


def below(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_parent(int(name)), []).append(int(name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def command_of(pid: int) -> list[str]:
    """The words it was started with; none if it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def cpu_s(pids: Iterable[int]) -> float:
    """CPU time of all their threads, ended ones too, in nanosecond steps (/proc/PID/stat counts in steps of 10 ms).

    Raises `ProcessLookupError` for one that has gone.
    """
    try:
        # clock_getcpuclockid(3), as Linux builds the id of another process's clock.
        return sum(time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)
    except OSError as error:
        raise ProcessLookupError("a process under measurement has gone") from error


def busy_s() -> tuple[float, float]:
    """CPU time that all processors have spent for anybody, and that the machine below took away (/proc/stat)."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, steal / ticks


def resident_mb(pids: Iterable[int]) -> float:
    """Sum of what they hold in memory now; pages that they share count for each."""
    return sum(_status_kb(pid, "VmRSS") for pid in pids) / 1024


def peak_mb(pids: Iterable[int]) -> float:
    """Sum of the most that each has held since `forget_peak`."""
    return sum(_status_kb(pid, "VmHWM") for pid in pids) / 1024


def forget_peak(pids: Iterable[int]) -> None:
    """From now on `peak_mb` is about what comes (proc(5), /proc/PID/clear_refs)."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Raises `TimeoutError`."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.005)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes], daemon: bool) -> None:
    """First as it would end in use, then with certainty."""
    handles = _handles(below(process.pid)) if process.poll() is None else []
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    if daemon:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    if process.poll() is None:
        process.kill()
        process.wait()
    for handle in handles:
        if not select.select([handle], [], [], _END_S)[0]:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def _handles(pids: Iterable[int]) -> list[int]:
    """File descriptors that become readable when the process ends, and can never mean another one."""
    found = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
    return found


def _parent(pid: int) -> int:
    try:
        # The command's name stands in parentheses and may hold any character.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return -1


def _status_kb(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise ProcessLookupError("a process under measurement has gone")
