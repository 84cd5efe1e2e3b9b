"""Arguments against schemas: exact, bounded, and silent about values."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.arguments import Arguments, UnusableSchema
from interposer.errors import InvalidArguments

SCHEMA = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
        "note": {"type": "string", "maxLength": 10, "pattern": "^[a-z ]*$"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
    "required": ["amount"],
    "additionalProperties": False,
}

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "required: amount"),
    ({"amount": 0}, "at /amount: exclusiveMinimum: 0"),
    ({"amount": Decimal("100.0000000000000000001")}, "at /amount: maximum: 100"),
    ({"amount": "1"}, "at /amount: type: number"),
    ({"amount": True}, "at /amount: type: number"),
    ({"amount": 1, "note": "x" * 11}, "at /note: maxLength: 10"),
    ({"amount": 1, "note": "UPPER"}, "at /note: does not satisfy pattern"),
    ({"amount": 1, "tags": ["a", "c"]}, "at /tags/1: enum: a, b"),
    ({"amount": 1, "isAdmin": True}, "additionalProperties"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_the_refusal_names_the_place_and_the_rule(arguments: dict[str, Any], said: str) -> None:
    """A model can correct its call from the text alone."""
    with pytest.raises(InvalidArguments) as refused:
        Arguments(SCHEMA).check(arguments)
    assert said in refused.value.public


@given(st.text(min_size=12))
def test_no_value_is_ever_repeated(value: str) -> None:
    """What a caller sent does not come back in the error, nor go into the log."""
    canary = f"canary{value}canary"
    with pytest.raises(InvalidArguments) as refused:
        Arguments(SCHEMA).check({"amount": canary, "note": canary})
    assert canary not in refused.value.public
    assert canary not in str(refused.value)


def test_valid_arguments_pass() -> None:
    """What fits the schema is let through, exact decimals included."""
    Arguments(SCHEMA).check({"amount": Decimal("1.10"), "note": "ok", "tags": ["a", "b"]})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/x.json"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"type": "nonsense"},
        {"properties": {"a": {"pattern": "("}}},
    ],
)
def test_a_schema_that_reaches_outside_is_unusable(schema: dict[str, Any]) -> None:
    """Nothing is fetched, and what cannot be compiled is not offered."""
    with pytest.raises(UnusableSchema):
        Arguments(schema)


def test_a_bad_pattern_cannot_stall_the_broker() -> None:
    """Catastrophic backtracking ends in a refusal, in the fast and in the explaining validator."""
    began = time.monotonic()
    with pytest.raises(InvalidArguments):
        Arguments({"properties": {"a": {"pattern": r"^(\w+\s?)*\1$"}}}).check({"a": "x" * 5000 + "!"})
    assert time.monotonic() - began < 5
