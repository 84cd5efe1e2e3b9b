"""At start: everything that the last run left without an end gets one. Nothing is ever sent again.

A call that was intended may or may not have reached its upstream: it becomes `in_doubt` (`not_known_sent`). A call that
still waited for a human was certainly not sent: it is withdrawn. Questions and standing grants whose time is over
expire; those that still have time stay, for a yes binds one exact call and not a connection. Of an approved call that
was under way, its caller is told once that nobody knows, or that it was not sent.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Protocol

from . import ballot, grants
from .grant import KeptState
from .model import Kind, QuestionState, Record
from .ports import Clock, RecordStore


class RecoverableStore(RecordStore, Protocol):
    """What recovery asks beyond the port; every store in `records/` has it."""

    async def left_open(self) -> list[Record]:
        """Calls asked or intended that have no end, and sessions that were not closed, oldest first."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How many of each were ended."""

    in_doubt: int = 0
    withdrawn: int = 0
    sessions: int = 0
    expired: int = 0
    grants: int = 0
    """Standing grants that had expired."""
    untold: int = 0
    """Approved calls that were under way, of which their callers are still to be told."""

    @property
    def clean(self) -> bool:
        """The last run ended in order."""
        return not (self.in_doubt or self.withdrawn or self.sessions)


_ENDING = {
    Kind.INTENDED: (Kind.IN_DOUBT, "not_known_sent"),
    Kind.ASKED: (Kind.WITHDRAWN, "aborted"),
    Kind.SESSION_OPENED: (Kind.SESSION_CLOSED, "aborted"),
}
_ORDER = {Kind.INTENDED: 0, Kind.ASKED: 1, Kind.SESSION_OPENED: 2}
_LIVE = (QuestionState.OPEN, QuestionState.GRANTED)


async def recover(store: RecoverableStore, clock: Clock) -> Summary:
    """End what was left open, calls before their sessions. Call it before the first session. Raises `RecordFault`."""
    ended = dict.fromkeys(_ENDING, 0)
    left = await store.left_open()
    for begun in sorted(left, key=lambda record: _ORDER[record.kind]):
        kind, code = _ENDING[begun.kind]
        await store.append(replace(begun, kind=kind, code=code, at=clock.now(), payload=None, size=0))
        ended[begun.kind] += 1
    return Summary(
        in_doubt=ended[Kind.INTENDED],
        withdrawn=ended[Kind.ASKED],
        sessions=ended[Kind.SESSION_OPENED],
        expired=await _expire(store, clock),
        grants=await _expire_grants(store, clock),
        untold=await _end_kept(store, clock, unsent={each.invocation for each in left if each.kind is Kind.ASKED}),
    )


async def _expire(store: RecordStore, clock: Clock) -> int:
    now = clock.now()
    standing = await store.standing(now)
    over = [question for question in standing if question.state in _LIVE and ballot.ends_at(question) <= now]
    return sum(
        [
            await store.close_question(question.id, ballot.row(question, Kind.EXPIRED, at=now, code="expired"))
            for question in over
        ]
    )


async def _expire_grants(store: RecordStore, clock: Clock) -> int:
    now = clock.now()
    over = [grant for grant in await store.grants() if grant.expires_at <= now]
    rows = [grants.row(grant, Kind.GRANT_EXPIRED, at=now, code="expired") for grant in over]
    return sum([await store.end_grant(row.question, row) for row in rows])


async def _end_kept(store: RecordStore, clock: Clock, *, unsent: Set[str]) -> int:
    """Whoever waited for an outcome has gone with the last run."""
    running = [kept for kept in await store.waiting() if kept.state is KeptState.RUNNING]
    for kept in running:
        state = KeptState.FAILED if kept.invocation in unsent else KeptState.IN_DOUBT
        await store.keep(kept.question, state, b"", "", delivered=False)
    await store.discard(clock.now())
    return len(running)
