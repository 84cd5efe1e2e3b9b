"""Lines are cut at LF only, and nothing grows without bound."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.wire.framing import LineFramer, Oversize

LIMIT = 32


def whole(stream: bytes, **options: bool) -> list[bytes | Oversize]:
    return LineFramer(LIMIT, **options).feed(stream)


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        (b"", []),
        (b"\n", []),
        (b"\r\n \t \n\n", []),
        (b"a\n", [b"a"]),
        (b"a\r\nb\n", [b"a", b"b"]),
        (b"  a \n", [b"a"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\x0b\x0c\n", [b"a\x0b\x0c"]),
        ("a\u2028b\u2029c\x85\n".encode(), ["a\u2028b\u2029c\x85".encode()]),
        (b"a\nb", [b"a"]),
        (b"x" * LIMIT + b"\n", [b"x" * LIMIT]),
        (b"x" * (LIMIT + 1) + b"\nb\n", [Oversize(b"x" * (LIMIT + 1)), b"b"]),
        (b"   " + b"x" * LIMIT + b"\n", [b"x" * LIMIT]),
    ],
)
def test_a_stream_is_cut_at_line_feeds(stream: bytes, frames: list[bytes | Oversize]) -> None:
    """LF ends a frame and nothing else does; blank lines and surrounding blanks vanish."""
    assert whole(stream) == frames


@given(
    lines=st.lists(st.one_of(st.binary(max_size=80), st.sampled_from([b"", b" ", b"\r", b"x" * 33, b"x" * 32]))),
    cuts=st.lists(st.integers(1, 40)),
    at_end=st.booleans(),
)
def test_any_cutting_of_a_stream_gives_the_same_frames(lines: list[bytes], cuts: list[int], at_end: bool) -> None:
    """Where the peer's bytes are cut changes nothing, down to one byte at a time."""
    stream = b"\n".join(lines)
    framer = LineFramer(LIMIT, oversize_at_end=at_end)
    found: list[bytes | Oversize] = []
    at = 0
    for size in [*cuts, *[1] * len(stream)]:
        found += framer.feed(stream[at : at + size])
        at += size
    found += framer.feed(b"\n")
    expected = whole(stream + b"\n", oversize_at_end=at_end)
    assert [type(frame) for frame in found] == [type(frame) for frame in expected]
    assert [f for f in found if isinstance(f, bytes)] == [f for f in expected if isinstance(f, bytes)]


def test_a_line_without_end_is_reported_at_once_and_not_kept() -> None:
    """A line beyond the limit is one event, and what follows its end is served."""
    framer = LineFramer(1000)
    events = [event for _ in range(100) for event in framer.feed(b"y" * 64)]
    assert events == [Oversize(b"y" * 512)]
    assert framer.partial
    assert framer.feed(b"yy\nz\n") == [b"z"]


def test_an_oversize_line_can_be_told_by_its_edges() -> None:
    """Asked to wait for the end, the framer gives the first and the last bytes of what it threw away."""
    framer = LineFramer(1000, oversize_at_end=True)
    assert framer.feed(b'{"id":1,' + b"y" * 5000) == []
    assert framer.feed(b"y" * 5000) == []
    [event] = framer.feed(b',"id":2}\r\n')
    assert isinstance(event, Oversize)
    assert event.head.startswith(b'{"id":1,')
    assert event.tail.endswith(b',"id":2}')


def test_a_flood_of_newlines_costs_no_memory() -> None:
    """Ten million blank lines leave nothing behind."""
    framer = LineFramer()
    piece = b"\n" * 65536
    tracemalloc.start()
    try:
        for _ in range(160):
            assert framer.feed(piece) == []
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert not framer.partial


def test_64_mib_without_newline_stay_under_three_limits() -> None:
    """Memory is bounded by the limit, not by the line."""
    limit = 4 * 1024 * 1024
    framer = LineFramer(limit, oversize_at_end=True)
    tracemalloc.start()
    try:
        for _ in range(1024):
            assert framer.feed(b"A" * 65536) == []
        assert len(framer.feed(b"\n")) == 1
        assert tracemalloc.get_traced_memory()[1] < 3 * limit
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("stream", "open"), [(b"", False), (b"  \t", False), (b" {", True), (b"{}\n", False)])
def test_partial_tells_whether_a_frame_is_open(stream: bytes, open: bool) -> None:
    """A frame is open from its first byte that is not blank to its line end."""
    framer = LineFramer()
    framer.feed(stream)
    assert framer.partial is open
