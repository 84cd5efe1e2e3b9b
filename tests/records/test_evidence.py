"""Whoever edits the tables of a record gets no call through by it, and `record verify` says what was edited."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.errors import RecordFault
from interposer.grant import KeptState
from interposer.model import Kind, QuestionState, Vote
from interposer.ports import Revision
from interposer.records.reader import RecordReader
from interposer.records.sqlite import SqliteRecordStore
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec
from tests.contract.records import BOB, NOW, about, agreeing, granting, granting_for, opened, question, using, voted

CAPPED = ApprovalTerms(frozenset({"leads"}), cap=GrantCap(3600.0))
PAIR = ApprovalTerms(frozenset({"leads"}), quorum=2)
BODY = b'{"arguments":{"amount":7},"result":"done"}'
_SCHEMA = "x'7b7d'"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteRecordStore]:
    made = SqliteRecordStore.open(tmp_path / "record.db")
    yield made
    await made.aclose()


def edit(store: SqliteRecordStore, *statements: str) -> None:
    """As somebody with the file and an SQLite shell would."""
    db = sqlite3.connect(store.path, isolation_level=None, timeout=5)
    for statement in statements:
        assert db.execute(statement).rowcount == 1, statement
    db.close()


def found(store: SqliteRecordStore) -> str:
    with RecordReader(store.path) as reader:
        verdict = reader.verify()
    return "" if verdict.found is None else verdict.found.what


async def given(store: SqliteRecordStore, spec: GrantSpec) -> Callable[[], Awaitable[bool]]:
    """A standing grant that was used once; what comes back uses it again."""
    await opened(store, question(terms=CAPPED))
    await store.revise("q1", granting_for(spec))
    (grant,) = await store.grants()
    use: Callable[[], Awaitable[bool]] = lambda: store.use_grant("g1", NOW + 3, using(grant))  # noqa: E731
    assert await use()
    assert found(store) == ""
    return use


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE grants SET uses = 100",
        "UPDATE grants SET uses = NULL",
        "UPDATE grants SET used = 0",
        "UPDATE grants SET used = -5",
        "UPDATE grants SET expires_at = expires_at + 1e9",
        "UPDATE grants SET skill = 'crm.delete'",
        "UPDATE grants SET policy = 'other'",
        "UPDATE grants SET session = 's2'",
        f"UPDATE grants SET arguments_digest = '', schema = {_SCHEMA}",
        """UPDATE grants SET requester = replace(requester, 'alice', 'mallory')""",
        """UPDATE grants SET terms = replace(terms, '3600.0', '360000.0')""",
        "UPDATE grants SET id = 'g2'",
    ],
)
async def test_an_edited_grant_carries_nothing(store: SqliteRecordStore, statement: str) -> None:
    """More uses, more time, other calls, other people: refused when it is used, and found."""
    await given(store, GrantSpec(600.0, 3))
    edit(store, statement)
    (edited,) = await store.grants()
    with pytest.raises(RecordFault, match="record verify"):
        await store.use_grant(edited.id, NOW + 3, using(edited))
    assert found(store) == "grant_edited"


@pytest.mark.parametrize("end", [Kind.GRANT_REVOKED, Kind.GRANT_EXPIRED, Kind.GRANT_SPENT])
async def test_a_grant_that_has_ended_is_not_revived(store: SqliteRecordStore, end: Kind) -> None:
    """The chain remembers that it was revoked, expired or spent."""
    use = await given(store, GrantSpec(600.0, 3))
    if end is Kind.GRANT_SPENT:
        assert await use()
    else:
        (grant,) = await store.grants()
        await store.end_grant("g1", replace(using(grant), kind=end))
    edit(store, "UPDATE grants SET state = 'active', uses = NULL")
    with pytest.raises(RecordFault, match="record verify"):
        await use()
    assert found(store) == "grant_edited"


async def test_a_grant_that_nobody_gave_carries_nothing(store: SqliteRecordStore) -> None:
    """A row of the table is no grant."""
    await given(store, GrantSpec(600.0, 3))
    db = sqlite3.connect(store.path, isolation_level=None)
    names = ", ".join(name for _, name, *_ in db.execute("PRAGMA table_info(grants)") if name != "id")
    db.execute(f"INSERT INTO grants (id, {names}) SELECT 'g2', {names} FROM grants")
    db.close()
    _, forged = await store.grants()
    with pytest.raises(RecordFault, match="record verify"):
        await store.use_grant("g2", NOW + 3, using(forged))
    assert found(store) == "grant_edited"


async def test_a_grant_that_is_gone_is_missed(store: SqliteRecordStore) -> None:
    """Nor can what was given be made never to have been."""
    await given(store, GrantSpec(600.0, 3))
    edit(store, "DELETE FROM grants")
    assert found(store) == "grant_missing"


async def test_a_grant_whose_row_was_edited_too_carries_nothing(store: SqliteRecordStore) -> None:
    """The row commits to its payload: another payload is not the one that was written."""
    use = await given(store, GrantSpec(600.0, 3))
    edit(
        store,
        "UPDATE payloads SET body = replace(body, 'uses', 'more') WHERE seq = "
        "(SELECT seq FROM events WHERE kind = 'grant_given')",
    )
    with pytest.raises(RecordFault, match="record verify"):
        await use()
    assert found(store) == "payload_edited"


async def test_an_edited_grant_can_still_be_ended(store: SqliteRecordStore) -> None:
    """That is what an operator does with it."""
    await given(store, GrantSpec(600.0, 3))
    (grant,) = await store.grants()
    edit(store, "UPDATE grants SET uses = 100")
    assert await store.end_grant("g1", replace(using(grant), kind=Kind.GRANT_REVOKED)) is True


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE questions SET state = 'granted'", "question_edited"),
        ("UPDATE questions SET state = 'granted', votes = '[]'", "question_edited"),
    ],
)
async def test_a_yes_that_nobody_gave_is_not_used(store: SqliteRecordStore, statement: str, what: str) -> None:
    """The state in the table is nothing without the row of the yes."""
    asked = await opened(store, question())
    edit(store, statement)
    with pytest.raises(RecordFault, match="record verify"):
        await store.consume("q1", asked.digest, NOW + 2, about(Kind.CONSUMED, asked))
    assert found(store) == what


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE questions SET amended = CAST('{\"amount\":7000}' AS BLOB)",
        """UPDATE questions SET spec = '{"for_s":60.0,"uses":null,"session":false,"schema":""}'""",
        "UPDATE questions SET expires_at = expires_at + 1",
    ],
)
async def test_a_yes_is_used_only_for_what_was_agreed_to(store: SqliteRecordStore, statement: str) -> None:
    """Other arguments, another grant or a longer life put into the table are not what people said yes to."""
    asked = await opened(store, question())
    await store.revise("q1", granting)
    edit(store, statement)
    with pytest.raises(RecordFault, match="record verify"):
        await store.consume("q1", asked.digest, NOW + 2, about(Kind.CONSUMED, asked))
    assert found(store) == "question_edited"


async def test_a_yes_that_was_used_is_not_used_again(store: SqliteRecordStore) -> None:
    """Put back in the table, it is still used up in the chain."""
    asked = await opened(store, question())
    await store.revise("q1", granting)
    assert await store.consume("q1", asked.digest, NOW + 2, about(Kind.CONSUMED, asked))
    edit(store, "UPDATE questions SET state = 'granted'")
    with pytest.raises(RecordFault, match="record verify"):
        await store.consume("q1", asked.digest, NOW + 2, about(Kind.CONSUMED, asked))
    assert found(store) == "question_edited"


async def test_votes_that_nobody_cast_make_no_quorum(store: SqliteRecordStore) -> None:
    """The second person's yes does not complete a first one that was written into the table."""
    await opened(store, question(terms=PAIR))
    forged = await opened(store, question("q2", "d2", terms=PAIR, votes=(Vote(BOB, True, "", NOW),)))
    assert forged.id == "q2"
    for id in ("q1", "q2"):
        if id == "q1":
            await store.revise(id, agreeing)
            continue
        with pytest.raises(RecordFault, match="other votes"):
            await store.revise(id, granting)
    assert found(store) == "question_edited"


async def test_votes_for_an_earlier_version_do_not_count_in_the_evidence(store: SqliteRecordStore) -> None:
    """A changed proposal drops the votes before it, in the table and in what the chain is held to."""
    await opened(store, question(terms=PAIR))
    await store.revise("q1", agreeing)
    other = await store.revise(
        "q1",
        lambda asked: Revision(
            replace(asked, amended=b'{"amount":7}', votes=(Vote(BOB, True, "", NOW + 1),)),
            (about(Kind.AMENDED, asked), voted(asked)),
        ),
    )
    assert found(store) == ""
    granted = await store.revise("q1", granting)
    assert granted.state is QuestionState.GRANTED
    assert await store.consume("q1", other.digest, NOW + 2, about(Kind.CONSUMED, other))
    assert found(store) == ""


async def answered(store: SqliteRecordStore) -> None:
    """An approved call with other arguments, answered while a call by a grant of the same question is under way."""
    asked = await opened(store, question(call="c" * 64))
    await store.revise("q1", granting)
    await store.consume("q1", asked.digest, NOW + 2, about(Kind.CONSUMED, asked))
    await store.append(replace(about(Kind.INTENDED, asked), payload=b'{"arguments":{"amount":7},"masked":{}}'))
    await store.append(replace(about(Kind.ANSWERED, asked), question="", payload=b'{"result":"done","masked":{}}'))
    await store.append(replace(about(Kind.INTENDED, asked), invocation="i2", payload=b'{"arguments":{"amount":8}}'))
    await store.keep("q1", KeptState.ANSWERED, BODY, "", delivered=False)
    assert found(store) == ""


async def test_an_outcome_is_told_as_it_was_kept(store: SqliteRecordStore) -> None:
    """What nobody edited agrees with the chain, whatever else goes on about its question."""
    await answered(store)
    told = await store.kept("q1")
    assert told is not None
    assert (told.state, told.body, told.withheld) == (KeptState.ANSWERED, BODY, "")


_FORGED = """body = CAST('{"result":{"content":"forged"}}' AS BLOB)"""


@pytest.mark.parametrize(
    "edits",
    [
        _FORGED,
        f"{_FORGED}, row = 0",
        f"{_FORGED}, row = 2",
        f"{_FORGED}, withheld = 'why not'",
        f"{_FORGED}, state = 'in_doubt'",
        """state = 'failed', body = CAST('{"error":{"message":"not run"}}' AS BLOB)""",
        """state = 'failed', body = CAST('{"refusal":{"name":"denied"}}' AS BLOB)""",
        """body = CAST('{"arguments":{"amount":9},"result":"done"}' AS BLOB)""",
        "invocation = 'i9'",
    ],
)
async def test_an_edited_outcome_is_not_told(store: SqliteRecordStore, edits: str) -> None:
    """The caller hears that nobody knows, never what somebody put in the answer's place; and it is found."""
    await answered(store)
    edit(store, f"UPDATE kept SET {edits}")
    assert found(store) == "kept_edited"
    told = await store.kept("q1")
    assert told is not None
    assert (told.state, told.body) == (KeptState.IN_DOUBT, b"")
    assert "record verify" in told.withheld


@pytest.mark.parametrize("edits", ["question = 'q9'", "state = 'gone'"])
async def test_an_outcome_of_nothing_is_found(store: SqliteRecordStore, edits: str) -> None:
    """What is kept is of a question that was consumed, and has ended in one of the ways there are."""
    await answered(store)
    edit(store, f"UPDATE kept SET {edits}")
    assert found(store) == "kept_edited"


@pytest.mark.parametrize(
    ("state", "body", "withheld"),
    [
        (KeptState.ANSWERED, b'{"result":null}', "the outcome could not be recorded"),
        (KeptState.ANSWERED, b"", ""),
        (KeptState.FAILED, b'{"refusal":{"name":"denied"}}', ""),
        (KeptState.FAILED, b'{"error":null}', ""),
        (KeptState.IN_DOUBT, b'{"result":null}', ""),
    ],
)
async def test_an_outcome_that_shows_nothing_needs_no_row(
    store: SqliteRecordStore, state: KeptState, body: bytes, withheld: str
) -> None:
    """Where the end could not be recorded, or nothing is kept of answers, the caller is told that much."""
    asked = await opened(store, question(call="c" * 64))
    await store.revise("q1", granting)
    await store.consume("q1", asked.digest, NOW + 2, about(Kind.CONSUMED, asked))
    await store.keep("q1", state, body, withheld, delivered=False)
    assert found(store) == ""
    told = await store.kept("q1")
    assert told is not None
    assert (told.state, told.body, told.withheld) == (state, body, withheld)


async def test_a_work_sees_the_rows_that_share_its_commit(store: SqliteRecordStore) -> None:
    """What was chained a moment ago in the same transaction is evidence too."""
    await opened(store, question(terms=CAPPED))
    grant = granting_for(GrantSpec(600.0, 5))(question(terms=CAPPED)).grant
    assert grant is not None
    outcomes: dict[str, Any] = {}

    async def run(name: str, work: Callable[[], Awaitable[Any]]) -> None:
        outcomes[name] = await work()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "given", lambda: store.revise("q1", granting_for(GrantSpec(600.0, 5))))
            for number in range(4):
                tasks.start_soon(run, f"use {number}", lambda: store.use_grant("g1", NOW + 3, using(grant)))
    del outcomes["given"]
    assert outcomes == {f"use {number}": True for number in range(4)}
    assert found(store) == ""
