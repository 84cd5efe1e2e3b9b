"""Sealed words: what is handed to a client to be brought back, and is believed only if it comes back as it was.

A seal is an HMAC-SHA-256 over the purpose and the canonical JSON. What is sealed can be read by whoever holds it, so no
secret goes in; it cannot be changed, and not be used for another purpose.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from .canonical import Malformed, canonical, parse
from .model import Json

KEY_BYTES = 32
_MAC_BYTES = 32


class BrokenSeal(ValueError):
    """It is not what was sealed with this key for this purpose."""


class Seal:
    """Seals for one purpose under one key."""

    def __init__(self, key: bytes, purpose: str) -> None:
        self._key = hmac.new(key, purpose.encode(), hashlib.sha256).digest()

    def close(self, value: Json) -> str:
        """Text of URL-safe base64."""
        body = canonical(value)
        return base64.urlsafe_b64encode(self._mac(body) + body).rstrip(b"=").decode()

    def open(self, text: str) -> Json:
        """What was sealed. Raises `BrokenSeal`."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
            mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            # The encoding is checked too: two texts for one value would be two states.
            whole = base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text
            if whole and hmac.compare_digest(mac, self._mac(body)):
                return parse(body)
        except (binascii.Error, UnicodeEncodeError, Malformed):
            pass
        raise BrokenSeal("not sealed here")

    def _mac(self, body: bytes) -> bytes:
        return hmac.new(self._key, body, hashlib.sha256).digest()
