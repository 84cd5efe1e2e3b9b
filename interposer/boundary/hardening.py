"""What keeps other processes of our own uid out of this one, for as long as it runs and whatever it starts.

After `harden` nobody but root reads our memory, environment or descriptors, traces us, or finds a core file. Each step
is read back; one that did not take effect refuses the start. What was opened *before* stays open to whoever opened it:
therefore `launch` forks afterwards, and the credential is only ever read in the new process.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable

from interposer.errors import Problem, Unsafe

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 38, 39
_KILL = 9


def harden() -> None:
    """Raises `Unsafe`. Both `no_new_privs` and the limit on core files hold for every upstream too."""
    refuse_tracer()
    prctl = _prctl()
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise _refusal("this process stays dumpable: the kernel does not take PR_SET_DUMPABLE")
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        raise _refusal("privileges can be gained: the kernel does not take PR_SET_NO_NEW_PRIVS")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        raise _refusal("core files cannot be turned off: the kernel does not take RLIMIT_CORE")
    # Whoever attached between the first look and the prctl is seen now; nobody can attach any more.
    refuse_tracer()


def refuse_tracer() -> None:
    """Raises `Unsafe` while another process traces this one: it would see every credential."""
    tracer = status("TracerPid")
    if tracer:
        raise _refusal(f"process {tracer} traces this one; start it without strace, gdb or another debugger")


def die_with(parent: int) -> None:
    """The kernel kills this process when `parent`, which started it, ends. Raises `Unsafe`."""
    prctl = _prctl()
    prctl(_PR_SET_PDEATHSIG, _KILL, 0, 0, 0)
    told = ctypes.c_int(0)
    prctl(_PR_GET_PDEATHSIG, ctypes.addressof(told), 0, 0, 0)
    if told.value != _KILL:
        raise _refusal("the kernel does not take PR_SET_PDEATHSIG")
    # It may have ended before the kernel was told.
    if os.getppid() != parent:
        os._exit(1)


def status(name: str) -> int:
    """A number from /proc/self/status. Raises `Unsafe` when it cannot be had."""
    try:
        with open("/proc/self/status", "rb") as file:
            fields = dict(line.partition(b":")[::2] for line in file.read().splitlines())
        return int(fields[name.encode()])
    except (OSError, KeyError, ValueError):
        raise _refusal("/proc/self/status cannot be read; mount /proc") from None


def _prctl() -> Callable[..., int]:
    try:
        found = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        raise _refusal("prctl(2) is not there; the broker runs on Linux") from None
    found.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    call: Callable[..., int] = found
    return call


def _refusal(text: str) -> Unsafe:
    return Unsafe([Problem("hardening", 0, 0, text)])
