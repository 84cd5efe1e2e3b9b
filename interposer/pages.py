"""Pages of a list, with cursors that only their owner can use and only while the list stands.

A cursor is sealed: it names the position, the list's generation and the principal, under a key that lives as long as
the broker. Whatever else is presented as one is refused with -32602, so that the client starts over.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import TypeVar

from .canonical import Malformed, canonical, parse
from .errors import INVALID_PARAMS, BadMessage
from .model import Principal

T = TypeVar("T")
_MAC_BYTES = 16


class Pages:
    """Cuts lists into pages of `size`."""

    def __init__(self, key: bytes, size: int = 250) -> None:
        self._key = key
        self._size = size

    def turn(
        self, items: Sequence[T], cursor: str | None, principal: Principal, generation: int
    ) -> tuple[Sequence[T], str | None]:
        """The page at `cursor` (the first one for None) and the cursor of the next. Raises `BadMessage`."""
        start = 0 if cursor is None else self._open(cursor, principal, generation)
        end = start + self._size
        following = self._seal(end, principal, generation) if end < len(items) else None
        return items[start:end], following

    def _mac(self, position: bytes, principal: Principal) -> bytes:
        whose = canonical(principal.identity())
        return hmac.new(self._key, position + b"\0" + whose, hashlib.sha256).digest()[:_MAC_BYTES]

    def _seal(self, start: int, principal: Principal, generation: int) -> str:
        position = canonical([start, generation])
        return base64.urlsafe_b64encode(self._mac(position, principal) + position).decode()

    def _open(self, cursor: str, principal: Principal, generation: int) -> int:
        try:
            raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
            mac, position = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(position, principal)):
                raise ValueError("not our cursor")
            start, listed = parse(position)
        except (ValueError, binascii.Error, Malformed, UnicodeEncodeError):
            raise BadMessage(INVALID_PARAMS, "Invalid cursor") from None
        if listed != generation:
            raise BadMessage(INVALID_PARAMS, "The list changed: start again without a cursor")
        return int(start)
