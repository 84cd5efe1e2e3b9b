"""What a policy says in vain: rules that can never decide, patterns that name no skill, holes that look like fences.

Everything found here loads and runs; a finding says that it does not do what it seems to. Unreachability is proved
from skills, `who` and `hints`; what only conditions rule out is not found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from interposer.errors import Problem
from interposer.model import Effect
from interposer.terms import Window
from interposer.windows import is_open

from . import units
from .combined import combine_terms
from .engine import Policy
from .rules import Obligation, Rule, Who

_DAY_MIN = 24 * 60
_UNITS = ((3600, "h"), (60, "m"))
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
        *_unawaited((*document.rules, *document.otherwise)),
        *_ungiven((*document.rules, *document.otherwise)),
        *_unkept((*document.rules, *document.otherwise), document.obligations),
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
            if not _may_meet(rule, other):
                continue
            both = combine_terms(pair)
            if both is None:
                said = f"where {_named(rule)} asks as well, no approver satisfies both, and the call is denied"
                yield _on(other, said, note=True)
            elif _never_open(both.windows):
                said = f"where {_named(rule)} asks as well, the hours of both never meet, and no yes can count"
                yield _on(other, said, note=True)


def _never_open(windows: Sequence[Sequence[Window]]) -> bool:
    """Whether there is no moment in a year that lies in all of them: if there is one, it is where one of them opens."""
    if len(windows) < 2:
        return False
    from datetime import datetime, timedelta
    from zoneinfo import ZoneInfo

    for window in (window for alternatives in windows for window in alternatives):
        opens = datetime(2026, 1, 1, *divmod(window.opens_min, 60))
        for day in range(366):
            moment = (opens + timedelta(day)).replace(tzinfo=ZoneInfo(window.zone))
            if is_open(windows, moment.timestamp()):
                return False
    return True


def _unawaited(rules: Collection[Rule]) -> Iterator[Finding]:
    for rule in rules:
        if rule.terms is None:
            continue
        expires_s, closed_s = rule.terms.expires_s, max(map(_closed_s, rule.terms.windows), default=0.0)
        if expires_s < closed_s:
            said = f"expires after {_time(expires_s)}, and between its hours lie up to {_time(closed_s)}: what is"
            yield _on(rule, f"{said} asked early in them ends before a yes can count; lengthen `expires`", note=True)


def _closed_s(alternatives: Collection[Window]) -> float:
    """The longest time of a week in which none of them is open; weeks in which clocks are changed differ a little."""
    from datetime import datetime, timedelta
    from zoneinfo import ZoneInfo

    open_: list[tuple[float, float]] = []
    for window in alternatives:
        lasts_min = (window.closes_min - window.opens_min - 1) % _DAY_MIN + 1
        for day in range(21):
            opens = datetime(2026, 1, 5, *divmod(window.opens_min, 60), tzinfo=ZoneInfo(window.zone)) + timedelta(day)
            if opens.weekday() in window.days:
                open_.append((opens.timestamp(), opens.timestamp() + lasts_min * 60))
    longest, until = 0.0, min((closes for _, closes in open_), default=0.0)
    for opens_at, closes_at in sorted(open_):
        longest, until = max(longest, opens_at - until), max(until, closes_at)
    return longest


def _time(seconds: float) -> str:
    return next((f"{seconds / unit:g}{name}" for unit, name in _UNITS if seconds >= unit), f"{seconds:g}s")


def _ungiven(rules: Collection[Rule]) -> Iterator[Finding]:
    for rule in rules:
        if rule.terms is not None and rule.terms.cap is not None and rule.terms.cap.uses == 1:
            said = "lets approvers grant no more than once: `uses: 1` is the call in question itself"
            yield _on(rule, f"{said}; write 2 or more, or `grant: once`", note=True)


def _unkept(rules: Collection[Rule], obligations: Collection[Obligation]) -> Iterator[Finding]:
    silent = [duty for duty in obligations if duty.record == "none"]
    for rule in (rule for rule in rules if rule.terms is not None and rule.terms.execute):
        lines = [str(duty.line) for duty in silent if _overlap(rule.skills, duty.skills)]
        if lines:
            said = f"executes on approval, but `record: none` on line {', '.join(lines)} keeps no results: a caller"
            yield _on(rule, f"{said} that has left never sees its own; remove one of the two")


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
    return _overlap(left.skills, right.skills)


def _overlap(some: Collection[str], others: Collection[str]) -> bool:
    return any(units.overlap(one, other) for one in some for other in others)


def _named(rule: Rule) -> str:
    return f"{rule.id} (line {rule.spoken.line})"


def _on(rule: Rule, said: str, *, note: bool = False) -> Finding:
    return Finding(Problem(rule.spoken.file, rule.spoken.line, rule.column, f"rule {rule.id} {said}"), note)
