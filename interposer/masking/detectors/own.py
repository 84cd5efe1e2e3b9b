"""The broker's own credentials, found exactly, in every encoding that an upstream is likely to echo them in."""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from html import escape
from urllib.parse import quote, quote_plus

from .detector import ALWAYS, Detector, Finding

NAME = "credential"
SHORTEST = 6
"""A credential below this would be found in every other word; `Engine.guard` refuses it."""


def encodings(secret: str) -> list[str]:
    """Patterns for one credential, in the common ground of RE2 and `re`."""
    raw = secret.encode("utf-8", "surrogatepass")
    exact = {core for shift in range(3) for core in _base64(raw, shift)}
    folded = {
        secret,
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
    patterns = [_literal(text) for text in sorted(exact)]
    return patterns + [f"(?i:{_literal(text)})" for text in sorted(folded)] + [f"(?i:{_partly(secret)})"]


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


def _literal(text: str) -> str:
    # Everything outside of ASCII is searched for as `?`, as the scanner replaces it.
    return "".join(re.escape(ch) if ch.isascii() else r"\?" for ch in text)


def detector(secrets: list[str]) -> Detector:
    """One detector for all guarded credentials."""
    patterns = [pattern for secret in secrets for pattern in encodings(secret)]
    anchor = "|".join(dict.fromkeys(patterns))
    reach = max(map(len, patterns), default=0)
    return Detector(name=NAME, profile=ALWAYS, anchor=anchor, starts="", inspect=_inspect, reach=reach)


def _inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    return [(start, end, NAME)]
