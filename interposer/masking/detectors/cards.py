"""Payment cards: an issuer's prefix at the right length (ISO/IEC 7812-1), and the check digit of Annex B (Luhn)."""

from __future__ import annotations

from .detector import Finding, Words
from .digits import Run

NAME = "credit_card"
_DOUBLED = bytes(max(0, 2 * (code - 48) - 9 * (code > 52)) if 48 <= code <= 57 else 0 for code in range(256))
"""The digits of twice a digit, summed, by its ASCII code."""
_SPACED = frozenset(" -.")
_WORDS = Words(r"(?i)\b(?:card|cards|credit|debit|visa|maestro|mastercard|amex|pan|cc|kreditkarte|karte|carte)\b")
_NEAR = 40


def find(run: Run, context: str) -> list[Finding]:
    """Cards among the groups of a run of digits: written in one piece, or in the blocks that are printed on cards."""
    found: list[Finding] = []
    at = 0
    while at < len(run.groups):
        taken = 0 if run.taken[at] else _card_at(run, at, context)
        if taken:
            found.append((run.groups[at][0], run.groups[at + taken - 1][1], NAME))
            for i in range(at, at + taken):
                run.taken[i] = True
        at += taken or 1
    return found


def _card_at(run: Run, at: int, context: str) -> int:
    """How many groups from `at` on are one card; 0 for none."""
    digits = run.digits(at)
    if len(digits) >= 12:
        return 1 if run.stands_alone(at, at) and _is_card(run, at, digits, context) else 0
    if len(digits) != 4:
        return 0
    best = 0
    last = at
    while last + 1 < len(run.groups) and len(digits) < 19 and run.gap(last) in _SPACED:
        last += 1
        block = run.digits(last)
        digits += block
        size = len(block)
        if size > 6 or len(digits) > 19:
            break
        if len(digits) >= 12 and run.stands_alone(at, last) and _is_card(run, at, digits, context):
            best = last - at + 1
        if size != 4 and not (size == 6 and last == at + 1):
            break
    return best


def _is_card(run: Run, at: int, digits: str, context: str) -> bool:
    if not luhn(digits):
        return False
    if issued(digits):
        return True
    # Old and short schemes share their prefixes with every other number: there the text has to say that it is a card.
    return context == "card" or _WORDS.within(run.before(at, _NEAR))


def issued(digits: str) -> bool:
    """Whether an issuer uses this prefix at this length."""
    size = len(digits)
    two = int(digits[:2])
    four = int(digits[:4])
    if digits[0] == "4":
        return size in (13, 16, 19)
    if size == 16 and (51 <= two <= 55 or 2221 <= four <= 2720 or 3528 <= four <= 3589 or two in (50, 56, 57, 58)):
        return True
    if size == 15:
        return two in (34, 37)
    if 14 <= size <= 19 and (two in (36, 38, 39) or 3000 <= four <= 3059 or 3090 <= four <= 3099):
        return size in (14, 16)
    return size >= 16 and (two in (60, 62, 63, 64, 65, 67) or (size == 16 and two in (61, 66, 68, 69, 81)))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 Annex B."""
    raw = digits.encode("ascii")
    total = sum(raw[::-2]) - 48 * len(raw[::-2]) + sum(raw[-2::-2].translate(_DOUBLED))
    return total % 10 == 0 and digits.count(digits[0]) != len(digits)
