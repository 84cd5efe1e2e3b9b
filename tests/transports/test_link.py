"""What a link does with frames before they reach the kernel."""

from __future__ import annotations

import anyio
import pytest

from interposer.model import Caller
from interposer.ports import Connection
from interposer.transports.link import HIGH_WATER, LOW_WATER, Limits, Link
from tests.fakes.peer import Notes


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Sink:
    """An outlet that counts writes, and takes what it is told to take."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.buffered = 0
        self.closing = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is limited."""

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


def _link(sink: Sink) -> tuple[Link, list[Notes]]:
    told: list[Notes] = []

    def accept(connection: Connection) -> Notes:
        told.append(Notes(connection))
        return told[0]

    link = Link(Caller("memory"), accept, Limits())
    link.write_to(sink)
    link.begin()
    return link, told


async def test_frames_of_one_turn_leave_in_one_write() -> None:
    """Answers that are ready together cost one write to the kernel, in their order."""
    sink = Sink()
    link, _ = _link(sink)
    for n in range(64):
        link.send(b"%d\n" % n)
    assert sink.writes == []
    await anyio.lowlevel.checkpoint()
    assert sink.writes == [b"".join(b"%d\n" % n for n in range(64))]
    link.connection_lost(None)


async def test_a_frame_alone_is_not_copied() -> None:
    """One big answer goes to the kernel as the very bytes it was given as."""
    sink = Sink()
    link, _ = _link(sink)
    frame = b"x" * 1_000_000
    link.send(frame)
    await anyio.lowlevel.checkpoint()
    assert sink.writes[0] is frame
    link.connection_lost(None)


async def test_closing_writes_what_is_pending_first() -> None:
    """`close` in the same turn as `send` loses nothing, and what comes after it is dropped."""
    sink = Sink()
    link, _ = _link(sink)
    link.send(b"one\n")
    link.close()
    link.send(b"two\n")
    assert sink.writes == [b"one\n"]
    assert sink.closing
    link.connection_lost(None)


async def test_drained_is_said_once_per_backlog() -> None:
    """One backlog over the high mark is one `drained`; small ones are none."""
    sink = Sink()
    link, told = _link(sink)
    link.send(b"small\n")
    await anyio.lowlevel.checkpoint()
    assert told[0].drained_count == 0
    link.send(b"x" * (HIGH_WATER + 1))
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    assert told[0].drained_count == 1
    link.connection_lost(None)


class Partial(Sink):
    """An outlet that keeps some of what it is given, and reports as asyncio's transports do."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self._kept = kept
        self._high = 0
        self.link: Link | None = None
        self._paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.buffered = self._kept
        if self.buffered > self._high and self.link is not None:
            self._paused = True
            self.link.pause_writing()

    def drain(self) -> None:
        self.buffered = 0
        if self._paused and self.link is not None:
            self._paused = False
            self.link.resume_writing()


@pytest.mark.parametrize("kept", [0, LOW_WATER, LOW_WATER + 1, HIGH_WATER - 1, HIGH_WATER, HIGH_WATER + 1])
async def test_drained_follows_whatever_part_the_kernel_left(kept: int) -> None:
    """A receiver that paused over a big backlog is told when it has left, however much of it had to wait."""
    sink = Partial(kept)
    link, told = _link(sink)
    sink.link = link
    link.send(b"x" * 2_000_000)
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    sink.drain()
    assert told[0].drained_count == 1
    link.connection_lost(None)


async def test_a_lost_link_ends_its_receiver_once() -> None:
    """End of input, then a lost connection, then a close: the receiver hears of one end."""
    link, told = _link(Sink())
    link.eof_received()
    link.connection_lost(None)
    link.close()
    assert told[0].ended_count == 1
    assert link.backlog == 0


async def test_a_receiver_that_cannot_be_made_hangs_up() -> None:
    """A failure while accepting ends the connection; it is not left without a receiver."""

    def accept(connection: Connection) -> Notes:
        raise RuntimeError("no session")

    sink = Sink()
    link = Link(Caller("memory"), accept, Limits())
    link.write_to(sink)
    with pytest.raises(RuntimeError):
        link.begin()
    assert sink.closing
    link.connection_lost(None)
