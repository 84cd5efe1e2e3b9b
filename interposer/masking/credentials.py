"""The search for the broker's own credentials: how each begins is a part of the one search over a message, and where a
beginning turns up, each credential is compared for itself. So a credential costs a clean message nothing, whatever its
length and however many there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from re2 import _re2

from .detectors import own
from .detectors.own import Form

_BEGINNING = 8
"""So many characters of a form are looked for in every message."""
_MANY = 120
"""Beyond so many pieces there are fewer of each credential, and shorter beginnings: the search would outgrow its memory
and become slow. One is left of each."""
_SHORTER = 5
_MEMORY_BYTES = 64 << 20
_WIDEST = 8
"""No encoding writes a character in more."""
_SLACK = 256
_BLANK = re.compile(r"\s+", re.ASCII)
_SOLID = re.compile(rb"\S+")
_UNANCHORED = _re2.RE2.Anchor.UNANCHORED
_HERE = _re2.RE2.Anchor.ANCHOR_START

_Match = Callable[[object, bytes, int, int], list[tuple[int, int]]]


def _compiled(pattern: str) -> _Match:
    options = _re2.RE2.Options()
    options.encoding = _re2.RE2.Options.Encoding.LATIN1
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    options.longest_match = True
    compiled = _re2.RE2(pattern.encode(), options)
    if not compiled.ok():
        raise ValueError("a credential does not compile")
    match: _Match = compiled.Match
    return match


class Guarded:
    """One text that is looked for, compiled; it is a credential or the secret in one."""

    __slots__ = ("_credential", "_forms", "pieces")

    def __init__(self, text: str, credential: str) -> None:
        self._credential = credential if len(credential) > own.WHOLE else ""
        self._forms: list[str] | None = None
        self.pieces: list[tuple[int, _Match, list[Form]]] = []
        for at, piece in own.pieces(text):
            forms = own.encodings(piece)
            begun = [Form(form.tokens[:_BEGINNING], form.joint, form.folded) for form in forms]
            self.pieces.append((at, _compiled("|".join(form.pattern() for form in forms)), begun))

    def around(self, raw: bytes, start: int, end: int, floor: int) -> tuple[int, int]:
        """How far a long credential goes on, in the encoding of the piece that was found; not below the floor."""
        if not self._credential:
            return start, end
        if self._forms is None:
            exact, folded = own.written(self._credential)
            self._forms = [_plain(form.encode("ascii", "replace")) for form in (*exact, *folded)]
        piece = _plain(raw[start:end])
        first, last = start, end
        for form in self._forms:
            at = form.find(piece)
            if at >= 0:
                behind = form[at + len(piece) :]
                last = max(last, end + _alike(raw[end : end + 2 * len(behind) + _SLACK], behind))
                before = form[:at][::-1]
                ahead = raw[max(floor, start - 2 * len(before) - _SLACK) : start][::-1]
                first = min(first, start - _alike(ahead, before))
        return first, last


def _plain(raw: bytes) -> str:
    """Without blanks and capitals: lines are broken anywhere, and how a text is told apart is its pieces' matter."""
    return _BLANK.sub("", raw.decode("latin-1").lower())


def _alike(raw: bytes, form: str) -> int:
    """How many bytes of the one are how the other begins."""
    pairs = zip(_plain(raw), form, strict=False)
    left = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    at = 0
    for run in _SOLID.finditer(raw) if left else ():
        at = run.start() + min(left, run.end() - run.start())
        left -= run.end() - run.start()
        if left <= 0:
            break
    return at


class Credentials:
    """All that is guarded, at one time."""

    def __init__(self, guarded: Sequence[Guarded]) -> None:
        many = sum(len(each.pieces) for each in guarded) > _MANY
        most = max(1, _MANY // len(guarded)) if many else _MANY
        length = _SHORTER if many else _BEGINNING
        self._pieces = [(each, *piece) for each in guarded for piece in each.pieces[:: -(-len(each.pieces) // most)]]
        beginnings = [form.pattern(length) for *_, begun in self._pieces for form in begun]
        self.anchor = "|".join(dict.fromkeys(beginnings))
        """How a credential begins; nothing in it matches NUL."""
        self._search = _compiled(self.anchor)

    def within(self, raw: bytes, tick: Callable[[], None]) -> Iterator[tuple[int, int]]:
        """Every place of a credential. `tick` is called now and then, and may raise."""
        size = len(raw)
        at = floor = 0
        before: tuple[Guarded, int] | None = None
        reached = (0, 0)
        while at < size:
            start = self._search(_UNANCHORED, raw, at, size)[0][0]
            if start < 0:
                break
            tick()
            found = self._here(raw, start)
            if found is None:
                at = start + 1
                continue
            end, each, place = found
            # The same piece again is the credential again, and what is between the two is somebody else's.
            if (
                before is not None
                and before[0] is each
                and place != before[1]
                and _belongs(raw, reached[1], start, abs(place - before[1]))
            ):
                reached = (reached[0], each.around(raw, start, end, reached[1])[1])
            else:
                if before is not None:
                    yield reached
                    floor = reached[1]
                reached = each.around(raw, start, end, floor)
            before = (each, place)
            at = max(reached[1], start + 1)
        if before is not None:
            yield reached

    def _here(self, raw: bytes, start: int) -> tuple[int, Guarded, int] | None:
        """The longest that begins here: its end, whose it is, and where in that it stands."""
        best: tuple[int, Guarded, int] | None = None
        for each, place, match, _ in self._pieces:
            end = match(_HERE, raw, start, len(raw))[0][1]
            if end > (best[0] if best else start):
                best = (end, each, place)
        return best


def _belongs(raw: bytes, end: int, start: int, distance: int) -> bool:
    """Whether what is between two pieces is the text between them, written in whatever way."""
    return start - end <= _WIDEST * distance + _SLACK and raw.find(b"\0", end, start) < 0
