"""JSON Web Tokens, signed (RFC 7519, RFC 7515 §7.1) and encrypted (RFC 7516 §7.1), with or without their last part."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from binascii import Error

from .detector import SECRETS, Detector, Finding, word_before

NAME = "jwt"
_TOKEN = re.compile(r"ey[A-Za-z0-9_\-/\\+]{10,}={0,2}(?:\.[A-Za-z0-9_\-/\\+]*={0,2}){1,4}", re.ASCII)
_MEMBER = re.compile(r'"(?:alg|typ|enc|kid|cty|x5t|jku|jwk|zip|crit)"')


def inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    if word_before(text, start):
        return []
    match = _TOKEN.match(text, start)
    if match is None:
        return []
    end = match.end()
    while text[end - 1] in "\\" or (text[end - 1] == "." and text[start:end].count(".") > 2):
        end -= 1
    parts = text[start:end].split(".")
    looks = len(parts[0]) >= 17 and parts[1].startswith("ey") and len(parts[1]) >= 17
    return [(start, end, NAME)] if looks or (len(parts) >= 2 and _is_header(parts[0])) else []


def _is_header(part: str) -> bool:
    part = part.rstrip("=")
    try:
        text = urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode("utf-8", "replace")
    except (Error, ValueError):
        return False
    return text.startswith("{") and _MEMBER.search(text) is not None


DETECTORS = (
    Detector(
        name=NAME,
        profile=SECRETS,
        anchor=r"ey[A-Za-z0-9_\-]{10,}={0,2}\.[A-Za-z0-9_\-]",
        starts="e",
        inspect=inspect,
    ),
)
