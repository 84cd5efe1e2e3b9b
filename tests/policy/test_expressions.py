"""`when`: unknown names are found at load, values are exact, and callers cannot choose the cost."""

from __future__ import annotations

import time
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from interposer.model import Facts, Principal, Skill
from interposer.policy.conditions import BadCondition, Evidence, Unevaluable
from interposer.policy.expressions import When, power

SKILL = Skill("a.b", "a", "b", "b", {"annotations": {"readOnlyHint": False}}, "")


def evidence(arguments: Any) -> Evidence:
    return Evidence(Principal("local", "anna", ("g",)), SKILL, arguments, "s", Facts())


def test_a_function_that_does_not_exist_is_found_at_load() -> None:
    """An expression that could never be evaluated does not wait for its first call."""
    with pytest.raises(BadCondition, match="unknown function 'now2'"):
        When("now2() > now")


def test_macro_variables_are_known() -> None:
    """Names that `all`, `exists`, `map` and `filter` bind are no unknown variables."""
    assert When("arguments.l.map(y, y + 1).all(x, x > 1)").holds(evidence({"l": [1, 2]}))


def test_an_expression_beyond_bounds_is_refused() -> None:
    """Length and depth have limits."""
    with pytest.raises(BadCondition, match="longer than"):
        When("true || " * 1000 + "true")
    with pytest.raises(BadCondition, match="not a CEL expression"):
        When("(" * 200 + "true" + ")" * 200)


def test_only_what_is_read_is_converted() -> None:
    """A value that CEL cannot take matters only to conditions that read the arguments."""
    odd = evidence({"x": Decimal("1.00000000000000000000001")})
    assert When("principal.subject == 'anna'").holds(odd)
    with pytest.raises(Unevaluable):
        When("has(arguments.x)").holds(odd)


@pytest.mark.parametrize(
    "source", ["principal.group == 'x'", "session.label == 'x'", "skill.hints.readOnly", "1 + principal . role == 2"]
)
def test_a_member_that_does_not_exist_is_found_at_load(source: str) -> None:
    """A typing error in a rule does not make it silently never, or always, match."""
    with pytest.raises(BadCondition, match=r"has no"):
        When(source)


@pytest.mark.parametrize(
    "source",
    [
        "arguments.principal.role == 'x'",
        "'principal.role' == arguments.x",
        'arguments.x == "it\'s session.x(" ',
        "arguments.session.x == 1",
    ],
)
def test_names_in_texts_and_arguments_are_left_alone(source: str) -> None:
    """Only the variables' own members are checked."""
    When(source)


@pytest.mark.parametrize(
    ("bare", "expected"),
    [
        ("arguments.a == 1", 0),
        ("arguments.l.all(x, x > 1)", 1),
        ("arguments.l.all(x, x > 1) && arguments.l.exists(x, (x > 1))", 1),
        ("arguments.l.all(x, arguments.l.exists(y, y == x))", 2),
        ("arguments.l . map (x, x)", 2),
        ("arguments.l.filter(x, arguments.l.all(y, x > y))", 3),
        (")) arguments.l.all(x, x)", 1),
    ],
)
def test_power_is_how_cost_grows(bare: str, expected: int) -> None:
    """Nesting multiplies, `map` and `filter` are quadratic by themselves."""
    assert power(bare) == expected


@pytest.mark.parametrize(
    "source",
    [
        "arguments.l.all(x, x >= 0)",
        "arguments.l.map(x, x).size() > 0",
        "arguments.l.filter(x, x >= 0).size() > 0",
        "arguments.l.all(x, arguments.l.exists(y, y == x))",
        "arguments.l.map(x, arguments.s + arguments.s).size() > 0",
        "arguments.l.all(x, !arguments.s.contains('zz'))",
        "arguments.l.all(x, arguments.l.all(y, arguments.l.all(z, x + y + z >= 0)))",
    ],
)
@pytest.mark.parametrize("size", [10, 100, 300, 3000, 100_000])
def test_callers_cannot_stall_an_expression(source: str, size: int) -> None:
    """However long the lists and texts of a call, an expression is evaluated in bounded time or counts against it."""
    when, given = When(source), evidence({"l": list(range(size)), "s": "a" * size})
    started = time.perf_counter()
    with suppress(Unevaluable):
        assert when.holds(given)
    assert time.perf_counter() - started < 1.0


def test_short_lists_are_evaluated() -> None:
    """The bound leaves everyday rules alone: a list of paths against a list of prefixes."""
    source = "arguments.paths.all(p, ['/a/', '/b/'].exists(q, p.startsWith(q)))"
    assert When(source).holds(evidence({"paths": [f"/a/{n}" for n in range(250)]}))
