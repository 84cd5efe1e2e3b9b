"""The broker's own credentials, found exactly, in every encoding that an upstream is likely to echo them in."""

from __future__ import annotations

import json
import re
from base64 import b32encode, b64encode, urlsafe_b64encode
from contextlib import suppress
from html import escape
from urllib.parse import quote, quote_plus

from .detector import ALWAYS, Detector, Finding

NAME = "credential"
SHORTEST = 6
"""A credential below this would be found in every other word; `Engine.guard` refuses it."""

KEPT = 6
"""Of the credentials that followed each other in one place, so many are looked for: calls that began with an old one
may still be answered (`upstreams/rotation.py` lets so many go on)."""
_LONG = 16
_SECRET_MEMBER = re.compile(r"(?i)key|secret|token|passw|pwd|credential|signature")
_PUBLIC_MEMBER = re.compile(r"(?i)(?:uri|url|id|type|expiry|email|user|username|name)$")
_WRAPS = r"(?:\s|\\{1,2}[rn]|%0[ad]|=0[ad]|&#(?:1[03]|x[ad]);){0,8}"


def guarded(secret: str) -> list[str]:
    """The credential, and the texts in it that are secrets of their own: in a JSON object (a service account's file, an
    OAuth client's answer) the long texts of members that are named for secrets."""
    found = [secret]
    open_: list[object] = []
    if secret.startswith("{"):
        with suppress(ValueError, RecursionError):
            open_.append(json.loads(secret))
    while open_:
        each = open_.pop()
        if isinstance(each, list):
            open_ += each
        elif isinstance(each, dict):
            for name, value in each.items():
                if not isinstance(value, str):
                    open_.append(value)
                elif len(value) >= _LONG and _SECRET_MEMBER.search(name) and not _PUBLIC_MEMBER.search(name):
                    found.append(value.strip())
    return list(dict.fromkeys(found))


def encodings(secret: str) -> list[str]:
    """Patterns for one credential, in the common ground of RE2 and `re`."""
    raw = secret.encode("utf-8", "surrogatepass")
    exact = {core for shift in range(3) for core in _base64(raw, shift)}
    exact |= {_base32(raw, shift) for shift in range(5)}
    folded = {
        secret,
        secret[::-1],
        quote(secret, safe=""),
        quote_plus(secret),
        escape(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(json.dumps(secret))[3:-3],
        raw.hex(),
        raw.hex(" "),
        raw.hex(":"),
        "".join(f"%{byte:02x}" for byte in raw),
        "".join(f"\\x{byte:02x}" for byte in raw),
        "".join(f"={byte:02x}" for byte in raw),
        "".join(f"\\u{ord(ch):04x}" for ch in secret),
        "".join(f"&#{ord(ch)};" for ch in secret),
        "".join(f"&#x{ord(ch):x};" for ch in secret),
    }
    # RFC 2045 §6.8: encoded lines of 76 characters, and the text may begin anywhere in one.
    patterns = [r"\s{0,2}".join(map(_literal, text)) for text in sorted(exact)]
    patterns += [f"(?i:{_literal(text)})" for text in sorted(folded)] + [f"(?i:{_partly(secret)})"]
    if "\n" in secret:
        patterns.append(f"(?i:{_WRAPS.join(map(_literal, secret.split()))})")
    return patterns


def _partly(secret: str) -> str:
    """With any of its marks escaped as in URLs, HTML and quoted-printable (RFC 2045 §6.7), and the rest as it is."""
    return "".join(_literal(ch) if ch.isalnum() or not ch.isascii() else _written(ch) for ch in secret)


def _written(mark: str) -> str:
    code = f"{ord(mark):02x}"
    escapes = f"[%=]{code}|%25{code}|&#{ord(mark)};|&#x{code};|\\\\u00{code}"
    return f"(?:{escapes}|\\\\?{_literal(mark)})"


def _base64(raw: bytes, shift: int) -> tuple[str, ...]:
    """What is the same in the base64 of every text that holds the credential at this offset (modulo three)."""
    first, last = (shift * 8 + 5) // 6, (shift + len(raw)) * 8 // 6
    padded = bytes(shift) + raw
    return tuple(code(padded).decode()[first:last] for code in (b64encode, urlsafe_b64encode))


def _base32(raw: bytes, shift: int) -> str:
    first, last = (shift * 8 + 4) // 5, (shift + len(raw)) * 8 // 5
    return b32encode(bytes(shift) + raw).decode()[first:last]


def _literal(text: str) -> str:
    # Everything outside of ASCII is searched for as `?`, as the scanner replaces it.
    return "".join(re.escape(ch) if ch.isascii() else r"\?" for ch in text)


def detector(secrets: list[str]) -> Detector:
    """One detector for all guarded credentials."""
    texts = dict.fromkeys(text for secret in secrets for text in guarded(secret))
    patterns = [pattern for text in texts for pattern in encodings(text)]
    anchor = "|".join(dict.fromkeys(patterns))
    reach = max(map(len, patterns), default=0)
    return Detector(name=NAME, profile=ALWAYS, anchor=anchor, starts="", inspect=_inspect, reach=reach)


def _inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    return [(start, end, NAME)]
