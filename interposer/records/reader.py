"""Reading a record that may be in use by a broker: read-only, one snapshot, and nothing in the file is believed.

For other processes than the broker's. `verify` names the first row that is not as it was written.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote

from interposer import canonical, chain
from interposer.ballot import intact
from interposer.errors import RecordFault
from interposer.lifecycle import INVOCATION
from interposer.model import JsonObject, Kind, QuestionState

from . import questions as asking
from .row import pseudonym
from .schema import LINKS, VERSION, link_of

_SESSIONS = """
SELECT session AS id, min(seq) AS first, max(seq) AS last, min(at) AS opened_at, max(at) AS last_at,
       sum(kind = 'session_closed') AS closed, sum(kind = 'intended') AS forwarded, sum(kind = 'answered') AS answered,
       sum(kind = 'failed') AS failed, sum(kind = 'in_doubt') AS in_doubt, sum(kind = 'refused') AS refused,
       sum(kind = 'ticketed') AS ticketed, sum(kind = 'withdrawn') AS withdrawn, sum(kind = 'asked') AS asked
FROM events WHERE session <> '' GROUP BY session ORDER BY first
"""
_STATE_AFTER = {
    Kind.QUESTION_OPENED: QuestionState.OPEN,
    Kind.GRANTED: QuestionState.GRANTED,
    Kind.QUESTION_DENIED: QuestionState.DENIED,
    Kind.EXPIRED: QuestionState.EXPIRED,
    Kind.CONSUMED: QuestionState.CONSUMED,
    Kind.QUESTION_WITHDRAWN: QuestionState.WITHDRAWN,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification found: `rows` are the rows that stand, `head` the hash of the last of them."""

    rows: int
    head: bytes
    erased: int
    found: chain.Break | None


class RecordReader:
    """One snapshot of a record. Raises `RecordFault` where there is none that can be read."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise RecordFault(f"{path}: no such record")
        self.path = path
        self._db = self._connect(path)
        with self._reading(), contextlib.ExitStack() as undo:
            undo.callback(self._db.close)
            self._db.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self._db.execute("PRAGMA trusted_schema = OFF")
            self._db.execute("BEGIN")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise RecordFault(f"{path}: not a record of this version (found {version}, expected {VERSION})")
            undo.pop_all()

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._db.close()

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        # A copy in a folder that cannot be written has no room for SQLite's shared memory: without a log beside it the
        # file alone is the record, and may be read as one that nobody changes.
        wal = Path(f"{path}-wal")
        alone = not os.access(path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size)
        mode = "immutable=1" if alone else "mode=ro"
        return sqlite3.connect(f"file:{quote(os.path.abspath(path))}?{mode}", uri=True, isolation_level=None, timeout=5)

    def links(self, *, session: str = "") -> Iterator[chain.Link]:
        """The rows in order, each with its payload; of one session, or all."""
        where, values = ("WHERE e.session = ?", (session,)) if session else ("", ())
        yield from map(link_of, self._db.execute(LINKS.format(where), values))

    def head(self) -> tuple[int, bytes]:
        """The sequence number and hash that the writer noted last."""
        found = self._db.execute("SELECT seq, hash FROM head WHERE one = 1").fetchone()
        return (0, b"") if found is None else (found[0], bytes(found[1]))

    def subjects(self) -> dict[str, JsonObject]:
        """Pseudonym -> principal, for those that were not erased."""
        with self._reading():
            rows = self._db.execute("SELECT pseudonym, principal FROM subjects").fetchall()
        return {name: _object(text) for name, text in rows}

    def sessions(self) -> list[JsonObject]:
        """One summary per session, oldest first."""
        from sqlite_utils import Database  # here, for its import takes longer than most reads

        with self._reading():
            return list(Database(self._db).query(_SESSIONS))

    def clients(self) -> dict[str, Any]:
        """Session -> what its peer called itself."""
        query = (
            "SELECT e.session, json_extract(p.body, '$.client') FROM events e JOIN payloads p ON p.seq = e.seq "
            "WHERE e.kind = 'session_opened' AND e.code = 'introduced' AND json_valid(p.body)"
        )
        with self._reading():
            return dict(self._db.execute(query).fetchall())

    def callers(self) -> dict[str, list[str]]:
        """Session -> the pseudonyms in whose name calls were made in it."""
        found: dict[str, list[str]] = {}
        query = "SELECT DISTINCT session, principal, kind FROM events WHERE principal <> ''"
        with self._reading():
            for session, name, kind in self._db.execute(query):
                names = found.setdefault(session, [])
                if kind in INVOCATION and name not in names:
                    names.append(name)
        return found

    def verify(self) -> Verdict:
        """Read everything and compare it with what was written."""
        # What is not UTF-8 must not look like anything that is.
        self._db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        verifier = chain.Verifier()
        questions: dict[str, tuple[int, str]] = {}
        found: chain.Break | None = None
        try:
            for link in self.links():
                found = verifier.take(link)
                if found is not None:
                    break
                if link.row.question and link.row.kind in _STATE_AFTER:
                    questions[link.row.question] = (link.row.seq, _STATE_AFTER[Kind(link.row.kind)].value)
            head = self.head()
            found = (verifier.finish() or found) if found else (verifier.finish(head) or self._beside(questions))
        except (sqlite3.Error, TypeError) as error:
            seq = verifier.rows + 1
            found = found or chain.Break(seq, "unreadable", f"row {seq}: cannot be read ({error})")
        return Verdict(verifier.rows, verifier.head, verifier.erased, found)

    def _beside(self, questions: dict[str, tuple[int, str]]) -> chain.Break | None:
        """What stands beside the chain and must agree with it: payloads, names, the states of questions."""
        stray = self._db.execute("SELECT min(seq) FROM payloads WHERE seq NOT IN (SELECT seq FROM events)").fetchone()[
            0
        ]
        if stray is not None:
            return chain.Break(stray, "payload_inserted", f"row {stray}: a payload without a row")
        return self._questions(questions) or self._names()

    def _questions(self, told: dict[str, tuple[int, str]]) -> chain.Break | None:
        missing = dict(told)
        for id, state in self._db.execute("SELECT id, state FROM questions"):
            seq, expected = told.get(id, (0, "never opened"))
            missing.pop(id, None)
            if state != expected:
                text = f"row {seq}: question {id} is {expected} by the chain, and {state} in its table"
                return chain.Break(seq, "question_edited", text)
            if not self._is_as_asked(id):
                text = f"row {seq}: question {id} is not the one that was asked"
                return chain.Break(seq, "question_edited", text)
        for id, (seq, state) in missing.items():
            return chain.Break(seq, "question_missing", f"row {seq}: question {id} is {state} by the chain, and gone")
        return None

    def _is_as_asked(self, id: str) -> bool:
        try:
            question = asking.find(self._db, id)
        except RecordFault:
            return False
        return question is not None and intact(question)

    def _names(self) -> chain.Break | None:
        key = self._db.execute("SELECT value FROM meta WHERE name = 'pseudonym_key'").fetchone()
        for name, principal in self.subjects().items():
            identity = [principal.get("issuer"), principal.get("subject")]
            if key is None or name != pseudonym(bytes(key[0]), identity):
                query = "SELECT min(seq) FROM events WHERE principal = ?"
                seq = self._db.execute(query, (name,)).fetchone()[0] or 0
                return chain.Break(seq, "name_edited", f"row {seq}: the name behind a pseudonym is not the one written")
        (sound,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        return None if sound == "ok" else chain.Break(0, "unreadable", f"row 0: the file is damaged ({sound})")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RecordFault(f"{self.path}: cannot be read ({error})") from error


def _object(text: object) -> JsonObject:
    if not isinstance(text, str):
        return {}
    try:
        found = canonical.parse(text.encode("utf-8", "surrogateescape"))
    except canonical.Malformed:
        return {}
    return cast(JsonObject, found) if isinstance(found, dict) else {}
