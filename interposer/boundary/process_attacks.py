"""What the thief of `attack.py` tries on a process: its environment and memory, its descriptors, signals and limits.

Each attack proves that it may and changes nothing. This is the first part of the thief's text: `selfattack.thief_text`
puts `attack.py` after it, in the same namespace. Standard library only, and old Pythons are fine.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import resource
from typing import Any, Callable  # noqa: UP035  for old Pythons

_PTRACE_SEIZE = 0x4206
_SYS_PIDFD_GETFD = 438
"""The same on every architecture, as all calls since Linux 5.0 (syscalls(2))."""
PIECE = 1024 * 1024
_SCANNED_BYTES = 512 * 1024 * 1024
"""How much memory is looked through for the credential."""

_libc = ctypes.CDLL(None, use_errno=True)


class Process:
    """One process under attack. Every attack returns what it got; `OSError` means that it got nothing."""

    def __init__(self, pid: int, canary: Any) -> None:
        self.pid = pid
        self._canary = canary

    def environment(self) -> str:
        with open(f"/proc/{self.pid}/environ", "rb", buffering=0) as file:
            read = file.read(PIECE)
        return finding(f"read {len(read)} bytes of its environment", read, self._canary)

    def mappings(self) -> str:
        found = self._regions()
        if not found:
            raise LookupError(NO_MEMORY)
        return f"listed {len(found)} regions of its memory"

    def memory_read(self) -> str:
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            regions = [(start, end) for start, end, mode, _ in self._regions() if mode.startswith("r")]
            if not regions:
                raise LookupError(NO_MEMORY)
            if self._canary is not None and _found_in(memory, regions, self._canary):
                return "read its memory and found the credential there"
            return _one_byte(memory, regions)

    def memory_write(self) -> str:
        # The kernel ends the initial stack with eight zero bytes (fs/exec.c): they never change.
        with open(f"/proc/{self.pid}/mem", "r+b", buffering=0) as memory:
            stack = [end for _, end, mode, name in self._regions() if name == "[stack]" and mode.startswith("rw")]
            if not stack:
                return "opened its memory for writing"
            memory.seek(stack[-1] - 1)
            byte = memory.read(1)
            memory.seek(stack[-1] - 1)
            memory.write(byte)
        return "wrote to its memory"

    def remote_read(self) -> str:
        """Permission is checked before the address: EFAULT is a yes."""
        try:
            address = self._regions()[0][0]
        except (OSError, IndexError):
            address = 4096
        held = ctypes.create_string_buffer(1)
        local, remote = _Piece(ctypes.addressof(held), 1), _Piece(address, 1)
        if _libc.process_vm_readv(self.pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0:
            _raise_unless(errno.EFAULT)
        return "process_vm_readv works on it"

    def trace(self) -> str:
        """A child seizes it, which stops nothing, and ends, which lets go of it."""
        child = os.fork()
        if child == 0:
            refused = _libc.ptrace(_PTRACE_SEIZE, self.pid, None, None) < 0
            os._exit(ctypes.get_errno() & 0x7F or 1 if refused else 0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code < 0:
            raise PermissionError(errno.EPERM, "killed for trying")
        if code:
            raise OSError(code, os.strerror(code))
        return "ptrace attached to it"

    def descriptors(self) -> str:
        """Their numbers alone, which the owner of a dumpable process may list, lead nowhere."""
        found = os.listdir(f"/proc/{self.pid}/fd")
        os.readlink(f"/proc/{self.pid}/fd/{found[0]}")
        return f"looked at its {len(found)} descriptors"

    def take_descriptor(self) -> str:
        """Any descriptor will do: the permission is the same for all, and EBADF comes after it."""
        handle = os.pidfd_open(self.pid)
        try:
            taken = _libc.syscall(_SYS_PIDFD_GETFD, handle, 0, 0)
            if taken < 0:
                _raise_unless(errno.EBADF)
            else:
                os.close(taken)
        finally:
            os.close(handle)
        return "pidfd_getfd gave one of its descriptors"

    def standard_input(self) -> str:
        if os.stat(f"/proc/{self.pid}/fd/0").st_rdev == os.stat(os.devnull).st_rdev:
            raise LookupError("it reads nothing")
        os.close(os.open(f"/proc/{self.pid}/fd/0", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
        return "opened its standard input for writing"

    def core(self) -> str:
        """Whether a signal would leave a core file: it may be sent, the process is dumpable, and cores are kept."""
        # proc(5): the files of a process that is not dumpable belong to root. Unknown for root's own.
        if os.stat(f"/proc/{self.pid}/environ").st_uid != self._owner():
            raise PermissionError(errno.EPERM, "it is not dumpable")
        with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
            piped = file.read().startswith("|")  # core(5): a pipe gets the core whatever the limit
        if not piped and self._core_limits() == ["0", "0"]:
            raise PermissionError(errno.EPERM, "its limit for core files is 0")
        os.kill(self.pid, 0)
        return "a signal would make it leave a core file"

    def signal(self) -> str:
        os.kill(self.pid, 0)
        return "signals may be sent to it (stop, end)"

    def limit(self) -> str:
        """A limit set to what it is: one of 0 for file sizes would stop the record."""
        before = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, before)
        return "its limits may be changed (prlimit)"

    def has_memory(self) -> bool:
        """Kernel threads and what has ended have none, and are no broker. Unknown counts as yes: the attacks tell."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as file:
                return any(line.startswith(b"VmSize:") for line in file)
        except OSError:
            return True

    def has_ended(self) -> bool:
        return bool(_libc.getpgid(self.pid) < 0)

    def _owner(self) -> int:
        with open(f"/proc/{self.pid}/status", "rb") as file:
            return int(next((line.split()[2] for line in file if line.startswith(b"Uid:")), b"-1"))

    def _core_limits(self) -> list[str]:
        """[soft, hard]"""
        with open(f"/proc/{self.pid}/limits", encoding="utf-8") as file:
            return next((line.split()[4:6] for line in file if line.startswith("Max core file size")), [])

    def _regions(self) -> list[tuple[int, int, str, str]]:
        """(start, end, mode, name)"""
        found = []
        with open(f"/proc/{self.pid}/maps", encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split(None, 5)
                start, _, end = words[0].partition("-")
                found.append((int(start, 16), int(end, 16), words[1], words[5].strip() if len(words) > 5 else ""))
        return found


NO_MEMORY = "it has no memory: a kernel thread, or it has ended"


class _Piece(ctypes.Structure):
    """struct iovec"""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


ON_PROCESSES: dict[str, Callable[[Process], str]] = {
    "environ": Process.environment,
    "maps": Process.mappings,
    "memory-read": Process.memory_read,
    "memory-write": Process.memory_write,
    "vm-read": Process.remote_read,
    "ptrace": Process.trace,
    "descriptors": Process.descriptors,
    "take-descriptor": Process.take_descriptor,
    "core": Process.core,
    "limits": Process.limit,
    "signal": Process.signal,
}


def finding(plain: str, read: bytes, canary: Any) -> str:
    return f"{plain}, with the credential in it" if canary is not None and _holds(read, canary) else plain


def _holds(read: bytes, canary: Any) -> bool:
    """The job has no credential, only what one begins with and its digest."""
    prefix, length = canary["prefix"].encode(), canary["length"]
    at = read.find(prefix)
    while at >= 0:
        if hashlib.sha256(read[at : at + length]).hexdigest() == canary["sha256"]:
            return True
        at = read.find(prefix, at + 1)
    return False


def _found_in(memory: Any, regions: list[tuple[int, int]], canary: Any) -> bool:
    left = _SCANNED_BYTES
    for start, end in regions:
        tail = b""
        while start < end and left > 0:
            size = min(PIECE, end - start)
            try:
                memory.seek(start)
                read = memory.read(size)
            except (OSError, OverflowError, ValueError):
                break  # [vvar] and the like cannot be read by anybody
            if _holds(tail + read, canary):
                return True
            tail = read[-canary["length"] :]
            start, left = start + size, left - size
    return False


def _one_byte(memory: Any, regions: list[tuple[int, int]]) -> str:
    for start, _ in regions[:8]:
        try:
            memory.seek(start)
            if memory.read(1):
                return "read its memory"
        except OSError:
            continue
    raise PermissionError(errno.EACCES, "its memory was opened and gave nothing")


def _raise_unless(wanted: int) -> None:
    number = ctypes.get_errno()
    if number != wanted:
        raise OSError(number, os.strerror(number))
