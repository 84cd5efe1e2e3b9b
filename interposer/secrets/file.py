"""Credentials from files that only we can read, read anew at every use so that a rotated one counts at once."""

from __future__ import annotations

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
        secret = Secret(read_file(path))
        require_ours(path)  # whoever can write to a directory on the way can put another file in its place
        return secret

    def stamp(self, name: str) -> Hashable:
        return stamp(self._paths[name]) if name in self._paths else None
