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
from interposer.errors import ConfigurationError, Problem, RecordFault

VERSION = 2

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
    expires_at REAL NOT NULL, votes TEXT NOT NULL, amended BLOB NOT NULL DEFAULT X'', spec TEXT NOT NULL DEFAULT '',
    destructive INTEGER NOT NULL DEFAULT 0, call TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX one_live_question_per_digest ON questions (digest) WHERE state IN ('open', 'granted');
CREATE INDEX questions_by_age ON questions (asked_at);
CREATE TABLE open_sessions (session TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL,
    settled INTEGER NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE probe (one INTEGER PRIMARY KEY CHECK (one = 1), filler BLOB NOT NULL);
"""
_TABLES_2 = """
CREATE INDEX questions_by_skill ON questions (skill, asked_at);
CREATE INDEX events_by_question ON events (question, kind) WHERE question <> '';
CREATE TABLE grants (
    id TEXT PRIMARY KEY, question TEXT NOT NULL, state TEXT NOT NULL, requester TEXT NOT NULL, skill TEXT NOT NULL,
    skill_digest TEXT NOT NULL, policy TEXT NOT NULL, terms TEXT NOT NULL, arguments_digest TEXT NOT NULL,
    schema BLOB NOT NULL, session TEXT NOT NULL, uses INTEGER, used INTEGER NOT NULL, approvers TEXT NOT NULL,
    given_at REAL NOT NULL, expires_at REAL NOT NULL
);
CREATE INDEX grants_by_age ON grants (given_at);
CREATE INDEX active_grants ON grants (given_at) WHERE state = 'active';
CREATE TABLE kept (
    question TEXT PRIMARY KEY, call TEXT NOT NULL, invocation TEXT NOT NULL, state TEXT NOT NULL, body BLOB NOT NULL,
    withheld TEXT NOT NULL, delivered INTEGER NOT NULL, expires_at REAL NOT NULL, row INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX undelivered ON kept (call) WHERE delivered = 0;
"""
# head: the last row, and the last sequence number before which nothing is unfinished, so that a start after a crash
# reads a few rows and not the whole record. open_sessions serves the same purpose. events_by_question costs a call that
# no human is asked about one comparison.

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


def _with_grants(database: Any) -> None:
    questions = database["questions"]
    questions.add_column("amended", "BLOB", not_null_default=b"")
    questions.add_column("spec", str, not_null_default="")
    questions.add_column("destructive", int, not_null_default=0)
    questions.add_column("call", str, not_null_default="")
    _execute(database.conn, _TABLES_2)


MIGRATIONS: dict[int, Callable[[Any], None]] = {1: _with_grants}
"""From version n to n+1, each a change to a `sqlite_utils.Database` inside of one transaction."""


AS_TODAY = {
    1: """
    CREATE TEMP VIEW questions AS
        SELECT *, X'' AS amended, '' AS spec, 0 AS destructive, '' AS call FROM main.questions;
    CREATE TEMP TABLE grants (id TEXT, state TEXT);
    CREATE TEMP TABLE kept (question TEXT, invocation TEXT)
    """
}
"""What shows a reader an older record as one of today, without a change to its file."""


def read_as_today(connection: sqlite3.Connection) -> None:
    """For a reader of a record of any version. Raises `RecordFault` for one that is none, or newer."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise RecordFault(
            f"this record has version {version}, this interposer reads up to {VERSION}: use the newer one"
        )
    if version != VERSION and version not in AS_TODAY:
        raise RecordFault(f"not a record (found version {version}, expected {VERSION})")
    _execute(connection, AS_TODAY.get(version, ""))


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
    _execute(connection, _TABLES + _TABLES_2)
    connection.execute("INSERT INTO head VALUES (1, 0, ?, 0)", (chain.GENESIS,))
    connection.execute("INSERT INTO meta VALUES ('pseudonym_key', ?)", (os.urandom(32),))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    from sqlite_utils import Database  # imported here: 140 ms that only an old record pays

    database = Database(connection)
    for step in range(version, VERSION):
        connection.execute("BEGIN EXCLUSIVE")
        MIGRATIONS[step](database)
        connection.execute(f"PRAGMA user_version = {step + 1}")
        connection.execute("COMMIT")


def _execute(connection: sqlite3.Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        connection.execute(statement)


def link_of(row: Sequence[Any]) -> chain.Link:
    """A row of `LINKS`; of whatever types the file has, for the chain looks at those."""
    return chain.Link(chain.Row(*row[:_ROW_FIELDS]), *row[_ROW_FIELDS:])
