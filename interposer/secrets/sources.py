"""Where a credential comes from, as configuration writes it: `file:PATH` or `env:NAME`."""

from __future__ import annotations

from collections.abc import Mapping

from interposer.errors import ConfigurationError, Problem
from interposer.ports import Secret, Secrets

from .env import EnvSecrets
from .file import FileSecrets


class SourcedSecrets:
    """`Secrets` from a table of name -> source."""

    def __init__(self, sources: Mapping[str, str], *, insecure_env: bool = False) -> None:
        """Raises `ConfigurationError` with every source that cannot be used."""
        kinds: dict[str, dict[str, str]] = {"file": {}, "env": {}}
        problems = []
        for name, source in sources.items():
            kind, _, rest = source.partition(":")
            if kind in kinds and rest:
                kinds[kind][name] = rest
            else:
                # The source itself is not shown: somebody may have put the credential there.
                problems.append(Problem(f"credential {name}", 0, 0, "not a source; write file:PATH or env:NAME"))
        if problems:
            raise ConfigurationError(problems)
        files: Secrets = FileSecrets(kinds["file"])
        self._by_name = dict.fromkeys(kinds["file"], files)
        if kinds["env"]:
            self._by_name.update(dict.fromkeys(kinds["env"], EnvSecrets(kinds["env"], insecure=insecure_env)))

    async def reveal(self, name: str) -> Secret:
        found = self._by_name.get(name)
        if found is None:
            problem = Problem(f"credential {name}", 0, 0, "no source is configured; write file:PATH or env:NAME")
            raise ConfigurationError([problem])
        return await found.reveal(name)
