"""The masker: the only maker of `Masked`. What it could not read does not leave.

One walk collects every text, key and number of a message; one search over all of them (see `scanner.py`) finds the
candidates; a message without any is handed back as it is. Otherwise the findings are replaced by placeholders and the
changed paths are rebuilt; what was not changed is shared with the original. Texts inside of texts (JSON in a string,
base64, percent-encoding, escapes) are read to a bounded depth.

Masking is idempotent, keeps JSON JSON, and is bounded: beyond its budget it raises `MaskFault`, as it does for every
error inside, and the message is withheld.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from interposer.errors import ConfigurationError, MaskFault, Problem
from interposer.model import Json, JsonObject, Masked

from . import disguises, schema
from .detectors import own
from .detectors.catalogue import DETECTORS
from .rewrite import Collected, Pass
from .scanner import Scanner

PROFILES = frozenset({"pii", "secrets"})
SECONDS_PER_MB = 0.25
_NOTHING: Mapping[str, int] = MappingProxyType({})
_NOTHING_CHANGED: Mapping[tuple[str, str], str] = MappingProxyType({})
_SAMPLE = (
    "Order 1042 of 2026-08-22T10:05:00Z, see https://example.com/a?b=1 and write to Ann at the usual place; total "
    '12.50 EUR. {"id": 412233, "state": "open", "amount": 308.64, "tags": ["north", "retail"], "key": null}\n'
    "GET /v1/items/786512e2-9e0d-44bd-8f29-789f320fe840 200 1.5ms; commit 9fceb02d0ae598e95dc970b74767f19372d61af8\n"
)


class Guarded(Protocol):
    """A credential, as `ports.Secret` carries it."""

    def reveal(self) -> str: ...


class Engine:
    """The `Masker` port.

    `monotonic` is the clock that the budget is measured by; without one there is no limit of time, and the bounds are
    those of the search alone (linear in the size of the message). `seconds_per_mb` applies to messages of a megabyte
    and more; smaller ones have the budget of one.
    """

    def __init__(self, *, monotonic: Callable[[], float] | None = None, seconds_per_mb: float = SECONDS_PER_MB) -> None:
        self._monotonic = monotonic
        self._seconds_per_mb = seconds_per_mb
        self._guarded: dict[str, list[str]] = {}
        """Owner -> the texts to be found, oldest first."""
        self._scanners: dict[frozenset[str], tuple[Scanner, dict[str, str]]] = {}

    def mask(self, value: Json, profiles: frozenset[str]) -> Masked:
        """The value with every finding of the profiles replaced. Raises `MaskFault`, and never anything else."""
        try:
            scanner, known = self._scanners.get(profiles) or self._prepare(profiles)
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

    def guard(self, secret: Guarded, owner: str = "") -> None:
        """Find this credential from now on, in its usual encodings, whatever the profiles; and what is secret inside of
        it. Of those that one owner's followed, the last ones are kept (`own.KEPT`); without an owner all are.

        Raises `ConfigurationError` for one that is too short to be told from ordinary text.
        """
        revealed = secret.reveal().strip()
        if len(revealed) < own.SHORTEST:
            problem = f"a credential of fewer than {own.SHORTEST} characters cannot be kept out of answers"
            raise ConfigurationError([Problem("credential", 0, 0, problem)])
        before = self._guarded.get(owner, [])
        kept = [text for text in before if text != revealed][-own.KEPT + 1 if owner else 0 :]
        self._guarded[owner] = [*kept, revealed]
        if sorted(self._guarded[owner]) != sorted(before):
            self._scanners.clear()

    def relax(self, schema_: JsonObject) -> JsonObject:
        """The schema that masked values of the given schema satisfy."""
        return schema.relax(schema_, lambda key: self.mask(key, PROFILES).value != key)

    def warm(self, profiles: frozenset[str] = PROFILES) -> None:
        """Compile the detectors and build their automaton now instead of during the first message."""
        for _ in range(2):
            self.mask({"content": [{"type": "text", "text": _SAMPLE}]}, profiles)

    def _prepare(self, profiles: frozenset[str]) -> tuple[Scanner, dict[str, str]]:
        unknown = profiles - PROFILES
        if unknown:
            raise MaskFault("unknown masking profile")
        detectors = [detector for detector in DETECTORS if detector.profile in profiles]
        guarded = [text for texts in self._guarded.values() for text in texts]
        if guarded:
            detectors.insert(0, own.detector(guarded))
        prepared = (Scanner(detectors), dict[str, str]())
        self._scanners[profiles] = prepared
        return prepared
