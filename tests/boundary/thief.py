"""What a process of the broker's own uid can try, run as `python -I thief.py WHAT …` by that user; prints JSON.

held WORDS…     start WORDS, hold its memory from its first moment and that of its children, as soon as they can be
                opened; tell it `hello`, wait for an answer, then look for the needle. Needle and greeting: stdin.
touch PID…      one attempt of each kind at a process that runs
trace WORDS…    start WORDS under ptrace; its exit code
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
TRACEME, CONT, ATTACH, DETACH = 0, 7, 16, 17
PIDFD_GETFD = 438


class Held:
    """Open descriptors of processes' memory."""

    def __init__(self) -> None:
        self.open: list[tuple[int, int, int]] = []

    def take(self, pid: int) -> bool:
        try:
            maps = os.open(f"/proc/{pid}/maps", os.O_RDONLY)
            self.open.append((pid, maps, os.open(f"/proc/{pid}/mem", os.O_RDONLY)))
        except OSError:
            return False
        return True

    def holding(self, needle: bytes) -> list[int]:
        return [pid for pid, maps, mem in self.open if found_in(maps, mem, needle)]


def found_in(maps: int, mem: int, needle: bytes) -> bool:
    """Whether writable memory holds the needle."""
    try:
        lines = b"".join(iter(lambda: os.read(maps, 65536), b"")).splitlines()
    except OSError:
        return False
    for line in lines:
        area, rights = line.split()[:2]
        if rights[1:2] != b"w":
            continue
        start, end = (int(word, 16) for word in area.split(b"-"))
        try:
            if needle in os.pread(mem, end - start, start):
                return True
        except (OSError, OverflowError):
            continue
    return False


def words_of(pid: int) -> tuple[int, bytes]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return pid, file.read()
    except OSError:
        return pid, b""


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def held(words: list[str]) -> dict[str, Any]:
    asked = json.load(sys.stdin)
    loot, over = Held(), threading.Event()
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    early = loot.take(process.pid)

    def race() -> None:
        # A process that starts itself anew has another memory afterwards: its words tell.
        known = {words_of(process.pid)} if early else set()
        while not over.wait(0.0005):
            for pid in (process.pid, *children(process.pid)):
                said = words_of(pid)
                if said not in known and loot.take(pid):
                    known.add(said)

    racing = threading.Thread(target=race)
    racing.start()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(asked["hello"].encode())
    process.stdin.flush()
    answered = bool(process.stdout.readline())
    over.set()
    racing.join()
    below = children(process.pid)
    found = loot.holding(asked["needle"].encode())
    print(json.dumps({"early": early, "held": len(loot.open), "answered": answered, "found": found, "below": below}))
    sys.stdout.flush()
    sys.stdin.close()
    process.stdin.close()
    process.wait(20)
    return {}


def touch(pid: int) -> dict[str, bool]:
    """What succeeded."""

    def ptrace() -> bool:
        if libc.ptrace(ATTACH, pid, None, None) != 0:
            return False
        os.waitpid(pid, 0x40000000)
        libc.ptrace(DETACH, pid, None, None)
        return True

    def vm_readv() -> bool:
        here = ctypes.create_string_buffer(8)
        vector = (ctypes.c_ulong * 2)(ctypes.addressof(here), 8)
        there = (ctypes.c_ulong * 2)(0x1000, 8)
        libc.process_vm_readv(pid, ctypes.byref(vector), 1, ctypes.byref(there), 1, 0)
        return ctypes.get_errno() != 1  # anything but EPERM came after the check

    def getfd() -> bool:
        return int(libc.syscall(PIDFD_GETFD, os.pidfd_open(pid), 2, 0)) >= 0

    def opened(name: str, mode: int = os.O_RDONLY) -> Callable[[], bool]:
        return lambda: os.open(f"/proc/{pid}/{name}", mode) >= 0

    def content(name: str) -> Callable[[], bool]:
        return lambda: bool(os.read(os.open(f"/proc/{pid}/{name}", os.O_RDONLY), 4096))

    attempts: dict[str, Callable[[], bool]] = {
        "environ": content("environ"),
        "mem": opened("mem"),
        "mem for writing": opened("mem", os.O_RDWR),
        "maps": content("maps"),
        "descriptors": lambda: bool(os.listdir(f"/proc/{pid}/fd")),
        "standard error": opened("fd/2", os.O_WRONLY),
        "working directory": lambda: bool(os.readlink(f"/proc/{pid}/cwd")),
        "ptrace": ptrace,
        "process_vm_readv": vm_readv,
        "pidfd_getfd": getfd,
    }
    return {name: tried(attempt) for name, attempt in attempts.items()}


def tried(attempt: Callable[[], bool]) -> bool:
    try:
        return attempt()
    except OSError:
        return False


def trace(words: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        libc.ptrace(TRACEME, 0, None, None)
        os.execv(words[0], words)
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        number = os.WSTOPSIG(status)
        libc.ptrace(CONT, pid, None, None if number == signal.SIGTRAP else number)


def main() -> None:
    what, words = sys.argv[1], sys.argv[2:]
    if what == "held":
        held(words)
    elif what == "touch":
        print(json.dumps({pid: touch(int(pid)) for pid in words}))
    else:
        print(trace(words))


if __name__ == "__main__":
    main()
