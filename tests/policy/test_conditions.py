"""Conditions: exact where it matters, and undecided rather than wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from interposer.model import Facts, Principal, Skill
from interposer.policy.conditions import Arguments, Evidence, Hint, Unevaluable

SKILL = Skill("a.b", "a", "b", "b", {"annotations": {"readOnlyHint": False}}, "")


def evidence(arguments: Any) -> Evidence:
    return Evidence(Principal("local", "anna"), SKILL, arguments, "s", Facts())


@pytest.mark.parametrize(
    ("schema", "value", "holds"),
    [
        ({"maximum": 10}, Decimal("10.00000000000000000000001"), False),
        ({"maximum": Decimal("0.1")}, Decimal("0.10000000000000000000001"), False),
        ({"type": "integer"}, 10**40, True),
        ({"maximum": 10**40}, 10**40 + 1, False),
        ({"multipleOf": 0.01}, Decimal("0.35"), True),
        ({"const": 1}, True, False),
        ({"const": 1}, 1.0, True),
        ({"maxLength": 2}, "😀😀", True),
        ({"format": "email"}, "not one", False),
        ({"pattern": r"^\d$"}, "٣", False),
    ],
)
def test_schemas_judge_numbers_and_texts_exactly(schema: Any, value: Any, holds: bool) -> None:
    """Digits beyond a double, integers beyond 64 bits, booleans and astral characters are what they are."""
    judged = Arguments({"properties": {"x": schema}}).holds(evidence({"x": value}))
    assert judged is holds


def test_why_not_names_paths_and_never_values() -> None:
    """What did not fit is said without what was given."""
    condition = Arguments({"properties": {"card": {"maxLength": 4}}, "required": ["name"]})
    said = condition.why_not(evidence({"card": "4111111111111111"}))
    assert "`/card` does not satisfy `maxLength`" in said
    assert "`/` does not satisfy `required`" in said
    assert "4111" not in said


def test_an_absent_hint_is_undecided() -> None:
    """What an upstream does not say is not guessed."""
    assert Hint("readOnlyHint", False).holds(evidence({}))
    with pytest.raises(Unevaluable):
        Hint("destructiveHint", True).holds(evidence({}))
