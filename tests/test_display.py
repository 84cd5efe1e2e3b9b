"""Foreign text on a terminal: it is read, and it does nothing."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.display import printable, printable_json

HIDDEN = [
    *range(0x20),
    *range(0x7F, 0xA0),
    *(0xA0, 0xAD, 0x034F, 0x061C, 0x115F, 0x1160, 0x180E, 0x2800, 0x3000, 0x3164, 0xFEFF, 0xFFA0, 0xFFF9, 0xFFFB),
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xE0001, 0xE0080),
    *range(0xE0100, 0xE01F0),
    *(0xD800, 0xDFFF, 0xE000, 0x10FFFF),
]


def test_all_byte_values_print_as_themselves_or_escaped() -> None:
    """Of all 256 characters of one byte, the visible stay, and every control is its code (M13)."""
    for code in range(256):
        char = chr(code)
        visible = unicodedata.category(char) not in ("Cc", "Cf") and code != 0xA0
        assert printable(char) == (char if visible else f"\\x{code:02x}")


@pytest.mark.parametrize("code", HIDDEN)
def test_what_cannot_be_seen_is_shown_by_its_code(code: int) -> None:
    """Controls, direction marks, zero-width and tag characters, odd spaces: each is visible as its code point."""
    shown = printable(f"a{chr(code)}b")
    assert shown.isascii()
    assert f"{code:x}" in shown.lower()


def test_letters_of_all_scripts_stay() -> None:
    """Names are not mangled."""
    for text in ("Zoë Müller", "Σωκράτης", "李雷", "محمد", "नमस्ते"):
        assert printable(text) == text


def test_terminal_codes_do_nothing() -> None:
    """Clipboard, title, colours and cursor: none of them reaches the terminal."""
    attack = "\x1b]52;c;cm0gLXJm\x07\x1b]0;root\x07\x1b[31m\x1b[2J\x9b31m\r\nApproved: yes"
    shown = printable(attack)
    assert shown.isprintable()
    assert "\n" not in shown


@given(st.text())
def test_printed_text_is_one_printable_line(text: str) -> None:
    """Whatever comes in, what goes out is printable and has no line end."""
    assert printable(text).isprintable()


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_printed_json_is_ascii_and_means_the_same(value: object) -> None:
    """The escaped JSON is printable ASCII and parses to the same value."""
    shown = printable_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown) == value


def test_direction_override_in_json_is_shown() -> None:
    """A right-to-left override in an argument is shown as JSON's own escape (M15)."""
    assert printable_json('{"to":"\u202e\x7f😀"}'.encode()) == '{"to":"\\u202e\\u007f\\ud83d\\ude00"}'
