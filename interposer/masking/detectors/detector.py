"""What a detector is: a candidate pattern that finds quickly, and an inspection that decides exactly.

The engine joins every text of a message and searches it once for the candidates of all active detectors. Only where
one turns up does `inspect` look, at the one text it stands in: candidates may be cheap and many, findings are exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from typing import TypeAlias

Finding: TypeAlias = tuple[int, int, str]
"""Start, end and name of something to be replaced, in characters of the inspected text."""

Inspect: TypeAlias = Callable[[str, int, int, str], list[Finding]]
"""`inspect(text, start, end, context)`: the findings for a candidate at text[start:end]. They may reach beyond it on
both sides, and there may be none. `context` is what the key says that the text stands under (see `keys.py`)."""

PII = "pii"
SECRETS = "secrets"
ALWAYS = "always"
MARK = "[REDACTED:"


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
    reach: int = 0
    """The length of the longest possible candidate; only the broker's own credentials need it."""


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
