"""Questions to humans as rows: the SQL half of approvals. Every function here runs inside the writer's transaction.

`chain(record)` puts a record into the same transaction; it is called only after everything that may refuse.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from interposer import ballot, canonical
from interposer.errors import RecordFault
from interposer.model import (
    ApprovalTerms,
    Effect,
    Json,
    Kind,
    MatchedRule,
    Principal,
    Question,
    QuestionState,
    Record,
    Vote,
)

from .row import CLOSED_BY, LIVE, at_rest

Chain = Callable[[Record], object]
Revise = Callable[[Question], tuple[Question, Sequence[Record]]]

_FIELDS = tuple(field.name for field in fields(Question))
_COLUMNS = ", ".join(_FIELDS)
_SELECT = f"SELECT {_COLUMNS} FROM questions"  # noqa: S608  # constants
_INSERT = f"INSERT INTO questions ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608  # constants
_UPDATE = f"UPDATE questions SET {', '.join(f'{name} = ?' for name in _FIELDS[1:])} WHERE id = ?"  # noqa: S608
_LISTED = 1_000


def find(connection: sqlite3.Connection, id: str) -> Question | None:
    row = connection.execute(f"{_SELECT} WHERE id = ?", (id,)).fetchone()
    return None if row is None else question_of(row)


def listed(connection: sqlite3.Connection, *, unanswered: bool) -> list[Question]:
    """The open ones, oldest first; or all, newest first, at most 1,000."""
    tail = (
        "WHERE state = 'open' ORDER BY asked_at, rowid" if unanswered else "ORDER BY asked_at DESC, rowid DESC LIMIT ?"
    )
    rows = connection.execute(f"{_SELECT} {tail}", () if unanswered else (_LISTED,))
    return [question_of(row) for row in rows]


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
    revised, records = revise(standing)
    check_revision(standing, revised)
    _replace(connection, revised)
    for record in records:
        chain(record)
    return revised


def consume(connection: sqlite3.Connection, chain: Chain, id: str, digest: str, now: float, record: Record) -> bool:
    taken = connection.execute(
        "UPDATE questions SET state = 'consumed', canonical = x'' "
        "WHERE id = ? AND digest = ? AND state = 'granted' AND expires_at > ?",
        (id, digest, now),
    ).rowcount
    if taken:
        chain(record)
    return bool(taken)


def close_question(connection: sqlite3.Connection, chain: Chain, id: str, record: Record) -> bool:
    state = closing_state(record)
    closed = connection.execute(
        "UPDATE questions SET state = ?, canonical = x'' WHERE id = ? AND state IN ('open', 'granted')",
        (state.value, id),
    ).rowcount
    if closed:
        chain(record)
    return bool(closed)


def expire(connection: sqlite3.Connection, chain: Chain, question: Question, at: float) -> None:
    _replace(connection, replace(question, state=QuestionState.EXPIRED))
    chain(ballot.row(question, Kind.EXPIRED, at=at, code="expired"))


def closing_state(record: Record) -> QuestionState:
    state = CLOSED_BY.get(record.kind)
    if state is None:
        raise RecordFault(f"a question is not closed by a row of kind {record.kind.value}")
    return state


def check_revision(standing: Question, revised: Question) -> None:
    """What was asked cannot be revised, and what has ended stays ended."""
    if (revised.id, revised.digest, revised.canonical) != (standing.id, standing.digest, standing.canonical):
        raise RecordFault(f"question {standing.id}: a revision may not change what was asked")
    if standing.state not in LIVE and revised.state is not standing.state:
        raise RecordFault(f"question {standing.id}: it has ended as {standing.state.value}")


def _replace(connection: sqlite3.Connection, question: Question) -> None:
    id, *rest = row_of(question)
    connection.execute(_UPDATE, (*rest, id))


def row_of(question: Question) -> tuple[Any, ...]:
    kept = at_rest(question)
    return (
        kept.id,
        kept.digest,
        kept.state.value,
        kept.session,
        kept.invocation,
        principal_text(kept.requester),
        kept.skill,
        kept.skill_digest,
        kept.policy,
        kept.canonical,
        _text(asdict(kept.terms) | {"groups": sorted(kept.terms.groups), "subjects": sorted(kept.terms.subjects)}),
        _text([asdict(rule) for rule in kept.rules]),
        kept.asked_at,
        kept.expires_at,
        _text([asdict(vote) | {"principal": principal_json(vote.principal)} for vote in kept.votes]),
    )


def question_of(row: Sequence[Any]) -> Question:
    """A row in the order of `Question`'s fields. Raises `RecordFault` when it is not one we wrote."""
    try:
        cells = dict(zip(_FIELDS, row, strict=True))
        terms = _json(cells["terms"])
        cells["state"] = QuestionState(cells["state"])
        cells["requester"] = principal_of(_json(cells["requester"]))
        cells["canonical"] = bytes(cells["canonical"])
        cells["terms"] = ApprovalTerms(
            frozenset(terms["groups"]), frozenset(terms["subjects"]), terms["quorum"], terms["expires_s"]
        )
        cells["rules"] = tuple(
            MatchedRule(**rule | {"effect": Effect(rule["effect"])}) for rule in _json(cells["rules"])
        )
        cells["votes"] = tuple(
            Vote(**vote | {"principal": principal_of(vote["principal"])}) for vote in _json(cells["votes"])
        )
        return Question(**cells)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordFault("a stored question is not as it was written") from error


def principal_json(principal: Principal) -> dict[str, Json]:
    return asdict(principal) | {"groups": list(principal.groups)}


def principal_text(principal: Principal) -> str:
    return _text(principal_json(principal))


def principal_of(value: Json) -> Principal:
    return Principal(**value | {"groups": tuple(value["groups"])})


def _text(value: Json) -> str:
    return canonical.encode(value).decode()


def _json(text: str) -> Json:
    return canonical.parse(text.encode())
