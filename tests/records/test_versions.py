"""A record of version 1 goes on as one of today, and can be read before it does."""

from __future__ import annotations

import multiprocessing
import sqlite3
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from interposer import ballot
from interposer.errors import ConfigurationError, RecordFault
from interposer.model import Kind, Question, QuestionState, Record, Vote
from interposer.ports import Revision
from interposer.records import schema
from interposer.records.lock import RecordHeld
from interposer.records.reader import RecordReader
from interposer.records.sqlite import SqliteRecordStore
from interposer.terms import ApprovalTerms
from tests.records import version_1
from tests.records.version_1 import ALICE, BOB, NOW


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "record.db"
    version_1.write(path)
    return path


def version(path: Path) -> int:
    db = sqlite3.connect(path)
    (found,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(found)


def sound(path: Path) -> int:
    """The rows of a record that verifies."""
    with RecordReader(path) as reader:
        verdict = reader.verify()
        assert verdict.found is None, verdict.found.text
        return verdict.rows


def row(asked: Question, kind: Kind, **changes: object) -> Record:
    return replace(ballot.row(asked, kind, at=NOW + 2), **changes)  # type: ignore[arg-type]


def granting(asked: Question) -> Revision:
    votes = (*asked.votes, Vote(replace(BOB, subject="carol"), True, "", NOW + 2))
    rows = (row(asked, Kind.VOTED, principal=votes[-1].principal, code="yes"), row(asked, Kind.GRANTED))
    return Revision(replace(asked, votes=votes, state=QuestionState.GRANTED), rows)


def test_a_record_of_version_1_is_read_as_it_is(old: Path) -> None:
    """Readers need no broker to bring it up to date, and change nothing in it."""
    assert sound(old) == 6
    with RecordReader(old) as reader:
        assert [summary["id"] for summary in reader.sessions()] == ["s1"]
    assert version(old) == 1


async def test_what_version_1_asked_is_still_what_was_asked(old: Path) -> None:
    """Questions keep their digest, so that nobody has to be asked again."""
    store = SqliteRecordStore.open(old)
    found = await store.questions(unanswered=False)
    assert len(found) == 3
    assert all(ballot.intact(question) and question.digest == ballot.version_of(question) for question in found)
    first = next(question for question in found if question.id == "q1")
    assert (first.requester, first.terms) == (ALICE, ApprovalTerms(frozenset({"leads"}), expires_s=1800.0))
    assert (first.amended, first.spec, first.destructive, first.call) == (b"", None, False, "")
    await store.aclose()
    assert (version(old), sound(old)) == (schema.VERSION, 6)


@pytest.mark.parametrize("id", ["q1", "q2"])
async def test_a_question_of_version_1_is_answered_and_used(old: Path, id: str) -> None:
    """Open, or agreed to by one of two: it goes on where it was, and its yes is good for one call."""
    store = SqliteRecordStore.open(old)
    granted = await store.revise(id, granting)
    used = row(granted, Kind.CONSUMED)
    assert await store.consume(id, granted.digest, NOW + 3, used) is True
    assert await store.consume(id, granted.digest, NOW + 3, used) is False
    await store.aclose()
    assert sound(old) == 9


async def test_a_yes_of_version_1_is_used(old: Path) -> None:
    """It was given to the question as it was asked, and lets exactly that through."""
    store = SqliteRecordStore.open(old)
    granted = await store.question("q3")
    assert granted is not None
    assert await store.consume("q3", granted.digest, NOW + 3, row(granted, Kind.CONSUMED)) is True
    await store.aclose()
    assert sound(old) == 7


async def test_a_yes_of_version_1_is_to_nothing_else(old: Path) -> None:
    """Arguments that somebody put beside it in the file are not what was agreed to."""
    migrated = SqliteRecordStore.open(old)
    await migrated.aclose()
    with sqlite3.connect(old) as db:
        db.execute("UPDATE questions SET amended = ? WHERE id = 'q3'", (b'{"amount":7000}',))
    db.close()
    store = SqliteRecordStore.open(old)
    granted = await store.question("q3")
    assert granted is not None
    with pytest.raises(RecordFault, match="record verify"):
        await store.consume("q3", granted.digest, NOW + 3, row(granted, Kind.CONSUMED))
    await store.aclose()


def test_a_migrated_record_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    """Whichever way a record came to this version, its columns and indexes are the same."""
    anyio.run(SqliteRecordStore.open(old).aclose)
    anyio.run(SqliteRecordStore.open(tmp_path / "new.db").aclose)
    assert shape(old) == shape(tmp_path / "new.db")


def shape(path: Path) -> dict[str, object]:
    db = sqlite3.connect(path)
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    found: dict[str, object] = {name: db.execute(f"PRAGMA table_info({name})").fetchall() for name in tables}
    found |= dict(db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql <> ''").fetchall())
    db.close()
    return found


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short in the middle, it is as if it had not begun, and the next start begins again."""

    def fail(database: object) -> None:
        step(database)
        raise sqlite3.OperationalError("disk I/O error")

    step = schema.MIGRATIONS[1]
    with monkeypatch.context() as patched:
        patched.setitem(schema.MIGRATIONS, 1, fail)
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            SqliteRecordStore.open(old)
    assert (version(old), sound(old)) == (1, 6)
    anyio.run(SqliteRecordStore.open(old).aclose)
    assert version(old) == schema.VERSION


def open_once(path: Path, outcomes: multiprocessing.Queue[str], all_tried: object) -> None:
    try:
        store = SqliteRecordStore.open(path)
    except RecordHeld:
        outcomes.put("held")
        return
    outcomes.put("opened")
    all_tried.wait(20)  # type: ignore[attr-defined]
    anyio.run(store.aclose)


def test_of_brokers_that_start_together_one_migrates(old: Path) -> None:
    """The others are refused before they touch the record, and the record is whole."""
    spawn = multiprocessing.get_context("spawn")
    outcomes, all_tried = spawn.Queue(), spawn.Event()
    brokers = [spawn.Process(target=open_once, args=(old, outcomes, all_tried)) for _ in range(3)]
    for broker in brokers:
        broker.start()
    try:
        assert sorted(outcomes.get(timeout=30) for _ in brokers) == ["held", "held", "opened"]
    finally:
        all_tried.set()
        for broker in brokers:
            broker.join(30)
    assert (version(old), sound(old)) == (schema.VERSION, 6)


def test_a_reader_says_what_to_do_with_a_newer_record(old: Path) -> None:
    """It is not guessed at."""
    with sqlite3.connect(old) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    with pytest.raises(RecordFault, match="use the newer one"):
        RecordReader(old)
