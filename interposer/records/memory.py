"""The record in memory: the same promises but durability, for tests and for trying things out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

from interposer import ballot, canonical, chain
from interposer.errors import RecordFault
from interposer.grant import Grant, GrantState, Kept, KeptState
from interposer.lifecycle import ENDS
from interposer.model import Kind, Question, QuestionState, Record
from interposer.ports import Revision

from . import lives
from .lives import LIVE
from .row import Sealer

_LISTED = 1_000


class MemoryRecordStore:
    """The `RecordStore` as lists. `fail` makes the record unwritable, as a broken disk would."""

    def __init__(self, *, boottime: Callable[[], float] = time.monotonic) -> None:
        self.records: list[Record] = []
        """As they were appended."""
        self.links: list[chain.Link] = []
        """As they were chained: what `chain.verify` reads."""
        self.fail = ""
        self.in_place = True
        self._boottime = boottime
        self._sealer = Sealer(os.urandom(32))
        self._questions: dict[str, Question] = {}
        self._grants: dict[str, Grant] = {}
        self._kept: dict[str, Kept] = {}

    async def append(self, record: Record) -> int:
        self._check()
        return self._chain(record)

    async def open_question(self, question: Question, record: Record) -> Question:
        self._check()
        for standing in self._questions.values():
            if standing.digest == question.digest and standing.state in LIVE:
                if standing.expires_at > record.at:
                    return standing
                self._store(replace(standing, state=QuestionState.EXPIRED))
                self._chain(ballot.row(standing, Kind.EXPIRED, at=record.at, code="expired"))
        self._store(question)
        self._chain(record)
        return question

    async def question(self, id: str) -> Question | None:
        return self._questions.get(id)

    async def questions(self, *, unanswered: bool = True, skill: str = "", limit: int = 1_000) -> list[Question]:
        about = [question for question in self._questions.values() if not skill or question.skill == skill]
        found = sorted(about, key=lambda question: question.asked_at)
        if unanswered:
            return [question for question in found if question.state is QuestionState.OPEN]
        return found[::-1][:limit]

    async def standing(self, now: float) -> list[Question]:
        found = sorted(self._questions.values(), key=lambda question: question.asked_at)
        return [q for q in found if q.state in LIVE or (q.state is QuestionState.DENIED and q.expires_at > now)]

    async def revise(self, id: str, revise: Callable[[Question], Revision]) -> Question:
        self._check()
        standing = self._questions[id]
        revision = revise(standing)
        lives.check_revision(standing, revision)
        grant = revision.grant
        if grant is not None:
            if grant.id in self._grants:
                raise RecordFault(f"grant {grant.id} is given already")
            self._grants[grant.id] = grant
        self._store(revision.question)
        for record in lives.told(standing, revision):
            self._chain(record)
        return revision.question

    async def consume(self, id: str, digest: str, now: float, record: Record) -> bool:
        self._check()
        question = self._questions.get(id)
        if question is None or question.state is not QuestionState.GRANTED:
            return False
        if question.digest != digest or question.expires_at <= now:
            return False
        self._store(replace(question, state=QuestionState.CONSUMED))
        self._kept[id] = lives.running(question, record)
        self._chain(record)
        return True

    async def close_question(self, id: str, record: Record) -> bool:
        self._check()
        state = lives.closing_state(record)
        question = self._questions.get(id)
        if question is None or question.state not in LIVE:
            return False
        self._store(replace(question, state=state))
        self._chain(record)
        return True

    async def keep(self, question: str, state: KeptState, body: bytes, withheld: str, *, delivered: bool) -> None:
        self._check()
        standing = self._kept.get(question)
        if standing is not None:
            self._kept[question] = lives.ended(standing, state, body, withheld, delivered=delivered)

    async def kept(self, question: str) -> Kept | None:
        return self._kept.get(question)

    async def waiting(self) -> list[Kept]:
        return [kept for kept in self._kept.values() if not kept.delivered]

    async def discard(self, now: float) -> None:
        self._check()
        self._kept = {id: kept for id, kept in self._kept.items() if not lives.discardable(kept, now)}

    async def grants(self, *, active: bool = True) -> list[Grant]:
        found = sorted(self._grants.values(), key=lambda grant: grant.given_at)
        if active:
            return [grant for grant in found if grant.state is GrantState.ACTIVE]
        return found[::-1][:_LISTED]

    async def use_grant(self, id: str, now: float, record: Record) -> bool:
        self._check()
        grant = self._grants.get(id)
        used = None if grant is None else lives.used(grant, now)
        if used is None:
            return False
        rows = lives.use_rows(used, record)
        self._grants[id] = used
        for row in rows:
            self._chain(row)
        return True

    async def end_grant(self, id: str, record: Record) -> bool:
        self._check()
        state = lives.ending_state(record)
        grant = self._grants.get(id)
        if grant is None or grant.state is not GrantState.ACTIVE:
            return False
        self._grants[id] = replace(grant, state=state)
        self._chain(record)
        return True

    async def unfinished(self) -> list[Record]:
        return [record for record in await self.left_open() if record.kind is Kind.INTENDED]

    async def left_open(self) -> list[Record]:
        """Calls asked or intended that have no end, and sessions that were not closed, oldest first."""
        found: dict[tuple[str, str], tuple[int, Record]] = {}
        for seq, record in enumerate(self.records):
            if record.kind in (Kind.ASKED, Kind.INTENDED):
                found[record.session, record.invocation] = (seq, record)
            elif record.kind in ENDS:
                found.pop((record.session, record.invocation), None)
            elif record.kind is Kind.SESSION_OPENED:
                found[record.session, ""] = (seq, record)
            elif record.kind is Kind.SESSION_CLOSED:
                found.pop((record.session, ""), None)
        return [record for _, record in sorted(found.values(), key=lambda each: each[0])]

    def healthy(self) -> bool:
        return self.in_place and not self.fail

    async def aclose(self) -> None:
        self.fail = self.fail or "the record is closed"

    def _check(self) -> None:
        if self.fail or not self.in_place:
            raise RecordFault(self.fail or "the record is not the file it was")

    def _chain(self, record: Record) -> int:
        try:
            link = self._sealer.seal(record, self._boottime())
        except canonical.Malformed as error:
            raise RecordFault(f"a record of kind {record.kind.value} cannot be written: {error}") from None
        self.records.append(record)
        self.links.append(link)
        return link.row.seq

    def _store(self, question: Question) -> None:
        self._questions[question.id] = lives.at_rest(question)
