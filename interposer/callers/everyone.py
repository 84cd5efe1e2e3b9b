"""Who asks, for every kind of caller: a token where there is one, else the kernel's word or a static token's label.

A caller that came with a token is judged by its issuer alone: one that is empty, bad or of nobody we trust is nobody,
and is never taken for the local user behind it. Whoever was found is refused if the deny list, as it is now, names
them, their token or their session.

The principal of a token keeps the peer's uid where the transport knows it: approvals tell people apart by it, and a
policy that denies a uid cannot be shaken off with a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

from interposer.errors import Unauthenticated
from interposer.identity.trust import Identity
from interposer.model import Caller, JsonObject, Principal

from .local import Callers
from .revocation import Revocations


class TokenJudge(Protocol):
    """What is asked of `Issuers`, whose libraries are not loaded where no issuer is configured."""

    async def verify(self, token: str) -> Identity: ...

    async def run(self) -> None: ...

    def status(self) -> Mapping[str, Any]: ...


class Everyone:
    """The `Authenticator` of a broker."""

    def __init__(self, local: Callers, issuers: TokenJudge | None = None, revoked: Revocations | None = None) -> None:
        self._local = local
        self.issuers = issuers
        self.revoked = revoked

    async def authenticate(self, caller: Caller) -> Principal:
        """Raises `Unauthenticated`."""
        if caller.token is None:
            principal = await self._local.authenticate(caller)
            named: tuple[tuple[str, str], ...] = ()
        else:
            identity = await self._identity(caller.token)
            principal = identity.principal
            if caller.uid is not None:
                principal = replace(principal, uid=caller.uid)
            named = (("subject", identity.sub), ("jti", identity.token_id), ("session", identity.session))
        if self.revoked is not None:
            # Last, for a verification may have waited for keys.
            await self._refuse_revoked(self.revoked, principal, (*named, ("session", caller.session)))
        return principal

    async def still(self, principal: Principal, session: str) -> Principal:
        """Somebody who has left, as they would be let in now. A local peer and a static token's owner have the groups
        that are configured now. A token has been forgotten: its owner has the groups of the asking, nothing is known of
        its end, and a deny list that names the token alone does not find it. Raises `Unauthenticated`."""
        issuers = {} if self.issuers is None else self.issuers.status()
        current = principal if principal.issuer in issuers else self._local.now(principal)
        if current is None:
            raise Unauthenticated("nobody who is configured vouches for the one who asked")
        if self.revoked is not None:
            await self._refuse_revoked(self.revoked, current, (("session", session),))
        return current

    async def still_identity(self, identity: Identity) -> None:
        """The same of somebody whose token is remembered, at another issuer's too. Raises `Unauthenticated`."""
        if self.revoked is not None:
            named = (("subject", identity.sub), ("jti", identity.token_id), ("session", identity.session))
            await self._refuse_revoked(self.revoked, identity.principal, named)

    async def run(self) -> None:
        """Keep the issuers' keys fresh; returns at once where there are none."""
        if self.issuers is not None:
            await self.issuers.run()

    def status(self) -> JsonObject:
        """For operators: how it stands with each issuer's keys and with the deny list."""
        issuers = {} if self.issuers is None else self.issuers.status()
        return {
            "issuers": [{"issuer": issuer, **asdict(found)} for issuer, found in issuers.items()],
            "revoked": None if self.revoked is None else {"error": self.revoked.error},
        }

    async def _identity(self, token: str) -> Identity:
        if self.issuers is None:
            raise Unauthenticated("a token, and no issuer is configured", why="no_issuer")
        return await self.issuers.verify(token)

    async def _refuse_revoked(
        self, revoked: Revocations, principal: Principal, named: tuple[tuple[str, str], ...]
    ) -> None:
        listed = await revoked.latest()
        for kind, value in (("subject", principal.subject), *named):
            if listed.names(kind, value, principal.issuer):
                raise Unauthenticated(f"its {kind} is on the deny list", why="revoked")
