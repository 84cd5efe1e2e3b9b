"""The gate of a TCP listener: the first line shows a token, or there is no conversation.

The method is `interposer/authenticate` (see `knock.py`). A token is a static one of ours, or one that a judge accepts.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from interposer.model import Caller, Json
from interposer.ports import Secret

from .knock import KnockingLink, Word
from .link import Accept, Limits
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


class GuardedLink(KnockingLink):
    """A link that begins after the right token in the first line."""

    def __init__(
        self,
        tokens: Sequence[tuple[bytes, str]],
        judge: Judge | None,
        refused: Refusals,
        accept: Accept,
        limits: Limits,
    ) -> None:
        super().__init__(Word(AUTHENTICATE, "token", TOKEN_LINE_BYTES), Caller("tcp"), accept, limits)
        self._tokens = tokens
        self._asked = judge
        self._refused = refused
        self._why = NO_TOKEN
        self._judging: asyncio.Future[bool] | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._judging is not None:
            self._judging.cancel()
        super().connection_lost(exc)

    def _hear(self, id: Json, shown: str) -> None:
        self._why = BAD_TOKEN if shown else NO_TOKEN
        label = _label(self._tokens, shown)
        if label is not None:
            self.caller = Caller("tcp", label=label)
            self._let_in(id)
        elif shown and self._asked is not None:
            # Whoever is not known yet may not have us keep a conversation for them.
            self.pause()
            self._judging = asyncio.ensure_future(self._asked(shown))
            self._judging.add_done_callback(lambda done: self._judged(id, shown, done))
        else:
            self._refuse(id)

    def _judged(self, id: Json, token: str, done: asyncio.Future[bool]) -> None:
        fault = None if done.cancelled() else done.exception()
        if done.cancelled() or fault is not None or done.result() is not True:
            self._refuse(id)
            if fault is not None:
                raise fault
        elif not self._closed:
            self._judging = None
            self.resume()
            self.caller = Caller("tcp", token=token)
            self._let_in(id)

    def _refuse(self, id: Json) -> None:
        if self._closed:
            return
        if self._judging is not None:
            self._judging.cancel()
        self._refused(self._why)
        super()._refuse(id)


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
