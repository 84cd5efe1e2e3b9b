"""What single values of a configuration must be like: annotations that pydantic reads, and messages that say what is
expected. pydantic itself is imported only when a file is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Checked:
    """An annotation: pydantic calls `check` with the value, which it returns or refuses with `ValueError`."""

    def __init__(self, check: Callable[[Any], Any]) -> None:
        self._check = check

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._check, handler(source))


def duration_s(text: str) -> float:
    """`500ms`, `4s`, `30m`, `12h`, `1d` -> seconds. Raises `ValueError`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("expected a duration such as 500ms, 4s, 30m, 12h or 1d")
    return float(found[1]) * _UNIT_S[found[2]]


def _duration(text: str) -> str:
    duration_s(text)
    return text


def matching(pattern: str, expected: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"expected {expected}")
        return text

    return check


def between(least: int, most: int) -> Callable[[int], int]:
    def check(number: int) -> int:
        if not least <= number <= most:
            raise ValueError(f"expected a number from {least} to {most}")
        return number

    return check


def not_empty(words: list[Any]) -> list[Any]:
    if not words:
        raise ValueError("expected at least one entry")
    return words


def duration_between(least: str, most: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not duration_s(least) <= duration_s(text) <= duration_s(most):
            raise ValueError(f"expected a duration from {least} to {most}")
        return text

    return check


def address(*, query: bool) -> Callable[[str], str]:
    def check(url: str) -> str:
        from .callers.addresses import fault

        wrong = fault(url, query=query)
        if wrong:
            raise ValueError(wrong)
        return url

    return check


def _names(words: str | list[str]) -> str | list[str]:
    if not all([words] if isinstance(words, str) else words):
        raise ValueError("expected a name, not an empty text")
    return words


def _claim(path: str | list[str]) -> str | list[str]:
    if not all(path.split(".") if isinstance(path, str) else path):
        raise ValueError("expected the keys of a claim with dots between, or as a list; none of them empty")
    return path


Duration = Annotated[str, Checked(_duration)]
SOURCES = ("file:PATH (mode 0400)", "systemd:NAME", "command:PROGRAM ARGUMENTS", "keyring:SERVICE/USER", "fd:NUMBER")
Source = Annotated[
    str,
    Checked(
        matching(
            r"(?s)(file|systemd|command|keyring|fd|env):.+", f"one of {', '.join(SOURCES)}, or env:NAME (insecure)"
        )
    ),
]
Claim = Annotated[str | Annotated[list[str], Checked(not_empty)], Checked(_claim)]
"""`realm_access.roles`, or the keys as a list where a key has dots of its own."""
Words = Annotated[str | Annotated[list[str], Checked(not_empty)], Checked(_names)]
Variable = Annotated[str, Checked(matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable"))]
Inherited = Annotated[
    str,
    Checked(
        matching(
            r"(?!INTERPOSER_TOKEN(_FILE)?\Z)[A-Za-z_][A-Za-z0-9_]*",
            "the name of an environment variable, and not of the caller's own token, which never goes upstream",
        )
    ),
]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
UpstreamName = Annotated[
    str,
    Checked(
        matching(
            r"(?!.*__)[A-Za-z][A-Za-z0-9_-]{0,31}(?<!_)", "a letter, then at most 31 letters, digits, single _ or -"
        )
    ),
]
