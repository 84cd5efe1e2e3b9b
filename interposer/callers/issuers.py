"""Who a token says is asking, judged anew at every call: by the keys that its issuer, if it is one of ours, has now.

That a token was verified is remembered for as long as the very same keys stand; its time window is looked at every
time, and a refusal is never remembered. A token is remembered by its digest, and by nothing else of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import anyio

from interposer.errors import EXPIRED, UNKNOWN_KEY, ConfigurationError, Problem, Unauthenticated
from interposer.identity.keys import KeySet
from interposer.identity.refusals import NOT_YET_VALID, TOO_LARGE
from interposer.identity.trust import Identity, Trust
from interposer.identity.verify import issuer_of, verify
from interposer.ports import Clock

from .jwks import Keys, KeysStatus

REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class _Verified:
    identity: Identity
    keys: KeySet
    """The very ones that it was verified with."""
    issuer: Keys


class Issuers:
    """The issuers that are trusted, each with its keys."""

    def __init__(self, trusted: Sequence[tuple[Trust, Keys]], clock: Clock) -> None:
        """Raises `ConfigurationError` for an issuer that is there twice: its tokens would be held to either."""
        self._trusted = {trust.issuer: (trust, keys) for trust, keys in trusted}
        if len(self._trusted) != len(trusted):
            raise ConfigurationError([Problem("issuers", 0, 0, "the same issuer is there twice; merge the entries")])
        self._clock = clock
        self._max_bytes = max((trust.max_bytes for trust, _ in trusted), default=0)
        self._verified: dict[bytes, _Verified] = {}

    async def verify(self, token: str) -> Identity:
        """Raises `Unauthenticated`."""
        if len(token) > self._max_bytes:
            raise Unauthenticated("a token that is longer than allowed", why=TOO_LARGE)
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.pop(digest, None)
        if known is not None and known.issuer.current() is known.keys:
            self._verified[digest] = known  # to the end: what was not used for longest goes first
            return self._in_time(known.identity)
        found = await self._judged(token)
        while len(self._verified) >= REMEMBERED:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = found
        return found.identity

    async def run(self) -> None:
        """Keep all keys fresh; never returns."""
        async with anyio.create_task_group() as loops:
            for _, keys in self._trusted.values():
                loops.start_soon(keys.run)

    def status(self) -> dict[str, KeysStatus]:
        """By issuer."""
        return {issuer: keys.status() for issuer, (_, keys) in self._trusted.items()}

    async def _judged(self, token: str) -> _Verified:
        trusted = self._trusted.get(issuer_of(token, self._max_bytes))
        if trusted is None:
            raise Unauthenticated("a token of an issuer that is not configured", why="unknown_issuer")
        trust, issuer = trusted
        keys = issuer.current()
        if keys is None:
            keys = await issuer.refreshed()
        if keys is None:
            raise Unauthenticated(f"there are no keys of {trust.issuer} that can be believed", why="no_keys")
        try:
            return _Verified(verify(token, keys, trust, self._clock.now()), keys, issuer)
        except Unauthenticated as refusal:
            if refusal.why != UNKNOWN_KEY:
                raise
            fresh = await issuer.refreshed()
            if fresh is None or fresh is keys:
                raise
        return _Verified(verify(token, fresh, trust, self._clock.now()), fresh, issuer)

    def _in_time(self, identity: Identity) -> Identity:
        now = self._clock.now()
        if now >= identity.expires_at:
            raise Unauthenticated("a token that has expired", why=EXPIRED)
        if now < identity.not_before:
            raise Unauthenticated("a token that does not hold yet", why=NOT_YET_VALID)
        return identity
