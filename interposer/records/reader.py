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
from typing import Any
from urllib.parse import quote

from interposer import chain
from interposer.errors import RecordFault
from interposer.lifecycle import INVOCATION
from interposer.model import JsonObject

from .beside import Beside, object_of
from .schema import LINKS, link_of, read_as_today

_SESSIONS = """
SELECT session AS id, min(seq) AS first, max(seq) AS last, min(at) AS opened_at, max(at) AS last_at,
       sum(kind = 'session_closed') AS closed, sum(kind = 'intended') AS forwarded, sum(kind = 'answered') AS answered,
       sum(kind = 'failed') AS failed, sum(kind = 'in_doubt') AS in_doubt, sum(kind = 'refused') AS refused,
       sum(kind = 'ticketed') AS ticketed, sum(kind = 'withdrawn') AS withdrawn, sum(kind = 'asked') AS asked
FROM events WHERE session <> '' GROUP BY session ORDER BY first
"""

_OF_SESSION = """
WHERE e.session = ?1 OR (e.session = '' AND e.question <> '' AND e.question IN (
    SELECT question FROM events WHERE session = ?1 AND kind = 'grant_used'
    UNION SELECT question FROM events WHERE kind = 'grant_given' AND code <> '' AND code IN
        (SELECT question FROM events WHERE session = ?1 AND kind = 'question_opened')))
"""
"""A grant that is for any session is of none: it is shown where it was asked for, and where it was used."""


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
            self._db.execute("PRAGMA temp_store = MEMORY")
            self._db.execute("BEGIN")
            try:
                read_as_today(self._db)
            except RecordFault as fault:
                raise RecordFault(f"{path}: {fault}") from None
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
        """The rows in order, each with its payload; of one session, with the grants that it got or used, or all."""
        where, values = (_OF_SESSION, (session,)) if session else ("", ())
        yield from map(link_of, self._db.execute(LINKS.format(where), values))

    def head(self) -> tuple[int, bytes]:
        """The sequence number and hash that the writer noted last."""
        found = self._db.execute("SELECT seq, hash FROM head WHERE one = 1").fetchone()
        return (0, b"") if found is None else (found[0], bytes(found[1]))

    def subjects(self) -> dict[str, JsonObject]:
        """Pseudonym -> principal, for those that were not erased."""
        with self._reading():
            rows = self._db.execute("SELECT pseudonym, principal FROM subjects").fetchall()
        return {name: object_of(text) for name, text in rows}

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
        found: chain.Break | None = None
        try:
            beside = Beside(self._db)
            for link in self.links():
                found = verifier.take(link)
                if found is not None:
                    break
                beside.take(link)
            head = self.head()
            found = (verifier.finish() or found) if found else (verifier.finish(head) or beside.found())
        except (sqlite3.Error, TypeError) as error:
            seq = verifier.rows + 1
            found = found or chain.Break(seq, "unreadable", f"row {seq}: cannot be read ({error})")
        return Verdict(verifier.rows, verifier.head, verifier.erased, found)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RecordFault(f"{self.path}: cannot be read ({error})") from error
