"""E-mail addresses: a dotted or bracketed domain after an `@`, and what RFC 5321 §4.1.2 allows before it."""

from __future__ import annotations

import re

from .detector import PII, Detector, Finding

NAME = "email"
_LOCAL = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+/=?^_`{|}~.-"
_DOMAIN = re.compile(r"@(?:[\w](?:[\w-]*[\w])?(?:\.[\w](?:[\w-]*[\w])?)+|\[[0-9A-Za-z:.]{2,64}\])")
_VERSION = re.compile(r"@[0-9]+\.[0-9]+(?!\.[0-9]+\.[0-9]+(?![\w.-]))(?:[.\-+][\w.+-]*)?(?![\w-])", re.ASCII)
_USERINFO = re.compile(r"://[^\s/@]*$")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.){0,64}"$')
_LONGEST = 256


def inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    domain = _DOMAIN.match(text, start, start + 1024)
    if domain is None or _VERSION.match(text, start):
        return []
    left = text[max(0, start - _LONGEST) : start]
    rest = left.rstrip(_LOCAL)
    while rest and rest[-1].isalnum():  # RFC 6531: any letter may stand in an address.
        rest = rest[:-1].rstrip(_LOCAL)
    local = left[len(rest) :]
    if rest.endswith(":") and _USERINFO.search(left):
        return []  # RFC 3986 §3.2.1: what stands here is the password of a URL.
    if not local:
        quoted = _QUOTED.search(left)
        if quoted is None:
            return []
        return [(start - (len(left) - quoted.start()), domain.end(), NAME)]
    begin = start - len(local)
    # Marks that usually surround an address, and words that are joined to it, are no part of it.
    while begin < start and text[begin] in "'`{|=/*.?&" and _opens(text, begin, start):
        begin += 1
    if begin == start:
        return []
    return [(begin, domain.end(), NAME)]


def _opens(text: str, begin: int, at: int) -> bool:
    """Whether the mark at `begin` merely opens: a plain word is all that follows it up to the `@`."""
    return all(ch.isalnum() or ch in "._%+-" for ch in text[begin + 1 : at]) and begin + 1 < at


DETECTORS = (
    Detector(
        name=NAME,
        profile=PII,
        anchor=r"@[A-Za-z0-9?-]+\.[A-Za-z0-9?]|@\[[0-9A-Za-z:.]{2}",
        starts="@",
        inspect=inspect,
    ),
)
