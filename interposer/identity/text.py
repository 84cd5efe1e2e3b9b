"""What a name may look like that policy compares, humans approve by and the record shows."""

from __future__ import annotations

from typing import TypeGuard
from unicodedata import category

from interposer.model import Json

# Control, format (bidirectional marks, zero widths), surrogate, private, unassigned, line and paragraph separators.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def is_name(value: Json, limit: int) -> TypeGuard[str]:
    """Whether it is a text of 1 to `limit` characters that can all be seen, with no white space around it."""
    if type(value) is not str or not 0 < len(value) <= limit:
        return False
    return is_visible(value) and value == value.strip()


def is_visible(value: str) -> bool:
    """Whether no character of it is one that moves, hides or ends what stands beside it."""
    # `isprintable` is the quick answer; beyond it only spaces other than U+0020 are left to be let in.
    return value.isprintable() or UNSEEN.isdisjoint(map(category, value))
