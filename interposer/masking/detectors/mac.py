"""Hardware addresses (IEEE 802): six octets with colons or dashes, or three blocks with dots."""

from __future__ import annotations

import re

from .detector import PII, Detector, Finding

NAME = "mac_address"
_SHAPE = re.compile(
    r"[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}",
    re.ASCII,
)


def inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    match = _SHAPE.match(text, start)
    if match is None:
        return []
    end = match.end()
    if start > 0 and (text[start - 1].isalnum() or text[start - 1] in ":-._"):
        return []
    # A longer row of octets is a fingerprint, a shorter one something else.
    if end < len(text) and (text[end].isalnum() or (text[end] in ":-._" and text[end + 1 : end + 2].isalnum())):
        return []
    octets = match.group().replace(":", "").replace("-", "").replace(".", "").lower()
    named = ":" in match.group() or any(ch in "abcdef" for ch in octets)
    # All ones is broadcast, all zeros is none: neither is anybody's.
    return [(start, end, NAME)] if named and len(set(octets)) > 1 else []


DETECTORS = (
    Detector(
        name=NAME,
        profile=PII,
        anchor=r"\b(?:[0-9A-Fa-f]{2}[:\-]){5}[0-9A-Fa-f]{2}|\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}",
        starts="0123456789abcdefABCDEF",
        inspect=inspect,
    ),
)
