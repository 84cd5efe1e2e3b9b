"""After a crash: everything gets an end, and nothing is sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from interposer import ballot, grants
from interposer.ballot import digest_of
from interposer.grant import KEPT_S, GrantState, KeptState
from interposer.model import Kind, Principal, Question, QuestionState, Record, Vote
from interposer.ports import Revision
from interposer.records.memory import MemoryRecordStore
from interposer.records.sqlite import SqliteRecordStore
from interposer.recovery import RecoverableStore, Summary, recover
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec

NOW = 1_800_000_000.0
ALICE = Principal("local", "alice")


class Clock:
    def __init__(self, time: float = NOW) -> None:
        self.time = time

    def now(self) -> float:
        return self.time

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


async def approved(store: RecoverableStore, id: str, expires_at: float = NOW + 1700) -> Question:
    """A question whose yes is a standing grant, and is used for a call that is under way."""
    asked = replace(
        question(id, expires_at), terms=ApprovalTerms(cap=GrantCap(3600.0)), spec=GrantSpec(600.0, 3), call="c" * 64
    )
    asked = replace(asked, skill=f"crm.{id}")
    asked = replace(asked, digest=digest_of(asked))
    row = ballot.row(asked, Kind.QUESTION_OPENED, at=asked.asked_at)
    await store.open_question(asked, row)
    vote = Vote(Principal("local", "bob"), True, "", NOW - 90)
    granted = replace(asked, state=QuestionState.GRANTED, votes=(vote,))
    grant = grants.given(f"g-{id}", granted, GrantSpec(600.0, 3), now=NOW - 90 if id == "q1" else NOW - 600)
    rows = [
        replace(row, kind=Kind.VOTED, code="yes", principal=vote.principal, at=NOW - 90),
        replace(row, kind=Kind.GRANTED, at=NOW - 90),
        replace(grants.row(grant, Kind.GRANT_GIVEN, at=NOW - 90), payload=grants.stated(grant)),
    ]
    await store.revise(id, lambda _: Revision(granted, rows, grant, now=NOW - 110))
    await store.consume(id, asked.digest, NOW - 110, replace(row, kind=Kind.CONSUMED, at=NOW - 80))
    return asked


async def test_an_approved_call_under_way_is_told_to_its_caller_once_as_in_doubt(store: RecoverableStore) -> None:
    """A crash loses no outcome that was promised: the repeated call hears that nobody knows, and is not made again."""
    await approved(store, "q1")
    assert await recover(store, Clock()) == Summary(untold=1)
    (told,) = await store.waiting()
    assert (told.question, told.state, told.body) == ("q1", KeptState.IN_DOUBT, b"")
    assert await recover(store, Clock()) == Summary()


async def test_an_approved_call_that_was_not_sent_is_told_as_failed(store: RecoverableStore) -> None:
    """Its yes was used up, but nothing had left the broker: that much is known."""
    asked = await approved(store, "q1")
    await store.append(replace(ballot.row(asked, Kind.ASKED, at=NOW), question=""))
    assert await recover(store, Clock()) == Summary(withdrawn=1, untold=1)
    (told,) = await store.waiting()
    assert told.state is KeptState.FAILED


async def test_outcomes_that_ended_are_left_to_their_callers(store: RecoverableStore) -> None:
    """What is known is not made unknown by a restart."""
    await approved(store, "q1")
    await store.keep("q1", KeptState.FAILED, b"{}", "", delivered=False)
    assert await recover(store, Clock()) == Summary()
    assert [kept.state for kept in await store.waiting()] == [KeptState.FAILED]


async def test_nothing_is_kept_longer_than_its_question_would_have_lived(store: RecoverableStore) -> None:
    """Outcomes that nobody collected in time are gone after the next start."""
    await approved(store, "q1", NOW - 50)
    assert (await recover(store, Clock())).untold == 1
    assert await store.kept("q1") is not None
    await recover(store, Clock(NOW - 50 + KEPT_S))
    assert await store.kept("q1") is None


async def test_standing_grants_past_their_end_are_ended(store: RecoverableStore) -> None:
    """Those that have time left go on."""
    await approved(store, "q1")
    await approved(store, "q2")
    assert (await recover(store, Clock())).grants == 1
    assert [(grant.id, grant.state) for grant in await store.grants(active=False)] == [
        ("g-q1", GrantState.ACTIVE),
        ("g-q2", GrantState.EXPIRED),
    ]
