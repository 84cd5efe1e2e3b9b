"""Lines out of bytes, however the bytes arrive."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from langchain_interposer.channel import _Lines


def lines_of(chunks: list[bytes], limit_bytes: int = 1000) -> Iterator[bytes]:
    left = iter([chunk for chunk in chunks if chunk])
    lines = _Lines(lambda size: next(left, b""))
    while line := lines.next(limit_bytes):
        yield line


@given(st.lists(st.binary(max_size=20)), st.booleans())
def test_lines_do_not_depend_on_the_chunks(chunks: list[bytes], byte_at_a_time: bool) -> None:
    """Nothing is lost, added or reordered; every line but the last ends in its newline."""
    whole = b"".join(chunks)
    arriving = [bytes([byte]) for byte in whole] if byte_at_a_time else chunks
    lines = list(lines_of(arriving))
    assert b"".join(lines) == whole
    assert all(line.endswith(b"\n") for line in lines[:-1])
    assert all(line.count(b"\n") <= 1 for line in lines)


def test_endless_line_is_cut() -> None:
    """A line beyond the limit comes without its newline, which the connection takes for a fault."""
    line = next(lines_of([b"x" * 700, b"x" * 700, b"\n"]))
    assert not line.endswith(b"\n")
