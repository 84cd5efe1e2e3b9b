"""Elicitation on the wire: what is asked, and what an answer says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.canonical import canonical, digest_bytes
from interposer.errors import BadMessage
from interposer.wire import elicitation
from interposer.wire.elicitation import KEY, Answer

texts = st.text(st.characters(blacklist_categories=["Cs"]))


@given(texts, st.dictionaries(texts, texts, max_size=4))
def test_what_is_shown_cannot_look_like_something_else(skill: str, arguments: dict[str, str]) -> None:
    """One line, nothing invisible, arguments in ASCII."""
    raw = canonical(arguments)
    message = elicitation.form(skill, raw)["message"]
    assert all(char.isprintable() for char in message)
    shown = message.split(" with the arguments ", 1)[1] if " with the arguments " not in skill else ""
    if shown and len(shown) < 2000 and "…" not in shown:
        assert shown.isascii()
        assert json.loads(shown) == arguments


def test_long_arguments_are_cut_and_named_by_their_digest() -> None:
    """A dialog cannot be flooded, and what was cut can still be told apart."""
    raw = canonical({"text": "x" * 100_000})
    message = elicitation.form("fake.echo", raw)["message"]
    assert len(message) < 2_500
    assert digest_bytes(raw) in message
    assert str(len(raw)) in message


def test_one_field_is_asked_for_and_it_has_no_default() -> None:
    """Yes or no, and nothing is ticked before the user ticks it."""
    schema = elicitation.form("fake.echo", b"{}")["requestedSchema"]
    assert schema["required"] == ["approve"]
    (field,) = schema["properties"].values()
    assert field["type"] == "boolean"
    assert "default" not in field


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"action": "accept", "content": {"approve": True}}, Answer.YES),
        ({"action": "accept", "content": {"approve": False}}, Answer.NO),
        ({"action": "accept", "content": {"approve": "true"}}, Answer.CANCELLED),
        ({"action": "accept", "content": {"approve": 1}}, Answer.CANCELLED),
        ({"action": "accept", "content": {}}, Answer.CANCELLED),
        ({"action": "accept", "content": [True]}, Answer.CANCELLED),
        ({"action": "accept"}, Answer.CANCELLED),
        ({"action": "decline"}, Answer.NO),
        ({"action": "cancel", "content": {"approve": True}}, Answer.CANCELLED),
        ({"action": "ACCEPT", "content": {"approve": True}}, Answer.NONE),
        ({"content": {"approve": True}}, Answer.NONE),
        (True, Answer.NONE),
        (None, Answer.NONE),
    ],
)
def test_only_a_ticked_box_is_a_yes(result: Any, expected: Answer) -> None:
    """Accepting a form is not agreeing to what is in it."""
    assert elicitation.read_form(result) is expected


def test_other_answers_are_ignored_and_malformed_ones_refused() -> None:
    """Missing is missing; what is there has to be what it says."""
    assert elicitation.answered(None, form=False) is Answer.NONE
    assert elicitation.answered({"other": 5}, form=False) is Answer.NONE
    assert elicitation.answered({KEY: {"action": "accept"}, "other": 5}, form=False) is Answer.YES
    malformed: list[Any] = [5, [], {KEY: 12345}, {KEY: {"action": "maybe"}}]
    for bad in malformed:
        with pytest.raises(BadMessage):
            elicitation.answered(bad, form=False)
