"""Who is logged in to the console: one-time tokens, sessions, and what each person has had before their eyes.

Tokens and sessions are 256 random bits, kept as SHA-256 only, single use and short-lived the ones, bounded in number
both. A login never outlives the token that it was made with. Everything here ends with the broker.
"""

from __future__ import annotations

import hmac
import secrets as randomness
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256

from interposer import shown
from interposer.identity.trust import Identity
from interposer.model import Principal, Question
from interposer.ports import Clock

from .texts import beyond

LOGINS = 256
OWN_LOGINS = 8
"""Of one person; the oldest ends, so that nobody drives others out."""
TOKENS = 64
STREAMS = 4
"""Live connections of one login."""
POSTS = (30, 60.0)
"""At most so many in so many seconds, for one login."""
FAILURES = (10, 60.0)
"""Logins that failed, from one address."""
ATTEMPTS = (600, 60.0)
"""Logins at a provider that were finished, from one address (of a proxy, everybody's): each costs a request to it."""
_REMEMBERED = 2_000
_ADDRESSES = 1_024


@dataclass(slots=True)
class Budget:
    """So many in any so many seconds, refilled evenly."""

    count: int
    per_s: float
    left: float
    at: float

    def take(self, now: float) -> bool:
        self.left = min(float(self.count), self.left + (now - self.at) * self.count / self.per_s)
        self.at = now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


def budget(rate: tuple[int, float], now: float) -> Budget:
    count, per_s = rate
    return Budget(count, per_s, float(count), now)


Version = tuple[str, str]
"""A question's id, and the version of it that was shown."""


@dataclass(slots=True)
class Login:
    """One person, in one browser."""

    principal: Principal
    csrf: str = field(repr=False)
    ends_at: float
    """Monotonic."""
    posts: Budget
    identity: Identity | None = None
    """What the OIDC token said; None for operators whom the kernel knows."""
    key: bytes = field(default=b"", repr=False)
    """Digest of what this browser's script keeps for our origin alone. Cookies know no ports: without it, whoever
    serves pages on another port of this host could use a cookie that the browser sends there."""
    streams: int = 0
    _served: OrderedDict[Version, float] = field(default_factory=OrderedDict)
    _opened: OrderedDict[Version, float] = field(default_factory=OrderedDict)

    def speaks(self, sent: str) -> bool:
        """Whether a form is one that this login was given."""
        return hmac.compare_digest(self.csrf.encode(), sent.encode("utf-8", "surrogatepass"))

    def holds(self, key: str) -> bool:
        """Whether a form comes from our own origin in the browser that logged in; any does where there is no script."""
        return not self.key or hmac.compare_digest(self.key, _digest(key))

    def serve(self, version: Version, now: float) -> None:
        """The page of this version was sent; the first time counts."""
        _remember(self._served, version, now)

    def open(self, version: Version, now: float) -> None:
        """The whole of its arguments was sent."""
        _remember(self._opened, version, now)

    def served_at(self, version: Version) -> float | None:
        return self._served.get(version)

    def has_opened(self, version: Version) -> bool:
        return version in self._opened


def _remember(known: OrderedDict[Version, float], version: Version, now: float) -> None:
    known.setdefault(version, now)
    known.move_to_end(version)
    while len(known) > _REMEMBERED:
        known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Token:
    principal: Principal
    ends_at: float


class Logins:
    """See the module."""

    def __init__(self, clock: Clock, *, session_s: float) -> None:
        self._clock = clock
        self._session_s = session_s
        self._tokens: OrderedDict[bytes, _Token] = OrderedDict()
        self._logins: OrderedDict[bytes, Login] = OrderedDict()
        self._failures: OrderedDict[str, Budget] = OrderedDict()
        self._attempts: OrderedDict[str, Budget] = OrderedDict()

    def mint(self, principal: Principal, ttl_s: float) -> str:
        """A token that logs this person in, once, within so many seconds."""
        token = randomness.token_urlsafe(32)
        self._tokens[_digest(token)] = _Token(principal, self._clock.monotonic() + ttl_s)
        while len(self._tokens) > TOKENS:
            self._tokens.popitem(last=False)
        return token

    def redeem(self, token: str, key: str = "") -> tuple[str, Login] | None:
        """The cookie and the login that a token gives; None for one that is wrong, used or over."""
        shown = _digest(token)
        # Every one is compared, each in constant time: how long it takes tells nothing of any.
        found = [known for known in self._tokens if hmac.compare_digest(known, shown)]
        if not found:
            return None
        known = self._tokens.pop(found[0])
        return self.begin(known.principal, key=key) if self._clock.monotonic() < known.ends_at else None

    def begin(self, principal: Principal, identity: Identity | None = None, *, key: str = "") -> tuple[str, Login]:
        """A new session of somebody who has shown who they are; `key` is what their browser's script will show."""
        now = self._clock.monotonic()
        lasts_s = self._session_s
        if identity is not None:
            lasts_s = min(lasts_s, identity.expires_at - self._clock.now())
        cookie = randomness.token_urlsafe(32)
        login = Login(principal, randomness.token_urlsafe(32), now + lasts_s, budget(POSTS, now), identity)
        login.key = _digest(key) if key else b""
        person = (principal.issuer, principal.subject)
        own = [at for at, each in self._logins.items() if (each.principal.issuer, each.principal.subject) == person]
        for at in own[: max(0, len(own) + 1 - OWN_LOGINS)]:
            self._close(at)
        while len(self._logins) >= LOGINS:
            self._close(next(iter(self._logins)))
        self._logins[_digest(cookie)] = login
        return cookie, login

    def find(self, cookie: str) -> Login | None:
        """Whose session this is, while it lasts; by the wall clock too, where a token says until when."""
        key = _digest(cookie)
        login = self._logins.get(key)
        if login is not None and not self.lasts(login):
            del self._logins[key]
            return None
        return login

    def lasts(self, login: Login) -> bool:
        identity = login.identity
        return self._clock.monotonic() < login.ends_at and (identity is None or self._clock.now() < identity.expires_at)

    def end(self, cookie: str) -> None:
        """Log out."""
        self._close(_digest(cookie))

    def _close(self, at: bytes) -> None:
        login = self._logins.pop(at, None)
        if login is not None:
            login.ends_at = self._clock.monotonic()  # its live connections see it

    def may_fail(self, address: str) -> bool:
        """One more attempt that failed; whether this address has any left. What is right passes all the same, so that
        nobody can lock others out."""
        return self._spend(self._failures, FAILURES, address)

    def may_try(self, address: str) -> bool:
        """One more login to finish at the provider; whether this address has any left."""
        return self._spend(self._attempts, ATTEMPTS, address)

    def _spend(self, budgets: OrderedDict[str, Budget], rate: tuple[int, float], address: str) -> bool:
        now = self._clock.monotonic()
        known = budgets.setdefault(address, budget(rate, now))
        budgets.move_to_end(address)
        while len(budgets) > _ADDRESSES:
            budgets.popitem(last=False)
        return known.take(now)


LINES = 40
"""Arguments on more lines must be opened before they can be approved."""


def long(question: Question) -> bool:
    """Whether the page shows only the outline of its arguments."""
    return shown.long(question) or any(beyond(raw, LINES) for raw in (question.canonical, question.amended))


def unread(login: Login, question: Question, version: str, now: float) -> str:
    """What keeps this person from agreeing to this version yet; empty where nothing does."""
    shown_at = login.served_at((question.id, version))
    if shown_at is None:
        return "This is not the version that you were shown. Read the call below, then answer."
    if long(question) and not login.has_opened((question.id, version)):
        return "Open the whole of the arguments before you approve this call."
    if now - shown_at < shown.reading_s(question):
        return f"This call needs {shown.reading_s(question):g} seconds of reading before it can be approved."
    return ""


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
