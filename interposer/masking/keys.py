"""What the key says of the value under it: `"ssn": 78051123` is a social security number, `"id": 78051123` is not."""

from __future__ import annotations

import re

SECRET = "secret"  # noqa: S105 - the name of a context, not a password
BLOB = "blob"
TEXT = "text"
NUMBER = "number"
"""A JSON number under a key that says nothing."""

_BLOBS = frozenset({"blob", "data"})
_MEANINGS = (
    (
        "ssn",
        re.compile(r"(?i)(?:^|[_\-. ])(?:ssn|itin|tax[_\- ]?id|taxpayer[_\- ]?id)(?:$|[_\-. ])|social[_\- ]?security"),
    ),
    (
        "card",
        re.compile(r"(?i)(?:^|[_\-. ])(?:pan|cc|ccnum)(?:$|[_\-. ])|card[_\- ]?(?:num|no|pan|$)|credit[_\- ]?card"),
    ),
    ("phone", re.compile(r"(?i)(?:^|[_\-. ])(?:tel|mobile|cell|fax|msisdn)(?:$|[_\-. ])|phone|mobile[_\- ]?n")),
    (
        SECRET,
        re.compile(
            r"(?i)passw(?:or)?d|passphrase|(?:^|[_\-. ])(?:pwd|pass)$|secret|api[_\-. ]?key|access[_\-. ]?key|token$"
            r"|private[_\-. ]?key|credentials?$|^(?:x-)?auth(?:orization|[_-]?key)?$|^set-cookie$|^cookie$"
        ),
    ),
)
_HARMLESS = re.compile(r"(?i)progress|page|next|continu|cancel|cursor|public|_(?:count|limit|type|url|name|hint|id)$")


def meaning(key: str) -> str:
    """The context that a key gives to its value; empty when it gives none."""
    if len(key) > 64:
        return ""
    if key in _BLOBS:
        return BLOB
    if key == "text":
        return TEXT
    for name, pattern in _MEANINGS:
        if pattern.search(key):
            return "" if name == SECRET and _HARMLESS.search(key) else name
    return ""
