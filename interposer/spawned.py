"""`interposer stdio` from its words to its exit code, without the command line's library: agents wait for it."""

from __future__ import annotations

import sys

from .errors import ConfigurationError, InterposerError

_OPTIONS = ("--config", "--policy", "--client")
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


def stdio(config: str | None, policy: str | None, command: list[str]) -> int:
    """Serve one agent on standard input and output; returns the exit code."""
    from . import app
    from .settings import settings

    try:
        chosen = settings(config, policy, command)
        if not chosen.upstreams:
            return _refused(NO_UPSTREAM)
        return app.run(app.serve_stdio, chosen)
    except ConfigurationError as error:
        return _refused(*map(str, error.problems))
    except InterposerError as error:
        _refused(str(error))
        return 5


def _refused(*lines: str) -> int:
    for line in lines:
        sys.stderr.write(f"interposer: {line}\n")
    return 2
