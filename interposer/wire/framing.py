"""Bytes in, frames out: lines as MCP's stdio transport cuts them.

A frame ends at LF and nowhere else (U+2028 is text). Blank lines are skipped, a CR before the LF is tolerated. What is
held never exceeds the limit, however the peer cuts its bytes: a line beyond it is reported once and thrown away up to
its end.
"""

from __future__ import annotations

from dataclasses import dataclass

LIMIT_BYTES = 4 * 1024 * 1024
"""The longest frame a caller may send."""

_BLANK = b" \t\r\n"
_EDGE = 512


@dataclass(frozen=True, slots=True)
class Oversize:
    """A line beyond the limit was thrown away. Its first and last bytes may still tell whose it was."""

    head: bytes = b""
    tail: bytes = b""


class LineFramer:
    """Cuts one peer's bytes into frames. Feeding a stream in any pieces gives the same frames."""

    __slots__ = ("_at_end", "_head", "_limit", "_line", "_skipping", "_tail")

    def __init__(self, limit_bytes: int = LIMIT_BYTES, *, oversize_at_end: bool = False) -> None:
        """`oversize_at_end`: report a line beyond the limit when it ends, with its tail, and not when it overflows."""
        self._limit = limit_bytes
        self._at_end = oversize_at_end
        self._line = bytearray()
        self._skipping = False
        self._head = b""
        self._tail = b""

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._skipping or bool(self._line)

    def feed(self, data: bytes) -> list[bytes | Oversize]:
        """The frames that these bytes complete, without their line ends."""
        frames: list[bytes | Oversize] = []
        if self._skipping or self._line:
            end = data.find(b"\n")
            self._extend(data if end < 0 else data[:end], frames)
            if end < 0:
                return frames
            self._finish(frames)
            data = data[end + 1 :]
        *lines, rest = data.lstrip(_BLANK).split(b"\n")
        for line in lines:
            frame = line.strip(_BLANK)
            if not frame:
                continue
            if len(line.lstrip(_BLANK)) > self._limit:
                frames.append(Oversize(frame[:_EDGE], frame[-_EDGE:] if self._at_end else b""))
            else:
                frames.append(frame)
        if rest:
            self._extend(rest.lstrip(_BLANK), frames)
        return frames

    def _extend(self, piece: bytes, frames: list[bytes | Oversize]) -> None:
        if self._skipping:
            self._tail = (self._tail + piece[-_EDGE:])[-_EDGE:]
            return
        if len(self._line) + len(piece) <= self._limit:
            self._line += piece
            return
        self._skipping = True
        self._head = (bytes(self._line[:_EDGE]) + piece[:_EDGE])[:_EDGE]
        self._tail = (bytes(self._line[-_EDGE:]) + piece[-_EDGE:])[-_EDGE:]
        self._line = bytearray()
        if not self._at_end:
            frames.append(Oversize(self._head))

    def _finish(self, frames: list[bytes | Oversize]) -> None:
        if self._skipping:
            if self._at_end:
                frames.append(Oversize(self._head, self._tail.rstrip(_BLANK)))
            self._skipping, self._head, self._tail = False, b"", b""
            return
        frame = bytes(self._line).rstrip(_BLANK)
        self._line = bytearray()
        frames.append(frame)
