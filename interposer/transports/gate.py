"""The gate of a TCP listener: the first line shows a token, or there is no conversation.

`{"jsonrpc": "2.0", "id": 1, "method": "interposer/authenticate", "params": {"token": "…"}}` is answered with an empty
result. Whatever else comes, or nothing in time, is answered with one constant error and the end of the connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from typing import cast

from interposer.canonical import Malformed, encode, parse
from interposer.errors import INVALID_REQUEST, Unauthenticated
from interposer.model import Caller, Json
from interposer.ports import Secret

from .link import Accept, Limits, Link
from .places import problem

AUTHENTICATE = "interposer/authenticate"
TOKEN_LINE_BYTES = 8 * 1024
TOKEN_MINIMUM = 16
"""Characters. Shorter ones can be guessed."""


class GuardedLink(Link):
    """A link whose conversation begins after the right token in the first line, and not otherwise."""

    def __init__(self, tokens: Sequence[tuple[bytes, str]], accept: Accept, limits: Limits) -> None:
        super().__init__(Caller("tcp"), accept, limits)
        self._tokens = tokens
        self._line = bytearray()
        self._deadline: asyncio.TimerHandle | None = None

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
        self._line += data
        line, newline, rest = self._line.partition(b"\n")
        if len(line) > TOKEN_LINE_BYTES:
            self._refuse(None)
        elif newline:
            self._line = bytearray()
            self._judge_line(bytes(line), bytes(rest))

    def eof_received(self) -> bool:
        if self._deadline is None:
            return super().eof_received()
        self.abort()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _judge_line(self, line: bytes, rest: bytes) -> None:
        id, token = _credentials(line)
        label = _label(self._tokens, token)
        if label is None or self._deadline is None:
            self._refuse(id)
            return
        self._deadline.cancel()
        self._deadline = None
        self.caller = Caller("tcp", label=label)
        self.send(encode({"jsonrpc": "2.0", "id": id, "result": {}}) + b"\n")
        self.begin()
        if rest:
            self.data_received(rest)

    def _refuse(self, id: Json) -> None:
        self.send(error_line(id, INVALID_REQUEST, Unauthenticated.public))
        self.close()


def _credentials(line: bytes) -> tuple[Json, str]:
    """The id and the token of an authentication request; no token when it is anything else."""
    try:
        message = parse(line)
    except Malformed:
        return None, ""
    if not isinstance(message, dict):
        return None, ""
    id, params = message.get("id"), message.get("params")
    if type(id) not in (int, str):
        return None, ""
    if message.get("jsonrpc") != "2.0" or message.get("method") != AUTHENTICATE or not isinstance(params, dict):
        return id, ""
    token = params.get("token")
    return id, token if isinstance(token, str) else ""


def digests(place: str, tokens: Sequence[tuple[Secret, str]]) -> list[tuple[bytes, str]]:
    if not tokens:
        raise problem(place, "a TCP listener needs at least one token; configure one, or use a Unix socket")
    if any(len(token.reveal()) < TOKEN_MINIMUM for token, _ in tokens):
        raise problem(place, f"tokens need at least {TOKEN_MINIMUM} characters; make one with `openssl rand -hex 32`")
    found = [(hashlib.sha256(token.reveal().encode()).digest(), label) for token, label in tokens]
    if len({digest for digest, _ in found}) < len(found):
        raise problem(place, "two callers have the same token; give each its own")
    return found


def _label(tokens: Sequence[tuple[bytes, str]], token: str) -> str | None:
    """Whose token it is. Every token is compared, each in constant time, so the time tells nothing."""
    shown = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
    found = None
    for digest, label in tokens:
        if hmac.compare_digest(digest, shown):
            found = label
    return found


def error_line(id: Json, code: int, public: str) -> bytes:
    """A JSON-RPC error response, newline included."""
    return encode({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": public}}) + b"\n"
