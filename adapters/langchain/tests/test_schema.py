"""Schemas and names as LangChain and model APIs need them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_interposer.schema import args_schema, tool_names


@pytest.mark.parametrize("given_schema", [{}, None, True, [], {"type": "object"}])
def test_open_schema_gets_properties(given_schema: object) -> None:
    """LangChain looks up `properties`; a skill that says nothing of its arguments takes any."""
    assert args_schema(given_schema) == {"type": "object", "properties": {}, "additionalProperties": True}


def test_closed_schema_stays_closed() -> None:
    """What the skill said is not loosened."""
    closed = {"type": "object", "additionalProperties": False}
    assert args_schema(closed)["additionalProperties"] is False


def test_nested_schema_is_kept_and_copied() -> None:
    """Definitions, references and unknown keywords arrive; the skill's own definition is not touched."""
    properties: dict[str, dict[str, str]] = {"a": {"$ref": "#/$defs/a"}}
    schema = {"type": "object", "properties": properties, "$defs": {"a": {"x-own": 1}}}
    found = args_schema(schema)
    assert found == schema
    found["properties"]["a"]["description"] = "changed"
    assert "description" not in properties["a"]


def test_names_keep_their_look_where_they_can() -> None:
    """A dot becomes an underscore; where that makes two the same, the changed one carries a digest."""
    assert tool_names(["crm.get", "echo"]) == {"crm.get": "crm_get", "echo": "echo"}
    collided = tool_names(["a.b", "a_b"])
    assert collided["a_b"] == "a_b"
    assert re.fullmatch(r"a_b_[0-9a-f]{8}", collided["a.b"])


@given(st.lists(st.text(alphabet="ab._-é", min_size=1, max_size=128), unique=True))
def test_names_are_accepted_and_distinct(skills: list[str]) -> None:
    """Whatever the skills are called, each tool has its own name that model APIs accept, in any order of the list."""
    names = tool_names(skills)
    assert len(set(names.values())) == len(skills)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names.values())
    assert tool_names(skills[::-1]) == names
