"""Credentials from files that only we can read, read anew at every use so that a rotated one counts at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from interposer.errors import ConfigurationError, Problem
from interposer.ports import Secret

LIMIT_BYTES = 64 * 1024


class FileSecrets:
    """`Secrets` from a table of name -> path."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = dict(paths)

    async def reveal(self, name: str) -> Secret:
        """Raises `ConfigurationError` unless the file is regular, small, not empty, and readable by us alone."""
        path = self._paths.get(name)
        if path is None:
            raise _problem(f"credential {name}", "no file is configured for it; name one")
        return Secret(_text(path, _read(path)))


def _read(path: str) -> bytes:
    try:
        # O_NONBLOCK: a FIFO put in its place must not hold us up before it is refused.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except FileNotFoundError:
        raise _problem(path, "there is no such file; create it with mode 0400") from None
    except OSError as error:
        raise _problem(path, f"cannot be opened: {os.strerror(error.errno or 0)}") from None
    try:
        # The open file is judged, not its name: nothing can be swapped in between.
        fault = _fault(path, os.fstat(fd))
        if fault:
            raise _problem(path, fault)
        with open(fd, "rb", closefd=False) as file:
            return file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise _problem(path, f"cannot be read: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(fd)


def _fault(path: str, file: os.stat_result) -> str:
    """What is wrong with the file, and what to do; empty when nothing is."""
    if not stat.S_ISREG(file.st_mode):
        return "is not a regular file; put the credential into one"
    if file.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {file.st_uid}; chown {os.geteuid()} {path}"
    if file.st_mode & 0o077:
        return f"others can reach it (mode {stat.S_IMODE(file.st_mode):04o}); chmod 0400 {path}"
    return ""


def _text(path: str, raw: bytes) -> str:
    if len(raw) > LIMIT_BYTES:
        raise _problem(path, f"holds more than {LIMIT_BYTES} bytes; is it the right file?")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _problem(path, "is not UTF-8 text; is it the right file?") from None
    text = text.removesuffix("\n")
    if not text:
        raise _problem(path, "is empty; write the credential into it")
    return text


def _problem(place: str, message: str) -> ConfigurationError:
    return ConfigurationError([Problem(place, 0, 0, message)])
