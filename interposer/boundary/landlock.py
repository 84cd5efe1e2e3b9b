"""Landlock, as the kernel's four structures and three system calls have it (landlock(7)); nothing is decided here.

A `Ruleset` handles every right over files that the kernel and we both know, so whatever no rule grants is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

# linux/landlock.h; the number after a right is the ABI that brought it.
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_CHAR = 1 << 6
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
MAKE_SOCK = 1 << 9
MAKE_FIFO = 1 << 10
MAKE_BLOCK = 1 << 11
MAKE_SYM = 1 << 12
REFER = 1 << 13  # 2
TRUNCATE = 1 << 14  # 3
IOCTL_DEV = 1 << 15  # 5
SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0  # 6
SCOPE_SIGNAL = 1 << 1  # 6

READ = EXECUTE | READ_FILE | READ_DIR
# No device nodes: whoever may make them reaches the disk beneath every rule.
WRITE = (
    WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE
    | IOCTL_DEV
)
SCOPED_ABI = 6
"""The first ABI whose domains keep signals and abstract sockets in."""

_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION = 1
_PATH_BENEATH = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def abi() -> int:
    """The version that the kernel speaks; 0 where it has no Landlock, or does not enable it."""
    found: int = _libc.syscall(_long(_CREATE_RULESET), None, _long(0), _long(_VERSION))
    return max(found, 0)


def handled(abi: int) -> int:
    """Every right over files that this ABI knows."""
    last = 15 if abi >= 5 else 14 if abi >= 3 else 13 if abi >= 2 else 12
    return (1 << (last + 1)) - 1


class Ruleset:
    """What a domain will allow, built rule by rule; `restrict` enters it. Close it, or use it in a `with`."""

    def __init__(self, abi: int) -> None:
        """Raises `OSError`."""
        self._handled = handled(abi)
        scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if abi >= SCOPED_ABI else 0
        # Network rights stay unhandled: they cannot say "every port".
        attribute = struct.pack("=QQQ", self._handled, 0, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
        self._fd = _checked(_libc.syscall(_long(_CREATE_RULESET), attribute, _long(len(attribute)), _long(0)))
        os.set_inheritable(self._fd, False)

    def __enter__(self) -> Ruleset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def grant(self, path: str, rights: int) -> None:
        """Allow these rights on `path` and on all beneath it. A symbolic link grants nothing. Raises `OSError`."""
        place = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            mode = os.fstat(place).st_mode
            rights &= self._handled if stat.S_ISDIR(mode) else self._handled & _OF_FILES
            if rights and not stat.S_ISLNK(mode):
                rule = struct.pack("=Qi", rights, place)
                _checked(_libc.syscall(_long(_ADD_RULE), _long(self._fd), _long(_PATH_BENEATH), rule, _long(0)))
        finally:
            os.close(place)

    def restrict(self) -> None:
        """From here on, this thread and what it starts can do no more than was granted. Needs no_new_privs or
        CAP_SYS_ADMIN. Raises `OSError`."""
        _checked(_libc.syscall(_long(_RESTRICT_SELF), _long(self._fd), _long(0)))


def _long(number: int) -> ctypes.c_long:
    return ctypes.c_long(number)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, os.strerror(number))
    return result
