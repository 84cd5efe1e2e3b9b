"""The search: all texts of a message joined, one automaton over the bytes, and exact inspection where it stops.

NUL stands between the texts and no candidate pattern matches NUL, so nothing is ever found across two texts, whatever
they contain; where a text begins is known from lengths, never from looking for the separator.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from re2 import _re2

from .credentials import Credentials
from .detectors import own
from .detectors.assigned import NAME as SECRET
from .detectors.detector import Detector, Finding

_RUN = r"\b[A-Za-z0-9+/_\-]{40,}"
_RUN_SHAPE = re.compile(r"[A-Za-z0-9+/_\-]{40,}={0,2}", re.ASCII)
_MEMORY_BYTES = 64 << 20
_LONG = 40
_BEYOND = 256
"""How far beyond a long run a candidate that begins inside of it may reach."""
_PATIENCE = 127
"""The clock is asked once for so many candidates (a mask of bits)."""
_SHORT = 512
"""A refused candidate of up to this length is searched again from its second character."""
_OVERLAP = 48
"""How far back the next piece of a long run of digits begins."""
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


class _Bucket:
    """The detectors whose candidates can begin with one character, asked in order by one pattern."""

    __slots__ = ("_rests", "detectors", "match")

    def __init__(self, detectors: Sequence[Detector] = ()) -> None:
        self.detectors = list(detectors)
        self.match: Callable[[str, int], re.Match[str] | None] = self._compiled
        """The first candidate at a place; `lastindex` is the number of its detector, counted from one."""
        self._rests: dict[int, _Bucket] = {}

    def _compiled(self, text: str, at: int) -> re.Match[str] | None:
        pattern = "|".join(f"({detector.shape or detector.anchor})" for detector in self.detectors)
        self.match = re.compile(pattern or r"(?!)", re.ASCII).match
        return self.match(text, at)

    def others(self, text: str, at: int, number: int) -> Iterator[tuple[Detector, int]]:
        """The candidates at this place after the detector of that number."""
        bucket = self
        while number < len(bucket.detectors):
            rest = bucket._rests.get(number)
            if rest is None:
                rest = bucket._rests[number] = _Bucket(bucket.detectors[number:])
            match = rest.match(text, at)
            if match is None:
                return
            bucket, number = rest, match.lastindex or 1
            yield rest.detectors[number - 1], match.end()


_NO_BUCKET = _Bucket()


class Scanner:
    """The detectors of one set of profiles, compiled together."""

    def __init__(self, detectors: Sequence[Detector], credentials: Credentials | None = None) -> None:
        patterns = [credentials.anchor] if credentials is not None else []
        patterns += [detector.anchor for detector in detectors]
        self._inner = _compile(patterns) if patterns else None
        self._search = _compile([*patterns, _RUN]) if patterns else None
        self._credentials = credentials
        self._buckets: dict[str, _Bucket] = {}
        for detector in detectors:
            for character in dict.fromkeys(detector.starts):
                self._buckets.setdefault(character, _Bucket()).detectors.append(detector)

    def encode(self, joined: str) -> tuple[str, bytes]:
        """The text as it is searched, one byte for every character, and the text that findings are cut from."""
        if joined.isascii():
            return joined, joined.encode("ascii")
        if _FOLDED.search(joined):
            joined = _FOLDED.sub(_fold, joined)
        return joined, joined.encode("ascii", "replace")

    def first(self, raw: bytes) -> tuple[int, int]:
        """The first candidate; (-1, -1) when there is none."""
        return (-1, -1) if self._search is None else self._search(_UNANCHORED, raw, 0, len(raw))[0]


class Scan:
    """One pass over the texts of a message, which `joined` holds with NULs between them.

    `tick` is called now and then, and may raise to end the pass.
    """

    def __init__(
        self,
        scanner: Scanner,
        texts: Sequence[str],
        contexts: Mapping[int, str],
        joined: str,
        tick: Callable[[], None],
        first: tuple[int, int] | None = None,
    ) -> None:
        self.findings: dict[int, list[Finding]] = {}
        self.runs: dict[int, list[tuple[int, int]]] = {}
        """Long runs of base64 characters, by text: what is in them has to be decoded to be seen."""
        self._scanner = scanner
        self._tick = tick
        self._texts = texts
        self._contexts = contexts
        self._joined, self._raw = scanner.encode(joined)
        self._flat = self._joined if self._joined.isascii() else self._raw.decode("ascii")
        self._many = len(texts) > 1
        self._candidates = 0
        self._starts = [0] if len(texts) == 1 else list(accumulate((len(text) + 1 for text in texts), initial=0))
        self._run(scanner.first(self._raw) if first is None else first)

    def _run(self, first: tuple[int, int]) -> None:
        search, raw, size = self._scanner._search, self._raw, len(self._raw)
        start, end = first
        if start >= 0:
            self._find_credentials()
        while start >= 0 and search is not None:
            resume = 0 if end - start < _LONG else self._long_run(start, end)
            if not resume:
                resume = self._candidate(start, end)
            if resume >= size:
                break
            start, end = search(_UNANCHORED, raw, resume, size)[0]

    def _long_run(self, start: int, end: int) -> int:
        """Where to go on after a run of base64 characters at `start`; 0 when it is none."""
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
        self._candidates += 1
        if self._candidates & _PATIENCE == 0:
            self._tick()
        bucket = self._scanner._buckets.get(self._flat[start], _NO_BUCKET)
        hit = bucket.match(self._flat, start)
        if hit is None:
            return start + 1 if end - start <= _SHORT else end
        number, offset = self._place(start) if self._many else (0, 0)
        text = self._texts[number]
        if not text.isascii():
            text = self._joined[offset : offset + len(text)]
        context = self._contexts.get(number, "")
        position = hit.lastindex or 1
        detector = bucket.detectors[position - 1]
        found = detector.inspect(text, start - offset, hit.end() - offset, context)
        used = hit.end() if detector.whole else 0
        if not found:
            for other, stop in bucket.others(self._flat, start, position):
                used = stop if other.whole else used
                found = other.inspect(text, start - offset, stop - offset, context)
                if found:
                    break
        if used and used < end:
            # The run goes on: what straddles the cut is seen from the next piece.
            used = max(start + 1, used - _OVERLAP)
        if not found:
            return used or (end if end - start > _SHORT else start + 1)
        if found[0][2] == SECRET:
            found = [self._named(finding, text, offset, context) for finding in found]
        self.findings.setdefault(number, []).extend(found)
        reached = offset + found[-1][1]
        return max(reached, used, start + 1)

    def _named(self, finding: Finding, text: str, offset: int, context: str) -> Finding:
        """A secret that was found by the word before it, under its own name if it has one."""
        start, end, name = finding
        bucket = self._scanner._buckets.get(self._flat[offset + start], _NO_BUCKET)
        for detector, stop in bucket.others(self._flat, offset + start, 0):
            if not detector.whole:
                for first, last, other in detector.inspect(text, start, stop - offset, context):
                    if first == start and last + 1 >= end:
                        return start, max(last, end), other
        return start, end, name

    def _find_credentials(self) -> None:
        """On their own: a candidate may have swallowed one of the broker's own credentials."""
        credentials = self._scanner._credentials
        for start, end in credentials.within(self._raw, self._tick) if credentials is not None else ():
            number, offset = self._place(start)
            self.findings.setdefault(number, []).append((start - offset, end - offset, own.NAME))

    def _place(self, at: int) -> tuple[int, int]:
        """Which text the joined position is in, and where that text begins."""
        number = bisect_right(self._starts, at) - 1
        return number, self._starts[number]
