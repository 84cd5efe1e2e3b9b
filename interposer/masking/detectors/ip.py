"""Network addresses: IPv4 in dotted form, IPv6 in every form of RFC 4291 §2.2."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

from .detector import PII, Detector, Finding, Words
from .digits import Run

NAME = "ip_address"
_VERSION = Words(r"(?i)(?:\bv|\bver|version|release|assembly|build)[\"']?[ =:#.]{0,3}$")
_WIDE = re.compile(r"[0-9A-Fa-f:.]+", re.ASCII)
_OCTETS = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){7}$", re.ASCII)
_INSIDE = frozenset("0123456789abcdefABCDEF:.")


def find(run: Run) -> list[Finding]:
    """Four groups up to 255 with dots between them; not a version, and not part of a longer dotted number."""
    found: list[Finding] = []
    count = len(run.groups)
    at = 0
    while at + 3 < count:
        if _dotted(run, at):
            start = run.groups[at][0]
            found.append((start, run.groups[at + 3][1], NAME))
            run.taken[at : at + 4] = [True] * 4
            at += 4
        else:
            at += 1
    return found


def _dotted(run: Run, at: int) -> bool:
    for i in range(at, at + 4):
        digits = run.digits(i)
        if len(digits) > 3 or (digits[0] == "0" and len(digits) > 1) or int(digits) > 255:
            return False
        if i < at + 3 and run.gap(i) != ".":
            return False
    if (at > 0 and run.gap(at - 1) == ".") or (at + 4 < len(run.groups) and run.gap(at + 3) == "."):
        return False
    if not run.stands_alone(at, at + 3) or run.digits(at) == "0":
        return False
    return not is_version(run.text, run.groups[at][0])


def is_version(text: str, start: int) -> bool:
    """Whether the word before says that the dotted number is a version."""
    return _VERSION.within(text[max(0, start - 20) : start])


def inspect_v6(text: str, start: int, end: int, context: str) -> list[Finding]:
    while start > 0 and text[start - 1] in _INSIDE:
        start -= 1
    wide = _WIDE.match(text, start)
    if wide is None or wide.end() - start > 64:
        return []
    end = wide.end()
    while end > start and text[end - 1] == ".":
        end -= 1
    if end - start > 2 and text[end - 1] == ":" and text[end - 2] != ":":
        end -= 1
    if start > 0 and (text[start - 1].isalnum() or text[start - 1] in "_:"):
        return []
    if end < len(text) and (text[end].isalnum() or text[end] == "_"):
        return []
    return [(start, end, NAME)] if _is_v6(text[start:end]) else []


def _is_v6(text: str) -> bool:
    # `dead::beef` is also how several languages write a path of names.
    # Eight octets are a fingerprint: no address is written with two digits in every group.
    if not any(ch.isdigit() for ch in text) or _OCTETS.match(text):
        return False
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


DETECTORS = (
    Detector(
        name=NAME,
        profile=PII,
        anchor=r"::[0-9A-Fa-f]|\b(?:[0-9A-Fa-f]{1,4}:){5}[0-9A-Fa-f:]|[0-9A-Fa-f]::",
        starts="0123456789abcdefABCDEF:",
        inspect=inspect_v6,
    ),
)
