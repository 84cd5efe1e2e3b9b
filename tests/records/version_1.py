"""A record as an interposer of version 1 left it: its tables, its JSON, and questions that nobody has answered."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from interposer.canonical import digest
from interposer.model import Kind, Principal, Record
from interposer.records.row import Sealer

NOW = 1_800_000_000.0
ALICE = Principal("local", "alice", ("support",), 1000)
BOB = Principal("local", "bob", ("leads",), 1001)
KEY = b"k" * 32
TABLES = """
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
_ALICE = '{"issuer":"local","subject":"alice","groups":["support"],"uid":1000,"client_id":"","machine":false}'
_BOB = '{"issuer":"local","subject":"bob","groups":["leads"],"uid":1001,"client_id":"","machine":false}'
_TERMS = '{"groups":["leads"],"subjects":[],"quorum":%d,"expires_s":1800.0}'
_RULES = '[{"id":"r1","effect":"ask","file":"policy.yaml","line":3,"message":""}]'
_VOTE = f'[{{"principal":{_BOB},"yes":true,"reason":"fine","at":1800000001.0}}]'


def write(path: Path) -> None:
    """Question q1 is open, q2 open with one of two votes, q3 granted and not used."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(TABLES)
        db.execute("INSERT INTO meta VALUES ('pseudonym_key', ?)", (KEY,))
        sealer = Sealer(KEY)
        opened = Record(Kind.QUESTION_OPENED, "s1", NOW, "i1", "crm.refund", ALICE, policy="p" * 64, question="q1")
        _chain(db, sealer, opened)
        for id, quorum in (("q2", 2), ("q3", 1)):
            _chain(db, sealer, Record(Kind.QUESTION_OPENED, "s1", NOW, "i1", "crm.refund", ALICE, question=id))
            _chain(db, sealer, Record(Kind.VOTED, "s1", NOW + 1, "i1", "crm.refund", BOB, code="yes", question=id))
            if quorum == 1:
                _chain(db, sealer, Record(Kind.GRANTED, "s1", NOW + 1, "i1", "crm.refund", BOB, question=id))
        _question(db, "q1", "open", 1, "[]")
        _question(db, "q2", "open", 2, _VOTE)
        _question(db, "q3", "granted", 1, _VOTE)
        db.execute("INSERT INTO head VALUES (1, ?, ?, 0)", (sealer.seq, sealer.head))
        db.execute("PRAGMA user_version = 1")
    db.close()


def _chain(db: sqlite3.Connection, sealer: Sealer, record: Record) -> None:
    link = sealer.seal(record, 9.5)
    cells = (*link.row, link.previous, link.hash)
    db.execute(f"INSERT INTO events VALUES ({', '.join('?' * len(cells))})", cells)
    principal = _ALICE if record.principal == ALICE else _BOB
    db.execute("INSERT OR IGNORE INTO subjects VALUES (?, ?)", (link.row.principal, principal))


def _question(db: sqlite3.Connection, id: str, state: str, quorum: int, votes: str) -> None:
    call = f'{{"amount":70,"for":"{id}"}}'
    who_may = [["leads"], [], quorum, 1800.0]
    bound = digest([["local", "alice"], "crm.refund", "d" * 64, call, "p" * 64, who_may])
    cells = (
        *(id, bound, state, "s1", "i1", _ALICE, "crm.refund", "d" * 64, "p" * 64, call.encode(), _TERMS % quorum),
        *(_RULES, NOW, NOW + 1800, votes),
    )
    db.execute(f"INSERT INTO questions VALUES ({', '.join('?' * len(cells))})", cells)
