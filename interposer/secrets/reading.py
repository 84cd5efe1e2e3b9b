"""What all sources have in common: how a credential is read from an open file, and what may be one at all.

No error from here holds any part of what was read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable

from interposer.errors import ConfigurationError, Problem

LIMIT_BYTES = 64 * 1024


def problem(place: str, message: str) -> ConfigurationError:
    return ConfigurationError([Problem(place, 0, 0, message)])


def read_file(path: str, fault: Callable[[os.stat_result], str]) -> str:
    """The credential in a file. `fault` says what is wrong with the open file, or nothing. Raises
    `ConfigurationError`."""
    try:
        # O_NONBLOCK: a FIFO put in its place must not hold us up before it is refused.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise problem(path, "there is no such file; create it with mode 0400") from None
    except OSError as error:
        raise problem(path, f"cannot be opened: {os.strerror(error.errno or 0)}") from None
    try:
        # The open file is judged, not its name: nothing can be swapped in between.
        wrong = fault(os.fstat(fd))
        if wrong:
            raise problem(path, wrong)
        with open(fd, "rb", closefd=False) as file:
            return credential(path, file.read(LIMIT_BYTES + 1))
    except OSError as error:
        raise problem(path, f"cannot be read: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(fd)


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
