"""Seals: what comes back is what was given out, or it is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.seal import KEY_BYTES, BrokenSeal, Seal

SEAL = Seal(b"k" * KEY_BYTES, "state")
words = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(blacklist_categories=["Cs"]), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(words)
def test_what_was_sealed_is_opened(word: object) -> None:
    """In a text that fits into headers and addresses."""
    text = SEAL.close(word)
    assert SEAL.open(text) == word
    assert text.replace("-", "").replace("_", "").isalnum()


@given(words, st.data())
def test_no_other_text_is_opened(word: object, data: st.DataObject) -> None:
    """One character more, less or different, and it is broken: two texts never are one word."""
    text = SEAL.close(word)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters())
    for edited in (text[:place] + text[place + 1 :], text[:place] + other + text[place:], text[:place] + other):
        if edited != text:
            with pytest.raises(BrokenSeal):
                SEAL.open(edited)
    changed = text[:place] + other + text[place + 1 :]
    if changed != text:
        with pytest.raises(BrokenSeal):
            SEAL.open(changed)


@pytest.mark.parametrize("other", [Seal(b"k" * KEY_BYTES, "task"), Seal(b"x" * KEY_BYTES, "state")])
def test_seal_is_good_for_its_purpose_and_key_only(other: Seal) -> None:
    """A task's id is no state, and another broker's word is nobody's."""
    with pytest.raises(BrokenSeal):
        other.open(SEAL.close(["q_1"]))
