"""Standing grants as rows. Every function here runs inside the writer's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from interposer.errors import RecordFault
from interposer.grant import Grant, GrantState
from interposer.model import Record

from . import forms, lives
from .evidence import bears_out_grant

Chain = Callable[[Record], object]

_LISTED = 1_000
_FIELDS = tuple(field.name for field in fields(Grant))
_COLUMNS = ", ".join(_FIELDS)
_SELECT = f"SELECT {_COLUMNS} FROM grants"  # noqa: S608  # constants
_INSERT = f"INSERT INTO grants ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608  # constants


def listed(connection: sqlite3.Connection, *, active: bool) -> list[Grant]:
    """The active ones, oldest first; or all, newest first, at most 1,000."""
    order = (
        "WHERE state = 'active' ORDER BY given_at, rowid" if active else "ORDER BY given_at DESC, rowid DESC LIMIT ?"
    )
    return [grant_of(row) for row in connection.execute(f"{_SELECT} {order}", () if active else (_LISTED,))]


def find(connection: sqlite3.Connection, id: str) -> Grant | None:
    row = connection.execute(f"{_SELECT} WHERE id = ?", (id,)).fetchone()
    return None if row is None else grant_of(row)


def insert(connection: sqlite3.Connection, grant: Grant) -> None:
    connection.execute(_INSERT, row_of(grant))


def use(connection: sqlite3.Connection, chain: Chain, id: str, now: float, record: Record) -> bool:
    grant = find(connection, id)
    used = None if grant is None else lives.used(grant, now)
    if grant is None or used is None:
        return False
    rows = lives.use_rows(used, record)
    if not bears_out_grant(connection, grant):
        raise RecordFault(f"{id} is not as it was given; revoke it, and run `interposer record verify`")
    connection.execute("UPDATE grants SET used = ?, state = ? WHERE id = ?", (used.used, used.state.value, id))
    for row in rows:
        chain(row)
    return True


def end(connection: sqlite3.Connection, chain: Chain, id: str, record: Record) -> bool:
    state = lives.ending_state(record)
    sql = "UPDATE grants SET state = ? WHERE id = ? AND state = 'active'"
    ended = connection.execute(sql, (state.value, id)).rowcount
    if ended:
        chain(record)
    return bool(ended)


def row_of(grant: Grant) -> tuple[Any, ...]:
    written = {
        "state": grant.state.value,
        "requester": forms.principal_text(grant.requester),
        "terms": forms.text(forms.terms_json(grant.terms)),
        "approvers": forms.text(grant.approvers),
    }
    return tuple([written.get(name, getattr(grant, name)) for name in _FIELDS])


def grant_of(row: Sequence[Any]) -> Grant:
    """A row in the order of `Grant`'s fields. Raises `RecordFault` when it is not one we wrote."""
    try:
        cells = dict(zip(_FIELDS, row, strict=True))
        cells["state"] = GrantState(cells["state"])
        cells["requester"] = forms.principal_of(forms.parsed(cells["requester"]))
        cells["terms"] = forms.terms_of(forms.parsed(cells["terms"]))
        cells["approvers"] = tuple(forms.parsed(cells["approvers"]))
        cells["schema"] = bytes(cells["schema"])
        return Grant(**cells)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordFault("a stored grant is not as it was written") from error
