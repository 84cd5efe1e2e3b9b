"""Strict JSON in, canonical JSON out: what is decided on is what is digested, shown and sent.

`parse` refuses what two parsers could read differently: duplicate keys, NaN, numbers beyond a double's range, lone
surrogates, bytes that are not UTF-8, nesting beyond `MAX_DEPTH`. Integers keep every digit; a fraction that a float
would change stays a `Decimal`.
"""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from math import isinf
from typing import Any

import msgspec

from .model import Json

MAX_DEPTH = 64
"""Levels of arrays and objects in one message (RFC 8259 §9 lets a parser set one)."""


STRICT_BYTES = 64 * 1024
"""Up to this size answers are read as strictly as requests."""


class Malformed(ValueError):
    """Not JSON as this house reads it; the text is a constant that echoes nothing of the input."""


def _number(lexeme: str) -> float | Decimal:
    value = float(lexeme)
    if isinf(value):
        raise ValueError("number out of range")
    if repr(value) == lexeme or _encoder.encode(value) == lexeme.encode():
        return value
    return Decimal(lexeme)


_decoder = msgspec.json.Decoder(float_hook=_number)
_encoder = msgspec.json.Encoder(decimal_format="number")
_sorting = msgspec.json.Encoder(decimal_format="number", order="sorted")


def _decoded(raw: bytes) -> Json:
    try:
        return _decoder.decode(raw)
    except RecursionError:
        raise Malformed("nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, ArithmeticError):
        raise Malformed("not valid JSON") from None


def parse(raw: bytes) -> Json:
    """JSON text -> value. Raises `Malformed`."""
    value = _decoded(raw)
    members = _measure(value)
    # Where no quote is followed by white space, every member is written `":`, so equal counts prove that no key was
    # there twice. Colons inside of strings only make the counts differ, and then the slow reader has the last word.
    if members != raw.count(b'":') or b'" ' in raw or b'"\n' in raw or b'"\t' in raw or b'"\r' in raw:
        _refuse_duplicates(raw)
    return value


def parse_answer(raw: bytes) -> Json:
    """As `parse`, but large texts are not searched for duplicate keys: the last one counts, as it does for most
    readers. For answers only: nothing is decided on them, and what goes on is our own serialisation. Raises
    `Malformed`."""
    if len(raw) <= STRICT_BYTES:
        return parse(raw)
    value = _decoded(raw)
    _measure(value)
    return value


def _measure(value: Json) -> int:
    """Members of all objects; raises `Malformed` beyond MAX_DEPTH."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return 0
    members = 0
    level = [value]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise Malformed("nested too deeply")
        below: list[Any] = []
        for node in level:
            if type(node) is dict:
                members += len(node)
                for child in node.values():
                    kind = type(child)
                    if kind is dict or kind is list:
                        below.append(child)
            else:
                for child in node:
                    kind = type(child)
                    if kind is dict or kind is list:
                        below.append(child)
        level = below
    return members


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("duplicate key")
    return found


_strict = json.JSONDecoder(object_pairs_hook=_unique, parse_float=Decimal, parse_int=str)


def _refuse_duplicates(raw: bytes) -> None:
    try:
        _strict.decode(raw.decode("utf-8"))
    except Malformed:
        raise
    except (ValueError, ArithmeticError, RecursionError):
        raise Malformed("not valid JSON") from None


def encode(value: Json) -> bytes:
    """Compact JSON, one line. U+2028 and U+2029 are escaped: some readers take them for line ends."""
    try:
        raw = _encoder.encode(value)
    except UnicodeEncodeError:
        raise Malformed("lone surrogate") from None
    except RecursionError:
        raise Malformed("nested too deeply") from None
    return _one_line(raw)


def canonical(value: Json) -> bytes:
    """JSON with sorted keys and no white space: equal values, equal bytes."""
    try:
        raw = _sorting.encode(value)
    except UnicodeEncodeError:
        raise Malformed("lone surrogate") from None
    return _one_line(raw)


def _one_line(raw: bytes) -> bytes:
    # One byte is looked for ten times as fast as two.
    if b"\xe2" in raw and b"\xe2\x80" in raw:
        return raw.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return raw


def digest(value: Json) -> str:
    """SHA-256 of the canonical JSON, hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def digest_bytes(raw: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(raw).hexdigest()
