"""After a crash: everything gets an end, and nothing is sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from interposer.model import ApprovalTerms, Kind, Principal, Question, QuestionState, Record
from interposer.records.memory import MemoryRecordStore
from interposer.records.sqlite import SqliteRecordStore
from interposer.recovery import RecoverableStore, Summary, recover

NOW = 1_800_000_000.0
ALICE = Principal("local", "alice")


class Clock:
    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 1.0


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RecoverableStore]:
    made: RecoverableStore = (
        MemoryRecordStore() if request.param == "memory" else SqliteRecordStore.open(tmp_path / "record.db")
    )
    yield made
    await made.aclose()


def question(id: str, expires_at: float, state: QuestionState = QuestionState.OPEN) -> Question:
    return Question(
        *(id, f"d-{id}", state, "s1", "i1", ALICE, "crm.get", "d" * 64, "p" * 64, b"{}", ApprovalTerms(), ()),
        asked_at=NOW - 100,
        expires_at=expires_at,
    )


async def test_calls_sessions_and_questions_left_open_are_ended(store: RecoverableStore) -> None:
    """Intended becomes in doubt, asked is withdrawn, the session is closed, what is overdue expires."""
    base = Record(Kind.SESSION_OPENED, "s1", NOW - 50)
    await store.append(base)
    for kind, invocation in ((Kind.INTENDED, "i1"), (Kind.ASKED, "i2"), (Kind.INTENDED, "i3"), (Kind.ANSWERED, "i3")):
        await store.append(replace(base, kind=kind, invocation=invocation, skill="crm.get", principal=ALICE))
    for asked in (question("q1", NOW - 1), question("q2", NOW + 60), question("q3", NOW - 1, QuestionState.GRANTED)):
        await store.open_question(asked, replace(base, kind=Kind.QUESTION_OPENED, question=asked.id, at=NOW - 100))

    assert await recover(store, Clock()) == Summary(in_doubt=1, withdrawn=1, sessions=1, expired=2)

    assert await store.left_open() == []
    assert [each.id for each in await store.questions()] == ["q2"]
    assert await recover(store, Clock()) == Summary()
    assert Summary().clean


async def test_a_call_in_doubt_keeps_its_name_and_says_that_nothing_is_known(store: RecoverableStore) -> None:
    """The row names the call, its skill and its caller, with `not_known_sent` (F2)."""
    await store.append(Record(Kind.INTENDED, "s1", NOW, "i1", "crm.get", ALICE, "allow", ("r1",), payload=b"{}"))
    await recover(store, Clock())
    if isinstance(store, MemoryRecordStore):
        row = store.records[-1]
        assert (row.kind, row.invocation, row.skill, row.principal) == (Kind.IN_DOUBT, "i1", "crm.get", ALICE)
        assert (row.code, row.payload) == ("not_known_sent", None)
    assert await store.unfinished() == []


async def test_what_was_unfinished_is_found_however_far_back_it_is(tmp_path: Path) -> None:
    """A call that never ended is found behind thousands of others, in the next run and the one after."""
    path = tmp_path / "record.db"
    store = SqliteRecordStore.open(path)
    await store.append(Record(Kind.INTENDED, "s1", NOW, "old"))
    for number in range(300):
        await store.append(Record(Kind.INTENDED, "s1", NOW, f"i{number}"))
        await store.append(Record(Kind.ANSWERED, "s1", NOW, f"i{number}"))
    await store.aclose()
    again = SqliteRecordStore.open(path)
    for number in range(5):
        await again.append(Record(Kind.INTENDED, "s2", NOW, f"j{number}"))
        await again.append(Record(Kind.ANSWERED, "s2", NOW, f"j{number}"))
    assert [record.invocation for record in await again.unfinished()] == ["old"]
    assert (await recover(again, Clock())).in_doubt == 1
    await again.aclose()
    last = SqliteRecordStore.open(path)
    assert await last.unfinished() == []
    await last.aclose()
