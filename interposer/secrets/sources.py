"""Where a credential comes from, as configuration writes it: `KIND:REST`, each kind in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TypeAlias

from interposer.errors import ConfigurationError, Problem
from interposer.ports import Secret, Secrets

from .command import CommandSecrets
from .descriptor import DescriptorSecrets
from .env import EnvSecrets
from .file import FileSecrets
from .keyring import KeyringSecrets
from .reading import problem
from .systemd import SystemdSecrets

Kind: TypeAlias = Callable[[Mapping[str, str]], Secrets]
KINDS: dict[str, Kind] = {
    "file": FileSecrets,
    "systemd": SystemdSecrets,
    "command": CommandSecrets,
    "keyring": KeyringSecrets,
    "fd": DescriptorSecrets,
}
WRITE = "write file:PATH, systemd:NAME, command:PROGRAM ARGUMENTS, keyring:SERVICE/USER, fd:NUMBER or env:NAME"


class SourcedSecrets:
    """`Secrets` from a table of name -> source. Make it before any child is started: it empties the descriptors."""

    def __init__(self, sources: Mapping[str, str], *, insecure_env: bool = False) -> None:
        """Raises `ConfigurationError` with every source that cannot be used."""
        kinds: dict[str, Kind] = {**KINDS, "env": partial(EnvSecrets, insecure=insecure_env)}
        named: dict[str, dict[str, str]] = {}
        problems: list[Problem] = []
        for name, source in sources.items():
            kind, _, rest = source.partition(":")
            if kind in kinds and rest:
                named.setdefault(kind, {})[name] = rest
            else:
                # The source itself is not shown: somebody may have put the credential there.
                problems.append(Problem(f"credential {name}", 0, 0, f"not a source; {WRITE}"))
        self._by_name: dict[str, Secrets] = {}
        for kind, table in named.items():
            try:
                self._by_name.update(dict.fromkeys(table, kinds[kind](table)))
            except ConfigurationError as error:
                problems += error.problems
        if problems:
            raise ConfigurationError(problems)

    async def reveal(self, name: str) -> Secret:
        found = self._by_name.get(name)
        if found is None:
            raise problem(f"credential {name}", f"no source is configured; {WRITE}")
        return await found.reveal(name)

    def stamp(self, name: str) -> Hashable:
        found = self._by_name.get(name)
        return None if found is None else found.stamp(name)
