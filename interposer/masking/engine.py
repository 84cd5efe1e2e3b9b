"""The masker: the only maker of `Masked`. What it could not read does not leave.

One walk collects every text, key and number of a message; one search over all of them (see `scanner.py`) finds the
candidates; a message without any is handed back as it is. Otherwise the findings are replaced by placeholders and the
changed paths are rebuilt; what was not changed is shared with the original. Texts inside of texts (JSON in a string,
base64, percent-encoding, escapes) are read to a bounded depth.

Masking is idempotent, keeps JSON JSON, and is bounded: beyond its budget it raises `MaskFault`, as it does for every
error inside, and the message is withheld.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from types import MappingProxyType
from typing import Protocol

from interposer.errors import ConfigurationError, MaskFault, Problem
from interposer.model import Json, JsonObject, Masked

from . import disguises, schema
from .credentials import Credentials, Guarded
from .detectors import own
from .detectors.catalogue import DETECTORS
from .rewrite import Collected, Pass
from .scanner import Scanner

PROFILES = frozenset({"pii", "secrets"})
SECONDS_PER_MB = 0.25
KEPT = 6
"""Of one owner's credentials that nobody holds any more, so many are still looked for: an answer with one may be on its
way."""
_NOTHING: Mapping[str, int] = MappingProxyType({})
_NOTHING_CHANGED: Mapping[tuple[str, str], str] = MappingProxyType({})
_SAMPLE = (
    "Order 1042 of 2026-08-22T10:05:00Z, see https://example.com/a?b=1 and write to Ann at the usual place; total "
    '12.50 EUR. {"id": 412233, "state": "open", "amount": 308.64, "tags": ["north", "retail"], "key": null}\n'
    "GET /v1/items/786512e2-9e0d-44bd-8f29-789f320fe840 200 1.5ms; commit 9fceb02d0ae598e95dc970b74767f19372d61af8\n"
)


class Revealing(Protocol):
    """A credential, as `ports.Secret` carries it."""

    def reveal(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is looked for at one time; another credential is another one of these."""

    credentials: Credentials | None = None
    scanners: dict[frozenset[str], tuple[Scanner, dict[str, str]]] = field(default_factory=dict)

    def scanner(self, profiles: frozenset[str]) -> tuple[Scanner, dict[str, str]]:
        """The scanner for these profiles, and the keys that are known to be clean."""
        unknown = profiles - PROFILES
        if unknown:
            raise MaskFault("unknown masking profile")
        detectors = [detector for detector in DETECTORS if detector.profile in profiles]
        made = self.scanners[profiles] = (Scanner(detectors, self.credentials), dict[str, str]())
        return made


class Engine:
    """The `Masker` port.

    `monotonic` is the clock that the budget is measured by; without one there is no limit of time, and the bounds are
    those of the search alone (linear in the size of the message). `seconds_per_mb` applies to messages of a megabyte
    and more; smaller ones have the budget of one.
    """

    def __init__(self, *, monotonic: Callable[[], float] | None = None, seconds_per_mb: float = SECONDS_PER_MB) -> None:
        self._monotonic = monotonic
        self._seconds_per_mb = seconds_per_mb
        self._prepared = _Prepared()
        self._guarding = Lock()
        """Held while one credential is compiled; nobody who masks waits for it."""
        self._held: dict[str, Counter[str]] = {}
        """Owner -> credential -> by how many it is held. Those held by nobody stand in the order of their release."""
        self._releases: deque[tuple[str, str]] = deque()
        """What was released since the last one was compiled."""
        self._compiled: dict[str, list[Guarded]] = {}

    def mask(self, value: Json, profiles: frozenset[str]) -> Masked:
        """The value with every finding of the profiles replaced. Raises `MaskFault`, and never anything else."""
        try:
            prepared = self._prepared
            scanner, known = prepared.scanners.get(profiles) or prepared.scanner(profiles)
            collected = Collected(value, known)
            joined = collected.joined
            first = scanner.first(scanner.encode(joined)[1])
            if first[0] < 0 and not collected.told() and not disguises.may_be_escaped(joined):
                collected.remember(known, _NOTHING_CHANGED)
                return Masked(value, _NOTHING)
            work = Pass(scanner, profiles, known)
            if self._monotonic is not None:
                work.limit(self._monotonic, self._seconds_per_mb)
            masked = work.value(value, 0, collected, first)
            return Masked(masked, work.counts or _NOTHING)
        except MaskFault:
            raise
        except Exception as error:
            # Whatever went wrong, the message stays here; the error may hold parts of it, so only its kind is told.
            raise MaskFault(f"masking failed: {type(error).__name__}") from None

    def guard(self, secret: Revealing, owner: str = "") -> None:
        """Find this credential from now on, in its usual encodings, whatever the profiles; and what is secret inside of
        it. For as long as it is held: until `release` was called as often as this; and then until `KEPT` others of the
        same owner were released, too.

        It compiles, so call it from a thread where others wait; messages are masked meanwhile. Raises
        `ConfigurationError` for a credential that cannot be guarded, such as one that is too short to be told from
        ordinary text.
        """
        revealed = secret.reveal().strip()
        if len(revealed) < own.SHORTEST:
            raise _unfit(f"a credential of fewer than {own.SHORTEST} characters cannot be kept out of answers")
        if not _is_text(revealed):
            raise _unfit("a credential that is not UTF-8 text cannot be kept out of answers")
        with self._guarding:
            self._forget()
            try:
                self._find_too(revealed)
            except Exception as error:
                # The error may hold parts of it.
                raise _unfit(f"it cannot be kept out of answers ({type(error).__name__})") from None
            self._held.setdefault(owner, Counter())[revealed] += 1

    def release(self, secret: Revealing, owner: str = "") -> None:
        """Whoever had this credential has ended. Never waits."""
        self._releases.append((owner, secret.reveal().strip()))

    def _forget(self) -> None:
        """Take note of what was released, and drop the oldest of those that nobody holds."""
        while self._releases:
            owner, text = self._releases.popleft()
            held = self._held.get(owner, Counter())
            if held[text] > 0:
                left = held.pop(text) - 1
                held[text] = left
            idle = [each for each, holders in held.items() if not holders]
            for each in idle[:-KEPT]:
                del held[each]

    def _find_too(self, text: str) -> None:
        """Compile what is new, and then look for it and for all others that are kept."""
        texts = dict.fromkeys(each for held in self._held.values() for each in held) | {text: None}
        if self._compiled.keys() == texts.keys():
            return
        known = self._compiled
        compiled = {each: known.get(each) or [Guarded(part, each) for part in own.guarded(each)] for each in texts}
        prepared = _Prepared(Credentials([part for parts in compiled.values() for part in parts]))
        for profiles in list(self._prepared.scanners):
            scanner, _ = prepared.scanner(profiles)
            scanner.first(scanner.encode(_SAMPLE)[1])
        self._compiled, self._prepared = compiled, prepared

    def relax(self, schema_: JsonObject) -> JsonObject:
        """The schema that masked values of the given schema satisfy."""
        return schema.relax(schema_, lambda key: self.mask(key, PROFILES).value != key)

    def warm(self, profiles: frozenset[str] = PROFILES) -> None:
        """Compile the detectors and build their automaton now instead of during the first message."""
        for _ in range(2):
            self.mask({"content": [{"type": "text", "text": _SAMPLE}]}, profiles)


def _unfit(message: str) -> ConfigurationError:
    return ConfigurationError([Problem("credential", 0, 0, message)])


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
