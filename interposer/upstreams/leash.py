"""The leash: runs one command and leaves nothing of it behind, however the broker dies.

Started by `child.py` as `python -I -S leash.py FD COMMAND…` at the head of its own session. FD is a pipe that nobody
writes to: its end of file means that the broker let go or is dead (kill -9 included), and then everything below this
process is ended. Orphans come back to it (PR_SET_CHILD_SUBREAPER), so a grandchild that left the session is found too.
Standard library only and imports nothing of this project.
"""

import os
import select
import sys
import time

GRACE_S = 0.5
"""Between the polite signal and the certain one."""
_PR_SET_CHILD_SUBREAPER = 36
_HUP, _INT, _KILL, _PIPE, _TERM, _XFSZ = 1, 2, 9, 13, 15, 25
"""Linux's numbers: importing `signal` takes 8 ms, and the command need not wait for it."""


def main() -> int:
    leash = int(sys.argv[1])
    command = sys.argv[2:]
    os.set_inheritable(leash, False)
    try:
        restored = [_HUP, _INT, _PIPE, _TERM, _XFSZ]
        child = os.posix_spawnp(command[0], command, os.environ, setsigdef=restored, setsigmask=[])
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]!r}: {error.strerror}\n")
        return 127
    _let_go_of_its_streams()
    _adopt_orphans()
    status = _watch(child, leash, _wake_on_exits())
    _sweep()
    return status


def _let_go_of_its_streams() -> None:
    """The command's ends alone keep its pipes open."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _adopt_orphans() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wake_on_exits() -> int:
    import signal

    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for polite in (_HUP, _INT, _TERM):
        signal.signal(polite, signal.SIG_IGN)
    return woken


def _watch(child: int, leash: int, woken: int) -> int:
    """Until the command has ended or the broker let go: the exit status to pass on."""
    poll = select.poll()
    poll.register(leash, select.POLLIN | select.POLLHUP)
    poll.register(woken, select.POLLIN)
    while True:
        status = _reap(child)
        if status is not None:
            return status
        ready = dict(poll.poll())
        if woken in ready:
            os.read(woken, 4096)
        if leash in ready and not os.read(leash, 64):
            os.killpg(0, _TERM)
            return _wait_a_little(child)


def _wait_a_little(child: int) -> int:
    end = time.monotonic() + GRACE_S
    while time.monotonic() < end:
        status = _reap(child)
        if status is not None:
            return status
        time.sleep(0.01)
    return 128 + _KILL


def _reap(child: int) -> int | None:
    """Collect whatever has ended; the command's status if it has."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found if found is not None else 0
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code


def _sweep() -> None:
    """Kill what is below us until nothing is: each round also catches what was born during the last."""
    for _ in range(200):
        below = _descendants()
        if not below:
            return
        for pid in below:
            try:
                os.kill(pid, _KILL)
            except ProcessLookupError:
                continue
        _reap(0)
        time.sleep(0.005)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _parent(name)
            children.setdefault(parent, []).append(int(name))
    found = []
    open_ = [os.getpid()]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += below
    return found


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc(5): the command's name stands in parentheses and may hold any character.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return -1


if __name__ == "__main__":
    sys.exit(main())
