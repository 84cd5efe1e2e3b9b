"""Foreign text for a terminal: what is printed cannot move the cursor, change its own order, or hide.

Pure. Everything that is not visibly itself is shown by its code point: C0, C1 and DEL as `\\x1b`, direction marks,
zero-width and tag characters, odd spaces and private or unassigned code points as `\\u202e` or `\\U000e0041`.
"""

from __future__ import annotations

_INVISIBLE = frozenset(
    map(
        chr,
        (
            0x034F,  # combining grapheme joiner
            *(0x115F, 0x1160, 0x3164, 0xFFA0),  # Hangul fillers
            *(0x17B4, 0x17B5),  # Khmer inherent vowels
            *range(0x180B, 0x1810),  # Mongolian variation selectors
            0x2800,  # Braille blank
            *range(0xFE00, 0xFE10),  # variation selectors
            *range(0xE0100, 0xE01F0),
        ),
    )
)
"""What `str.isprintable` calls printable and nobody sees."""


def printable(text: str) -> str:
    """The text on one line, everything invisible escaped. Letters of every script stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() and char not in _INVISIBLE else _escaped(char) for char in text)


def printable_json(raw: bytes) -> str:
    """JSON text as ASCII: the same JSON value, every other character as JSON's own escape (RFC 8259 §7)."""
    text = raw.decode("utf-8", "replace")
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if " " <= char <= "~" else _escaped_json(char) for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped_json(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
