"""The bearer token that came beside the wire: from the environment, or from a file that is read again when it changes.

A file that is gone or unreadable is no reason to take the peer for whom the kernel says it is: it is an empty token,
which is nobody's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

LIMIT_BYTES = 64 * 1024
TOKEN, TOKEN_FILE = "INTERPOSER_TOKEN", "INTERPOSER_TOKEN_FILE"


def presented(environment: Mapping[str, str]) -> Callable[[], str | None]:
    """What asks for the token as it is now; None where neither variable is set. The file wins over the variable."""
    path, token = environment.get(TOKEN_FILE), environment.get(TOKEN)
    if path is not None:
        return _File(path).token
    return lambda: token


class _File:
    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def token(self) -> str:
        try:
            stat = os.stat(self._path)
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                with open(self._path, "rb") as file:
                    self._token = file.read(LIMIT_BYTES).decode("ascii", "replace").strip()
                self._seen = seen
        except OSError:
            self._seen, self._token = None, ""
        return self._token
