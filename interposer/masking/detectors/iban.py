"""International bank account numbers: the country's length and the check digits of ISO 7064 (mod 97-10)."""

from __future__ import annotations

import re

from .detector import PII, Detector, Finding, word_after, word_before

NAME = "iban"
# ISO 13616 registry: characters of a whole IBAN, and the countries that use that many.
_REGISTRY = """
15 NO
16 BE
18 DK FI FO GL NL SD FK
19 MK SI
20 AT BA EE KZ LT LU XK MN
21 CH HR LI LV
22 BG BH CR DE GB GE IE ME RS VA
23 AE GI IL IQ TL OM SO
24 AD CZ ES MD PK RO SA SE SK TN VG
25 LY PT ST
26 IS TR
27 BI DJ FR GR IT MC MR SM
28 AL AZ BY CY DO GT HU LB NI PL SV
29 BR EG PS QA UA
30 JO KW MU YE
31 MT SC
32 LC
33 RU
"""
_LENGTHS = {code: int(size) for size, *codes in map(str.split, _REGISTRY.strip().splitlines()) for code in codes}
_NUMBERS = {ord(letter): str(number) for number, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ", start=10)}
_SHAPE = re.compile(r"[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}", re.ASCII)


def inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    size = _LENGTHS.get(text[start : start + 2].upper())
    if size is None or word_before(text, start):
        return []
    shape = _SHAPE.match(text, start)
    if shape is None:
        return []
    end = start + size
    account = text[start:end]
    if not account.isalnum():
        account, end = _joined(text, start, shape.end(), size)
    if len(account) < size or word_after(text, end) or not account.isascii() or not valid(account):
        return []
    return [(start, end, NAME)]


def _joined(text: str, start: int, stop: int, size: int) -> tuple[str, int]:
    """The first `size` letters and digits from `start`, without blanks and dashes, and where they end."""
    taken = ""
    at = start
    while at < stop and len(taken) < size:
        if text[at] not in " -":
            taken += text[at]
        at += 1
    return taken, at


def valid(iban: str) -> bool:
    """ISO 13616-1 §6: moved to the end and read as a number, the check gives a remainder of one."""
    return int((iban[4:] + iban[:4]).upper().translate(_NUMBERS)) % 97 == 1


DETECTORS = (
    Detector(
        name=NAME,
        profile=PII,
        anchor=r"\b[A-Za-z]{2}[0-9]{2}[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{3}",
        starts="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        inspect=inspect,
    ),
)
