"""Pages of a list, with cursors that only their owner can use and only while the list stands.

A cursor is sealed: it names the position, the list's generation and the principal. Whatever else is presented as one is
refused with -32602, so that the client starts over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from .canonical import digest
from .errors import INVALID_PARAMS, BadMessage
from .model import Principal
from .seal import BrokenSeal, Seal

T = TypeVar("T")


class Pages:
    """Cuts lists into pages of `size`."""

    def __init__(self, key: bytes, size: int = 250) -> None:
        self._seal = Seal(key, "cursor")
        self._size = size

    def turn(
        self, items: Sequence[T], cursor: str | None, principal: Principal, generation: int
    ) -> tuple[Sequence[T], str | None]:
        """The page at `cursor` (the first one for None) and the cursor of the next. Raises `BadMessage`."""
        start = 0 if cursor is None else self._open(cursor, principal, generation)
        end = start + self._size
        following = self._seal.close([end, generation, _whose(principal)]) if end < len(items) else None
        return items[start:end], following

    def _open(self, cursor: str, principal: Principal, generation: int) -> int:
        try:
            start, listed, whose = self._seal.open(cursor)
        except BrokenSeal:
            raise BadMessage(INVALID_PARAMS, "Invalid cursor") from None
        if whose != _whose(principal):
            raise BadMessage(INVALID_PARAMS, "Invalid cursor")
        if listed != generation:
            raise BadMessage(INVALID_PARAMS, "The list changed: start again without a cursor")
        return int(start)


def _whose(principal: Principal) -> str:
    return digest(principal.identity())
