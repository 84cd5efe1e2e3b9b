"""What all sources have in common: how a credential is read from an open file, and what may be one at all.

No error from here holds any part of what was read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable

from interposer.errors import ConfigurationError, Problem

LIMIT_BYTES = 64 * 1024


def problem(place: str, message: str) -> ConfigurationError:
    return ConfigurationError([Problem(place, 0, 0, message)])


def read_file(path: str, *, closed: int = 0o077, remedy: str = "") -> str:
    """The credential in a regular file of root's or ours, whose mode has no bit of `closed`. `remedy` is what to do
    about one that is not such a file, where that is not for its owner to mend. Raises `ConfigurationError`."""
    try:
        # O_NONBLOCK: a FIFO put in its place must not hold us up before it is refused.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise problem(path, "there is no such file; create it with mode 0400") from None
    except OSError as error:
        raise problem(path, f"cannot be opened: {os.strerror(error.errno or 0)}") from None
    try:
        # The open file is judged, not its name: nothing can be swapped in between.
        wrong = _fault(path, os.fstat(fd), closed, remedy)
        if wrong:
            raise problem(path, wrong)
        with open(fd, "rb", closefd=False) as file:
            return credential(path, file.read(LIMIT_BYTES + 1))
    except OSError as error:
        raise problem(path, f"cannot be read: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(fd)


def _fault(path: str, file: os.stat_result, closed: int, remedy: str) -> str:
    """What is wrong with the file, and what to do; empty when nothing is."""
    if not stat.S_ISREG(file.st_mode):
        return f"is not a regular file; {remedy or 'put the credential into one'}"
    if file.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {file.st_uid}; {remedy or f'chown {os.geteuid()} {path}'}"
    if file.st_mode & closed:
        return f"others can reach it (mode {stat.S_IMODE(file.st_mode):04o}); {remedy or f'chmod 0400 {path}'}"
    return ""


def credential(place: str, raw: bytes) -> str:
    """The bytes as a credential: UTF-8, not empty, one newline at the end taken off. Raises `ConfigurationError`."""
    if len(raw) > LIMIT_BYTES:
        raise problem(place, f"holds more than {LIMIT_BYTES} bytes; is it the right one?")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise problem(place, "is not UTF-8 text; is it the right one?") from None
    text = text.removesuffix("\n")
    if not text:
        raise problem(place, "is empty; write the credential into it")
    if "\0" in text:
        # No environment variable can hold it (POSIX, environ).
        raise problem(place, "holds a NUL character; is it the right one?")
    return text


def stamp(path: str) -> Hashable:
    """What changes with the file at the end of a path: one os.stat. Never raises."""
    try:
        file = os.stat(path)
    except (OSError, ValueError) as error:
        return type(error).__name__
    return file.st_dev, file.st_ino, file.st_mode, file.st_uid, file.st_size, file.st_mtime_ns, file.st_ctime_ns
