"""What single values of a configuration must be like: annotations that pydantic reads, and messages that say what is
expected and what to do, each with its place. pydantic itself is imported only when a file is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

from .errors import Problem

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Checked:
    """An annotation: pydantic calls `check` with the value, which it returns or refuses with `ValueError`."""

    def __init__(self, check: Callable[[Any], Any]) -> None:
        self._check = check

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        shape = handler(source)
        if shape["type"] == "str":
            return core_schema.no_info_wrap_validator_function(self._text, shape)
        return core_schema.no_info_after_validator_function(self._check, shape)

    def _text(self, value: Any, read: Callable[[Any], str]) -> Any:
        from pydantic_core import ValidationError

        try:
            text = read(value)
        except ValidationError:
            self._check(str(value))  # where quotes would not mend it, what is expected is more than a text
            raise
        return self._check(text)


def duration_s(text: str) -> float:
    """`500ms`, `4s`, `30m`, `12h`, `1d` -> seconds. Raises `ValueError`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("expected a duration such as 500ms, 4s, 30m, 12h or 1d")
    return float(found[1]) * _UNIT_S[found[2]]


def _duration(text: str) -> str:
    duration_s(text)
    return text


def _rate(text: str) -> str:
    from .policy import units

    units.rate(text)
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
            raise ValueError(f"expected a number from {least} to {most}" if least < most else f"expected {least}")
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
Rate = Annotated[str, Checked(_rate)]
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

_MAPPING = ("a mapping", "as {name: value}")
_SHAPES = {
    "string_type": ("a text", "in quotes"),
    "int_type": ("a whole number", "in digits, without quotes"),
    "bool_type": ("true or false", "as one of the two, without quotes"),
    "list_type": ("a list", "as [a, b]"),
    "dict_type": _MAPPING,
    "dataclass_type": _MAPPING,
}
"""pydantic's name for a value of another shape -> what is expected, and how that is written."""
_FOUND = {str: "a text", int: "a number", list: "a list", dict: "a mapping"}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument")


def problems_of(errors: Iterable[Any], root: Any, file: str) -> list[Problem]:
    """What pydantic found in a file, in the file's own words and in its order. Of a value that may have several shapes,
    what is told is about the one that it has, and once where it has none of them."""
    return sorted(_problems(errors, root, file), key=lambda each: (each.line, each.column))


def _problems(errors: Iterable[Any], root: Any, file: str) -> Iterator[Problem]:
    found: dict[tuple[tuple[str | int, ...], bool], list[Any]] = {}
    for error in errors:
        found.setdefault(_way(error, root), []).append(error)
    for (way, several), faults in found.items():
        if several and any(len(other) > len(way) and other[: len(way)] == way for other, _ in found):
            continue
        node, above = root.at(list(way)), root.at(list(way[:-1]))
        line, column = above.keys.get(way[-1], (node.line, node.column)) if way else (node.line, node.column)
        yield Problem(file, line, column, f"{'.'.join(map(str, way)) or 'file'}: {_said(faults, node.value)}")


def _way(error: Any, root: Any) -> tuple[tuple[str | int, ...], bool]:
    """The keys and positions that lead to a value, and whether this is about one of several shapes that it may have:
    then pydantic's own path has its name for that shape as well."""
    way: list[str | int] = []
    node, shape = root, ""
    *_, last = error["loc"] or ("",)
    for step in error["loc"]:
        below = node.at([step])
        if below is node and not (step is last and error["type"] in _MISSING):
            shape = step
        else:
            way.append(step)
            node, shape = below, ""
    return tuple(way), shape not in ("", "[key]")


def _said(faults: list[Any], value: Any) -> str:
    told = [_told(fault) for fault in faults if fault["type"] not in _SHAPES]
    if told:
        return ", or ".join(dict.fromkeys(told))
    expected, written = zip(*(_SHAPES[fault["type"]] for fault in faults), strict=True)
    wanted, how = " or ".join(expected), written[0] if len(written) == 1 else "as one of them"
    if value is None:
        return f"expected {wanted}, and nothing is there; write it {how}, or leave it out"
    found = str(value).lower() if isinstance(value, bool) else _FOUND.get(type(value), "a decimal number")
    return f"expected {wanted}, not {found}; write it {how}"


def _told(fault: Any) -> str:
    if fault["type"] in _UNKNOWN:
        return "unknown key; remove it or correct its name"
    if fault["type"] in _MISSING:
        return "missing; add it"
    if fault["type"] == "literal_error":
        return f"expected {fault['ctx']['expected']}; write one of them"
    return str(fault["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
