"""Private keys in their armour (RFC 7468, RFC 4880 §6.2), whole or cut off, with real or written-out line ends."""

from __future__ import annotations

import re

from .detector import SECRETS, Detector, Finding

NAME = "private_key"
_BEGIN = re.compile(r"-----BEGIN[ A-Z0-9_-]{0,40}PRIVATE KEY(?: BLOCK)?-{0,5}|PuTTY-User-Key-File-[0-9]", re.ASCII)
_END = re.compile(r"-----END[ A-Z0-9_-]{0,40}PRIVATE KEY(?: BLOCK)?-{0,5}", re.ASCII)
_BODY = re.compile(
    r"(?:\\+[nrt]|[\s\"',+]|[A-Za-z0-9+/=]{16,}|(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|Encryption|Public-Lines"
    r"|Private-Lines|Private-MAC|Key-Derivation|Argon2-[A-Za-z]+):[^\n\\]*|[A-Za-z0-9+/=]{1,76}(?=\s|\\|[\"'<]|$)"
    r"|&#(?:10|13|x[aAdD]);|\\u000[adAD]|%0[AaDd]|<br ?/?>)*"
)
_LONGEST = 1 << 16


def inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    begin = _BEGIN.match(text, start)
    if begin is None:
        return []
    close = _END.search(text, begin.end(), begin.end() + _LONGEST)
    again = _BEGIN.search(text, begin.end(), begin.end() + _LONGEST)
    if close is not None and (again is None or again.start() > close.start()):
        return [(start, close.end(), NAME)]
    body = _BODY.match(text, begin.end())
    stop = body.end() if body else begin.end()
    while stop > begin.end() and text[stop - 1] in " \t\r\n\"',+":
        stop -= 1
    # A bare heading is a word about keys, not a key.
    return [(start, stop, NAME)] if stop - begin.end() >= 16 else []


DETECTORS = (
    Detector(
        name=NAME,
        profile=SECRETS,
        anchor=r"-----BEGIN[ A-Z0-9_-]{0,40}PRIVATE KEY|PuTTY-User-Key-File-[0-9]",
        starts="-P",
        inspect=inspect,
    ),
)
