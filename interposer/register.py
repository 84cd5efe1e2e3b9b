"""The register of standing grants: which of them may carry a call, as this run knows it, and what is cut when one ends.

The store stays the truth of a grant's state and of its uses. The register is the truth of its deadline within one run:
it is monotonic, and the wall clock says only what is left of a grant that an earlier run gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import anyio

from . import grants
from .ballot import question_digest
from .grant import Grant
from .model import Approval, Decision, Invocation, Kind, Principal
from .ports import Clock, RecordStore

_REMEMBERED = 10_000


class Register:
    """Active grants by principal and skill, and the calls that are under way under a yes."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._active: dict[tuple[str, str, str], dict[str, tuple[Grant, float]]] = {}
        self._under_way: dict[str, set[anyio.CancelScope]] = {}
        self._revoked: dict[str, None] = {}

    async def load(self) -> None:
        """What earlier runs left active."""
        for grant in await self._store.grants(active=True):
            self.enter(grant)

    def enter(self, grant: Grant) -> None:
        """From now on it may carry calls."""
        left = min(grant.expires_at - self._clock.now(), grant.expires_at - grant.given_at)
        self._active.setdefault(_key(grant.requester, grant.skill), {})[grant.id] = (
            grant,
            self._clock.monotonic() + max(0.0, left),
        )

    def carries(self, invocation: Invocation, decision: Decision) -> bool:
        """Whether some grant looks like a yes to this call; `use` finds out."""
        return bool(self._active) and bool(self._fitting(invocation, decision))

    async def use(self, invocation: Invocation, decision: Decision) -> Approval | None:
        """One use of a grant that is a yes to this call; of several, the one that ends first. None where there is none.
        Raises `RecordFault`."""
        for deadline, grant in self._fitting(invocation, decision) if self._active else ():
            record = replace(
                grants.row(grant, Kind.GRANT_USED, at=self._clock.now(), code=grant.question),
                session=invocation.session,
                invocation=invocation.id,
            )
            with anyio.CancelScope(shield=True):
                # The store compares with `expires_at`; told the time this way, it judges by the deadline of this run.
                now = grant.expires_at - (deadline - self._clock.monotonic())
                used = await self._store.use_grant(grant.id, now, record)
                if not used:
                    self._drop(grant)
                    continue
                self._count(grant)
            return Approval(grant.question, question_digest(invocation, decision), grant.approvers, grant=grant.id)
        return None

    async def expire(self) -> int:
        """End what has run out of time; how many there were. Raises `RecordFault`."""
        now = self._clock.monotonic()
        over = [grant for some in self._active.values() for grant, deadline in some.values() if deadline <= now]
        for grant in over:
            row = grants.row(grant, Kind.GRANT_EXPIRED, at=self._clock.now(), code="expired")
            with anyio.CancelScope(shield=True):
                await self._store.end_grant(grant.id, row)
                self._drop(grant)
        return len(over)

    async def end(self, grant: Grant, by: Principal, payload: bytes | None) -> bool:
        """Revoke it; False when it had ended. Calls under way under it are cut. Raises `RecordFault`."""
        row = grants.row(grant, Kind.GRANT_REVOKED, at=self._clock.now(), by=by, code="revoked")
        with anyio.CancelScope(shield=True):
            # First what is under way: it is cut even if the row cannot be written.
            self.cut(grant.id)
            self._drop(grant)
            ended = await self._store.end_grant(grant.id, replace(row, payload=payload, size=len(payload or b"")))
        return ended  # noqa: RET504 - mypy thinks that the scope may swallow an exception

    def of(self, question: str) -> list[Grant]:
        """The active grants that came of a question."""
        return [g for some in self._active.values() for g, _ in some.values() if g.question == question]

    @property
    def standing(self) -> bool:
        return bool(self._active)

    # -- calls under way

    @contextmanager
    def revocable(self, approval: Approval | None) -> Iterator[anyio.CancelScope]:
        """A scope that is cancelled when the yes behind it is revoked, or was a moment ago."""
        ids: Sequence[str] = () if approval is None else tuple(filter(None, (approval.question, approval.grant)))
        with anyio.CancelScope() as scope:
            if any(id in self._revoked for id in ids):
                scope.cancel()
            for id in ids:
                self._under_way.setdefault(id, set()).add(scope)
            try:
                yield scope
            finally:
                for id in ids:
                    self._under_way[id].discard(scope)
                    if not self._under_way[id]:
                        del self._under_way[id]

    def cut(self, id: str) -> int:
        """Cancel what is, or is about to be, under way under a question's or a grant's yes; how many there were."""
        self._revoked[id] = None
        if len(self._revoked) > _REMEMBERED:
            del self._revoked[next(iter(self._revoked))]
        scopes = list(self._under_way.get(id, ()))
        for scope in scopes:
            scope.cancel()
        return len(scopes)

    def _fitting(self, invocation: Invocation, decision: Decision) -> list[tuple[float, Grant]]:
        known = self._active.get(_key(invocation.principal, invocation.skill.id))
        if not known:
            return []
        now = self._clock.now()
        found = [
            (deadline, grant)
            for grant, deadline in known.values()
            if deadline > self._clock.monotonic() and grants.carries(grant, invocation, decision, now=now)
        ]
        return sorted(found, key=lambda pair: (pair[0], pair[1].id))

    def _count(self, grant: Grant) -> None:
        some = self._active.get(_key(grant.requester, grant.skill), {})
        known = some.get(grant.id)
        if known is None:
            return
        used = replace(known[0], used=known[0].used + 1)
        if used.uses is not None and used.used >= used.uses:
            self._drop(grant)
        else:
            some[grant.id] = (used, known[1])

    def _drop(self, grant: Grant) -> None:
        key = _key(grant.requester, grant.skill)
        self._active.get(key, {}).pop(grant.id, None)
        if not self._active.get(key, True):
            del self._active[key]


def _key(principal: Principal, skill: str) -> tuple[str, str, str]:
    return principal.issuer, principal.subject, skill
