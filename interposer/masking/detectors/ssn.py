"""US social security numbers and taxpayer numbers, by the ranges that the SSA and the IRS issue."""

from __future__ import annotations

from .detector import Finding, Words
from .digits import Run

_WORDS = Words(r"(?i)\b(?:ssn|ssns|social[ -]?security|soc[ .]?sec|itin|taxpayer|tax[ -]?id)\b")
_NEAR = 40


def find(run: Run, context: str) -> list[Finding]:
    """Numbers written 3-2-4 with one kind of separator, or in one piece where the text says what they are."""
    found: list[Finding] = []
    count = len(run.groups)
    for at in range(count):
        if run.taken[at]:
            continue
        name = ""
        size = 1
        digits = run.digits(at)
        if len(digits) == 3 and at + 2 < count:
            size = 3
            name = _dashed(run, at)
        elif len(digits) == 9 and (context == "ssn" or _WORDS.within(run.before(at, _NEAR))):
            name = kind(digits) if run.stands_alone(at, at) else ""
        if name:
            found.append((run.groups[at][0], run.groups[at + size - 1][1], name))
            for i in range(at, at + size):
                run.taken[i] = True
    return found


def _dashed(run: Run, at: int) -> str:
    gap = run.gap(at)
    middle, last = run.digits(at + 1), run.digits(at + 2)
    if len(middle) != 2 or len(last) != 4 or gap not in ("-", " ", ".") or run.gap(at + 1) != gap:
        return ""
    if not run.stands_alone(at, at + 2):
        return ""
    if gap == "-":
        joined = (at > 0 and run.gap(at - 1) == "-") or (at + 3 < len(run.groups) and run.gap(at + 2) == "-")
    else:
        # Blanks and dots separate anything: only a number that stands by itself is read as one.
        joined = at > 0 or at + 3 < len(run.groups)
    return "" if joined else kind(run.digits(at) + middle + last)


def kind(digits: str) -> str:
    """`us_ssn`, `us_itin`, or empty when neither is issued like this (20 CFR 422.103; IRM 3.21.263)."""
    area, group, serial = int(digits[:3]), int(digits[3:5]), int(digits[5:])
    if area == 0 or area == 666 or group == 0 or serial == 0:
        return ""
    if area < 900:
        # The number that was printed on a sample card, and the sequence everybody types.
        return "" if digits in ("078051120", "123456789") else "us_ssn"
    return "us_itin" if 50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or 94 <= group <= 99 else ""
