"""One masking of one message: collect its texts, search them, rewrite what was found, rebuild what changed.

The answer for a text depends on the text and on what its key says of it, on nothing else: so equal texts are rewritten
once, and a second walk over the message finds its changes by looking them up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from operator import is_not

from interposer.errors import MaskFault
from interposer.model import Json

from . import disguises, keys
from .detectors import assigned, own, phone
from .detectors.detector import MARK, PII, SECRETS, Finding, placeholder
from .scanner import Scan, Scanner

_DEEPEST = 4
"""Texts inside of texts are read to this depth."""
_SMALLEST_NUMBER = 10**8 - 1
_SMALLEST_TOLD = 10**6 - 1
_LARGEST_NUMBER = 10**20
_JSON_BEGINS = ("{", "[", '"', " ", "\t", "\r", "\n")
_APART = frozenset(("", " ", "\n", "\t", '"', "'", ",", ";", ">", "<", ")", "\0"))
"""Neighbours of a finding that cannot be part of another one."""
_ENDS = frozenset(("", " ", "\n"))
_AGAIN = 8
_KNOWN_KEYS = 4096
_LONGEST_KEY = 64
_TOLD = frozenset({keys.SECRET, keys.BLOB, "phone"})
"""What a key can say that makes its value worth a look even where the search finds nothing in it."""


class Collected:
    """Every text of a message, in the order of the walk, with what the keys say of them."""

    __slots__ = ("_fresh", "contexts", "joined", "texts")

    def __init__(self, value: Json, known: Mapping[str, str]) -> None:
        self.texts: list[str] = []
        self.contexts: dict[int, str] = {}
        self._fresh: dict[str, str] = {}
        self._walk(value, keys.TEXT if type(value) is str else "", known)
        self.joined = self.texts[0] if len(self.texts) == 1 else "\0".join(self.texts)

    def _walk(self, node: Json, context: str, known: Mapping[str, str]) -> None:
        texts = self.texts
        kind = type(node)
        if kind is dict:
            for key, child in node.items():
                meaning = known.get(key)
                if meaning is None:
                    meaning = self._learn(key)
                kind = type(child)
                if kind is str:
                    if meaning:
                        self.contexts[len(texts)] = meaning
                    texts.append(child)
                elif kind is not bool and child is not None:
                    self._walk(child, meaning, known)
        elif kind is list:
            for child in node:
                kind = type(child)
                if kind is str:
                    if context:
                        self.contexts[len(texts)] = context
                    texts.append(child)
                elif kind is not bool and child is not None:
                    self._walk(child, context, known)
        elif kind is str:
            if context:
                self.contexts[len(texts)] = context
            texts.append(node)
        elif kind is int or kind is float or kind is Decimal:
            lexeme = _lexeme(node, context)
            if lexeme:
                self.contexts[len(texts)] = _numeric(context)
                texts.append(lexeme)
        elif node is not None and kind is not bool:
            raise MaskFault(f"a {kind.__name__} is no JSON")

    def _learn(self, key: str) -> str:
        if type(key) is not str:
            raise MaskFault("an object key is no string")
        meaning = self._fresh.get(key)
        if meaning is None:
            meaning = self._fresh[key] = keys.meaning(key)
            self.texts.append(key)
        return meaning

    def told(self) -> bool:
        """Whether a key says something that makes its value worth a look by itself."""
        return bool(self.contexts) and not _TOLD.isdisjoint(self.contexts.values())

    def remember(self, known: dict[str, str], changed: Mapping[tuple[str, str], str]) -> None:
        """Keep the meaning of keys that came out clean: a secret that was used as a key stays nowhere."""
        for key, meaning in self._fresh.items():
            if ("", key) not in changed and len(known) < _KNOWN_KEYS and len(key) <= _LONGEST_KEY:
                known[key] = meaning


class Pass:
    """The state of one masking; used once."""

    def __init__(self, scanner: Scanner, profiles: frozenset[str], known: dict[str, str]) -> None:
        self.counts: dict[str, int] = {}
        self._scanner = scanner
        self._profiles = profiles
        self._known = known
        self._monotonic: Callable[[], float] | None = None
        self._seconds_per_mb = 0.0
        self._began = 0.0
        self._size = 0
        self._again = 0

    def limit(self, monotonic: Callable[[], float], seconds_per_mb: float) -> None:
        """Give up, by `MaskFault`, when it takes longer than this."""
        self._monotonic = monotonic
        self._seconds_per_mb = seconds_per_mb
        self._began = monotonic()

    def value(
        self, value: Json, depth: int = 0, found: Collected | None = None, first: tuple[int, int] | None = None
    ) -> Json:
        """The masked value; the very same object when nothing was found in it.

        `found` and `first`: what the value's texts are and where the first candidate is, for who knows already.
        """
        found = found or Collected(value, self._known)
        changes = self._texts(found.texts, found.contexts, depth, found.joined, first)
        changed = {(found.contexts.get(number, ""), found.texts[number]): text for number, text in changes.items()}
        found.remember(self._known, changed)
        return self._rebuild(value, keys.TEXT if type(value) is str else "", changed) if changed else value

    def _texts(
        self,
        texts: list[str],
        contexts: Mapping[int, str],
        depth: int,
        joined: str,
        first: tuple[int, int] | None = None,
    ) -> dict[int, str]:
        """The texts that change, by their place in the list."""
        self._size = max(self._size, len(joined))
        scan = Scan(self._scanner, texts, contexts, joined, self._tick, first)
        suspects = {*scan.findings, *scan.runs}
        if contexts:
            suspects.update(number for number, context in contexts.items() if context in _TOLD)
        escaped = depth < _DEEPEST and disguises.may_be_escaped(joined)
        if escaped:
            suspects.update(number for number, text in enumerate(texts) if disguises.may_be_escaped(text))
        changes: dict[int, str] = {}
        for number in sorted(suspects) if len(suspects) > 1 else suspects:
            text = texts[number]
            context = contexts.get(number, "")
            if escaped or number in scan.runs or context in _TOLD or text[:1] in _JSON_BEGINS:
                self._tick()
                rewritten = self._rewrite(text, context, scan, number, depth)
            else:
                rewritten = self._splice(
                    text, [(s, e, name, placeholder(name)) for s, e, name in scan.findings[number]]
                )
            if rewritten != text:
                changes[number] = rewritten
        return changes

    def _text(self, text: str, context: str, depth: int) -> str:
        return self._texts([text], {0: context} if context else {}, depth, text).get(0, text)

    def _rewrite(self, text: str, context: str, scan: Scan, number: int, depth: int) -> str:
        findings = scan.findings.get(number, [])
        runs = scan.runs.get(number, [])
        told = self._told(text, context, findings)
        if told:
            self._count(told)
            return placeholder(told)
        if depth < _DEEPEST:
            if context == keys.BLOB and (decoded := disguises.read_base64(text)) is not None:
                return self._base64(text, decoded, depth)
            if disguises.looks_like_json(text) and _needs_parsing(text, findings):
                parsed = disguises.read_json(text)
                if parsed is not None:
                    masked = self.value(parsed[0], depth + 1)
                    if masked is not parsed[0]:
                        text = disguises.write_json(masked)
                    return self._flat(text, self._find(text, context), [], depth)
            findings = findings + self._escaped(text, context, depth)
        return self._flat(text, findings, runs, depth)

    def _told(self, text: str, context: str, findings: list[Finding]) -> str:
        """The name of what the whole value is because its key says so; empty when it is nothing."""
        if MARK in text:
            return ""
        if context == keys.SECRET and SECRETS in self._profiles and assigned.plausible_value(text):
            whole = [name for start, end, name in findings if start == 0 and end == len(text)]
            return whole[0] if whole else assigned.NAME
        if context == "phone" and PII in self._profiles and phone.is_number(text):
            return phone.NAME
        return ""

    def _base64(self, code: str, decoded: str, depth: int) -> str:
        """Base64 of the masked text, so that it still decodes; only a placeholder where it is hidden twice."""
        before = sum(self.counts.values())
        masked = self._text(decoded, "", depth + 1)
        if sum(self.counts.values()) == before:
            return code
        return disguises.write_base64(masked, code) if depth == 0 else placeholder(next(reversed(self.counts)))

    def _find(self, text: str, context: str) -> list[Finding]:
        scan = Scan(self._scanner, [text], {0: context} if context else {}, text, self._tick)
        return scan.findings.get(0, [])

    def _escaped(self, text: str, context: str, depth: int) -> list[Finding]:
        """What is found once the escapes in the text are resolved, as spans of the text as it is."""
        if depth >= _DEEPEST or not disguises.may_be_escaped(text):
            return []
        reading = disguises.unescape(text)
        if reading is None:
            return []
        found = self._find(reading.text, context) + self._escaped(reading.text, context, depth + 1)
        return [(*reading.span(start, end), name) for start, end, name in found]

    def _flat(self, text: str, findings: list[Finding], runs: list[tuple[int, int]], depth: int) -> str:
        """The text with its findings replaced where they stand."""
        splices: list[tuple[int, int, str, str]] = []
        for start, end in runs:
            decoded = disguises.read_base64(text[start:end])
            if decoded is not None:
                code = self._base64(text[start:end], decoded, depth)
                if code != text[start:end]:
                    findings = [found for found in findings if not (start <= found[0] and found[1] <= end)]
                    splices.append((start, end, "", code))
        splices.extend((start, end, name, placeholder(name)) for start, end, name in findings)
        return self._splice(text, splices) if splices else text

    def _splice(self, text: str, splices: list[tuple[int, int, str, str]]) -> str:
        pieces: list[str] = []
        counts = self.counts
        at = 0
        touching = False
        for start, end, name, replacement in _merged(splices) if len(splices) > 1 else splices:
            touching = touching or _touches(text, start, end)
            pieces.append(text[at:start])
            pieces.append(replacement)
            at = end
            if name:
                counts[name] = counts.get(name, 0) + 1
        pieces.append(text[at:])
        rewritten = "".join(pieces)
        if touching and self._again < _AGAIN:
            # A placeholder is a new neighbour: what touched a finding before may be one now.
            self._again += 1
            rewritten = self._text(rewritten, "", _DEEPEST)
            self._again -= 1
        return rewritten

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _tick(self) -> None:
        if self._monotonic is not None:
            allowed = self._seconds_per_mb * max(1.0, self._size / 1e6)
            if self._monotonic() - self._began > allowed:
                raise MaskFault("the message takes too long to mask")

    def _rebuild(self, node: Json, context: str, changed: Mapping[tuple[str, str], str]) -> Json:
        kind = type(node)
        if kind is str:
            return changed.get((context, node), node)
        if kind is dict:
            return self._object(node, changed)
        if kind is list:
            children = [
                child if child is None or type(child) is bool else self._rebuild(child, context, changed)
                for child in node
            ]
            return children if any(map(is_not, children, node)) else node
        if kind is int or kind is float or kind is Decimal:
            lexeme = _lexeme(node, context)
            if lexeme:
                return changed.get((_numeric(context), lexeme), node)
        return node

    def _object(self, node: dict[str, Json], changed: Mapping[tuple[str, str], str]) -> dict[str, Json]:
        known = self._known
        edits: dict[str, Json] = {}
        renamed = False
        for key, child in node.items():
            meaning = known.get(key)
            if meaning is None:
                # A key that came out clean is known, unless too many are: only here may one have changed.
                meaning = keys.meaning(key)
                renamed = renamed or ("", key) in changed
            if child is None or child is True or child is False:
                continue
            new = changed.get((meaning, child), child) if type(child) is str else self._rebuild(child, meaning, changed)
            if new is not child:
                edits[key] = new
        if renamed:
            return _renamed({**node, **edits}, changed)
        return {**node, **edits} if edits else node


def _renamed(node: dict[str, Json], changed: Mapping[tuple[str, str], str]) -> dict[str, Json]:
    """With masked keys; two may look alike once they are masked, and neither value is lost."""
    rebuilt: dict[str, Json] = {}
    for key, child in node.items():
        new = changed.get(("", key), key)
        rebuilt[_unused(new, rebuilt, node) if new != key else key] = child
    return rebuilt


def _numeric(context: str) -> str:
    return keys.NUMBER if context in ("", keys.TEXT) else context


def _lexeme(number: int | float | Decimal, context: str) -> str:
    """The digits of a number that could be an identifier; empty for every other number."""
    if isinstance(number, float | Decimal):
        whole = number if isinstance(number, Decimal) else Decimal(repr(number))
        if not whole.is_finite() or not 6 <= whole.adjusted() <= 20 or whole != whole.to_integral_value():
            return ""
        number = int(whole)
    size = abs(number)
    least = _SMALLEST_TOLD if context in ("ssn", "phone", "card") else _SMALLEST_NUMBER
    return str(size) if least < size < _LARGEST_NUMBER else ""


def _unused(key: str, rebuilt: Mapping[str, Json], node: Mapping[str, Json]) -> str:
    if key not in rebuilt and key not in node:
        return key
    number = 2
    while f"{key}#{number}" in rebuilt or f"{key}#{number}" in node:
        number += 1
    return f"{key}#{number}"


def _needs_parsing(text: str, findings: list[Finding]) -> bool:
    """Whether replacing in place could break a JSON text, or escapes could hide something in it."""
    if "\\" in text:
        return True
    for start, end, _ in findings:
        if text[start] in "0123456789-" and text[start - 1] in ":,[ \t\r\n-" and _is_bare(text, start, end):
            return True
        if text.find('"', start, end) >= 0:
            return True
    return False


def _is_bare(text: str, start: int, end: int) -> bool:
    """Whether a finding may be a number of the JSON text rather than a part of one of its strings."""
    before = text[max(0, start - 32) : start].rstrip(" \t\r\n-")
    after = text[end : end + 32].lstrip(" \t\r\n.0")
    return before[-1:] in (":", ",", "[") and after[:1] in (",", "]", "}")


def _touches(text: str, start: int, end: int) -> bool:
    """Whether something next to a finding could be a part of another one, once this one has become a placeholder."""
    after = text[end : end + 2]
    if after[:1] not in _APART and not (after[0] in ".:!?" and after[1:] in _ENDS):
        return True
    if text[start - 1 : start] not in _APART and start > 0:
        return True
    # Numbers are written with blanks in them.
    return (text[end - 1].isdigit() and text[end + 1 : end + 3].strip("( ")[:1].isdigit()) or (
        text[start].isdigit() and start > 1 and text[start - 2].isalnum() and text[start - 2].isdigit()
    )


def _merged(splices: list[tuple[int, int, str, str]]) -> list[tuple[int, int, str, str]]:
    """In order and without overlap; where findings overlap, the longest names them, the broker's own first."""
    splices.sort()
    merged: list[tuple[int, int, str, str]] = []
    reached = 0
    for splice in splices:
        if splice[0] >= reached:
            merged.append(splice)
            reached = splice[1]
            continue
        first = merged[-1]
        longer = splice[1] - splice[0] > first[1] - first[0] and splice[2]
        wins = splice[2] == own.NAME or (longer and first[2] != own.NAME)
        reached = max(reached, splice[1])
        merged[-1] = (first[0], reached, *(splice if wins else first)[2:])
    return merged
