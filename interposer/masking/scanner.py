"""The search: all texts of a message joined, one automaton over the bytes, and exact inspection where it stops.

NUL stands between the texts and no candidate pattern matches NUL, so nothing is ever found across two texts, whatever
they contain; where a text begins is known from lengths, never from looking for the separator.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from re2 import _re2

from .detectors.assigned import NAME as SECRET
from .detectors.detector import ALWAYS, Detector, Finding

_RUN = r"[A-Za-z0-9+/_\-]{40,}"
_RUN_SHAPE = re.compile(r"[A-Za-z0-9+/_\-]{40,}={0,2}", re.ASCII)
_MEMORY_BYTES = 48 << 20
_BEYOND = 256
"""How far beyond a long run a candidate that begins inside of it may reach."""
_SHORT = 512
"""A refused candidate of up to this length is searched again from its second character."""
_FOLDED = re.compile("[\u00a0\u2000-\u200a\u2010-\u2015\u202f\u205f\u2212\u3000\ufe58\ufe63\uff01-\uff5e]")
_UNANCHORED = _re2.RE2.Anchor.UNANCHORED


def _fold(match: re.Match[str]) -> str:
    """Full-width forms, blanks and dashes as their ASCII counterparts: one character for one."""
    code = ord(match.group())
    if 0xFF01 <= code <= 0xFF5E:
        return chr(code - 0xFEE0)
    return "-" if 0x2010 <= code <= 0x2015 or code in (0x2212, 0xFE58, 0xFE63) else " "


def _compile(patterns: Sequence[str]) -> Callable[[object, bytes, int, int], list[tuple[int, int]]]:
    # The binding object is used directly: the package's wrapper costs more per search than the search of a short text.
    options = _re2.RE2.Options()
    options.encoding = _re2.RE2.Options.Encoding.LATIN1
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    compiled = _re2.RE2("|".join(f"(?:{pattern})" for pattern in patterns).encode(), options)
    if not compiled.ok():
        raise ValueError(f"the detectors do not compile: {compiled.error()}")
    search: Callable[[object, bytes, int, int], list[tuple[int, int]]] = compiled.Match
    return search


class _Entry:
    """A detector, with its candidate pattern for `re` compiled when it is first needed."""

    __slots__ = ("_match", "detector")

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self._match: Callable[[str, int], re.Match[str] | None] | None = None

    def match(self, text: str, at: int) -> re.Match[str] | None:
        if self._match is None:
            self._match = re.compile(self.detector.anchor, re.ASCII).match
        return self._match(text, at)


class Scanner:
    """The detectors of one set of profiles, compiled together."""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        own = [detector for detector in detectors if detector.profile == ALWAYS]
        patterns = [detector.anchor for detector in (*own, *(d for d in detectors if d.profile != ALWAYS))]
        self._inner = _compile(patterns) if patterns else None
        self._search = _compile([*patterns, _RUN]) if patterns else None
        self._own = _compile([detector.anchor for detector in own]) if own else None
        self._own_name = own[0].name if own else ""
        self._own_reach = max((detector.reach for detector in own), default=0)
        self._entries: dict[str, list[_Entry]] = {}
        for detector in detectors:
            if detector.profile == ALWAYS:
                continue
            entry = _Entry(detector)
            for character in detector.starts:
                self._entries.setdefault(character, []).append(entry)

    def scan(
        self, joined: str, texts: Sequence[str], contexts: Mapping[int, str], tick: Callable[[], None]
    ) -> Scan | None:
        """What is in the texts, which `joined` holds with NULs between them; None when nothing is.

        `tick` is called for every candidate, and may raise to end the search.
        """
        if self._search is None:
            return None
        if joined.isascii():
            raw = joined.encode("ascii")
        else:
            if _FOLDED.search(joined):
                joined = _FOLDED.sub(_fold, joined)
            raw = joined.encode("ascii", "replace")
        size = len(raw)
        first = self._search(_UNANCHORED, raw, 0, size)[0]
        if first[0] < 0:
            return None
        return Scan(self, texts, contexts, joined, raw, tick).run(first)


class Scan:
    """One pass over the joined texts of a message."""

    def __init__(
        self,
        scanner: Scanner,
        texts: Sequence[str],
        contexts: Mapping[int, str],
        joined: str,
        raw: bytes,
        tick: Callable[[], None],
    ) -> None:
        self.findings: dict[int, list[Finding]] = {}
        self.runs: dict[int, list[tuple[int, int]]] = {}
        """Long runs of base64 characters, by text: what is in them has to be decoded to be seen."""
        self._scanner = scanner
        self._tick = tick
        self._texts = texts
        self._contexts = contexts
        self._joined = joined
        self._raw = raw
        self._flat = joined if joined.isascii() else raw.decode("ascii")
        self._starts = list(accumulate((len(text) + 1 for text in texts), initial=0))

    def run(self, first: tuple[int, int]) -> Scan:
        scanner, raw, size = self._scanner, self._raw, len(self._raw)
        search = scanner._search
        start, end = first
        while start >= 0 and search is not None:
            resume = self._long_run(start, end) or self._candidate(start, end)
            if scanner._own is not None and resume > start:
                self._look_for_own(start, resume)
            if resume >= size:
                break
            start, end = search(_UNANCHORED, raw, resume, size)[0]
        return self

    def _long_run(self, start: int, end: int) -> int:
        """Where to go on after a run of base64 characters at `start`; 0 when it is none."""
        if end - start < 40:
            return 0
        match = _RUN_SHAPE.match(self._flat, start)
        if match is None or match.end() < end:
            return 0
        stop = match.end()
        number, offset = self._place(start)
        self.runs.setdefault(number, []).append((start - offset, stop - offset))
        inner = self._scanner._inner
        at, limit = start, min(len(self._raw), stop + _BEYOND)
        while at < stop and inner is not None:
            first, last = inner(_UNANCHORED, self._raw, at, limit)[0]
            if first < 0 or first >= stop:
                break
            at = self._candidate(first, last)
        return max(at, stop)

    def _candidate(self, start: int, end: int) -> int:
        """Inspect the candidate at `start`; the answer is where to go on."""
        self._tick()
        number, offset = self._place(start)
        text = self._text(number, offset)
        context = self._contexts.get(number, "")
        consumed = start + 1
        for entry in self._scanner._entries.get(self._flat[start], ()):
            match = entry.match(self._flat, start)
            if match is None:
                continue
            found = entry.detector.inspect(text, start - offset, match.end() - offset, context)
            if found:
                if found[0][2] == SECRET:
                    found = [self._named(finding, text, offset, context) for finding in found]
                self.findings.setdefault(number, []).extend(found)
                return max(offset + max(finding[1] for finding in found), consumed, end if entry.detector.whole else 0)
            if entry.detector.whole:
                consumed = end
        return end if end - start > _SHORT else consumed

    def _named(self, finding: Finding, text: str, offset: int, context: str) -> Finding:
        """A secret that was found by the word before it, under its own name if it has one."""
        start, end, name = finding
        for entry in self._scanner._entries.get(self._flat[offset + start], ()):
            match = None if entry.detector.whole else entry.match(self._flat, offset + start)
            if match is not None:
                for first, last, other in entry.detector.inspect(text, start, match.end() - offset, context):
                    if first == start and last + 1 >= end:
                        return start, max(last, end), other
        return start, end, name

    def _look_for_own(self, start: int, stop: int) -> None:
        """A candidate may have swallowed one of the broker's own credentials."""
        own = self._scanner._own
        at, limit = start, min(len(self._raw), stop + self._scanner._own_reach)
        while own is not None and at < limit:
            first, last = own(_UNANCHORED, self._raw, at, limit)[0]
            if first < 0:
                return
            number, offset = self._place(first)
            self.findings.setdefault(number, []).append((first - offset, last - offset, self._scanner._own_name))
            at = max(last, first + 1)

    def _place(self, at: int) -> tuple[int, int]:
        """Which text the joined position is in, and where that text begins."""
        number = bisect_right(self._starts, at) - 1
        return number, self._starts[number]

    def _text(self, number: int, offset: int) -> str:
        text = self._texts[number]
        return text if text.isascii() else self._joined[offset : offset + len(text)]
