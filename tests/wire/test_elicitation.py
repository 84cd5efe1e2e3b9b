"""Elicitation on the wire: what is asked, and what an answer says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.canonical import canonical
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
    if shown:
        assert shown.isascii()
        assert json.loads(shown) == arguments


@given(st.text("ab", max_size=12), st.characters(blacklist_categories=["Cs"]), st.integers(0, 2_500))
def test_form_shows_all_of_what_fits(start: str, char: str, times: int) -> None:
    """A dialog cannot be flooded, and of a call that it is for nothing is left out."""
    arguments = {"text": start + char * times}
    if elicitation.fits("fake.echo", canonical(arguments)):
        message = elicitation.form("fake.echo", canonical(arguments))["message"]
        assert len(message) < 2_500
        assert json.loads(message.split(" with the arguments ", 1)[1]) == arguments


@pytest.mark.parametrize(("skill", "size"), [("fake.echo", 2_000), ("f" * 201, 1)])
def test_what_a_form_would_have_to_cut_does_not_fit(skill: str, size: int) -> None:
    """Neither long arguments nor a long name; what counts is how long they are when they are escaped."""
    assert elicitation.fits("fake.echo", canonical({"t": "x" * 1_992}))
    assert not elicitation.fits(skill, canonical({"t": "x" * size}))
    assert not elicitation.fits("fake.echo", canonical({"t": "\u202e" * 400}))


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
