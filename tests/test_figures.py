"""Figures of approvals: every question is counted once, and haste shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.canonical import canonical, parse
from interposer.figures import figures
from interposer.model import Principal, Question, QuestionState, Vote
from interposer.terms import ApprovalTerms

NOON = 1_800_014_400.0  # 2027-01-15 12:00 UTC
ALICE = Principal("local", "alice")
ANNA, BOB = Principal("operator", "anna", ("leads",)), Principal("local", "bob", ("leads",))
STATES = ("open", "granted", "denied", "expired", "withdrawn")


def question(state: QuestionState = QuestionState.CONSUMED, *votes: Vote, **changes: object) -> Question:
    made = Question(
        *("q1", "d1", state, "s1", "i1", ALICE, "crm.refund", "d" * 64, "p" * 64, b"", ApprovalTerms(), ()),
        asked_at=NOON,
        expires_at=NOON + 1800,
        votes=votes,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def yes(after_s: float, by: Principal = ANNA, **changes: object) -> Vote:
    return replace(Vote(by, True, "", NOON + after_s), **changes)  # type: ignore[arg-type]


def no(after_s: float, by: Principal = ANNA) -> Vote:
    return Vote(by, False, "no", NOON + after_s)


def test_nothing_asked_is_nothing_counted() -> None:
    """There is no ratio and no time of nothing."""
    found = figures([])
    assert found["overall"] == {
        **dict.fromkeys(("asked", *STATES, "broke_glass"), 0),
        "approval_ratio": None,
        "decision_s": None,
    }
    assert (found["days"], found["skills"], found["people"]) == ({}, {}, {})


def test_questions_are_counted_by_what_became_of_them() -> None:
    """Overall, per day and per skill; times run from the asking to the vote that decided."""
    found = figures(
        [
            question(QuestionState.CONSUMED, yes(10)),
            question(QuestionState.GRANTED, yes(20)),
            question(QuestionState.DENIED, yes(5, BOB), no(60)),
            question(QuestionState.OPEN, yes(1), skill="crm.delete", asked_at=NOON + 86_400),
            question(QuestionState.EXPIRED),
            question(QuestionState.WITHDRAWN),
        ]
    )
    counts = {"asked": 6, "open": 1, "granted": 2, "denied": 1, "expired": 1, "withdrawn": 1, "broke_glass": 0}
    assert found["overall"] == counts | {"approval_ratio": 0.667, "decision_s": {"median": 20.0, "p95": 60.0}}
    assert {day: tally["asked"] for day, tally in found["days"].items()} == {"2027-01-15": 5, "2027-01-16": 1}
    assert {skill: tally["open"] for skill, tally in found["skills"].items()} == {"crm.delete": 1, "crm.refund": 0}


@pytest.mark.parametrize("state", [QuestionState.EXPIRED, QuestionState.WITHDRAWN])
def test_a_yes_that_was_not_used_was_a_yes(state: QuestionState) -> None:
    """Expired unused or taken back, people had agreed; half of a quorum had not."""
    pair = ApprovalTerms(quorum=2)
    assert figures([question(state, yes(1))])["overall"]["granted"] == 1
    assert figures([question(state, yes(1), terms=pair)])["overall"]["granted"] == 0
    assert figures([question(state, yes(1, broke_glass=True), terms=pair)])["overall"]["granted"] == 1


def test_haste_shows_per_person() -> None:
    """Who always says yes, and at once, can be told from who looks."""
    hasty = [question(QuestionState.CONSUMED, yes(1.5, broke_glass=number == 0)) for number in range(4)]
    careful = [question(QuestionState.DENIED, no(90, BOB)), question(QuestionState.CONSUMED, yes(120, BOB))]
    people = figures([*hasty, *careful])["people"]
    assert people["operator:anna"] == {
        "votes": 4,
        "approved": 4,
        "denied": 0,
        "broke_glass": 1,
        "approval_ratio": 1.0,
        "decision_s": {"median": 1.5, "p95": 1.5},
    }
    assert (people["local:bob"]["approval_ratio"], people["local:bob"]["decision_s"]["median"]) == (0.5, 105.0)


def test_the_slowest_in_twenty_is_not_the_p95() -> None:
    """Nearest rank: of twenty, the nineteenth."""
    some = [question(QuestionState.CONSUMED, yes(float(number))) for number in range(1, 21)]
    assert figures(some)["overall"]["decision_s"] == {"median": 10.5, "p95": 19.0}


def test_days_are_those_of_the_zone() -> None:
    """Noon in London is another day far enough to the east."""
    assert list(figures([question()], zone=timezone(timedelta(hours=14)))["days"]) == ["2027-01-16"]


VOTES = st.builds(
    Vote,
    st.sampled_from([ANNA, BOB]),
    st.booleans(),
    st.just(""),
    st.floats(NOON - 100, NOON + 1e6),
    broke_glass=st.booleans(),
)
QUESTIONS = st.lists(
    st.builds(
        lambda state, votes, asked_at, skill, quorum: question(
            state, *votes, asked_at=asked_at, skill=skill, terms=ApprovalTerms(quorum=quorum)
        ),
        st.sampled_from(QuestionState),
        st.lists(VOTES, max_size=3),
        st.floats(NOON, NOON + 5e5),
        st.sampled_from(["crm.refund", "crm.delete", "db.query"]),
        st.integers(1, 2),
    ),
    max_size=12,
)


@given(QUESTIONS, st.randoms())
def test_every_question_is_counted_once(questions: list[Question], random: object) -> None:
    """Whatever the questions: the parts add up to the whole, the order does not matter, and it is plain JSON."""
    found = figures(questions)
    overall = found["overall"]
    for name in ("asked", *STATES, "broke_glass"):
        for parts in (found["days"], found["skills"]):
            assert sum(tally[name] for tally in parts.values()) == overall[name]
    assert overall["asked"] == len(questions) == sum(overall[state] for state in STATES)
    assert sum(person["votes"] for person in found["people"].values()) == sum(len(each.votes) for each in questions)
    for tally in (overall, *found["days"].values(), *found["skills"].values(), *found["people"].values()):
        assert tally["approval_ratio"] is None or 0 <= tally["approval_ratio"] <= 1
        assert tally["decision_s"] is None or 0 <= tally["decision_s"]["median"] <= tally["decision_s"]["p95"]
    assert parse(canonical(found)) == found
    shuffled = list(questions)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert figures(shuffled) == found
