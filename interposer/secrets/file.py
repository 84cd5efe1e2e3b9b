"""Credentials from files that only we can read, read anew at every use so that a rotated one counts at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Mapping

from interposer.ownership import require_ours
from interposer.ports import Secret

from .reading import problem, read_file, stamp


class FileSecrets:
    """`Secrets` from a table of name -> path."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = dict(paths)

    async def reveal(self, name: str) -> Secret:
        """Raises `ConfigurationError` unless the file is regular, small, not empty, readable by us alone, and in
        directories that nobody else can write to."""
        path = self._paths.get(name)
        if path is None:
            raise problem(f"credential {name}", "no file is configured for it; name one")
        secret = Secret(read_file(path, lambda file: _fault(path, file)))
        require_ours(path)  # whoever can write to a directory on the way can put another file in its place
        return secret

    def stamp(self, name: str) -> Hashable:
        return stamp(self._paths[name]) if name in self._paths else None


def _fault(path: str, file: os.stat_result) -> str:
    """What is wrong with the file, and what to do; empty when nothing is."""
    if not stat.S_ISREG(file.st_mode):
        return "is not a regular file; put the credential into one"
    if file.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {file.st_uid}; chown {os.geteuid()} {path}"
    if file.st_mode & 0o077:
        return f"others can reach it (mode {stat.S_IMODE(file.st_mode):04o}); chmod 0400 {path}"
    return ""
