"""The bearer token that came beside the wire: from the environment, or from a file that is read again when it changes.

A file that is gone, unreadable or no plain file is no reason to take the peer for whom the kernel says it is: it is an
empty token, which is nobody's.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping

LIMIT_BYTES = 64 * 1024
SETTLED_NS = 100_000_000
"""File times are as coarse as the kernel's tick: what was written a moment ago may be written again unnoticed."""
TOKEN, TOKEN_FILE = "INTERPOSER_TOKEN", "INTERPOSER_TOKEN_FILE"


def presented(environment: Mapping[str, str], file: str | None = None) -> Callable[[], str | None]:
    """What asks for the token as it is now; None where nothing was presented. `file` (an option) wins over both
    variables, and the variable that names a file over the one that holds a token."""
    path = file if file is not None else environment.get(TOKEN_FILE)
    if path is not None:
        return _File(path).token
    token = environment.get(TOKEN)
    return lambda: token


class _File:
    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._token = ""

    def token(self) -> str:
        """One `stat` when nothing has changed."""
        try:
            found = os.stat(self._path)
            if self._seen is None or _identity(found) != self._seen:
                self._read()
        except OSError:
            self._seen, self._token = None, ""
        return self._token

    def _read(self) -> None:
        self._seen, self._token = None, ""
        # Not blocking: somebody may have put a pipe in the file's place, and the event loop would wait for its writer.
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return
            self._token = file.read(LIMIT_BYTES).decode("ascii", "replace").strip()
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > SETTLED_NS:
            self._seen = _identity(found)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    # A file that was renamed into place may have any modification time; its inode or change time is another one.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
