"""The terms of several asks on one call -> terms that satisfy every one of them, or none where nobody could.

The largest quorum, the shortest expiry, the longest reading time, every minimum, everybody's hours, no more of a grant
than each of them gives, and only approvers that every rule names in the same way: subjects with subjects, groups with
groups, those of `at_least` among them. A rule that names nobody restricts nobody. Calls are made on approval, and
callers confirm, only where every rule says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from interposer.terms import ApprovalTerms, GrantCap, Window

_NOBODY: frozenset[str] = frozenset()


def combine_terms(terms: Sequence[ApprovalTerms]) -> ApprovalTerms | None:
    """Terms that satisfy every one of these, or None where nobody could: whoever grants under them would have granted
    under each, but that a rule without approvers leaves it to the others to name them."""
    distinct = list(dict.fromkeys(terms))
    merged = distinct[0] if len(distinct) == 1 else _merged(distinct)
    return merged if merged is not None and _answerable(merged) else None


def _merged(terms: Sequence[ApprovalTerms]) -> ApprovalTerms | None:
    minima = _minima(terms)
    named = [each for each in terms if each.groups or each.subjects or each.minima]
    groups = frozenset.intersection(*(_groups(each) for each in named)) if named else _NOBODY
    subjects = frozenset.intersection(*(each.subjects for each in named)) if named else _NOBODY
    # Both empty would mean "any operator": the opposite of what two rules with different approvers say. And places for
    # a group that another rule does not let answer cannot be filled.
    if (named and not groups and not subjects) or not groups.issuperset(minima):
        return None
    quorum = max(*(each.quorum for each in terms), sum(minima.values()))
    return ApprovalTerms(
        groups=groups.difference(minima),
        subjects=subjects,
        quorum=quorum,
        expires_s=min(each.expires_s for each in terms),
        minima=tuple(sorted(minima.items())),
        windows=tuple(sorted({some for each in terms for some in each.windows}, key=_order)),
        cap=_cap([each.cap for each in terms]),
        execute=all(each.execute for each in terms),
        caller=all(each.caller for each in terms) and quorum == 1 and not minima,
        reading_s=max(each.reading_s for each in terms),
    )


def _minima(terms: Iterable[ApprovalTerms]) -> dict[str, int]:
    found: dict[str, int] = {}
    for group, least in (place for each in terms for place in each.minima):
        found[group] = max(least, found.get(group, 0))
    return found


def _groups(terms: ApprovalTerms) -> frozenset[str]:
    """Those whose people may answer."""
    return terms.groups.union(group for group, _ in terms.minima)


def _order(alternatives: Iterable[Window]) -> list[tuple[list[int], int, int, str]]:
    """Any fixed one, so that terms do not depend on the order of rules."""
    return [(sorted(each.days), each.opens_min, each.closes_min, each.zone) for each in alternatives]


def _cap(caps: Sequence[GrantCap | None]) -> GrantCap | None:
    given = [cap for cap in caps if cap is not None]
    if len(given) < len(caps):
        return None
    return GrantCap(
        for_s=min(cap.for_s for cap in given),
        uses=min((cap.uses for cap in given if cap.uses is not None), default=None),
        session=all(cap.session for cap in given),
        matching=all(cap.matching for cap in given),
    )


def _answerable(terms: ApprovalTerms) -> bool:
    too_few = not _groups(terms) and 0 < len(terms.subjects) < terms.quorum
    return not too_few and terms.reading_s < terms.expires_s
