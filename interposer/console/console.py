"""The console's place in the broker: it listens at once, and loads its pages when somebody comes.

The web libraries cost a third of a second to import; a broker that nobody looks at never pays for them, and one that
serves calls loads them beside its event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import anyio
import anyio.to_thread

from interposer.desk import Desk
from interposer.identity.trust import Identity, Trust
from interposer.model import JsonObject, MatchedRule, Obligations, Principal
from interposer.ports import Clock, Masker, Secret

from .logins import Logins
from .place import Listener, Place

SERVED_TOKEN_S = 900.0
"""How long the address that `interposer serve` prints can be used, once."""
ASKED_TOKEN_S = 120.0
"""The same of the one that `interposer console` prints."""


class Keys(Protocol):
    """The public keys of the login's issuer, as they are believed now (`callers/jwks.py` has them)."""

    def current(self) -> Any: ...

    async def refreshed(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class OidcLogin:
    """Logging in at a provider."""

    issuer: str
    client_id: str
    trust: Trust
    """For its ID tokens: audience `client_id`, `id_tokens` on."""
    keys: Keys
    scopes: tuple[str, ...] = ("openid", "profile")
    secret: Callable[[], Awaitable[Secret]] | None = None
    """None: a public client."""


async def _nobody(_: Identity) -> None:
    return None


async def _none() -> Sequence[JsonObject]:
    return ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the console asks of the rest of the broker."""

    obligations: Callable[[str], Obligations]
    """`PolicyDecisionPoint.obligations`, of the policy in force."""
    rule_text: Callable[[MatchedRule], str] = lambda rule: ""
    """The rule as it stands in its file; empty where it cannot be shown."""
    description: Callable[[str, str], str] = lambda skill, digest: ""
    """What a skill (its id, its definition's digest) says of itself, as callers are shown it; empty where it is another
    one by now."""
    sessions: Callable[[], Awaitable[Sequence[JsonObject]]] = _none
    """Newest first: `id`, `opened_at`, `last_at`, `closed`, `client`, `callers`, `answered`, `refused`, `failed`,
    `in_doubt`."""
    may_break_glass: Callable[[Principal], bool] = lambda person: False
    sees_all: Callable[[Principal], bool] = lambda person: False
    """Whether somebody who logged in by OIDC sees questions that they may not answer."""
    still: Callable[[Identity], Awaitable[None]] = _nobody
    """Raises `Unauthenticated` where the deny list names somebody now."""


class Console:
    """Bound on construction; `serve` it until it is cancelled."""

    def __init__(
        self,
        desk: Desk,
        clock: Clock,
        masker: Masker,
        around: Surroundings,
        place: Place | None = None,
        *,
        session_s: float = 8 * 3600.0,
        login: OidcLogin | None = None,
    ) -> None:
        """Raises `ConfigurationError` where it cannot listen, or with TLS that cannot be used."""
        self.desk = desk
        self.clock = clock
        self.masker = masker
        self.around = around
        self.oidc = login
        self.logins = Logins(clock, session_s=session_s)
        self.listener = Listener(place or Place())
        self.ended = anyio.Event()
        """Streams end with it."""

    def link(self, question: str) -> str:
        """Where a question is answered. Whoever is not logged in is asked to, first."""
        return self.listener.link(question)

    def address(self, operator: Principal) -> str:
        """What `serve` prints: with a token that logs this operator in once, unless people log in at a provider."""
        if self.oidc is not None:
            return self.listener.link()
        return self.listener.login(self.logins.mint(operator, SERVED_TOKEN_S))

    async def login(self, operator: Principal, id: str = "") -> JsonObject:
        """`console/login`: an address that logs this operator in, once, and leads to the question."""
        return {"url": self.listener.login(self.logins.mint(operator, ASKED_TOKEN_S), id)}

    async def serve(self) -> None:
        """Until cancelled; the socket is closed then, and nobody is connected any more."""
        try:
            await anyio.wait_readable(self.listener.socket)
            site, serving = await anyio.to_thread.run_sync(self._load)
            await serving.serve(site, self.listener, self.ended.set)
        finally:
            self.ended.set()
            self.listener.close()

    def _load(self) -> tuple[Any, Any]:
        serving = import_module(f"{__package__}.serving")
        return import_module(f"{__package__}.site").site(self), serving
