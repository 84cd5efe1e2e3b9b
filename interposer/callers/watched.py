"""A file that is read again when it has changed: one `os.stat` tells."""

from __future__ import annotations

import os
import stat
import time
from typing import TypeAlias

Stamp: TypeAlias = tuple[int, int, int, int, int]

_GONE: Stamp = (0, 0, 0, 0, 0)
YOUNG_S = 0.05
"""Two writes within one tick of the file system's clock leave the same times: so young a file is read once more."""


class Watched:
    """Remembers which state of the file was last taken note of."""

    def __init__(self, path: str, *, limit_bytes: int, young_s: float = YOUNG_S) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._young_ns = young_s * 1e9
        self._noted: Stamp | None = None

    def stamp(self) -> Stamp | None:
        """The file's state if it is another one than was noted, else None."""
        try:
            found = os.stat(self.path)
        except OSError:
            now = _GONE
        else:
            now = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return None if now == self._noted else now

    def note(self, stamp: Stamp) -> None:
        """This state is known; taken before the file was read, so that a later change is still seen."""
        young = stamp is not _GONE and abs(time.time_ns() - max(stamp[3], stamp[4])) < self._young_ns
        self._noted = None if young else stamp

    def read(self) -> bytes:
        """The whole file. Raises `OSError`, or `ValueError` for one that is no regular file or too large."""
        # O_NONBLOCK: a FIFO put in its place must not hold us up before it is refused.
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError("is not a regular file")
            raw = file.read(self._limit_bytes + 1)
        if len(raw) > self._limit_bytes:
            raise ValueError(f"holds more than {self._limit_bytes} bytes")
        return raw
