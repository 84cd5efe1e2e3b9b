"""Runs of digits: one candidate pattern for everything that is written in digits, read once into its groups.

Cards, social security numbers, network addresses and telephone numbers begin alike, and often stand next to each other
separated by a blank only. So a whole run is taken, cut into groups, and each family asks for its shape.
"""

from __future__ import annotations

import re

from interposer.masking.keys import NUMBER

from . import cards, ip, phone, ssn
from .detector import PII, Detector, Finding
from .digits import Run

_COMMON = re.compile(
    r"(?:([0-9]{14,16})|([0-9]{3}-[0-9]{2}-[0-9]{4})|((?:[1-9][0-9]{0,2}|0)(?:\.(?:[1-9][0-9]{0,2}|0)){3}))"
    r"(?![0-9A-Za-z_]|[ .()\-/]{1,3}[0-9])",
    re.ASCII,
)
_PROMISING = re.compile(
    r"[0-9]{9}|[0-9]{4}[ .\-][0-9]{4,6}[ .\-][0-9]{2,5}|[0-9]{3}[ .\-][0-9]{2}[ .\-][0-9]{4}"
    r"|[0-9]{3}[).\- ]{1,2}[0-9]{3}[ .\-][0-9]{4}|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]",
    re.ASCII,
)
"""A glance at a run: tables of small numbers are long, and hold nothing."""
_MORE = re.compile(r"(?:[ .()\-/]{0,3}[0-9]){1,48}", re.ASCII)
"""What follows a candidate tells whether it is a part of something longer."""
_SHORTEST_CARD = 12
_LONGEST_GROUP = 24
_MOST_GROUPS = 8


def _quick(text: str, start: int) -> list[Finding]:
    """The three forms that nearly every finding has, where nothing else stands next to them."""
    match = _COMMON.match(text, start)
    if match is None or (start > 0 and (text[start - 1].isalnum() or text[start - 1] in "_.-")):
        return []
    kind = match.lastindex
    digits = match.group()
    if kind == 1:
        name = cards.NAME if cards.luhn(digits) and cards.issued(digits) else ""
    elif kind == 2:
        name = ssn.kind(digits[:3] + digits[4:6] + digits[7:])
    else:
        first, second, third, fourth = digits.split(".")
        fits = int(first) < 256 and int(second) < 256 and int(third) < 256 and int(fourth) < 256 and first != "0"
        name = ip.NAME if fits and text[start - 1 : start] in ("", " ", '"') and not ip.is_version(text, start) else ""
    return [(start, match.end(), name)] if name else []


def inspect(text: str, start: int, end: int, context: str) -> list[Finding]:
    if context == NUMBER and len(text) < _SHORTEST_CARD:
        return []  # A JSON number under a key that says nothing is a number.
    if text[start] == "+":
        found = phone.international(text, start)
        if found:
            return found
        start += 1
    elif found := _quick(text, start):
        return found
    for _ in range(_LONGEST_GROUP):
        if start == 0 or text[start - 1] not in "0123456789":
            break
        start -= 1
    more = _MORE.match(text, end)
    end = more.end() if more else end
    run = Run(text, start, end)
    if len(run.groups) == 1 and run.end - run.start < _SHORTEST_CARD:
        return ssn.find(run, context) or phone.find(run, context)
    if _PROMISING.search(text, start, end):
        return ip.find(run) + cards.find(run, context) + ssn.find(run, context) + phone.find(run, context)
    return phone.find(run, context) if len(run.groups) <= _MOST_GROUPS else []


DETECTORS = (
    Detector(
        name="number",
        profile=PII,
        anchor=(
            r"\+\(?[0-9](?:[ .()\-]{0,3}[0-9]){5,}"
            r"|\b[0-9](?:[ .()\-]{0,2}[0-9]){8,}"
            r"|\b[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
        ),
        starts="+0123456789",
        inspect=inspect,
        whole=True,
        shape=(
            r"\+\(?[0-9](?:[ .()\-]{0,3}[0-9]){5,}?(?:[ .()\-]{0,3}[0-9]){0,20}"
            r"|[0-9](?:[ .()\-]{0,2}[0-9]){8,255}"
            r"|[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
        ),
    ),
)
