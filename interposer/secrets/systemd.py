"""Credentials that systemd hands to its service: files in `$CREDENTIALS_DIRECTORY` (systemd.exec, LoadCredential).

Other services and users cannot read them, and they are in no environment and on no disk.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping

from interposer.errors import ConfigurationError, Problem
from interposer.ports import Secret

from .reading import problem, read_file, stamp

DIRECTORY = "CREDENTIALS_DIRECTORY"
_CLOSED = 0o027
"""systemd makes them 0400, or 0440 with an ACL for the service's user, whose mask stands where the group's bits do."""


class SystemdSecrets:
    """`Secrets` from a table of name -> the credential's name in the unit."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """Raises `ConfigurationError` for a name that would leave the directory."""
        wrong = "is not the name of a systemd credential; write it as in LoadCredential=NAME"
        problems = [
            Problem(f"credential {name}", 0, 0, wrong)
            for name, unit in names.items()
            if "/" in unit or "\0" in unit or unit.startswith(".")
        ]
        if problems:
            raise ConfigurationError(problems)
        self._names = dict(names)

    async def reveal(self, name: str) -> Secret:
        """Raises `ConfigurationError` outside of a service, and for a file that others can read or change."""
        unit = self._names.get(name)
        if unit is None:
            raise problem(f"credential {name}", "no systemd credential is configured for it; name one")
        folder = os.environ.get(DIRECTORY, "")
        if not folder.startswith("/"):
            told = f"${DIRECTORY} is not set: start the broker as a systemd service that has"
            raise problem(f"systemd:{unit}", f"{told} LoadCredential={unit}")
        remedy = f"let systemd provide it (LoadCredential={unit})"
        return Secret(read_file(os.path.join(folder, unit), closed=_CLOSED, remedy=remedy))

    def stamp(self, name: str) -> Hashable:
        folder = os.environ.get(DIRECTORY, "")
        return stamp(os.path.join(folder, self._names[name])) if name in self._names else None
