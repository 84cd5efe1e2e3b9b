"""Questions to humans as rows: the SQL half of approvals. Every function here runs inside the writer's transaction.

`chain(record)` puts a record into the same transaction; it is called only after everything that may refuse.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from interposer import ballot
from interposer.errors import RecordFault
from interposer.model import Kind, Question, QuestionState, Record
from interposer.ports import Revision

from . import forms, keeping, lives
from .evidence import bears_out_votes, bears_out_yes
from .grants import insert as insert_grant

Chain = Callable[[Record], object]
Revise = Callable[[Question], Revision]

_FIELDS = tuple(field.name for field in fields(Question))
_COLUMNS = ", ".join(_FIELDS)
_SELECT = f"SELECT {_COLUMNS} FROM questions"  # noqa: S608  # constants
_INSERT = f"INSERT INTO questions ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608  # constants
_UPDATE = f"UPDATE questions SET {', '.join(f'{name} = ?' for name in _FIELDS[1:])} WHERE id = ?"  # noqa: S608


def find(connection: sqlite3.Connection, id: str) -> Question | None:
    row = connection.execute(f"{_SELECT} WHERE id = ?", (id,)).fetchone()
    return None if row is None else question_of(row)


def listed(connection: sqlite3.Connection, *, unanswered: bool, skill: str, limit: int) -> list[Question]:
    """The open ones, oldest first; or all, newest first, at most `limit`. With `skill`, only those about it."""
    where = [text for text in ("state = 'open'" if unanswered else "", "skill = ?" if skill else "") if text]
    order = "ORDER BY asked_at, rowid" if unanswered else "ORDER BY asked_at DESC, rowid DESC LIMIT ?"
    values = [*([skill] if skill else []), *([] if unanswered else [limit])]
    rows = connection.execute(f"{_SELECT} {'WHERE ' if where else ''}{' AND '.join(where)} {order}", values)
    return [question_of(row) for row in rows]


def standing(connection: sqlite3.Connection, now: float) -> list[Question]:
    """The live ones, and those denied whose time is not over, oldest first."""
    where = "state IN ('open', 'granted') OR (state = 'denied' AND expires_at > ?)"
    return [question_of(row) for row in connection.execute(f"{_SELECT} WHERE {where} ORDER BY asked_at, rowid", (now,))]


def open_question(connection: sqlite3.Connection, chain: Chain, question: Question, record: Record) -> Question:
    """The live question of the same digest, or this one, stored. One past its expiry is ended here and not joined."""
    row = connection.execute(
        f"{_SELECT} WHERE digest = ? AND state IN ('open', 'granted')", (question.digest,)
    ).fetchone()
    if row is not None:
        standing = question_of(row)
        if standing.expires_at > record.at:
            return standing
        expire(connection, chain, standing, record.at)
    connection.execute(_INSERT, row_of(question))
    chain(record)
    return question


def revise(connection: sqlite3.Connection, chain: Chain, id: str, revise: Revise) -> Question:
    standing = find(connection, id)
    if standing is None:
        raise KeyError(id)
    revision = revise(standing)
    lives.check_revision(standing, revision)
    if standing.votes and standing.state is QuestionState.OPEN and not bears_out_votes(connection, standing):
        raise RecordFault(f"{id} has other votes than were cast; run `interposer record verify`")
    _replace(connection, revision.question)
    if revision.grant is not None:
        insert_grant(connection, revision.grant)
    for record in lives.told(standing, revision):
        chain(record)
    return revision.question


def consume(connection: sqlite3.Connection, chain: Chain, id: str, digest: str, now: float, record: Record) -> bool:
    question = find(connection, id)
    if question is None or question.state is not QuestionState.GRANTED:
        return False
    if question.digest != digest or question.expires_at <= now:
        return False
    if not bears_out_yes(connection, question):
        raise RecordFault(f"{id} is not as it was agreed to; run `interposer record verify`")
    _replace(connection, replace(question, state=QuestionState.CONSUMED))
    keeping.begin(connection, lives.running(question, record))
    chain(record)
    return True


def close_question(connection: sqlite3.Connection, chain: Chain, id: str, record: Record) -> bool:
    state = lives.closing_state(record)
    closed = connection.execute(
        "UPDATE questions SET state = ?, canonical = x'', amended = x'' WHERE id = ? AND state IN ('open', 'granted')",
        (state.value, id),
    ).rowcount
    if closed:
        chain(record)
    return bool(closed)


def expire(connection: sqlite3.Connection, chain: Chain, question: Question, at: float) -> None:
    _replace(connection, replace(question, state=QuestionState.EXPIRED))
    chain(ballot.row(question, Kind.EXPIRED, at=at, code="expired"))


def _replace(connection: sqlite3.Connection, question: Question) -> None:
    id, *rest = row_of(question)
    connection.execute(_UPDATE, (*rest, id))


def row_of(question: Question) -> tuple[Any, ...]:
    stored = lives.at_rest(question)
    written = {
        "state": stored.state.value,
        "requester": forms.principal_text(stored.requester),
        "terms": forms.text(forms.terms_json(stored.terms)),
        "rules": forms.rules_text(stored.rules),
        "votes": forms.votes_text(stored.votes),
        "spec": forms.spec_text(stored.spec),
    }
    return tuple([written.get(name, getattr(stored, name)) for name in _FIELDS])


def question_of(row: Sequence[Any]) -> Question:
    """A row in the order of `Question`'s fields. Raises `RecordFault` when it is not one we wrote."""
    try:
        cells = dict(zip(_FIELDS, row, strict=True))
        cells["state"] = QuestionState(cells["state"])
        cells["requester"] = forms.principal_of(forms.parsed(cells["requester"]))
        cells["terms"] = forms.terms_of(forms.parsed(cells["terms"]))
        cells["rules"] = forms.rules_of(cells["rules"])
        cells["votes"] = forms.votes_of(cells["votes"])
        cells["spec"] = forms.spec_of(cells["spec"])
        for blob in ("canonical", "amended"):
            cells[blob] = bytes(cells[blob])
        cells["destructive"] = bool(cells["destructive"])
        return Question(**cells)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordFault("a stored question is not as it was written") from error
