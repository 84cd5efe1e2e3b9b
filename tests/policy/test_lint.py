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
