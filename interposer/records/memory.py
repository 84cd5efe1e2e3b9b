"""The record in memory: the same promises but durability, for tests and for trying things out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from interposer import ballot, canonical, chain
from interposer.errors import RecordFault
from interposer.lifecycle import ENDS
from interposer.model import Kind, Question, QuestionState, Record

from .questions import check_revision, closing_state
from .row import LIVE, Sealer, at_rest


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

    async def questions(self, *, unanswered: bool = True) -> list[Question]:
        found = sorted(self._questions.values(), key=lambda question: question.asked_at)
        if unanswered:
            return [question for question in found if question.state is QuestionState.OPEN]
        return found[::-1][:1_000]

    async def revise(self, id: str, revise: Callable[[Question], tuple[Question, Sequence[Record]]]) -> Question:
        self._check()
        standing = self._questions[id]
        revised, records = revise(standing)
        check_revision(standing, revised)
        self._store(revised)
        for record in records:
            self._chain(record)
        return revised

    async def consume(self, id: str, digest: str, now: float, record: Record) -> bool:
        self._check()
        question = self._questions.get(id)
        if question is None or question.state is not QuestionState.GRANTED:
            return False
        if question.digest != digest or question.expires_at <= now:
            return False
        self._store(replace(question, state=QuestionState.CONSUMED))
        self._chain(record)
        return True

    async def close_question(self, id: str, record: Record) -> bool:
        self._check()
        state = closing_state(record)
        question = self._questions.get(id)
        if question is None or question.state not in LIVE:
            return False
        self._store(replace(question, state=state))
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
        self._questions[question.id] = at_rest(question)
