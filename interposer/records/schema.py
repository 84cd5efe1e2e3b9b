"""The tables of the record, and how an older record becomes one of today.

A new record is created by plain SQL: importing sqlite-utils costs 140 ms, half of the time the first call may take.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from interposer import chain
from interposer.errors import ConfigurationError, Problem

VERSION = 1

COLUMNS = (*chain.Row._fields, "previous", "hash")

_TABLES = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, boottime REAL NOT NULL,
    session TEXT NOT NULL, invocation TEXT NOT NULL, skill TEXT NOT NULL, principal TEXT NOT NULL,
    effect TEXT NOT NULL, rules TEXT NOT NULL, policy TEXT NOT NULL, skill_digest TEXT NOT NULL,
    code TEXT NOT NULL, question TEXT NOT NULL, size INTEGER NOT NULL, kept INTEGER NOT NULL,
    commitment BLOB NOT NULL, previous BLOB NOT NULL, hash BLOB NOT NULL
);
CREATE TABLE payloads (seq INTEGER PRIMARY KEY, salt BLOB NOT NULL, body TEXT NOT NULL);
CREATE TABLE subjects (pseudonym TEXT PRIMARY KEY, principal TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE questions (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, state TEXT NOT NULL, session TEXT NOT NULL, invocation TEXT NOT NULL,
    requester TEXT NOT NULL, skill TEXT NOT NULL, skill_digest TEXT NOT NULL, policy TEXT NOT NULL,
    canonical BLOB NOT NULL, terms TEXT NOT NULL, rules TEXT NOT NULL, asked_at REAL NOT NULL,
    expires_at REAL NOT NULL, votes TEXT NOT NULL
);
CREATE UNIQUE INDEX one_live_question_per_digest ON questions (digest) WHERE state IN ('open', 'granted');
CREATE INDEX questions_by_age ON questions (asked_at);
CREATE TABLE open_sessions (session TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL,
    settled INTEGER NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE probe (one INTEGER PRIMARY KEY CHECK (one = 1), filler BLOB NOT NULL);
"""
# head: the last row, and the last sequence number before which nothing is unfinished, so that a start after a crash
# reads a few rows and not the whole record. open_sessions serves the same purpose.

MOST_ROWS = 256
"""Of one INSERT: SQLite allows 32,766 parameters."""
_EVENTS = f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES "  # noqa: S608  # constants
_EVENT = f"({', '.join('?' * len(COLUMNS))})"
_PAYLOADS = "INSERT INTO payloads (seq, salt, body) VALUES "
_PAYLOAD = "(?, ?, CAST(? AS TEXT))"


def insert_events(rows: int) -> str:
    return _EVENTS + ", ".join([_EVENT] * rows)


def insert_payloads(rows: int) -> str:
    return _PAYLOADS + ", ".join([_PAYLOAD] * rows)


MOVE_HEAD = "UPDATE head SET seq = ?, hash = ?, settled = ? WHERE one = 1"

LINKS = (
    f"SELECT {', '.join(f'e.{name}' for name in COLUMNS)}, p.salt, CAST(p.body AS BLOB) FROM events e "  # noqa: S608
    "LEFT JOIN payloads p ON p.seq = e.seq {} ORDER BY e.seq"
)
_ROW_FIELDS = len(chain.Row._fields)

MIGRATIONS: dict[int, Callable[[Any], None]] = {}
"""From version n to n+1, each a change to a `sqlite_utils.Database`."""


def prepare(connection: sqlite3.Connection, path: Path) -> bytes:
    """Bring the database to this version, and give its pseudonym key. Raises `ConfigurationError` for a record that a
    newer interposer wrote, `sqlite3.Error` for a file that is no database."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        text = f"this record has version {version}, this interposer reads up to {VERSION}: use the newer interposer"
        raise ConfigurationError([Problem(str(path), 0, 0, text)])
    if version == 0:
        _create(connection)
    elif version < VERSION:
        _migrate(connection, version)
    (key,) = connection.execute("SELECT value FROM meta WHERE name = 'pseudonym_key'").fetchone()
    return bytes(key)


def _create(connection: sqlite3.Connection) -> None:
    """All of it in one transaction: a start that is cut short leaves an empty file, and the next one begins again."""
    connection.execute("BEGIN EXCLUSIVE")
    for statement in filter(str.strip, _TABLES.split(";")):
        connection.execute(statement)
    connection.execute("INSERT INTO head VALUES (1, 0, ?, 0)", (chain.GENESIS,))
    connection.execute("INSERT INTO meta VALUES ('pseudonym_key', ?)", (os.urandom(32),))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    from sqlite_utils import Database  # imported here: 140 ms that only an old record pays

    database = Database(connection)
    for step in range(version, VERSION):
        MIGRATIONS[step](database)
        connection.execute(f"PRAGMA user_version = {step + 1}")


def link_of(row: Sequence[Any]) -> chain.Link:
    """A row of `LINKS`; of whatever types the file has, for the chain looks at those."""
    return chain.Link(chain.Row(*row[:_ROW_FIELDS]), *row[_ROW_FIELDS:])
