"""`interposer stdio` from its words to its exit code, without the command line's library: agents wait for it."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from .errors import ConfigurationError, InterposerError

if TYPE_CHECKING:
    from .boundary.launch import Launched

_OPTIONS = ("--config", "--policy", "--client", "--token-file")
NO_UPSTREAM = "no upstream: name a command after --, or name an interposer.yaml with `upstreams:` by --config"


def words(arguments: list[str]) -> tuple[dict[str, str], list[str]] | None:
    """The options and the upstream's command; None for anything that wants a closer look (help, mistakes)."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, sign, value = word.partition("=")
        if word == "--":
            return (options, rest) if rest else None
        if name not in _OPTIONS or name in options or not (sign or rest):
            return None
        options[name] = value if sign else rest.pop(0)
    return options, []


def stdio(
    config: str | None, policy: str | None, command: list[str], token_file: str | None = None, *, launched: Launched
) -> int:
    """Serve one agent on standard input and output; returns the exit code."""
    from . import app
    from .boundary.footing import require_firm
    from .presented import presented
    from .settings import settings

    try:
        chosen = settings(config, policy, command)
        if not chosen.upstreams:
            return _refused(NO_UPSTREAM)
        require_firm(chosen.stands_on(), chosen.passes())
        serve = partial(app.serve_stdio, presented=presented(os.environ, token_file), peer_pid=launched.starter_pid)
        return app.run(serve, chosen)
    except ConfigurationError as error:
        _refused(*map(str, error.problems))
        return error.exit_code
    except InterposerError as error:
        _refused(str(error))
        return 5


def _refused(*lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"interposer: {line}\n")
    return 2
