"""Texts inside of texts: what is read, and how positions lead back."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.masking.disguises import read_base64, read_json, unescape, write_base64


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a%40b", "a@b"),
        ("%C3%BCx", "üx"),
        ("%FF%41", "\udcffA"),
        ("\\u0040\\x40", "@@"),
        ("&#64;&#x40;&commat;", "@@@"),
        ("x\\u{1F600}", "x😀"),
    ],
)
def test_escapes_are_resolved(text: str, plain: str) -> None:
    """Each kind of escape reads as its character."""
    reading = unescape(text)
    assert reading is not None
    assert reading.text == plain


def test_text_without_escapes_has_no_reading() -> None:
    """Nothing to resolve, nothing to look at again."""
    assert unescape("50% of 3 & more; \\n") is None


@given(st.lists(st.sampled_from(["a", "ü", "%40", "%C3%BC", "\\u0041", "&#66;", " "]), min_size=1))
def test_span_leads_back_to_what_was_written(pieces: list[str]) -> None:
    """For any text with escapes: every character of the reading leads to exactly the piece it was read from."""
    text = "".join(pieces)
    reading = unescape(text)
    if reading is None:
        return
    at = 0
    for number, piece in enumerate(pieces):
        assert reading.span(number, number + 1) == (at, at + len(piece))
        at += len(piece)


@given(st.text(alphabet=st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1))
def test_base64_of_text_is_read_and_written(text: str) -> None:
    """Any printable text survives the way through base64, in both alphabets."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        code = encode(text.encode()).decode()
        assert read_base64(code) == text
        assert read_base64(write_base64(text, code)) == text


def test_base64_of_bytes_is_left_alone() -> None:
    """Pictures and hashes are no text."""
    assert read_base64(base64.b64encode(bytes(range(200, 256)) * 2).decode()) is None
    assert read_base64("not base64!") is None


def test_only_whole_json_is_read() -> None:
    """A number, a word or half an object is text, not JSON."""
    assert read_json('{"a":1}') == ({"a": 1},)
    for text in ("12", "true", '{"a":', "[1]]", "{}x", '{"a":1,"a":2}'):
        assert read_json(text) is None
