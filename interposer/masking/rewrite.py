"""One masking of one message: collect its texts, search them, rewrite what was found, rebuild what changed.

The answer for a text depends on the text and on what its key says of it, on nothing else: so equal texts are rewritten
once, and a second walk over the message finds its changes by looking them up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from ..errors import MaskFault
from ..model import Json
from . import disguises, keys
from .detectors import assigned, own, phone
from .detectors.detector import MARK, PII, SECRETS, Finding, placeholder
from .scanner import Scan, Scanner

_DEEPEST = 4
"""Texts inside of texts are read to this depth."""
_SMALLEST_NUMBER = 10**8 - 1
_SMALLEST_TOLD = 10**6 - 1
_LARGEST_NUMBER = 10**20
_PATIENCE = 255
"""The clock is asked once for so many candidates (a mask of bits)."""
_KNOWN_KEYS = 4096
_LONGEST_KEY = 64
_TOLD = frozenset({keys.SECRET, keys.BLOB, "phone"})
"""What a key can say that makes its value worth a look even where the search finds nothing in it."""


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
        self._meanings: dict[str, str] = {}
        self._candidates = 0

    def limit(self, monotonic: Callable[[], float], seconds_per_mb: float) -> None:
        """Give up, by `MaskFault`, when it takes longer than this."""
        self._monotonic = monotonic
        self._seconds_per_mb = seconds_per_mb
        self._began = monotonic()

    def value(self, value: Json, depth: int = 0) -> Json:
        """The masked value; the very same object when nothing was found in it."""
        texts: list[str] = []
        contexts: dict[int, str] = {}
        fresh: list[str] = []
        self._collect(value, keys.TEXT if type(value) is str else "", texts, contexts, fresh)
        changes = self._texts(texts, contexts, depth)
        changed = {(contexts.get(number, ""), texts[number]): text for number, text in changes.items()}
        for key in fresh:
            # Only what came out clean is remembered, so a secret that was used as a key stays nowhere.
            if ("", key) not in changed and len(self._known) < _KNOWN_KEYS and len(key) <= _LONGEST_KEY:
                self._known[key] = self._meanings[key]
        return self._rebuild(value, keys.TEXT if type(value) is str else "", changed) if changed else value

    def _collect(
        self, node: Json, context: str, texts: list[str], contexts: dict[int, str], fresh: list[str]
    ) -> None:
        kind = type(node)
        if kind is dict:
            known = self._known
            for key, child in node.items():
                meaning = known.get(key)
                if meaning is None:
                    meaning = self._meaning(key)
                    fresh.append(key)
                    texts.append(key)
                kind = type(child)
                if kind is str:
                    if meaning:
                        contexts[len(texts)] = meaning
                    texts.append(child)
                elif kind is dict:
                    self._collect(child, "", texts, contexts, fresh)
                elif child is not None and kind is not bool:
                    self._collect(child, meaning, texts, contexts, fresh)
        elif kind is list:
            for child in node:
                kind = type(child)
                if kind is str:
                    if context:
                        contexts[len(texts)] = context
                    texts.append(child)
                elif child is not None and kind is not bool:
                    self._collect(child, context, texts, contexts, fresh)
        elif kind is str:
            if context:
                contexts[len(texts)] = context
            texts.append(node)
        elif kind is int or kind is float or kind is Decimal:
            lexeme = _lexeme(node, context)
            if lexeme:
                contexts[len(texts)] = context if context not in ("", keys.TEXT) else keys.NUMBER
                texts.append(lexeme)
        elif node is not None and kind is not bool:
            raise MaskFault(f"a {kind.__name__} is no JSON")

    def _meaning(self, key: str) -> str:
        if type(key) is not str:
            raise MaskFault("an object key is no string")
        found = self._known.get(key)
        if found is None:
            found = self._meanings.get(key)
        if found is None:
            found = self._meanings[key] = keys.meaning(key)
        return found

    def _texts(self, texts: list[str], contexts: Mapping[int, str], depth: int) -> dict[int, str]:
        """The texts that change, by their place in the list."""
        if not texts:
            return {}
        joined = texts[0] if len(texts) == 1 else "\0".join(texts)
        if depth == 0:
            self._size = len(joined)
        scan = self._scanner.scan(joined, texts, contexts, self._tick)
        suspects: set[int] = set()
        if scan is not None:
            suspects.update(scan.findings, scan.runs)
        if contexts:
            suspects.update(number for number, context in contexts.items() if context in _TOLD)
        if depth < _DEEPEST and disguises.may_be_escaped(joined):
            suspects.update(number for number, text in enumerate(texts) if disguises.may_be_escaped(text))
        changes: dict[int, str] = {}
        for number in sorted(suspects):
            self._tick()
            text = texts[number]
            rewritten = self._rewrite(text, contexts.get(number, ""), scan, number, depth)
            if rewritten != text:
                changes[number] = rewritten
        return changes

    def _text(self, text: str, context: str, depth: int) -> str:
        return self._texts([text], {0: context} if context else {}, depth).get(0, text)

    def _rewrite(self, text: str, context: str, scan: Scan | None, number: int, depth: int) -> str:
        findings = list(scan.findings.get(number, ())) if scan is not None else []
        runs = scan.runs.get(number, ()) if scan is not None else ()
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
                    return self._flat(text, self._find(text, context, depth), (), depth)
            findings += self._escaped(text, context, depth)
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
        masked = self._text(decoded, "", depth + 1)
        return disguises.write_base64(masked, code) if masked != decoded else code

    def _find(self, text: str, context: str, depth: int) -> list[Finding]:
        scan = self._scanner.scan(text, [text], {0: context} if context else {}, self._tick)
        return list(scan.findings.get(0, ())) if scan is not None else []

    def _escaped(self, text: str, context: str, depth: int) -> list[Finding]:
        """What is found once the escapes in the text are resolved, as spans of the text as it is."""
        if depth >= _DEEPEST or not disguises.may_be_escaped(text):
            return []
        reading = disguises.unescape(text)
        if reading is None:
            return []
        found = self._find(reading.text, context, depth) + self._escaped(reading.text, context, depth + 1)
        return [(*reading.span(start, end), name) for start, end, name in found]

    def _flat(self, text: str, findings: list[Finding], runs: object, depth: int) -> str:
        """The text with its findings replaced where they stand."""
        splices: list[tuple[int, int, str, str]] = []
        for start, end in runs if isinstance(runs, list) else ():
            decoded = disguises.read_base64(text[start:end])
            if decoded is not None:
                code = self._base64(text[start:end], decoded, depth)
                if code != text[start:end]:
                    findings = [found for found in findings if not (start <= found[0] and found[1] <= end)]
                    splices.append((start, end, "", code))
        splices.extend((start, end, name, placeholder(name)) for start, end, name in findings)
        if not splices:
            return text
        return self._splice(text, _merged(splices))

    def _splice(self, text: str, splices: list[tuple[int, int, str, str]]) -> str:
        pieces: list[str] = []
        at = 0
        for start, end, name, replacement in splices:
            pieces.append(text[at:start])
            pieces.append(replacement)
            at = end
            if name:
                self._count(name)
        pieces.append(text[at:])
        return "".join(pieces)

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _tick(self) -> None:
        self._candidates += 1
        if self._candidates & _PATIENCE == 0 and self._monotonic is not None:
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
            children = [self._rebuild(child, context, changed) for child in node]
            return children if any(new is not old for new, old in zip(children, node, strict=True)) else node
        if kind is int or kind is float or kind is Decimal:
            lexeme = _lexeme(node, context)
            if lexeme:
                return changed.get((context if context not in ("", keys.TEXT) else keys.NUMBER, lexeme), node)
        return node

    def _object(self, node: dict[str, Json], changed: Mapping[tuple[str, str], str]) -> dict[str, Json]:
        rebuilt: dict[str, Json] = {}
        same = True
        for key, child in node.items():
            new_key = changed.get(("", key), key)
            new_child = self._rebuild(child, self._meaning(key) if type(child) is not dict else "", changed)
            if new_key is not key:
                # Two keys may look alike once they are masked; neither value is lost.
                new_key = _unused(new_key, rebuilt, node)
            same = same and new_key is key and new_child is child
            rebuilt[new_key] = new_child
        return node if same else rebuilt


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
    return any('"' in text[start:end] or _is_bare(text, start, end) for start, end, _ in findings)


def _is_bare(text: str, start: int, end: int) -> bool:
    """Whether a finding may be a number of the JSON text rather than a part of one of its strings."""
    if text[start] not in "0123456789-":
        return False
    before = text[max(0, start - 32) : start].rstrip(" \t\r\n-")
    after = text[end : end + 32].lstrip(" \t\r\n.0")
    return before[-1:] in (":", ",", "[") and after[:1] in (",", "]", "}")


def _merged(splices: list[tuple[int, int, str, str]]) -> list[tuple[int, int, str, str]]:
    """In order and without overlap; where findings overlap, the longest names them, the broker's own first."""
    merged: list[tuple[int, int, str, str]] = []
    for splice in sorted(splices, key=lambda found: (found[0], -found[1])):
        start, end, name, replacement = splice
        if merged and start < merged[-1][1]:
            first = merged[-1]
            longer = end - start > first[1] - first[0] if name != own.NAME else True
            if first[2] == own.NAME:
                longer = False
            kept = (name, replacement) if longer and name else (first[2], first[3])
            merged[-1] = (first[0], max(end, first[1]), *kept)
        else:
            merged.append(splice)
    return merged
