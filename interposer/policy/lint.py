"""What a policy says in vain: rules that can never decide, patterns that name no skill, holes that look like fences.

Everything found here loads and runs; a finding says that it does not do what it seems to. Unreachability is proved
from skills, `who` and `hints`; what only conditions rule out is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from interposer.errors import Problem
from interposer.model import Effect

from . import units
from .engine import Policy, combine_terms
from .rules import Rule, Who

_RANK = {Effect.ALLOW: 0, Effect.ASK: 1, Effect.DENY: 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing said in vain. A note does not fail a check."""

    problem: Problem
    note: bool = False


def lint(policy: Policy, skills: Collection[str] | None = None) -> list[Finding]:
    """All findings in the order of the file. With `skills`, patterns that name none of them as well."""
    document = policy.document
    found = [
        *_overruled(document.rules, document.rules),
        *_overruled(document.otherwise, document.otherwise),
        *_never_consulted(document.rules, document.otherwise),
        *_unanswerable((*document.rules, *document.otherwise)),
        *_loose((*document.rules, *document.otherwise)),
    ]
    if skills is not None:
        found += _unknown(policy, skills)
    return sorted(found, key=lambda finding: finding.problem.line)


def _overruled(rules: Collection[Rule], by: Collection[Rule]) -> Iterator[Finding]:
    for rule in rules:
        for other in by:
            if _RANK[other.effect] > _RANK[rule.effect] and _always_with(other, rule):
                yield _on(rule, f"never decides: {_named(other)} speaks wherever this rule does, and is stricter")
                break


def _never_consulted(rules: Collection[Rule], otherwise: Collection[Rule]) -> Iterator[Finding]:
    for rule in otherwise:
        for other in rules:
            if _always_with(other, rule):
                yield _on(rule, f"never consulted: {_named(other)} always speaks first for these skills and callers")
                break


def _unanswerable(rules: Collection[Rule]) -> Iterator[Finding]:
    asks = [rule for rule in rules if rule.terms is not None]
    for place, rule in enumerate(asks):
        for other in asks[place + 1 :]:
            pair = [terms for terms in (rule.terms, other.terms) if terms is not None]
            if combine_terms(pair) is None and _may_meet(rule, other):
                said = f"where {_named(rule)} asks as well, no approver satisfies both, and the call is denied"
                yield _on(other, said, note=True)


def _loose(rules: Collection[Rule]) -> Iterator[Finding]:
    for rule in rules:
        if rule.loose:
            said = "allows calls that leave out a property its `arguments` describe; add it to `required`"
            yield _on(rule, said, note=True)


def _unknown(policy: Policy, skills: Collection[str]) -> Iterator[Finding]:
    document = policy.document
    places = [(rule.skills, rule.spoken.line, rule.column) for rule in (*document.rules, *document.otherwise)]
    places += [(duty.skills, duty.line, duty.column) for duty in document.obligations]
    for patterns, line, column in places:
        for pattern in patterns:
            if pattern != "*" and not any(units.fits(pattern, skill) for skill in skills):
                yield Finding(Problem(document.file, line, column, f"{pattern!r} names no known skill"))


def _always_with(other: Rule, rule: Rule) -> bool:
    """Whether `other` speaks on every call that `rule` could speak on."""
    return (
        other is not rule
        and not other.conditions
        and not other.hints
        and _covers(other.who, rule.who)
        and all(any(units.contains(wide, narrow) for wide in other.skills) for narrow in rule.skills)
    )


def _covers(wide: Who | None, narrow: Who | None) -> bool:
    if wide is None:
        return True
    if narrow is None:
        return False
    pairs: list[tuple[Collection[object] | None, Collection[object] | None]] = [
        (wide.groups, narrow.groups),
        (wide.subjects, narrow.subjects),
        (wide.issuers, narrow.issuers),
        (wide.clients, narrow.clients),
        (wide.uids, narrow.uids),
    ]
    return all(some is None or (given is not None and set(given) <= set(some)) for some, given in pairs)


def _may_meet(left: Rule, right: Rule) -> bool:
    return any(units.overlap(one, other) for one in left.skills for other in right.skills)


def _named(rule: Rule) -> str:
    return f"{rule.id} (line {rule.spoken.line})"


def _on(rule: Rule, said: str, *, note: bool = False) -> Finding:
    return Finding(Problem(rule.spoken.file, rule.spoken.line, rule.column, f"rule {rule.id} {said}"), note)
