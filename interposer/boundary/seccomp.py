"""A seccomp filter for an agent: what Landlock leaves open towards other processes of the same user.

The filter is built by hand for x86_64 and aarch64, and allows what it does not name: programs must run. What it names
is answered with EPERM; a system call of another architecture ends the process, because its numbers mean other things.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass, fields

# linux/bpf_common.h, linux/seccomp.h
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
ALLOW = 0x7FFF0000
KILL = 0x80000000
_ERRNO = 0x00050000
REFUSE = _ERRNO | errno.EPERM
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000

TIOCSTI, TIOCLINUX = 0x5412, 0x541C
"""Typing into a terminal, and pasting into a console (ioctl_tty(2), ioctl_console(2))."""
F_SETLEASE = 1024
"""Whoever opens a file with a lease waits for its holder (fcntl(2)): the broker's, that reads its policy again."""

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Calls:
    """The numbers of the system calls that are refused altogether."""

    ptrace: int
    process_vm_readv: int
    process_vm_writev: int
    kcmp: int
    pidfd_getfd: int
    process_madvise: int
    process_mrelease: int
    perf_event_open: int
    bpf: int
    userfaultfd: int
    add_key: int
    request_key: int
    keyctl: int
    migrate_pages: int
    move_pages: int
    open_by_handle_at: int


@dataclass(frozen=True, slots=True)
class Machine:
    """One architecture. The calls with a field of their own are refused for processes other than the caller's."""

    audit: int
    """AUDIT_ARCH_* (linux/audit.h)."""
    refused: Calls
    prlimit64: int
    sched_setparam: int
    sched_setscheduler: int
    sched_setattr: int
    setpriority: int
    ioprio_set: int
    ioctl: int
    fcntl: int


MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        Calls(101, 310, 311, 312, 438, 440, 448, 298, 321, 323, 248, 249, 250, 256, 279, 304),
        prlimit64=302,
        sched_setparam=142,
        sched_setscheduler=144,
        sched_setattr=314,
        setpriority=141,
        ioprio_set=251,
        ioctl=16,
        fcntl=72,
    ),
    "aarch64": Machine(
        0xC00000B7,
        Calls(117, 270, 271, 272, 438, 440, 448, 241, 280, 282, 217, 218, 219, 238, 239, 265),
        prlimit64=261,
        sched_setparam=118,
        sched_setscheduler=119,
        sched_setattr=274,
        setpriority=140,
        ioprio_set=30,
        ioctl=29,
        fcntl=25,
    ),
}


def machine() -> Machine | None:
    """This machine's numbers; None where the filter is not written for it."""
    return MACHINES.get(platform.machine())


def program(machine: Machine) -> bytes:
    """The filter as an array of struct sock_filter."""
    return assembled(_instructions(machine))


def assembled(instructions: Iterable[Instruction]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def _instructions(machine: Machine) -> list[Instruction]:
    found: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine is MACHINES["x86_64"]:
        # x32 has the same AUDIT_ARCH and other numbers (seccomp(2)).
        found += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for field in fields(Calls):
        found += [(_EQUAL, 0, 1, getattr(machine.refused, field.name)), (_RETURN, 0, 0, REFUSE)]
    # The kernel takes pids, ids and ioctl numbers as 32 bits, so the low word is all of them.
    for number in (machine.prlimit64, machine.sched_setparam, machine.sched_setscheduler, machine.sched_setattr):
        found += _only(number, {0: 0})
    found += _only(machine.setpriority, {0: 0, 1: 0})  # PRIO_PROCESS, the caller
    found += _only(machine.ioprio_set, {0: 1, 1: 0})  # IOPRIO_WHO_PROCESS, the caller
    found += [
        (_EQUAL, 0, 4, machine.fcntl),
        (_LOAD, 0, 0, _argument(1)),
        (_EQUAL, 0, 1, F_SETLEASE),
        (_RETURN, 0, 0, REFUSE),
        (_RETURN, 0, 0, ALLOW),
        (_EQUAL, 0, 5, machine.ioctl),
        (_LOAD, 0, 0, _argument(1)),
        (_EQUAL, 1, 0, TIOCSTI),
        (_EQUAL, 0, 1, TIOCLINUX),
        (_RETURN, 0, 0, REFUSE),
        (_RETURN, 0, 0, ALLOW),
        (_RETURN, 0, 0, ALLOW),
    ]
    return found


def _only(number: int, arguments: dict[int, int]) -> list[Instruction]:
    """Allow a system call with exactly these arguments, refuse it with others; other calls fall through."""
    checks = list[Instruction]()
    left = len(arguments)
    for position, value in arguments.items():
        left -= 1
        checks += [(_LOAD, 0, 0, _argument(position)), (_EQUAL, 0, 2 * left + 1, value)]
    checks += [(_RETURN, 0, 0, ALLOW), (_RETURN, 0, 0, REFUSE)]
    return [(_EQUAL, 0, len(checks), number), *checks]


def _argument(position: int) -> int:
    """The offset of the low word; both machines are little-endian."""
    return _ARGUMENTS + 8 * position
