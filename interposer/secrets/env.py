"""Credentials from environment variables: for trying things out, and only when told that this is not safe.

A process's environment can be read by every process of the same user (`/proc/PID/environ`), for as long as it lives.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping

from interposer.errors import ConfigurationError, Problem
from interposer.ports import Secret

_log = logging.getLogger("interposer.secrets")


class EnvSecrets:
    """`Secrets` from a table of name -> environment variable."""

    def __init__(self, variables: Mapping[str, str], *, insecure: bool) -> None:
        """Raises `ConfigurationError` unless `insecure` is said."""
        if not insecure:
            problem = (
                "the environment can be read by other processes; use file:PATH, or set insecure_env: true in "
                "interposer.yaml to accept that"
            )
            raise ConfigurationError([Problem(f"env:{name}", 0, 0, problem) for name in variables.values()])
        self._variables = dict(variables)
        _log.warning("INSECURE: credentials are taken from the environment (%s)", ", ".join(sorted(variables.values())))

    async def reveal(self, name: str) -> Secret:
        variable = self._variables.get(name)
        if variable is None:
            problem = Problem(f"credential {name}", 0, 0, "no environment variable is configured for it; name one")
            raise ConfigurationError([problem])
        value = os.environ.get(variable, "")
        if not value:
            raise ConfigurationError([Problem(f"env:{variable}", 0, 0, "is not set or empty; set it")])
        return Secret(value)

    def stamp(self, name: str) -> Hashable:
        """Nothing: our environment does not change under us."""
        return None
