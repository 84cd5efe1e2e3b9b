"""The first line of a guarded connection: it shows what lets its sender in, or there is no conversation.

`{"jsonrpc": "2.0", "id": 1, "method": METHOD, "params": {MEMBER: "…"}}` is answered with an empty result. Whatever else
comes, or nothing in time, is answered with one constant error and the end of the connection. Of what follows the line
nothing is read before it was found good, and no more is kept than a line may have.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

from interposer.canonical import Malformed, encode, parse
from interposer.errors import INVALID_REQUEST, Unauthenticated
from interposer.model import Caller, Json

from .link import Accept, Limits, Link


@dataclass(frozen=True, slots=True)
class Word:
    """What the first line looks like."""

    method: str
    member: str
    limit_bytes: int


class KnockingLink(Link, ABC):
    """A link whose conversation begins with `_let_in`, and not otherwise."""

    def __init__(self, word: Word, caller: Caller, accept: Accept, limits: Limits) -> None:
        super().__init__(caller, accept, limits)
        self._word = word
        self._bytes = bytearray()
        """The line, and once it was read, what came behind it."""
        self._read = False
        self._deadline: asyncio.TimerHandle | None = None
        """Running until the peer is let in."""

    @abstractmethod
    def _hear(self, id: Json, shown: str) -> None:
        """Call `_let_in` or `_refuse`, now or later. `shown` is empty where the line was anything else."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        both = cast("asyncio.Transport", transport)
        self.write_to(both)
        self.read_from(both)
        self._deadline = self._loop.call_later(self.limits.authenticate_s, self._refuse, None)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:
            super().data_received(data)
            return
        if self._closed:
            return
        self._bytes += data
        line, newline, rest = (self._bytes, b"", b"") if self._read else self._bytes.partition(b"\n")
        if len(line) > self._word.limit_bytes or len(rest) > self._word.limit_bytes:
            self._refuse(None)
        elif newline:
            self._bytes, self._read = bytearray(rest), True
            self._hear(*_shown(bytes(line), self._word))

    def eof_received(self) -> bool:
        if self._deadline is None:
            return super().eof_received()
        self.abort()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _let_in(self, id: Json) -> None:
        if self._deadline is None or self._closed:
            return
        self._deadline.cancel()
        self._deadline = None
        self.send(encode({"jsonrpc": "2.0", "id": id, "result": {}}) + b"\n")
        self.begin()
        rest, self._bytes = bytes(self._bytes), bytearray()
        if rest:
            self.data_received(rest)

    def _refuse(self, id: Json) -> None:
        if not self._closed:
            self.send(error_line(id, INVALID_REQUEST, Unauthenticated.public))
            self.close()


def _shown(line: bytes, word: Word) -> tuple[Json, str]:
    """The id and what is shown; nothing is shown by a line that is anything else."""
    try:
        message = parse(line)
    except Malformed:
        return None, ""
    if not isinstance(message, dict) or type(message.get("id")) not in (int, str):
        return None, ""
    id, params = message["id"], message.get("params")
    if message.get("jsonrpc") != "2.0" or message.get("method") != word.method or not isinstance(params, dict):
        return id, ""
    shown = params.get(word.member)
    return id, shown if isinstance(shown, str) else ""


def error_line(id: Json, code: int, public: str) -> bytes:
    """A JSON-RPC error response, newline included."""
    return encode({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": public}}) + b"\n"
