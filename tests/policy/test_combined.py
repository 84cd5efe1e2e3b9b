"""Several asks on one call: whoever satisfies the combined terms satisfies each, and nobody else gets in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interposer import canonical
from interposer.ballot import OPERATOR, enough, may_answer
from interposer.model import Principal
from interposer.policy.combined import combine_terms
from interposer.policy.document import parse
from interposer.terms import ApprovalTerms, GrantCap, Window
from interposer.windows import is_open


def read(approvals: list[dict[str, Any]]) -> list[ApprovalTerms]:
    """Terms, as policies write them."""
    rules = [
        {"id": f"r{place}", "effect": "ask", "skills": ["*"], "approval": approval}
        for place, approval in enumerate(approvals)
    ]
    found = parse(canonical.encode({"version": 1, "rules": rules}).decode(), "p").rules
    return [rule.terms for rule in found if rule.terms is not None]


_groups = st.sampled_from("ab")
_minima = st.dictionaries(_groups, st.integers(1, 3), max_size=2).map(lambda found: tuple(sorted(found.items())))
_yes = st.booleans()
_hours = st.builds(
    Window, st.frozensets(st.integers(0, 6), min_size=1), st.integers(0, 1439), st.integers(0, 1439), st.just("UTC")
)


def _raised(of: ApprovalTerms) -> ApprovalTerms:
    """As the policy reader makes them: a quorum holds all minima, and who confirms alone is nobody's group."""
    quorum = max(of.quorum, sum(least for _, least in of.minima))
    return replace(of, quorum=quorum, caller=of.caller and quorum == 1 and not of.minima)


_terms = st.builds(
    ApprovalTerms,
    groups=st.frozensets(_groups, max_size=2),
    subjects=st.frozensets(st.sampled_from("uvw"), max_size=2),
    quorum=st.integers(1, 3),
    expires_s=st.sampled_from([60.0, 300.0]),
    minima=_minima,
    windows=st.lists(st.lists(_hours, min_size=1, max_size=2).map(tuple), max_size=1).map(tuple),
    cap=st.none()
    | st.builds(
        GrantCap,
        st.sampled_from([60.0, 3600.0]),
        st.none() | st.integers(1, 5),
        session=st.booleans(),
        matching=st.booleans(),
    ),
    execute=st.booleans(),
    caller=st.booleans(),
    reading_s=st.sampled_from([0.0, 5.0, 60.0]),
).map(_raised)
# Half of the time rules that agree on who may answer: others often leave nobody.
_several = st.lists(_terms, min_size=1, max_size=3) | st.lists(
    _terms.map(lambda of: replace(of, groups=frozenset("ab"), reading_s=0.0)), min_size=2, max_size=3
)
EVERYBODY = [
    Principal(issuer, subject, groups)
    for issuer in ("idp", OPERATOR)
    for subject in "uvwxyz"
    for groups in ((), ("a",), ("b",), ("a", "b"))
]
_crowd = st.lists(st.sampled_from(EVERYBODY), min_size=1, max_size=8, unique_by=lambda voter: voter.subject)


def names_nobody(terms: ApprovalTerms) -> bool:
    return not terms.groups and not terms.subjects and not terms.minima


@settings(max_examples=150, deadline=None)
@given(_several, st.lists(_crowd, min_size=1, max_size=8))
def test_whoever_satisfies_the_combination_satisfies_each(
    terms: list[ApprovalTerms], crowds: list[list[Principal]]
) -> None:
    """People who grant under combined terms would have granted under each rule's own: nobody becomes an approver by a
    second rule, and no place stays empty. A rule that names nobody leaves it to the others to name."""
    combined = combine_terms(terms)
    if combined is None:
        return
    approvers = [voter for voter in EVERYBODY if may_answer(voter, combined)]
    naming = [each for each in terms if not names_nobody(each)]
    for each in naming or terms:
        assert all(may_answer(voter, each) for voter in approvers)
    for agreed in [*([voter for voter in crowd if voter in approvers] for crowd in crowds), approvers]:
        if enough(agreed, combined):
            assert all(enough(agreed, each) for each in terms)


@settings(max_examples=80, deadline=None)
@given(_several, st.floats(0, 2e9))
def test_a_combination_gives_no_more_than_each(terms: list[ApprovalTerms], now: float) -> None:
    """No longer, at no other hour, no larger grant, no call without its caller and no word of the caller's own user,
    unless every rule says so."""
    combined = combine_terms(terms)
    if combined is None:
        return
    assert combined.quorum >= sum(least for _, least in combined.minima)
    assert combined.reading_s < combined.expires_s
    assert is_open(combined.windows, now) is all(is_open(each.windows, now) for each in terms)
    for each in terms:
        assert combined.expires_s <= each.expires_s
        assert combined.reading_s >= each.reading_s
        assert each.execute or not combined.execute
        assert each.caller or not combined.caller
        assert within(combined.cap, each.cap)
    assert not combined.caller or (combined.quorum == 1 and not combined.minima)


def within(cap: GrantCap | None, limit: GrantCap | None) -> bool:
    if cap is None or limit is None:
        return cap is None
    fewer = limit.uses is None or (cap.uses is not None and cap.uses <= limit.uses)
    flags = cap.session <= limit.session and cap.matching <= limit.matching
    return fewer and flags and cap.for_s <= limit.for_s


@settings(max_examples=80, deadline=None)
@given(_several, st.randoms(use_true_random=False))
def test_a_combination_depends_on_neither_order_nor_repetition(terms: list[ApprovalTerms], random: Any) -> None:
    """The same rules make the same terms, so that a yes that was asked for under them fits."""
    shuffled = random.sample([*terms, *terms], 2 * len(terms))
    assert combine_terms(terms) == combine_terms(shuffled)


@pytest.mark.parametrize(
    ("approvals", "expected"),
    [
        # The minimum of one rule is a group that the other lets answer.
        (
            [{"approvers": {"groups": ["dba", "leads"]}}, {"at_least": {"dba": 1}}],
            ApprovalTerms(minima=(("dba", 1),)),
        ),
        (
            [{"approvers": {"groups": ["dba", "leads"]}}, {"approvers": {"groups": ["leads"]}, "at_least": {"dba": 2}}],
            ApprovalTerms(groups=frozenset({"leads"}), quorum=2, minima=(("dba", 2),)),
        ),
        # It is not: whoever filled the place would not be an approver of the other.
        ([{"approvers": {"groups": ["leads"]}}, {"at_least": {"dba": 1}}], None),
        ([{"approvers": {"subjects": ["ann"]}}, {"at_least": {"dba": 1}}], None),
        ([{"at_least": {"security": 1}}, {"at_least": {"dba": 1}}], None),
        # Places add up to a quorum that neither demanded.
        (
            [{"at_least": {"dba": 1, "security": 2}}, {"at_least": {"dba": 2, "security": 1}}],
            ApprovalTerms(quorum=4, minima=(("dba", 2), ("security", 2))),
        ),
        # Who names nobody leaves it to the others.
        ([{"quorum": 3}, {"at_least": {"dba": 1}}], ApprovalTerms(quorum=3, minima=(("dba", 1),))),
        # A client's word stands only where every rule takes it, and one person is enough.
        ([{"confirm": "caller"}, {"confirm": "caller", "expires": "1m"}], ApprovalTerms(expires_s=60.0, caller=True)),
        ([{"confirm": "caller"}, {"expires": "1m"}], ApprovalTerms(expires_s=60.0)),
        ([{"confirm": "caller"}, {"quorum": 2}], ApprovalTerms(quorum=2)),
        ([{"confirm": "caller"}, {"at_least": {"dba": 1}}], ApprovalTerms(minima=(("dba", 1),))),
        # Once in one rule is once.
        ([{"grant": {"for": "1h"}}, {"grant": "once", "expires": "1m"}], ApprovalTerms(expires_s=60.0)),
        (
            [
                {"grant": {"for": "1h", "uses": 20, "session": True, "matching": True}},
                {"grant": {"for": "8h", "session": True}},
            ],
            ApprovalTerms(cap=GrantCap(3600.0, 20, session=True)),
        ),
        (
            [{"grant": {"for": "1h", "uses": 20}}, {"grant": {"for": "1h", "uses": 5}}],
            ApprovalTerms(cap=GrantCap(3600.0, 5)),
        ),
        # Nobody can read for a minute within a minute.
        ([{"read_for": "1m"}, {"expires": "1m"}], None),
    ],
)
def test_terms_of_several_asks(approvals: list[dict[str, Any]], expected: ApprovalTerms | None) -> None:
    """What every rule says holds; where that leaves nobody, the call is denied."""
    assert combine_terms(read(approvals)) == expected


def test_hours_of_several_asks_all_hold() -> None:
    """One rule's hours do not widen another's."""
    day = {"from": "08:00", "to": "18:00", "zone": "UTC"}
    early = {"from": "06:00", "to": "10:00", "zone": "UTC"}
    terms = combine_terms(read([{"hours": [each]} for each in (day, early, day)]))
    assert terms is not None
    assert len(terms.windows) == 2
    assert [is_open(terms.windows, hour * 3600.0) for hour in (7, 9, 11)] == [False, True, False]
