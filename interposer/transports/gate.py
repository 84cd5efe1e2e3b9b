"""The gate of a TCP listener: the first line shows a token, or there is no conversation.

`{"jsonrpc": "2.0", "id": 1, "method": "interposer/authenticate", "params": {"token": "…"}}` is answered with an empty
result. Whatever else comes, or nothing in time, is answered with one constant error and the end of the connection.
A token is a static one of ours, or one that a judge accepts; until then nothing that follows it is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, cast

from interposer.canonical import Malformed, encode, parse
from interposer.errors import INVALID_REQUEST, Unauthenticated
from interposer.model import Caller, Json
from interposer.ports import Secret

from .link import Accept, Limits, Link
from .places import problem

AUTHENTICATE = "interposer/authenticate"
TOKEN_LINE_BYTES = 16 * 1024
"""Room for an access token of 8 KiB, which is the most that an issuer's may have."""
TOKEN_MINIMUM = 16
"""Characters. Shorter ones can be guessed."""
TELL_S = 1.0
BAD_TOKEN, NO_TOKEN, FOREIGN_UID = "bad_token", "no_token", "foreign_uid"
"""Why a peer was turned away, for whoever is told of it."""

Judge: TypeAlias = Callable[[str], Awaitable[bool]]
"""Whether a token that is none of ours is somebody's."""


class Refusals:
    """Tells of peers that were turned away: of each reason at most once in `TELL_S`, whatever knocks."""

    def __init__(self, tell: Callable[[str], None] | None) -> None:
        self._tell = tell
        self._told: dict[str, float] = {}

    def __call__(self, reason: str) -> None:
        now = time.monotonic()
        if self._tell is not None and now - self._told.get(reason, -TELL_S) >= TELL_S:
            self._told[reason] = now
            self._tell(reason)


class GuardedLink(Link):
    """A link whose conversation begins after the right token in the first line, and not otherwise."""

    def __init__(
        self,
        tokens: Sequence[tuple[bytes, str]],
        judge: Judge | None,
        refused: Refusals,
        accept: Accept,
        limits: Limits,
    ) -> None:
        super().__init__(Caller("tcp"), accept, limits)
        self._tokens = tokens
        self._asked = judge
        self._refused = refused
        self._line = bytearray()
        self._deadline: asyncio.TimerHandle | None = None
        """Running until the peer is known."""
        self._judging: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        both = cast("asyncio.Transport", transport)
        self.write_to(both)
        self.read_from(both)
        self._deadline = self._loop.call_later(self.limits.authenticate_s, self._refuse, None, NO_TOKEN)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:
            super().data_received(data)
            return
        if self._closed:
            return
        self._line += data
        if self._judging is not None:
            if len(self._line) > TOKEN_LINE_BYTES:
                self._refuse(None, NO_TOKEN)
            return
        line, newline, rest = self._line.partition(b"\n")
        if len(line) > TOKEN_LINE_BYTES:
            self._refuse(None, NO_TOKEN)
        elif newline:
            self._line = rest
            self._judge_line(bytes(line))

    def eof_received(self) -> bool:
        if self._deadline is None:
            return super().eof_received()
        self.abort()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._judging is not None:
            self._judging.cancel()
        super().connection_lost(exc)

    def _judge_line(self, line: bytes) -> None:
        id, token = _credentials(line)
        label = _label(self._tokens, token)
        if label is not None:
            self._let_in(id, Caller("tcp", label=label))
        elif token and self._asked is not None and len(self._line) <= TOKEN_LINE_BYTES:
            # Whoever is not known yet may not have us keep a conversation for them.
            self.pause()
            self._judging = asyncio.ensure_future(self._asked(token))
            self._judging.add_done_callback(lambda done: self._judged(id, token, done))
        else:
            self._refuse(id, BAD_TOKEN if token else NO_TOKEN)

    def _judged(self, id: Json, token: str, done: asyncio.Future[bool]) -> None:
        fault = None if done.cancelled() else done.exception()
        if done.cancelled() or fault is not None or done.result() is not True:
            self._refuse(id, BAD_TOKEN)
            if fault is not None:
                raise fault
        elif not self._closed:
            self._judging = None
            self.resume()
            self._let_in(id, Caller("tcp", token=token))

    def _let_in(self, id: Json, caller: Caller) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.caller = caller
        self.send(encode({"jsonrpc": "2.0", "id": id, "result": {}}) + b"\n")
        self.begin()
        rest, self._line = bytes(self._line), bytearray()
        if rest:
            self.data_received(rest)

    def _refuse(self, id: Json, reason: str) -> None:
        if self._closed:
            return
        if self._judging is not None:
            self._judging.cancel()
        self._refused(reason)
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


def digests(place: str, tokens: Sequence[tuple[Secret, str]], *, judged: bool) -> list[tuple[bytes, str]]:
    """What static tokens are compared by. Raises `ConfigurationError`; there need be none where there is a judge."""
    if not tokens and not judged:
        raise problem(place, "a TCP listener needs at least one token or issuer; configure one, or use a Unix socket")
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
