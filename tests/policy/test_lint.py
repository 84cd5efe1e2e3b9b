"""Findings: what a policy says in vain is pointed out, and sound policies are left alone."""

from __future__ import annotations

from typing import Any

import pytest

from interposer import canonical
from interposer.policy.engine import load
from interposer.policy.lint import lint


def findings(
    rules: list[Any], otherwise: list[Any] | None = None, skills: list[str] | None = None
) -> list[tuple[str, bool]]:
    named = [{"id": f"r{place}", "skills": ["a.*"], **rule} for place, rule in enumerate(rules)]
    rest = [{"id": f"o{place}", "skills": ["a.*"], **rule} for place, rule in enumerate(otherwise or [])]
    text = canonical.encode({"version": 1, "rules": named, "otherwise": rest}).decode()
    return [(each.problem.message, each.note) for each in lint(load(text, "p"), skills)]


@pytest.mark.parametrize(
    ("rules", "otherwise", "said"),
    [
        ([{"effect": "allow"}, {"effect": "deny"}], [], "rule r0 never decides"),
        ([{"effect": "allow", "skills": ["a.b"]}, {"effect": "deny", "skills": ["*"]}], [], "rule r0 never decides"),
        ([{"effect": "allow", "when": "true"}, {"effect": "ask"}], [], "rule r0 never decides"),
        (
            [{"effect": "ask", "who": {"groups": ["x"]}}, {"effect": "deny", "who": {"groups": ["x", "y"]}}],
            [],
            "rule r0 never decides",
        ),
        ([{"effect": "ask"}], [{"effect": "deny"}], "rule o0 never consulted"),
    ],
)
def test_rules_that_never_decide_are_found(rules: list[Any], otherwise: list[Any], said: str) -> None:
    """A rule that a stricter one always drowns out is a finding."""
    ((message, note),) = findings(rules, otherwise)
    assert message.startswith(said)
    assert not note


@pytest.mark.parametrize(
    ("rules", "otherwise"),
    [
        ([{"effect": "allow"}, {"effect": "deny", "when": "true"}], []),
        ([{"effect": "allow"}, {"effect": "deny", "skills": ["a.b"]}], []),
        ([{"effect": "allow"}, {"effect": "deny", "who": {"groups": ["x"]}}], []),
        ([{"effect": "allow"}, {"effect": "deny", "hints": {"readOnly": False}}], []),
        (
            [
                {"effect": "allow", "who": {"groups": ["x"]}},
                {"effect": "deny", "who": {"groups": ["x"], "subjects": ["eve"]}},
            ],
            [],
        ),
        ([{"effect": "deny", "when": "true"}], [{"effect": "ask"}]),
    ],
)
def test_rules_that_can_decide_are_left_alone(rules: list[Any], otherwise: list[Any]) -> None:
    """Conditions, narrower patterns and narrower callers leave room for the other rule."""
    assert findings(rules, otherwise) == []


def test_patterns_that_name_no_known_skill_are_found() -> None:
    """With a list of skills, a pattern that fits none of them is a finding."""
    found = findings([{"effect": "allow", "skills": ["a.b", "a.gone", "*"]}], skills=["a.b"])
    assert found == [("'a.gone' names no known skill", False)]


def test_a_fence_with_a_gap_is_a_note() -> None:
    """An allow rule that describes a property without requiring it is worth a look."""
    schema = {"properties": {"path": {"pattern": "^/tmp/"}}}
    ((message, note),) = findings([{"effect": "allow", "arguments": schema}])
    assert "leave out" in message
    assert note
    assert findings([{"effect": "allow", "arguments": {**schema, "required": ["path"]}}]) == []
    assert findings([{"effect": "deny", "arguments": schema}]) == []


def test_asks_that_nobody_can_answer_together_are_a_note() -> None:
    """Two asks with different approvers deny where they meet, and that is said beforehand."""
    asks = [{"effect": "ask", "approval": {"approvers": {"groups": [name]}}} for name in "xy"]
    ((message, note),) = findings(asks)
    assert "no approver satisfies both" in message
    assert note


def asks(*approvals: dict[str, Any]) -> list[Any]:
    return [{"effect": "ask", "approval": approval} for approval in approvals]


def hours(opens: str, closes: str, zone: str = "UTC", **more: Any) -> dict[str, Any]:
    return {"hours": [{"from": opens, "to": closes, "zone": zone, **more}]}


def test_minima_that_another_ask_keeps_from_answering_are_a_note() -> None:
    """A place that no approver of the other rule may fill is said beforehand, and how the two meet is not."""
    ((message, note),) = findings(asks({"approvers": {"groups": ["leads"]}}, {"at_least": {"dba": 1}}))
    assert "no approver satisfies both" in message
    assert note
    assert findings(asks({"approvers": {"groups": ["leads", "dba"]}}, {"at_least": {"dba": 1}})) == []


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (hours("08:00", "12:00"), hours("12:00", "18:00"), False),
        (hours("08:00", "12:01"), hours("12:00", "18:00"), True),
        (hours("08:00", "18:00", days=["sat"]), hours("08:00", "18:00", days=["sun"]), False),
        (hours("08:00", "18:00", days=["sat"]), hours("22:00", "09:00", days=["fri"]), True),
        (hours("08:00", "16:00"), hours("08:00", "16:00", "America/Los_Angeles"), True),
        (hours("08:00", "15:00"), hours("08:00", "16:00", "America/Los_Angeles"), False),
        (hours("08:00", "08:00"), hours("03:00", "03:01"), True),
    ],
)
def test_hours_that_never_meet_are_a_note(one: dict[str, Any], other: dict[str, Any], meet: bool) -> None:
    """Two asks that are never open at the same moment of the year can never be answered together."""
    found = findings(asks({**one, "expires": "8d"}, {**other, "expires": "8d"}))
    assert [("never meet" in message, note) for message, note in found] == ([] if meet else [(True, True)])


def test_results_that_nobody_keeps_are_found() -> None:
    """Execution without the caller, of a skill whose results are not recorded, is a finding."""
    rules = [{"id": "r", "effect": "ask", "skills": ["a.*"], "approval": {"execute_on_approve": True}}]

    def found(rules: list[Any], duty: dict[str, Any]) -> list[tuple[str, bool]]:
        text = canonical.encode({"version": 1, "rules": rules, "obligations": [duty]}).decode()
        return [(each.problem.message, each.note) for each in lint(load(text, "p"))]

    ((message, note),) = found(rules, {"skills": ["*.b"], "record": "none"})
    assert "executes on approval, but `record: none` on line 1" in message
    assert not note
    assert found(rules, {"skills": ["*.b"], "record": "masked"}) == []
    assert found(rules, {"skills": ["c.*"], "record": "none"}) == []
    assert found([{**rules[0], "approval": {}}], {"skills": ["*"], "record": "none"}) == []


@pytest.mark.parametrize(
    ("approval", "said"),
    [
        ({**hours("08:00", "18:00")}, "expires after 30m, and between its hours lie up to 14h"),
        ({**hours("08:00", "18:00", days=["mon", "tue", "wed", "thu", "fri"]), "expires": "61h"}, "up to 62h"),
        ({**hours("08:00", "18:00", days=["mon", "tue", "wed", "thu", "fri"]), "expires": "62h"}, ""),
        ({**hours("08:00", "18:00", days=["sun"]), "expires": "6d"}, "expires after 144h, and between its hours lie"),
        ({**hours("23:45", "23:30")}, ""),
        ({**hours("23:45", "23:10")}, "up to 35m"),
        ({**hours("08:00", "08:00")}, ""),
        ({"hours": [*hours("08:00", "20:00")["hours"], *hours("20:00", "08:00")["hours"]]}, ""),
        ({"hours": [*hours("08:00", "20:00")["hours"], *hours("10:00", "12:00")["hours"]]}, "up to 12h"),
        ({"expires": "1s"}, ""),
    ],
)
def test_questions_that_end_before_the_hours_begin_are_a_note(approval: dict[str, Any], said: str) -> None:
    """Where `expires` is shorter than the longest time between the hours, both are named."""
    found = findings(asks(approval))
    assert [(said in message, note) for message, note in found] == ([(True, True)] if said else [])


def test_grants_that_give_nothing_beyond_once_are_a_note() -> None:
    """The call in question is the first use of its grant."""
    ((message, note),) = findings(asks({"grant": {"for": "8h", "uses": 1, "matching": True}}))
    assert "no more than once" in message
    assert note
    assert findings(asks({"grant": {"for": "8h", "uses": 2}}, {"grant": {"for": "8h"}}, {"grant": "once"})) == []
