"""The public keys of one issuer, from where its configuration says: believed for minutes, then not at all.

Keys are believed for `cache_s` since the last fetch that succeeded began; after that there are none, whatever the
provider's state. Whoever needs fresh ones joins the one fetch under way, and between fetches lies a cool-down whatever
causes them, so tokens with invented key ids cost the provider nothing. A bad answer changes nothing but the log.
Nothing that a token names is ever fetched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Protocol
from urllib.parse import urlsplit

import anyio

from interposer.canonical import Malformed, parse
from interposer.identity.keys import BadKeys, KeySet, read_keys
from interposer.model import JsonObject
from interposer.ports import Clock

from .addresses import fault
from .fetch import DEADLINE_S, Document, Fetcher, IssuerFault

log = logging.getLogger(__name__)

CACHE_S = 300.0
COOL_DOWN_S = 30.0
_EARLY = 0.8
"""The part of their lifetime after which keys are fetched again, so that a short outage is not noticed."""
_SKEW_S = 10.0
"""From here on the difference between two clocks is worth a warning; the leeway for it is 30 s by default."""

Source = Callable[[], Awaitable[Document]]
"""Where a JWKS is had from. Raises `IssuerFault`."""


@dataclass(frozen=True, slots=True)
class KeysStatus:
    """How it stands with an issuer's keys."""

    loaded: bool
    """Whether there are keys that are believed now."""
    age_s: float | None
    """Since they were last confirmed; None when they never were."""
    error: str
    """What went wrong last time, or empty."""
    skew_s: float | None = None
    """The provider's clock minus ours, where it says."""


class Keys(Protocol):
    """The keys of one issuer, as those who verify tokens see them."""

    def current(self) -> KeySet | None:
        """The keys that are believed now; another object whenever they were read anew."""

    async def refreshed(self) -> KeySet | None:
        """As `current`, after fetching them if that may be done now."""

    async def run(self) -> None:
        """Keep them fresh; never returns."""

    def status(self) -> KeysStatus: ...


def usable(raw: bytes) -> KeySet:
    """The keys of a JWKS that has some. Raises `BadKeys`."""
    found = read_keys(raw)
    if not found.keys:
        raise BadKeys(f"the JWKS holds no key that can be used; {'; '.join(found.dropped[:3]) or 'it is empty'}")
    return found


def discovery(issuer: str, fetcher: Fetcher) -> Source:
    """The JWKS that the issuer's metadata names (OIDC Discovery 1.0 §4; RFC 8414 §3 where there is none of that)."""

    async def found() -> Document:
        try:
            answer = await fetcher.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        except IssuerFault as missing:
            if missing.status != 404:
                raise
            parts = urlsplit(issuer)
            path = f"/.well-known/oauth-authorization-server{parts.path.rstrip('/')}"
            answer = await fetcher.get(f"{parts.scheme}://{parts.netloc}{path}")
        return await fetcher.get(_jwks_uri(answer.body, issuer))

    return found


def located(uri: str, fetcher: Fetcher) -> Source:
    """The JWKS at a configured address."""
    return lambda: fetcher.get(uri)


def _jwks_uri(raw: bytes, issuer: str) -> str:
    try:
        found = parse(raw)
    except Malformed:
        raise IssuerFault("its discovery document is not JSON") from None
    metadata: JsonObject = found if isinstance(found, dict) else {}
    # OIDC Discovery 1.0 §4.3: exactly the issuer that was asked for, or another one speaks in its name.
    if metadata.get("issuer") != issuer:
        raise IssuerFault("its discovery document is another issuer's")
    uri = metadata.get("jwks_uri")
    if not isinstance(uri, str) or fault(uri):
        raise IssuerFault("its discovery document names no jwks_uri that can be used")
    if issuer.startswith("https://") and not uri.startswith("https://"):
        raise IssuerFault("its discovery document names a jwks_uri without TLS")
    return uri


class RemoteKeys:
    """Keys that are fetched."""

    def __init__(
        self,
        issuer: str,
        source: Source,
        clock: Clock,
        *,
        cache_s: float = CACHE_S,
        deadline_s: float = DEADLINE_S,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._issuer = issuer
        self._source = source
        self._clock = clock
        self._cache_s = min(cache_s, CACHE_S)
        # Keys that are believed for less than two minutes could not be fetched again in time otherwise.
        self._cool_down_s = min(COOL_DOWN_S, self._cache_s / 4)
        self._deadline_s = deadline_s
        self._sleep = sleep
        self._found: KeySet | None = None
        self._found_at = -inf
        self._tried_at = -inf
        self._flight: anyio.Event | None = None
        self._error = ""
        self._skew_s: float | None = None
        self._dropped: tuple[str, ...] = ()

    def current(self) -> KeySet | None:
        return self._found if self._clock.monotonic() - self._found_at < self._cache_s else None

    async def refreshed(self) -> KeySet | None:
        if self._flight is not None:
            await self._flight.wait()
        elif self._cooling_s() <= 0:
            # Others may be waiting for this fetch: that one of them hangs up is no reason to end it. A task of its own,
            # for tasks may be cancelled natively too, which no scope holds off.
            await asyncio.shield(asyncio.ensure_future(self._begun()))
        return self.current()

    async def run(self) -> None:
        """Fetch at start, then at four fifths of the keys' lifetime, or after the cool-down where that failed."""
        while True:
            wait_s = max(self._cooling_s(), self._due_s())
            if wait_s > 0:
                await self._sleep(wait_s)
            elif self._flight is not None:
                await self._flight.wait()
            else:
                await self._begun()

    def status(self) -> KeysStatus:
        age_s = None if self._found is None else self._clock.monotonic() - self._found_at
        return KeysStatus(self.current() is not None, age_s, self._error, self._skew_s)

    def _cooling_s(self) -> float:
        return self._tried_at + self._cool_down_s - self._clock.monotonic()

    def _due_s(self) -> float:
        return 0.0 if self._error else self._found_at + self._cache_s * _EARLY - self._clock.monotonic()

    def _begun(self) -> Awaitable[None]:
        """A fetch, and everybody knows of it from now on."""
        self._flight = anyio.Event()
        # Of the time when the question was asked: what was removed after that may still be in the answer.
        self._tried_at = self._clock.monotonic()
        return self._fetch(self._flight, self._tried_at)

    async def _fetch(self, flight: anyio.Event, began: float) -> None:
        try:
            self._found = await self._asked()
            self._found_at = began
            if self._error:
                log.warning("the keys of %s can be had again", self._issuer)
            self._error = ""
        except (IssuerFault, BadKeys) as wrong:
            self._error = str(wrong)
            log.error("the keys of %s could not be fetched: %s; %s", self._issuer, wrong, self._left())
        finally:
            self._flight = None
            flight.set()

    async def _asked(self) -> KeySet:
        with anyio.move_on_after(self._deadline_s):
            answer = await self._source()
            self._compare_clocks(answer.date)
            found = usable(answer.body)
            if found.dropped and found.dropped != self._dropped:
                log.warning("keys of %s that cannot be used: %s", self._issuer, "; ".join(found.dropped))
            self._dropped = found.dropped
            return found
        raise IssuerFault(f"no whole answer within {self._deadline_s:g} s")

    def _compare_clocks(self, theirs: float | None) -> None:
        if theirs is None:
            return
        before, self._skew_s = self._skew_s or 0.0, theirs - self._clock.now()
        if abs(self._skew_s) > _SKEW_S >= abs(before):
            log.warning("the clock of %s is %+.0f s from ours: tokens may be refused", self._issuer, self._skew_s)

    def _left(self) -> str:
        left_s = self._found_at + self._cache_s - self._clock.monotonic()
        if left_s <= 0:
            return "until they can be, none of its tokens is accepted"
        return f"the ones from before stand for another {left_s:.0f} s"
