"""Cursors: sealed, personal, and only as long-lived as the list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.errors import BadMessage
from interposer.model import Principal
from interposer.pages import Pages

ALICE, BOB = Principal("local", "alice"), Principal("local", "bob")


@given(st.integers(0, 40), st.integers(1, 10))
def test_the_pages_together_are_the_list(length: int, size: int) -> None:
    """Following cursors to the end gives every item once, in order."""
    pages, items = Pages(b"k", size), list(range(length))
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page, cursor = pages.turn(items, cursor, ALICE, 1)
        seen += page
        if cursor is None:
            break
    assert seen == items


@pytest.mark.parametrize("forged", ["", "../../../x", "AAAA", "é", "a" * 1000])
def test_a_forged_cursor_is_refused(forged: str) -> None:
    """Only what this broker sealed is a cursor."""
    with pytest.raises(BadMessage):
        Pages(b"k", 2).turn([1, 2, 3], forged, ALICE, 1)


def test_a_cursor_is_good_for_its_owner_and_its_list_only() -> None:
    """Another principal, another generation or another broker cannot use it."""
    _, cursor = Pages(b"k", 2).turn([1, 2, 3], None, ALICE, 1)
    for pages, who, generation in ((Pages(b"k", 2), BOB, 1), (Pages(b"k", 2), ALICE, 2), (Pages(b"x", 2), ALICE, 1)):
        with pytest.raises(BadMessage):
            pages.turn([1, 2, 3], cursor, who, generation)
