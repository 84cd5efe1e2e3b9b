"""Telephone numbers: international ones (ITU-T E.164), North American ones, and others where the text says so."""

from __future__ import annotations

import re

from .detector import PII, Detector, Finding, Words
from .digits import Run

NAME = "phone"
_WORDS = Words(
    r"\b(?i:phone|telephone|tel|mobile|cell|cellphone|fax|call|calling|dial|whatsapp|sms|desk|contact number is"
    r"|answering at|messages to|reach \w+ at|registered|(?:my|his|her|their|our) number is)\b[^0-9\n]{0,20}[\n ]*[+(]?$"
    r"|\b(?i:my|his|her|their|our) [A-Z]\w{0,12} number is [+(]?$"
)
_NEAR = 48
_INTERNATIONAL = re.compile(r"\+\(?[0-9](?:[ .()\-/]{0,3}[0-9])*", re.ASCII)
_BETWEEN = re.compile(r"[^0-9]+", re.ASCII)
_EXTENSION = re.compile(r"(?i)[ ,;]{0,2}(?:x|ext\.?|extension)[ .:]{0,2}[0-9]{1,6}\b", re.ASCII)
_WRITTEN = re.compile(r"\s*\+?\(?[0-9][0-9 .()\-/]*(?:(?:x|ext\.?)[ .]?[0-9]{1,6})?\s*$", re.ASCII)
_MOST = 15  # E.164 §6.1: fifteen digits, country code included.
_FEWEST = 6
# The first digits of the country codes in use (ITU-T E.164 annex, list of assignments).
_COUNTRY = re.compile(r"[17]|2[0-79]|3[0-9]|4[0-9]|5[0-9]|6[0-9]|8[0-246-8]|9[0-9]", re.ASCII)


def international(text: str, plus: int) -> list[Finding]:
    """The number that the `+` at text[plus] begins."""
    if plus > 0 and (text[plus - 1].isalnum() or text[plus - 1] in "+_"):
        return []
    match = _INTERNATIONAL.match(text, plus, plus + 64)
    if match is None:
        return []
    end = match.end()
    digits = _BETWEEN.sub("", match.group())
    if len(digits) > _MOST:
        end = _cut(text, plus, end)
        digits = _BETWEEN.sub("", text[plus:end])
    if not _FEWEST <= len(digits) <= _MOST or not _COUNTRY.match(digits):
        return []
    if end < len(text) and ((text[end].isalpha() and text[end] not in "xe") or text[end] == "_"):
        return []
    return [(plus, _with_extension(text, end), NAME)]


def _cut(text: str, start: int, end: int) -> int:
    """Without the groups that would make the number too long."""
    total = 0
    good = start
    at = start
    while at < end:
        if text[at].isdigit():
            stop = at
            while stop < end and text[stop].isdigit():
                stop += 1
            total += stop - at
            if total > _MOST:
                break
            good = stop
            at = stop
        else:
            at += 1
    return good


def find(run: Run, context: str) -> list[Finding]:
    """Numbers without a `+` among the groups that nothing else has explained."""
    found: list[Finding] = []
    count = len(run.groups)
    at = 0
    while at < count:
        size = 0 if run.taken[at] else _american(run, at)
        if size:
            found.append(_span(run, at, size))
            run.taken[at : at + size] = [True] * size
        at += size or 1
    if not any(run.taken) and _told(run, context):
        return [_span(run, 0, count)]
    return found


def _american(run: Run, at: int) -> int:
    """How many groups from `at` are a number of the North American plan as it is usually written; 0 for none."""
    lead = 1 if run.digits(at) in ("1", "001") and at + 3 < len(run.groups) else 0
    first = at + lead
    if first + 2 >= len(run.groups) or any(run.taken[first : first + 3]):
        return 0
    area, exchange, line = run.digits(first), run.digits(first + 1), run.digits(first + 2)
    if (len(area), len(exchange), len(line)) != (3, 3, 4) or area[0] in "01" or exchange[0] in "01":
        return 0
    gap, second = run.gap(first), run.gap(first + 1)
    bracketed = run.before(first, 1) == "(" and gap.startswith(")")
    if not bracketed and (gap not in ("-", ".") or second != gap):
        return 0
    if second not in ("-", ".", " ") or (first + 3 < len(run.groups) and run.gap(first + 2) == "-"):
        return 0
    end = run.groups[first + 2][1]
    return 0 if end < len(run.text) and run.text[end].isalpha() and run.text[end] not in "xe" else 3 + lead


def _told(run: Run, context: str) -> bool:
    """Whether the text around, or the key above, says that this is a telephone number."""
    digits = sum(end - start for start, end in run.groups)
    if not 7 <= digits <= _MOST or not run.stands_alone(0, len(run.groups) - 1):
        return False
    if context == "phone" or _WORDS.within(run.before(0, _NEAR)):
        return True
    alone = run.start == 0 and run.end == len(run.text) and len(run.groups) == 1
    return alone and context == "text" and digits == 10 and run.text[0] not in "01" and run.text[3] not in "01"


def is_number(text: str) -> bool:
    """Whether a whole value reads as a telephone number, where its key says that it is one."""
    return _WRITTEN.match(text) is not None and 6 <= sum(ch.isdigit() for ch in text) <= _MOST


def _span(run: Run, at: int, size: int) -> Finding:
    start = run.groups[at][0]
    if start > 0 and run.text[start - 1] == "(":
        start -= 1
    return start, _with_extension(run.text, run.groups[at + size - 1][1]), NAME


def _with_extension(text: str, end: int) -> int:
    match = _EXTENSION.match(text, end)
    return match.end() if match else end


_LABELLED = re.compile(r"[A-Za-z.]*[:.#\s]{1,4}(\+?\(?[0-9](?:[ .()\-/]{0,3}[0-9]){6,14})(?![0-9A-Za-z])", re.ASCII)


def inspect_labelled(text: str, start: int, end: int, context: str) -> list[Finding]:
    if start > 0 and text[start - 1].isalnum():
        return []
    match = _LABELLED.match(text, start)
    if match is None:
        return []
    return [(match.start(1), _with_extension(text, match.end(1)), NAME)]


DETECTORS = (
    Detector(
        name=NAME,
        profile=PII,
        anchor=r"(?i:phone|telephone|tel|mobile|cell|fax)[A-Za-z.]{0,6}[:#][ \t\r\n]{0,3}\+?\(?[0-9]",
        starts="pPtTmMcCfF",
        inspect=inspect_labelled,
    ),
)
