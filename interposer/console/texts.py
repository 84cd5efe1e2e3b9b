"""Arguments for eyes: the exact JSON, laid out on lines, with everything that is not plain ASCII escaped.

What stands between the tokens is ours, the tokens are the call's, character by character. A character that is not
ASCII is always ours as well (`…` where an outline leaves something out), for the call's own are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from json.encoder import encode_basestring_ascii
from typing import Literal

from interposer.canonical import digest_bytes

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
"""A string that was cut off ends with the text: were it no token, every quote in it would be tried as a beginning."""
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_UNSEEN = {code: f"\\u{code:04x}" for code in (*range(0x20), 0x7F)}
_INDENT = "  "
_STRING = 160
"""Characters of a string that an outline shows."""
_LINES = 60
"""Lines that an outline shows."""
_PREVIEWED = 4_096
"""Bytes that a preview is made of."""
_COMPARED = 400
"""Lines of either side that are compared."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Arguments as a page shows them."""

    text: str
    whole: bool
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a comparison."""

    kind: Literal["same", "gone", "new", "skip"]
    text: str


def whole(raw: bytes) -> Shown:
    """All of it."""
    return Shown("\n".join(lines(raw)), True, len(raw), digest_bytes(raw))


def outline(raw: bytes) -> Shown:
    """Every member that fits on a screen, long strings cut in the middle: what decides is not hidden behind padding."""
    found = list(islice(_lines(raw, _STRING), _LINES + 1))
    shown = [line if len(line) <= 2 * _STRING else f"{line[: 2 * _STRING]} …" for line in found[:_LINES]]
    if len(found) > _LINES:
        shown.append("… more lines")
    return Shown("\n".join(shown), False, len(raw), digest_bytes(raw))


def lines(raw: bytes) -> list[str]:
    """Canonical JSON, one member a line."""
    return list(_lines(raw, None))


def beyond(raw: bytes, most: int) -> bool:
    """Whether it stands on more lines than so many."""
    return len(list(islice(_lines(raw, None), most + 1))) > most


def _tokens(raw: bytes) -> Iterator[re.Match[str]]:
    """Not escaped yet: what is left out of an outline is not worth it."""
    return _TOKEN.finditer(raw.decode("utf-8", "replace"))


def _ascii(text: str) -> str:
    """As `display.printable_json` has it, a megabyte in milliseconds."""
    if not text.isascii():
        text = _FOREIGN.sub(lambda run: encode_basestring_ascii(run[0])[1:-1], text)
    return text if text.isprintable() else text.translate(_UNSEEN)


def _lines(raw: bytes, cut: int | None) -> Iterator[str]:
    """With `cut`, strings beyond so many characters lose their middle."""
    line: list[str] = []
    depth, before = 0, ""
    for match in _tokens(raw):
        piece = match[0]
        opened = before in ("{", "[")
        if piece in ("}", "]"):
            depth -= 1
        if opened if piece not in ("}", "]") else not opened:
            yield "".join(line)
            line = [_INDENT * depth]
        line.append(_ascii(piece) if cut is None else _cut(piece, cut))
        if piece in ("{", "["):
            depth += 1
        elif piece == ",":
            yield "".join(line)
            line = [_INDENT * depth]
        elif piece == ":":
            line.append(" ")
        before = piece
    yield "".join(line)


def _cut(piece: str, most: int) -> str:
    if len(piece) <= most and len(found := _ascii(piece)) <= most:
        return found
    half = most // 2
    return f"{_ascii(piece[:half])[:half]} … {len(piece):,} characters in all … {_ascii(piece[-half:])[-half:]}"


def preview(raw: bytes, most: int = 160) -> str:
    """The beginning of it on one line, long strings cut."""
    text = ""
    for match in _tokens(raw[:_PREVIEWED]):
        # How long a string is that ends beyond what is looked at, is not known here.
        unended = len(raw) > _PREVIEWED and match.end() == len(match.string)
        text += _ascii(match[0][:64]) if unended else _cut(match[0], 64)
        if len(text) > most:
            break
    return text if len(text) <= most and len(raw) <= _PREVIEWED else f"{text[:most]} …"


def difference(before: bytes, after: bytes) -> list[Line]:
    """Line by line; what is the same far from any change is left out."""
    old, new = (list(islice(_lines(raw, _STRING), _COMPARED + 1)) for raw in (before, after))
    if max(len(old), len(new)) > _COMPARED:
        return [Line("skip", "… too long to compare here; open both")]
    found: list[Line] = []
    for same, run in groupby(_aligned(old, new), lambda line: line.kind == "same"):
        some = list(run)
        found += _same([line.text for line in some]) if same else some
    return found


def _aligned(old: Sequence[str], new: Sequence[str]) -> Iterator[Line]:
    """By a longest common subsequence: the time is that of a table, whatever stands in the lines (`difflib` takes the
    cube of it for lines that are all alike)."""
    table = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for row in range(len(old) - 1, -1, -1):
        mine, below, line = table[row], table[row + 1], old[row]
        for column in range(len(new) - 1, -1, -1):
            if line == new[column]:
                mine[column] = below[column + 1] + 1
            else:
                mine[column] = max(below[column], mine[column + 1])
    row = column = 0
    while row < len(old) or column < len(new):
        if row < len(old) and column < len(new) and old[row] == new[column]:
            yield Line("same", old[row])
            row, column = row + 1, column + 1
        elif row < len(old) and (column == len(new) or table[row + 1][column] >= table[row][column + 1]):
            yield Line("gone", old[row])
            row += 1
        else:
            yield Line("new", new[column])
            column += 1


def _same(run: list[str], near: int = 3) -> list[Line]:
    if len(run) <= 2 * near + 1:
        return [Line("same", line) for line in run]
    left_out = Line("skip", f"… {len(run) - 2 * near:,} lines that are the same")
    return [*(Line("same", line) for line in run[:near]), left_out, *(Line("same", line) for line in run[-near:])]
