"""Names that people approve by can be seen, all of them."""

from __future__ import annotations

from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.identity.text import UNSEEN, is_name, is_visible


@given(st.text())
def test_visible_is_what_no_character_hides_in(value: str) -> None:
    """The quick answer and the character by character answer are the same."""
    assert is_visible(value) == all(category(char) not in UNSEEN for char in value)


@pytest.mark.parametrize("value", ["a", "agént-7", "営業\u3000部", "Ana María", "a" * 9, "team-🚀", "a\u00a0b", "\\"])
def test_names_of_people_and_teams_are_names(value: str) -> None:
    """Letters of all scripts, marks, symbols and spaces inside are fine."""
    assert is_name(value, 9)


@pytest.mark.parametrize(
    "value", ["", " a", "a ", "\u3000a", "a\u00a0", "a" * 10, "a\tb", "\u200d", None, 1, b"a", ["a"]]
)
def test_what_cannot_be_shown_is_no_name(value: object) -> None:
    """Empty, too long, surrounded by white space, with unseen characters, or no text."""
    assert not is_name(value, 9)
