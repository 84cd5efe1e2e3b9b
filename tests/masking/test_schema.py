"""Relaxed output schemas accept what masking makes of valid values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from interposer.masking.engine import PROFILES, Engine
from interposer.masking.schema import relax

EMAIL = "jane.roe" + "@corp-mail.test"
CARD = "4012" + "888888881881"

engine = Engine()

USER = {
    "type": "object",
    "title": "User",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "mail": {"type": "string", "format": "email", "pattern": "^[^@]+@[^@]+$", "description": "where to write"},
        "pan": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["person", "company"]},
        "manager": {"$ref": "#/$defs/user"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "uniqueItems": True},
    },
    "required": ["name", "mail"],
    "additionalProperties": False,
}


def valid(schema: Any, value: Any) -> bool:
    Draft202012Validator.check_schema(schema)
    return bool(Draft202012Validator(schema).is_valid(value))


def masked(value: Any) -> Any:
    return engine.mask(value, PROFILES).value


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (
            {"type": "object", "$defs": {"user": USER}, "properties": {"user": {"$ref": "#/$defs/user"}}},
            {"user": {"name": "J", "mail": EMAIL, "pan": int(CARD), "manager": {"name": EMAIL, "mail": EMAIL}}},
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/properties/b/items"}, "b": {"items": {"maxLength": 20}}},
            },
            {"a": EMAIL[:20], "b": [EMAIL[:20]]},
        ),
        (
            {
                "type": "object",
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                "properties": {"a": {"type": "integer"}},
            },
            {"a": int(CARD)},
        ),
        ({"type": "object", "properties": {"v": {"not": {"pattern": "REDACTED"}}}}, {"v": EMAIL}),
        ({"type": "object", "properties": {"v": {"const": EMAIL}}}, {"v": EMAIL}),
        ({"type": "object", "const": {"v": EMAIL}}, {"v": EMAIL}),
        ({"type": "object", "enum": [{"v": [EMAIL]}]}, {"v": [EMAIL]}),
        (
            {
                "type": "object",
                "properties": {"v": {"prefixItems": [{"type": "integer"}], "contains": {"type": "integer"}}},
            },
            {"v": [int(CARD)]},
        ),
        ({"type": "object", "properties": {"v": {"uniqueItems": True}}}, {"v": [EMAIL, "x" + EMAIL]}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {EMAIL: 1, "b" + EMAIL: 2, "c": int(CARD)}),
        (
            {
                "type": "object",
                "patternProperties": {"@": {"type": "integer"}, "^.": {}},
                "additionalProperties": False,
            },
            {EMAIL: 1},
        ),
        (
            {"type": "object", "patternProperties": {".": {"maxLength": 9}}, "minProperties": 2},
            {EMAIL: "", "x" + EMAIL: "a"},
        ),
        ({"type": "object", "propertyNames": {"format": "email", "pattern": "@"}}, {EMAIL: 1}),
        ({"type": "object", "required": [EMAIL], "properties": {EMAIL: {"type": "integer"}}}, {EMAIL: 3}),
        (
            {"type": "object", "if": {"required": ["a"]}, "then": {"properties": {"a": {"maxLength": 30}}}},
            {"a": EMAIL},
        ),
        (
            {"type": "object", "properties": {"n": {"$ref": "#"}, "m": {"format": "email", "maxLength": 25}}},
            {"n": {"n": {"m": EMAIL}}},
        ),
        (
            {
                "type": "object",
                "properties": {"blob": {"type": "string", "pattern": "^[A-Za-z0-9+/=]+$", "maxLength": 40}},
            },
            {"blob": "bWFpbCBqYW5lLnJvZUBjb3JwLW1haWwudGVzdA=="},
        ),
        (
            {
                "type": "object",
                "allOf": [{"properties": {"v": {"pattern": "@"}}}, {"properties": {"v": {"minLength": 3}}}],
            },
            {"v": EMAIL},
        ),
        ({"type": "object", "unevaluatedProperties": False, "properties": {"a": {}}}, {"a": 1}),
        (
            {"type": "object", "properties": {"a": {"$anchor": "x", "maxLength": 25}, "b": {"$ref": "#x"}}},
            {"a": EMAIL, "b": EMAIL},
        ),
        ({"type": "object", "properties": {"a": {"$id": "urn:a", "maxLength": 25}}}, {"a": EMAIL}),
        (
            {"type": "object", "properties": {"a": {"$ref": "#/x-shapes/s"}}, "x-shapes": {"s": {"maxLength": 25}}},
            {"a": EMAIL},
        ),
        ({"type": "object", "dependentRequired": {"a": [EMAIL]}, "properties": {"a": True}}, {"a": 1, EMAIL: 2}),
    ],
)
def test_masked_value_satisfies_relaxed_schema(schema: Any, value: Any) -> None:
    """What was valid before masking is valid after it, against the schema that is advertised."""
    assert valid(schema, value)
    relaxed = engine.relax(schema)
    assert relaxed["type"] == "object"
    assert valid(relaxed, masked(value))
    assert valid(relaxed, value)


def test_relaxed_schema_still_says_what_it_can() -> None:
    """Relaxing keeps names, descriptions, required members and unknown keywords, and still refuses what is wrong."""
    relaxed = engine.relax({**USER, "x-owner": "crm", "$defs": {"user": {"type": "object"}}})
    assert relaxed["x-owner"] == "crm"
    assert relaxed["required"] == ["name", "mail"]
    assert relaxed["properties"]["mail"]["description"] == "where to write"
    assert not valid(relaxed, {"name": "J"})
    assert not valid(relaxed, {"name": "J", "mail": 7})
    assert not valid(relaxed, {"name": "J", "mail": "no address"})
    assert not valid(relaxed, {"name": "J", "mail": EMAIL, "other": 1})


def test_given_schema_is_not_changed() -> None:
    """Relaxing makes a new schema and leaves the pinned one alone."""
    before = repr(USER)
    relax(USER)
    assert repr(USER) == before


SCALARS = st.sampled_from(
    [
        ({"type": "string"}, st.sampled_from([EMAIL, "plain", "é", CARD])),
        ({"type": "string", "maxLength": 30}, st.sampled_from([EMAIL, "plain"])),
        ({"type": "string", "format": "email"}, st.just(EMAIL)),
        ({"type": "string", "pattern": "^[0-9]+$"}, st.just(CARD)),
        ({"type": "integer", "minimum": 0}, st.sampled_from([1, int(CARD)])),
        ({"enum": [EMAIL, 1, "x"]}, st.sampled_from([EMAIL, 1, "x"])),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, st.sampled_from([EMAIL, int(CARD)])),
        ({"type": ["string", "null"], "not": {"const": "no"}}, st.sampled_from([EMAIL, None])),
        ({"type": "boolean"}, st.booleans()),
        (True, st.sampled_from([EMAIL, 1.5, None, [CARD]])),
    ]
)


def _array(part: Any) -> Any:
    schema, values = part
    return (
        {"type": "array", "items": schema, "maxItems": 3, "contains": schema, "minContains": 0},
        st.lists(values, max_size=3),
    )


def _object(parts: Any) -> Any:
    names = list(parts)
    schema = {
        "type": "object",
        "properties": {name: parts[name][0] for name in names},
        "required": names[:1],
        "additionalProperties": {"type": ["string", "integer"], "maxLength": 30},
    }
    members = {name: parts[name][1] for name in names}
    extra = st.dictionaries(st.sampled_from([EMAIL, "b" + EMAIL]), st.sampled_from([EMAIL, 3]))
    return schema, st.builds(lambda fixed, more: {**more, **fixed}, st.fixed_dictionaries(members), extra)


PARTS = st.recursive(
    SCALARS,
    lambda children: (
        children.map(_array)
        | st.dictionaries(st.sampled_from(["a", "phone", "password", "data"]), children, min_size=1).map(_object)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_any_valid_instance_is_valid_when_masked(data: st.DataObject) -> None:
    """For any schema and any instance that it accepts, the relaxed schema accepts the masked instance."""
    schema, values = _object({"root": data.draw(PARTS)})
    instance = data.draw(values)
    assert valid(schema, instance)
    assert valid(engine.relax(schema), masked(instance))
