"""Arguments for eyes: the same JSON, on lines, in ASCII; outlines that hide no member; differences."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.canonical import canonical
from interposer.console import texts
from interposer.display import printable_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_the_layout_is_the_same_value_in_ascii(value: object) -> None:
    """What is shown parses to what is sent, whatever is in it, and is ASCII on every line."""
    shown = texts.whole(canonical(value)).text
    assert shown.isascii()
    assert json.loads(shown) == value


def test_members_stand_on_lines() -> None:
    """Objects and arrays are indented; empty ones stay together."""
    assert texts.lines(b'{"a":[1,{"b":{}}],"c":[]}') == [
        "{",
        '  "a": [',
        "    1,",
        "    {",
        '      "b": {}',
        "    }",
        "  ],",
        '  "c": []',
        "}",
    ]


def test_padding_does_not_hide_what_decides() -> None:
    """A megabyte before a member, and quotes that end no string, leave the member in the outline."""
    raw = canonical({"a": 'x", "amount": 1, "' + "y" * 1_000_000, "amount": 99_999})
    shown = texts.outline(raw)
    assert '"amount": 99999' in shown.text
    assert len(shown.text) < 1_000
    assert shown.bytes == len(raw)


def test_only_what_is_shown_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte that is not ASCII is cut first: its beginning, its end and its length are told, a screen's worth."""
    escaped: list[str] = []
    real = texts._ascii

    def counted(text: str) -> str:
        escaped.append(text)
        return real(text)

    monkeypatch.setattr(texts, "_ascii", counted)
    raw = canonical({"a": "é" * 500_000 + "end"})
    shown = texts.outline(raw).text
    assert "500,005 characters in all" in shown
    assert 'end"' in shown
    assert texts.difference(raw, raw)[0].kind == "same"
    assert sum(map(len, escaped)) < 2_000


def test_an_outline_is_one_screen() -> None:
    """Thousands of members, and one long number, are cut and counted."""
    shown = texts.outline(canonical(list(range(500_000)))).text
    assert shown.endswith("57,\n  58,\n… more lines")
    assert len(texts.outline(b"[" + b"1" * 10_000 + b"]").text) < 500


def test_differences_are_named_line_by_line() -> None:
    """Removed and added lines, and the same ones near them."""
    found = texts.difference(canonical({"a": 1, "b": 2}), canonical({"a": 1, "b": 3}))
    assert [(line.kind, line.text.strip()) for line in found] == [
        ("same", "{"),
        ("same", '"a": 1,'),
        ("gone", '"b": 2'),
        ("new", '"b": 3'),
        ("same", "}"),
    ]
    (left_out,) = texts.difference(canonical(list(range(9_000))), b"[]")
    assert left_out.kind == "skip"


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_a_difference_tells_both_sides(before: list[str], after: list[str]) -> None:
    """Without what is new it is the one, without what is gone the other."""
    old, new = texts.lines(canonical(before)), texts.lines(canonical(after))
    found = list(texts._aligned(old, new))
    assert [line.text for line in found if line.kind != "new"] == old
    assert [line.text for line in found if line.kind != "gone"] == new


def test_what_was_cut_off_takes_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A string that has lost its end is one token: tried anew at each quote, a megabyte would take hours."""
    cut = '"' + '\\"' * 500_000
    assert texts._TOKEN.findall(cut) == [cut]
    assert texts._TOKEN.findall(cut + "\\") == [cut + "\\"]
    monkeypatch.setattr(texts, "_PREVIEWED", 1_000_000)
    assert texts.preview(canonical({"a": '"' * 3_000_000})).endswith("…")


def test_a_preview_tells_the_length_of_what_it_has_read_only() -> None:
    """Of a string that ends beyond what is looked at, nobody is told a number."""
    assert "in all" not in texts.preview(canonical({"a": "x" * 5_000}))
    assert "1,002 characters in all" in texts.preview(canonical({"a": "x" * 1_000}))


def test_a_preview_reads_no_more_than_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many members there are: tokens are taken until the line is full."""
    taken: list[str] = []

    def cut(piece: str, most: int) -> str:
        taken.append(piece)
        return piece

    monkeypatch.setattr(texts, "_cut", cut)
    assert texts.preview(b"[" * 4_000).endswith("…")
    assert len(taken) == 161


@given(st.text(st.characters(codec="utf-8")))
def test_escapes_are_those_of_terminals(text: str) -> None:
    """The fast way to ASCII is the slow one's."""
    assert texts._ascii(text) == printable_json(text.encode())


def test_lines_are_counted_as_far_as_it_matters() -> None:
    """More than so many, or not."""
    assert texts.beyond(canonical(list(range(39))), 40)
    assert not texts.beyond(canonical(list(range(38))), 40)
    assert not texts.beyond(b"", 40)
