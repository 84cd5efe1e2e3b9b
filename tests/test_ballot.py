"""The rules of approval: distinct people, minima, versions, hours; and what digests bind."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interposer.ballot import (
    ELICITED,
    VoteRefused,
    asked,
    cast,
    changed,
    digest_of,
    enough,
    judge,
    judge_break_glass,
    may_answer,
    question_digest,
    terms_json,
    version_of,
)
from interposer.canonical import canonical, digest, digest_bytes
from interposer.model import Decision, Effect, Invocation, JsonObject, Principal, Question, QuestionState, Skill, Vote
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec, Window

AGENT = Principal("https://idp", "agent", ("support",), uid=1000)
NOON = 1_750_000_000.0


def someone(name: str, *groups: str, issuer: str = "operator", **more: Any) -> Principal:
    return Principal(issuer, name, groups, **more)


def question(terms: ApprovalTerms | None = None, arguments: JsonObject | None = None, **more: Any) -> Question:
    exact = canonical(arguments or {"amount": 90})
    skill = Skill("payments.refund", "payments", "refund", "refund", more.pop("definition", {}), "skill-1")
    invocation = Invocation("i_1", "s_1", AGENT, skill, arguments or {"amount": 90}, exact, digest_bytes(exact))
    terms = terms or ApprovalTerms()
    decision = Decision(Effect.ASK, (), "policy-1", "a human decides", terms=terms)
    return replace(asked("q_1", invocation, decision, terms, now=NOON), **more)


def yes(who: Principal, **more: Any) -> Vote:
    return Vote(who, True, "", NOON, **more)


def refused(found: Question, vote: Vote, **more: Any) -> str:
    with pytest.raises(VoteRefused) as refusal:
        judge(found, vote, overdue=more.pop("overdue", False), **more)
    return refusal.value.name


@pytest.mark.parametrize(
    ("terms", "people", "granted"),
    [
        pytest.param(ApprovalTerms(quorum=2), [someone("a")], False, id="one of two"),
        pytest.param(ApprovalTerms(quorum=2), [someone("a"), someone("b")], True, id="two of two"),
        pytest.param(
            ApprovalTerms(quorum=2), [someone("a"), someone("a", issuer="https://idp")], False, id="one by two logins"
        ),
        pytest.param(
            ApprovalTerms(minima=(("dba", 1),)), [someone("a", "dba", "sec")], True, id="least of 1, in two groups"
        ),
        pytest.param(
            ApprovalTerms(quorum=2, minima=(("dba", 1), ("sec", 1))),
            [someone("a", "dba", "sec")],
            False,
            id="one person never fills two places",
        ),
        pytest.param(
            ApprovalTerms(quorum=2, minima=(("dba", 1), ("sec", 1))),
            [someone("a", "dba", "sec"), someone("b", "dba")],
            True,
            id="who could fill both leaves the one that the other can fill",
        ),
        pytest.param(
            ApprovalTerms(quorum=2, minima=(("dba", 2),)),
            [someone("a", "dba", "x", "y", "z", "w"), someone("b", "x")],
            False,
            id="a person in five groups counts once",
        ),
        pytest.param(
            ApprovalTerms(quorum=3, minima=(("dba", 1), ("sec", 1))),
            [someone("a", "dba"), someone("b", "sec")],
            False,
            id="minima filled, quorum not",
        ),
        pytest.param(
            ApprovalTerms(quorum=2, minima=(("dba", 2),)),
            [someone("a", "dba"), someone("a", "dba", issuer="https://idp")],
            False,
            id="least of 2, one human twice",
        ),
        pytest.param(ApprovalTerms(quorum=1), [], False, id="nobody"),
    ],
)
def test_a_quorum_is_distinct_people_each_in_one_place(
    terms: ApprovalTerms, people: list[Principal], granted: bool
) -> None:
    """A yes needs so many different people, with so many of each group, and nobody counts for two."""
    assert enough(people, terms) is granted


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2), max_size=3),
    st.lists(st.frozensets(st.sampled_from("abcd")), max_size=5),
)
def test_minima_are_filled_exactly_where_some_seating_fills_them(
    least: dict[str, int], groups: list[frozenset[str]]
) -> None:
    """Whoever sits where first makes no difference: the quorum is never wedged by the order of votes."""
    places = [group for group, count in least.items() for _ in range(count)]
    people = [someone(f"p{number}", *sorted(own)) for number, own in enumerate(groups)]
    possible = any(
        all(place in person.groups for place, person in zip(places, seated, strict=True))
        for seated in itertools.permutations(people, len(places))
    )
    terms = ApprovalTerms(quorum=1, minima=tuple(sorted(least.items())))
    assert enough(people, terms) is (possible and bool(people))


def test_the_requester_never_answers_whatever_they_are_called() -> None:
    """F21: by issuer and name, by name at another issuer, or (where that is wanted) by uid, it is the same person."""
    open_to_all = question(ApprovalTerms(groups=frozenset({"support", "admins"})))
    assert refused(open_to_all, yes(AGENT)) == "self_approval"
    assert refused(open_to_all, yes(someone("agent", "admins"))) == "self_approval"
    assert refused(open_to_all, yes(someone("other", "admins", uid=1000)), same_uid=True) == "self_approval"
    judge(open_to_all, yes(someone("other", "admins", uid=1000)), overdue=False)


def test_a_kernel_name_on_both_sides_is_one_desk() -> None:
    """At a desk with one user, who has no other name than a uid, the person beside the agent may answer."""
    mine = replace(question(), requester=Principal("local", "uid:1000", uid=1000))
    mine = replace(mine, digest=digest_of(mine))
    judge(mine, yes(Principal("operator", "uid:1000", uid=1000)), overdue=False)


def test_a_workload_never_answers() -> None:
    """A machine identity in the approvers' group is still no person."""
    found = question(ApprovalTerms(groups=frozenset({"leads"})))
    assert refused(found, yes(someone("ci", "leads", machine=True))) == "machine"


def test_outside_of_its_hours_no_yes_counts() -> None:
    """A window that is closed at the time of a yes refuses it; a no is heard at any hour."""
    at_noon = (Window(frozenset(range(7)), 0, 0, "UTC"),)
    never = (Window(frozenset(), 0, 1, "UTC"),)
    judge(question(ApprovalTerms(windows=(at_noon,))), yes(someone("a")), overdue=False)
    closed = question(ApprovalTerms(windows=(at_noon, never)))
    assert refused(closed, yes(someone("a"))) == "outside_hours"
    judge(closed, Vote(someone("a"), False, "not tonight", NOON), overdue=False)


def test_members_of_a_group_with_a_minimum_may_answer() -> None:
    """Naming how many of a group are needed names its people; whoever nobody named may not answer."""
    terms = ApprovalTerms(minima=(("dba", 1),))
    assert may_answer(someone("a", "dba"), terms)
    assert not may_answer(someone("a"), terms)


def test_a_changed_proposal_drops_the_votes_before_it() -> None:
    """Who agreed to one version did not agree to another; the same version again keeps its votes."""
    found = replace(question(ApprovalTerms(quorum=2)), votes=(yes(someone("a")),))
    narrowed = changed(found, canonical({"amount": 10}), None)
    assert narrowed.votes == ()
    assert version_of(narrowed) != version_of(found)
    assert narrowed.digest == found.digest
    assert changed(narrowed, b"", None).votes == ()
    assert version_of(changed(narrowed, b"", None)) == found.digest
    assert changed(found, found.canonical, None).votes == found.votes


def test_a_grant_on_the_table_is_another_version() -> None:
    """Every part of what is agreed to is part of the version."""
    specs = [
        None,
        GrantSpec(60.0),
        GrantSpec(61.0),
        GrantSpec(60.0, uses=2),
        GrantSpec(60.0, session=True),
        GrantSpec(60.0, schema=b"{}"),
    ]
    assert len({version_of(changed(question(), b"", spec)) for spec in specs}) == len(specs)


def test_a_vote_for_another_version_is_refused() -> None:
    """Whoever looked at one version does not answer another."""
    found = changed(question(), canonical({"amount": 10}), None)
    assert refused(found, yes(someone("a"), version=found.digest)) == "other_digest"
    judge(found, yes(someone("a"), version=version_of(found)), overdue=False)


def test_terms_that_say_no_more_than_before_digest_as_before() -> None:
    """A question that an older broker asked is still intact; every new term changes the digest."""
    plain = ApprovalTerms(frozenset({"leads"}), frozenset(), 2, 60.0)
    assert terms_json(plain) == [["leads"], [], 2, 60.0]
    more = [
        replace(plain, minima=(("dba", 1),)),
        replace(plain, windows=((Window(frozenset({0}), 0, 60, "UTC"),),)),
        replace(plain, cap=GrantCap(60.0)),
        replace(plain, cap=GrantCap(60.0, uses=3)),
        replace(plain, execute=True),
        replace(plain, caller=True),
        replace(plain, reading_s=5.0),
    ]
    assert len({digest(terms_json(terms)) for terms in (plain, *more)}) == len(more) + 1


def test_what_was_asked_cannot_be_changed_under_the_digest() -> None:
    """Whatever is edited of a stored question, it is no longer the one that was asked."""
    found = question()
    for edit in (
        {"canonical": canonical({"amount": 91})},
        {"requester": someone("other")},
        {"skill": "payments.other"},
        {"skill_digest": "skill-2"},
        {"policy": "policy-2"},
        {"terms": ApprovalTerms(caller=True)},
    ):
        assert refused(replace(found, **edit), yes(someone("a"))) == "altered"


def test_the_callers_own_user_counts_only_where_policy_says_so() -> None:
    """What a client says its user answered is no approval, but where the rule trusts it, and then for that caller."""
    client = Principal(ELICITED, AGENT.subject)
    assert refused(question(), yes(client)) == "not_approver"
    assert refused(question(ApprovalTerms(subjects=frozenset({"agent"}))), yes(client)) == "not_approver"
    trusting = question(ApprovalTerms(caller=True))
    judge(trusting, yes(client), overdue=False)
    assert refused(trusting, yes(Principal(ELICITED, "somebody"))) == "not_approver"
    assert refused(question(ApprovalTerms(caller=True, quorum=2)), yes(client)) == "not_approver"
    assert refused(question(ApprovalTerms(caller=True, minima=(("x", 1),))), yes(client)) == "not_approver"


def test_breaking_glass_needs_the_right_a_reason_and_another_person() -> None:
    """One person overrides the terms only if named for it, with a reason, and never for their own call."""
    found = question(ApprovalTerms(groups=frozenset({"leads"}), quorum=3))
    vote = Vote(someone("oncall"), True, "site is down", NOON, broke_glass=True)

    def name(vote: Vote, **more: Any) -> str:
        with pytest.raises(VoteRefused) as refusal:
            judge_break_glass(found, vote, overdue=False, may=more.pop("may", True), **more)
        return refusal.value.name

    judge_break_glass(found, vote, overdue=False, may=True)
    assert cast(found, vote).state is QuestionState.GRANTED
    assert name(vote, may=False) == "no_break_glass"
    assert name(replace(vote, reason="")) == "reason_required"
    assert name(replace(vote, principal=AGENT)) == "self_approval"
    assert name(replace(vote, principal=someone("bot", machine=True))) == "machine"


def test_one_no_ends_it_whatever_came_before() -> None:
    """Deny wins over any number of yeses."""
    found = replace(question(ApprovalTerms(quorum=3)), votes=(yes(someone("a")), yes(someone("b"))))
    no = Vote(someone("c"), False, "no", NOON)
    assert cast(found, no).state is QuestionState.DENIED
    assert refused(cast(found, no), yes(someone("d"))) == "ended"


@pytest.mark.parametrize(
    ("annotations", "destructive"),
    [
        ({}, True),
        ({"readOnlyHint": True}, False),
        ({"destructiveHint": False}, False),
        ({"readOnlyHint": False}, True),
        ({"readOnlyHint": "yes"}, True),
    ],
)
def test_a_skill_is_destructive_unless_it_says_otherwise(annotations: JsonObject, destructive: bool) -> None:
    """MCP's own default: no hint, or one that is no boolean, counts as destructive."""
    assert question(definition={"annotations": annotations}).destructive is destructive


def test_a_digest_binds_the_terms() -> None:
    """Facts may raise the terms under one policy: then the yes to the weaker ones is no yes."""
    skill = Skill("a.b", "a", "b", "b", {}, "d")
    invocation = Invocation("i", "s", AGENT, skill, {}, b"{}", digest_bytes(b"{}"))
    decisions = [
        Decision(Effect.ASK, (), "p", "", terms=terms)
        for terms in (ApprovalTerms(), ApprovalTerms(quorum=2), ApprovalTerms(minima=(("dba", 1),)))
    ]
    assert len({question_digest(invocation, decision) for decision in decisions}) == 3
