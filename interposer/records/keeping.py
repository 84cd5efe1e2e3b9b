"""Kept outcomes as rows: what became of approved calls, for callers who come back. Inside the writer's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from interposer.errors import RecordFault
from interposer.grant import Kept, KeptState

from . import lives
from .evidence import bears_out_outcome, outcome_row

_FIELDS = tuple(field.name for field in fields(Kept))
_COLUMNS = ", ".join(_FIELDS)
_SELECT = f"SELECT {_COLUMNS} FROM kept"  # noqa: S608  # constants
_PUT = f"INSERT OR REPLACE INTO kept ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608  # constants
_UPDATE = "UPDATE kept SET state = ?, body = ?, withheld = ?, delivered = ? WHERE question = ?"
_ROW = "SELECT row FROM kept WHERE question = ?"
"""Where the chain tells how it ended."""


def find(connection: sqlite3.Connection, question: str) -> Kept | None:
    row = connection.execute(f"{_SELECT} WHERE question = ?", (question,)).fetchone()
    return None if row is None else kept_of(row)


def shown(connection: sqlite3.Connection, question: str) -> Kept | None:
    """What may be told of it."""
    kept = find(connection, question)
    return None if kept is None else _as_told(connection, kept)


def _as_told(connection: sqlite3.Connection, kept: Kept) -> Kept:
    """An outcome that somebody edited is told as one that nobody knows."""
    (row,) = connection.execute(_ROW, (kept.question,)).fetchone()
    return kept if bears_out_outcome(connection, kept, row) else lives.unknown(kept)


def waiting(connection: sqlite3.Connection) -> list[Kept]:
    """What was not delivered, oldest first."""
    return [kept_of(row) for row in connection.execute(f"{_SELECT} WHERE delivered = 0 ORDER BY rowid")]


def begin(connection: sqlite3.Connection, kept: Kept) -> None:
    connection.execute(_PUT, tuple([getattr(kept, name) for name in _FIELDS]))


def keep(
    connection: sqlite3.Connection, question: str, state: KeptState, body: bytes, withheld: str, *, delivered: bool
) -> None:
    standing = find(connection, question)
    if standing is None:
        return
    kept = lives.ended(standing, state, body, withheld, delivered=delivered)
    _replace(connection, kept)
    if standing.state is KeptState.RUNNING:
        connection.execute("UPDATE kept SET row = ? WHERE question = ?", (outcome_row(connection, kept), question))


def discard(connection: sqlite3.Connection, now: float) -> None:
    connection.execute("DELETE FROM kept WHERE expires_at <= ? AND state <> 'running'", (now,))


def _replace(connection: sqlite3.Connection, kept: Kept) -> None:
    connection.execute(_UPDATE, (kept.state.value, kept.body, kept.withheld, kept.delivered, kept.question))


def kept_of(row: Sequence[Any]) -> Kept:
    """A row in the order of `Kept`'s fields. Raises `RecordFault` when it is not one we wrote."""
    try:
        cells = dict(zip(_FIELDS, row, strict=True))
        cells["state"] = KeptState(cells["state"])
        cells["body"] = bytes(cells["body"])
        cells["delivered"] = bool(cells["delivered"])
        return Kept(**cells)
    except (TypeError, ValueError) as error:
        raise RecordFault("a kept outcome is not as it was written") from error
