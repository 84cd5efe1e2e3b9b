"""Rules and obligations as `document` makes them and `engine` asks them: compiled, immutable, with their places."""

from __future__ import annotations

from dataclasses import dataclass

from interposer.model import Effect, MatchedRule, Principal, Rate
from interposer.terms import ApprovalTerms

from . import units
from .conditions import Condition


@dataclass(frozen=True, slots=True)
class Who:
    """All that are given must match; None is not given."""

    groups: frozenset[str] | None = None
    subjects: frozenset[str] | None = None
    issuers: frozenset[str] | None = None
    clients: frozenset[str] | None = None
    uids: frozenset[int] | None = None

    def covers(self, principal: Principal) -> bool:
        return not (
            (self.groups is not None and self.groups.isdisjoint(principal.groups))
            or (self.subjects is not None and principal.subject not in self.subjects)
            or (self.issuers is not None and principal.issuer not in self.issuers)
            or (self.clients is not None and principal.client_id not in self.clients)
            or (self.uids is not None and principal.uid not in self.uids)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, compiled. It speaks when the skill, who, and every condition fit."""

    id: str
    effect: Effect
    skills: tuple[str, ...]
    who: Who | None
    hints: tuple[Condition, ...]
    conditions: tuple[Condition, ...]
    """Everything that a single call decides: arguments, match, when, in this order."""
    terms: ApprovalTerms | None
    """Present exactly when the effect is ask."""
    spoken: MatchedRule
    column: int
    """With the line in `spoken`, where the rule begins."""
    loose: bool = False
    """An allow rule whose schema names a property without demanding it."""

    def names(self, skill_id: str) -> bool:
        return any(units.fits(pattern, skill_id) for pattern in self.skills)


@dataclass(frozen=True, slots=True)
class Obligation:
    """What must be done for some skills; None is not given."""

    skills: tuple[str, ...]
    who: Who | None
    mask: frozenset[str] | None
    timeout_s: float | None
    max_result_bytes: int | None
    rate: Rate | None
    labels: frozenset[str]
    record: str | None
    line: int
    column: int

    def names(self, skill_id: str) -> bool:
        return any(units.fits(pattern, skill_id) for pattern in self.skills)


@dataclass(frozen=True, slots=True)
class Document:
    """A whole policy. `digest` is over what it says, not over its comments and line breaks."""

    file: str
    digest: str
    rules: tuple[Rule, ...]
    otherwise: tuple[Rule, ...]
    obligations: tuple[Obligation, ...]
