"""Texts inside of texts: JSON written into a string, base64, percent-encoding, escapes and character references.

Each reader gives back what can be read and how to put a changed reading back in its place. What cannot be read is not
touched: the raw text has been searched already.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from binascii import Error
from bisect import bisect_right
from dataclasses import dataclass

from interposer.canonical import Malformed, encode, parse
from interposer.model import Json

from .detectors.detector import Words

_HEX = frozenset("0123456789abcdefABCDEF")
_ESCAPED = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+"
    r"|\\(?:u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2}))"
    r"|&#(?:[xX]([0-9A-Fa-f]{1,6})|([0-9]{1,7}));"
    r"|&(commat|period|colon|lowbar|hyphen|amp|quot|num|plus|sol|equals);"
)
_TRACES = Words(
    r"%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f{]|\\x[0-9A-Fa-f]{2}|&#[0-9xX]"
    r"|&(?:commat|period|colon|lowbar|hyphen|amp|quot|num|plus|sol|equals);"
)
_NAMED = {
    "commat": "@", "period": ".", "colon": ":", "lowbar": "_", "hyphen": "-", "amp": "&", "quot": '"', "num": "#",
    "plus": "+", "sol": "/", "equals": "=",
}  # fmt: skip
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-]+={0,2}$", re.ASCII)
_PROBE = 64


@dataclass(frozen=True, slots=True)
class Reading:
    """A text with its escapes resolved, and where each piece of it came from."""

    text: str
    marks: list[int]
    """Positions in `text` where the distance to the original changes."""
    sources: list[int]
    """The original positions that belong to `marks`."""
    resolved: list[bool]
    """Whether the piece that begins at a mark was an escape: it is replaced whole or not at all."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where text[start:end] stands in the original."""
        first = bisect_right(self.marks, start) - 1
        last = bisect_right(self.marks, end - 1) - 1
        begin = self.sources[first] + (0 if self.resolved[first] else start - self.marks[first])
        if self.resolved[last]:
            return begin, self.sources[last + 1]
        return begin, self.sources[last] + end - self.marks[last]


def may_be_escaped(text: str) -> bool:
    """A cheap question first: most texts hold no trace of an escape."""
    return ("%" in text or "\\" in text or "&" in text) and _TRACES.within(text)


def unescape(text: str) -> Reading | None:
    """Percent-encoding (RFC 3986 §2.1), `\\u` and `\\x` escapes, character references; None when there are none."""
    pieces: list[str] = []
    marks: list[int] = []
    sources: list[int] = []
    resolved: list[bool] = []
    size = 0
    at = 0

    def add(piece: str, source: int, escape: bool) -> None:
        nonlocal size
        pieces.append(piece)
        marks.append(size)
        sources.append(source)
        resolved.append(escape)
        size += len(piece)

    for match in _ESCAPED.finditer(text):
        if match.start() > at:
            add(text[at : match.start()], at, False)
        at = match.end()
        group = match.group()
        if group[0] == "%":
            source = match.start()
            for character, width in _percent(group):
                add(character, source, True)
                source += width
        else:
            add(_character(match), match.start(), True)
    if not any(resolved):
        return None
    if at < len(text):
        add(text[at:], at, False)
    marks.append(size)
    sources.append(len(text))
    resolved.append(False)
    return Reading("".join(pieces), marks, sources, resolved)


def _character(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3] or match[4]
    number = int(code, 16) if code else int(match[5]) if match[5] else ord(_NAMED[match[6]])
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"


def _percent(group: str) -> list[tuple[str, int]]:
    """The characters of a row of `%XX`, each with how much of the row it takes."""
    raw = bytes.fromhex(group.replace("%", ""))
    return [(ch, 3 * len(ch.encode("utf-8", "surrogateescape"))) for ch in raw.decode("utf-8", "surrogateescape")]


def read_json(text: str) -> tuple[Json] | None:
    """The value of a text that is JSON as a whole and no bare number or word, in a tuple of one; else None."""
    stripped = text.strip(" \t\r\n")
    if len(stripped) < 2 or stripped[0] + stripped[-1] not in ("{}", "[]", '""'):
        return None
    try:
        return (parse(stripped.encode("utf-8")),)
    except (Malformed, UnicodeEncodeError):
        return None


def write_json(value: Json) -> str:
    return encode(value).decode("utf-8")


def looks_like_json(text: str) -> bool:
    return text[:1] in ("{", "[", '"') or (text[:1].isspace() and text.lstrip(" \t\r\n")[:1] in ("{", "[", '"'))


def read_base64(code: str) -> str | None:
    """The text in a piece of base64 (RFC 4648 §4, §5), when it is one."""
    if not _BASE64.match(code):
        return None
    plain = code.rstrip("=").replace("-", "+").replace("_", "/")
    if len(plain) % 4 == 1:
        plain = plain[:-1]
    if _decode(plain[:_PROBE], cut=True) is None:
        return None
    return _decode(plain, cut=False)


def _decode(plain: str, *, cut: bool) -> str | None:
    try:
        raw = b64decode(plain + "=" * (-len(plain) % 4))
        text = raw.decode("utf-8", "ignore" if cut else "strict")
    except (Error, ValueError):
        return None
    if cut and len(text.encode()) < len(raw) - 3:
        return None
    # Text has few control characters, bytes have many.
    return text if all(ch >= " " or ch in "\t\n\r\x0b\x0c\x1b\0" for ch in text[:256]) else None


def write_base64(text: str, like: str) -> str:
    """Base64 in the alphabet and padding that `like` has."""
    raw = text.encode("utf-8")
    code = (urlsafe_b64encode if "-" in like or "_" in like else b64encode)(raw).decode()
    return code if like.endswith("=") or len(like) % 4 == 0 else code.rstrip("=")
