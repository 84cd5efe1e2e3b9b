"""Strict JSON: what is refused, what survives, and that equal values have equal bytes."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.canonical import MAX_DEPTH, Malformed, canonical, digest, encode, parse

REFUSED = {
    "duplicate key": b'{"a":1,"a":2}',
    "duplicate key with a blank": b'{"a" :1,"a":2}',
    "duplicate key, escaped": b'{"a":1,"\\u0061":2}',
    "duplicate key, deep": b'[{"x":[{"k":1,"k":1}]}]',
    "duplicate key beside a colon in text": b'{"a":"\\":","b":"\\":","a":1}',
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "-Infinity": b"-Infinity",
    "beyond a double": b"1e400",
    "beyond a decimal": b"1e-9999999999999999999999",
    "beyond a decimal, read slowly": b'{"a" : 1e-9999999999999999999999}',
    "high surrogate": b'"\\ud800"',
    "low surrogate": b'"\\udc00"',
    "reversed pair": b'"\\ude00\\ud83d"',
    "surrogate in a key": b'{"\\ud800":1}',
    "raw control character": b'"a\x01"',
    "not UTF-8": b'"\xe9"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf1",
    "comment": b"1 // x",
    "trailing comma": b"[1,]",
    "two values": b"1 2",
    "nothing": b"",
    "leading zero": b"01",
    "too many digits": b"1" * 5000,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_two_parsers_could_read_differently_is_refused(raw: bytes) -> None:
    """No message is decided on that the upstream could understand as another one."""
    with pytest.raises(Malformed):
        parse(raw)


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 100_000])
def test_depth_is_bounded(depth: int) -> None:
    """Nesting beyond the limit is refused before anything recurses into it."""
    raw = b"[" * depth + b"]" * depth
    if depth <= MAX_DEPTH:
        assert parse(raw) is not None
    else:
        with pytest.raises(Malformed):
            parse(raw)


@pytest.mark.parametrize(
    "lexeme", ["9007199254740993", "123456789012345678901234567890", "1.10", "0.1", "1E+2", "-0.0", "1e-7", "-1"]
)
def test_numbers_keep_their_value(lexeme: str) -> None:
    """No number changes between what was decided on and what is sent."""
    sent = encode(parse(lexeme.encode()))
    assert Decimal(sent.decode()) == Decimal(lexeme)


def test_trailing_zeros_survive() -> None:
    """1.10 is sent as 1.10: a float would make it 1.1."""
    assert encode(parse(b"[1.10]")) == b"[1.10]"


def test_line_separators_are_escaped() -> None:
    """Readers that split at U+2028 see one line."""
    assert encode("a\u2028b\u2029") == b'"a\\u2028b\\u2029"'
    assert parse(encode("a\u2028b")) == "a\u2028b"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_what_is_encoded_is_read_back(value: Any) -> None:
    """encode and parse are inverse, in every writing of white space."""
    assert parse(encode(value)) == value
    assert parse(json.dumps(value, indent=1).encode()) == value


@given(JSON)
def test_equal_values_have_equal_bytes(value: Any) -> None:
    """The canonical form does not depend on the order of keys or on how it was written."""
    again = parse(json.dumps(value, sort_keys=True).encode())
    assert canonical(again) == canonical(parse(json.dumps(value).encode()))
    assert digest(again) == digest(value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """Nothing but Malformed leaves the parser, and what it accepts the standard library reads the same."""
    try:
        value = parse(raw)
    except Malformed:
        return
    assert json.loads(raw, parse_float=Decimal) == value or isinstance(value, float)
