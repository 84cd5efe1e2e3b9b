"""The broker's own credentials, found exactly, in every encoding that an upstream is likely to echo them in.

A text of ordinary length is looked for as a whole. A long one (a key file, a large token) is looked for by pieces that
nothing else holds; `masking/credentials.py` finds out how far around a piece it goes on.
"""

from __future__ import annotations

import json
import re
from base64 import b32encode, b64encode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, quote_plus

from .detector import entropy

NAME = "credential"
SHORTEST = 6
"""A credential below this would be found in every other word; `Engine.guard` refuses it."""

WHOLE = 512
"""Texts of up to this length are looked for as a whole."""
PIECE = 32
_PIECES = 6
_TRIES = 48
"""So many places are compared for each piece."""
_DISTINCT_BITS = 3.0
_LONG = 16
_SECRET_MEMBER = re.compile(r"(?i)key|secret|token|passw|pwd|credential|signature")
_PUBLIC_MEMBER = re.compile(r"(?i)(?:uri|url|id|type|expiry|email|user|username|name)$")
_WRAPS = r"(?:\s|\\{1,2}[rn]|%0[ad]|=0[ad]|&#(?:1[03]|x[ad]);){0,8}"
_LINED = r"\s{0,2}"
_HEADED = re.compile(r"-----BEGIN [^\n]*-----\s*\S{1,64}")
_FOOTED = re.compile(r"-----END [^\n]*-----")
_SIGNED = re.compile(r"[\w-]+\.[\w-]+\.([\w-]{64,})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Form:
    """One encoding of a text, as pieces of a pattern in the common ground of RE2 and `re`."""

    tokens: tuple[str, ...]
    joint: str = ""
    folded: bool = True

    def pattern(self, most: int | None = None) -> str:
        """For the whole of it, or for how it begins."""
        joined = self.joint.join(self.tokens[:most])
        return f"(?i:{joined})" if self.folded else joined


def guarded(secret: str) -> list[str]:
    """The credential, and the texts in it that are secrets of their own: in a JSON object (a service account's file, an
    OAuth client's answer) the long texts of members that are named for secrets. Those stand for a long object, most of
    which is no secret."""
    found: list[str] = []
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
                    if len(value) <= WHOLE:
                        # As it is written in the object, which may come back in base64.
                        found.append(json.dumps(value.strip())[1:-1])
    if not found or len(secret) <= WHOLE:
        found.insert(0, secret)
    return list(dict.fromkeys(found))


def pieces(text: str) -> list[tuple[int, str]]:
    """Where in the text is what it is looked for by: itself at 0, or pieces of a long one.

    What other texts begin with, too, is no piece: the armour of a key and its first line (the algorithm's name), the
    claims of a signed token.
    """
    if len(text) <= WHOLE:
        return [(0, text)]
    first, last = 0, len(text)
    signed = _SIGNED.fullmatch(text)
    if signed:
        first = signed.start(1)
    headed = _HEADED.search(text)
    if headed and headed.end() < len(text) - 4 * PIECE:
        first = headed.end()
        footed = _FOOTED.search(text, first)
        last = footed.start() if footed and footed.start() > first + PIECE else last
    room = last - first - PIECE
    stride = max(PIECE, room // _PIECES)
    found: list[tuple[int, str]] = []
    for begin in range(first, first + room + 1, stride):
        tries = range(begin, min(begin + stride, first + room + 1), max(1, stride // _TRIES))
        at = max(tries, key=lambda at: _worth(text[at : at + PIECE]))
        if entropy(text[at : at + PIECE]) >= _DISTINCT_BITS and (not found or at >= found[-1][0] + PIECE):
            found.append((at, text[at : at + PIECE]))
    return found or [(0, text[:WHOLE])]


def _worth(piece: str) -> float:
    """Letters and digits are written alike in many encodings, and a text may be wrapped anew at its blanks."""
    return entropy(piece) - sum(not ch.isalnum() for ch in piece) / 8 - sum(ch.isspace() for ch in piece)


def encodings(secret: str) -> list[Form]:
    """All forms of one text. Of one with line breaks also those with others, or without."""
    exact, folded = written(secret)
    forms = [Form(tuple(map(_literal, text)), _LINED, folded=False) for text in exact]
    forms += [Form(tuple(map(_literal, text))) for text in folded]
    forms.append(Form(tuple(map(_partly, secret))))
    if "\n" in secret:
        words = [[_WRAPS, *map(_literal, word)] for word in secret.split()]
        forms.append(Form(tuple(token for word in words for token in word)[1:]))
    return forms


def written(secret: str) -> tuple[list[str], list[str]]:
    """The encodings whose letters count and that come in lines (RFC 2045 §6.8: of 76 characters, and the text may begin
    anywhere in one); and the others."""
    raw = secret.encode()
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
    return sorted(exact), sorted(folded)


def _partly(mark: str) -> str:
    """A character that may be escaped as in URLs, HTML and quoted-printable (RFC 2045 §6.7) where others are not."""
    if mark.isalnum() or not mark.isascii():
        return _literal(mark)
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
