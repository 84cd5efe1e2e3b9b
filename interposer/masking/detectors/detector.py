"""What a detector is: a candidate pattern that finds quickly, and an inspection that decides exactly.

The engine joins every text of a message and searches it once for the candidates of all active detectors. Only where
one turns up does `inspect` look, at the one text it stands in: candidates may be cheap and many, findings are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from typing import TypeAlias

from re2 import _re2

Finding: TypeAlias = tuple[int, int, str]
"""Start, end and name of something to be replaced, in characters of the inspected text."""

Inspect: TypeAlias = Callable[[str, int, int, str], list[Finding]]
"""`inspect(text, start, end, context)`: the findings for a candidate at text[start:end]. They may reach beyond it on
both sides, and there may be none. `context` is what the key says that the text stands under (see `keys.py`)."""

PII = "pii"
SECRETS = "secrets"
ALWAYS = "always"
MARK = "[REDACTED:"
_UNANCHORED = _re2.RE2.Anchor.UNANCHORED


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of thing to find."""

    name: str
    profile: str
    """`pii`, `secrets`, or `always` for the broker's own credentials."""
    anchor: str
    """The candidate pattern, in the common ground of RE2 and `re`: no captures, no look-around, and nothing in it
    matches NUL, which separates the texts."""
    starts: str
    """Every character that a candidate can begin with."""
    inspect: Inspect
    whole: bool = False
    """Whether a candidate is used up once it has been inspected: nothing else begins inside of it."""
    shape: str = ""
    """The whole of a candidate, for `re`, where the anchor is only its beginning; the anchor itself by default.

    The search is fast as long as few candidates can be under way at once: an anchor has no long counted repeats, and
    begins at the edge of a word where it can."""


class Words:
    """A pattern over the text around a candidate. RE2 asks for many words as fast as for one, where `re` does not."""

    __slots__ = ("_pattern", "_search")

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._search: Callable[[object, bytes, int, int], list[tuple[int, int]]] | None = None

    def within(self, text: str) -> bool:
        if self._search is None:
            options = _re2.RE2.Options()
            options.encoding = _re2.RE2.Options.Encoding.LATIN1
            options.never_capture = True
            self._search = _re2.RE2(self._pattern.encode(), options).Match
        return self._search(_UNANCHORED, text.encode("ascii", "replace"), 0, len(text))[0][0] >= 0


def placeholder(name: str) -> str:
    return f"{MARK}{name}]"


def word_before(text: str, start: int) -> bool:
    """Whether a letter or digit touches the candidate from the left."""
    return start > 0 and text[start - 1].isalnum()


def word_after(text: str, end: int) -> bool:
    """Whether a letter or digit touches the candidate from the right."""
    return end < len(text) and text[end].isalnum()


def entropy(text: str) -> float:
    """Shannon entropy in bits per character."""
    size = len(text)
    return -sum((n := text.count(ch)) / size * log2(n / size) for ch in set(text)) if size else 0.0
