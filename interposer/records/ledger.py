"""The database side of the record: batches in, each one transaction, on disk when `commit` returns.

A batch is whole or not at all. A statement that fails with anything but "busy" or "full" ends writing for good: after
a failed fsync nobody knows what the disk holds, so nothing is tried again. A full disk closes the record until a probe
larger than any row has been written, for a smaller row may fit by luck.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from interposer.errors import RecordFault
from interposer.lifecycle import ENDS
from interposer.model import Kind, Record

from . import schema
from .forms import principal_text
from .questions import Chain
from .row import PAYLOAD_LIMIT, Sealer
from .tail import left_open, sound_tail

Work: TypeAlias = Callable[[sqlite3.Connection, Chain], Any]
Job: TypeAlias = Record | Work
"""A record to chain, or work inside the transaction that may chain some."""

BUSY_S = 1.0
"""How long another process may hold the database before the batch is given up."""
PROBE_BYTES = 2 * PAYLOAD_LIMIT
_BUSY_STEP_S = 0.005
_PROBE_EVERY_S = 1.0
_CHECKPOINT_AFTER = 1_000
"""Roughly pages in the write-ahead log. A flush that makes the log longer costs a third more than one that does not, so
it is kept short, and begins anew in its own space."""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_OPENED, _CLOSED, _ASKED, _INTENDED = Kind.SESSION_OPENED, Kind.SESSION_CLOSED, Kind.ASKED, Kind.INTENDED
_KNOWN_SUBJECTS = 10_000
_GONE = "the record's file was removed, replaced or cut: what was last written may be lost"


class Busy(RecordFault):
    """Another process holds the database, and nothing was done."""


class _Trap:
    """Catches what a job or a statement raises, to hand it to whom it belongs; nothing is swallowed."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> _Trap:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


class _Batch:
    """The rows of one transaction before they are inserted."""

    def __init__(self, sealer: Sealer, boottime: float) -> None:
        self._sealer = sealer
        self._boottime = boottime
        self._start = (sealer.seq, sealer.head)
        self.events: list[tuple[Any, ...]] = []
        self.payloads: list[tuple[int, bytes, bytes]] = []
        self.records: list[tuple[int, str, Record]] = []
        self.inserted = (0, 0)
        """How many events and payloads are in the tables already."""

    def chain(self, record: Record) -> int:
        link = self._sealer.seal(record, self._boottime)
        row = link.row
        self.events.append((*row, link.previous, link.hash))
        if link.salt is not None and link.payload is not None:
            self.payloads.append((row.seq, link.salt, link.payload))
        self.records.append((row.seq, row.principal, record))
        return row.seq

    def mark(self) -> tuple[int, bytes, int, int]:
        return self._sealer.seq, self._sealer.head, len(self.events), len(self.payloads)

    def rewind(self, mark: tuple[int, bytes, int, int]) -> None:
        self._sealer.seq, self._sealer.head, events, payloads = mark
        del self.events[events:], self.records[events:], self.payloads[payloads:]

    def drop(self) -> None:
        self._sealer.seq, self._sealer.head = self._start


class Ledger:
    """One connection and the end of the chain. Used by one thread at a time; the store sees to that."""

    def __init__(self, path: Path, boottime: Callable[[], float]) -> None:
        """Raises `ConfigurationError`, `RecordFault`, `sqlite3.Error` or `OSError`."""
        self._path = os.fspath(path)
        self._wal = f"{self._path}-wal"
        self._boottime = boottime
        self.broken = ""
        """Why nothing will ever be written through this ledger again, or empty."""
        self._full_until = 0.0
        self._weight = 0
        self._file_bytes = self._wal_bytes = 0
        with contextlib.ExitStack() as undo:
            _create_private(self._path)
            self._db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            undo.callback(self._db.close)
            self._sealer = self._prepare(path)
            undo.pop_all()

    def _prepare(self, path: Path) -> Sealer:
        execute = self._db.execute
        (mode,) = execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise RecordFault(f"the record's file system has no write-ahead log (journal mode {mode})")
        for pragma in ("synchronous = FULL", "wal_autocheckpoint = 0", "secure_delete = ON", "trusted_schema = OFF"):
            execute(f"PRAGMA {pragma}")
        key = schema.prepare(self._db, path)
        execute("UPDATE head SET one = 1")  # the log file exists, and keeps its inode, from the first write on
        seq, head = sound_tail(self._db)
        self._subjects = {row[0] for row in execute("SELECT pseudonym FROM subjects LIMIT ?", (_KNOWN_SUBJECTS,))}
        self._open = {record.invocation: seq for seq, record in left_open(self._db) if record.invocation}
        self._note_files()
        execute("PRAGMA busy_timeout = 0")  # from here on `_begin` waits, and only on the writer's thread
        return Sealer(key, seq, head)

    # What is asked of the database by others

    def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        return work(self._db)

    def lonely(self, job: Job) -> bool:
        """Whether no call but this record's own is under way, so that nobody gains from a thread."""
        known = len(self._open)
        return not known or (known == 1 and isinstance(job, Record) and job.invocation in self._open)

    def in_place(self) -> bool:
        """Whether both files are the ones opened: in WAL mode a removed file takes every write and keeps none."""
        return not self.broken and self._in_place(note=False)

    def _log_is_whole(self) -> bool:
        """Asked before a commit, which would make a log that was cut look long enough again."""
        try:
            return os.stat(self._wal).st_size >= self._wal_bytes
        except OSError:
            return False

    def _in_place(self, *, note: bool) -> bool:
        """`note`: remember the sizes. Neither file ever shrinks while it is open: checkpoints are passive and nothing
        vacuums."""
        # Read before the files are looked at: the writer's thread notes larger sizes at any moment.
        noted_bytes, noted_wal_bytes = self._file_bytes, self._wal_bytes
        try:
            file, wal = os.stat(self._path), os.stat(self._wal)
        except OSError:
            return False
        file_bytes, wal_bytes = file.st_size, wal.st_size
        in_place = (
            file.st_ino == self._file[1]
            and wal.st_ino == self._wal_file[1]
            and file_bytes >= noted_bytes
            and wal_bytes >= noted_wal_bytes
            and (file.st_dev, file.st_nlink) == (self._file[0], 1)
            and (wal.st_dev, wal.st_nlink) == (self._wal_file[0], 1)
        )
        if note and in_place:
            self._file_bytes, self._wal_bytes = file_bytes, wal_bytes
        return in_place

    @property
    def checkpoint_due(self) -> bool:
        return self._weight >= _CHECKPOINT_AFTER and not self.broken

    def checkpoint(self) -> None:
        """Carry the log over into the database, without waiting for readers."""
        self._weight = 0
        with _Trap() as trap:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if trap.error is not None:
            self._blame(trap.error)

    def close(self) -> None:
        """The last one to close carries the log over and removes it."""
        with contextlib.suppress(sqlite3.Error):
            if not self.broken and self._in_place(note=False):
                seq, head = self._sealer.seq, self._sealer.head
                self._db.execute(schema.MOVE_HEAD, (seq, head, self._settled(seq + 1)))
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self.broken = self.broken or "the record is closed"

    # Writing

    def commit(self, jobs: Sequence[Job], *, patient: bool = True) -> list[Any]:
        """One result per job, in order: the sequence number of a record, what a work returned, or the exception that
        the job is to raise. Not patient: `Busy` at once where another process holds the database."""
        if not self._log_is_whole():
            self.broken = self.broken or _GONE
        if self.broken or (self._full_until and not self._room_again()):
            return [RecordFault(self.broken or "the disk that holds the record is full")] * len(jobs)
        batch = _Batch(self._sealer, self._boottime())
        results: list[Any] = []
        with _Trap() as trap:
            self._begin(patient)
            results = [self._attempt(job, batch) for job in jobs]
            self._insert(batch)
            self._db.execute("COMMIT")
        if trap.error is not None:
            batch.drop()
            return [self._blame(trap.error)] * len(jobs)
        self._follow(batch)
        if not self._in_place(note=True):
            self.broken = _GONE
            return [RecordFault(self.broken)] * len(jobs)
        return results

    def _begin(self, patient: bool) -> None:
        deadline = time.monotonic() + BUSY_S if patient else 0.0
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() >= deadline:
                    raise
            time.sleep(_BUSY_STEP_S)

    def _attempt(self, job: Job, batch: _Batch) -> Any:
        if isinstance(job, Record):
            try:
                return batch.chain(job)
            except (
                ValueError,
                TypeError,
            ) as error:  # a lone surrogate, a value that is no JSON: this record's own fault
                return RecordFault(f"a record of kind {job.kind} cannot be written: {error}")
        self._insert_rows(batch)  # a work sees every row before it
        mark = batch.mark()
        result: Any = None
        with _Trap() as trap:
            self._db.execute("SAVEPOINT job")
            result = job(self._db, batch.chain)
            self._db.execute("RELEASE job")
        if trap.error is None:
            return result
        if isinstance(trap.error, sqlite3.Error) and not isinstance(trap.error, sqlite3.IntegrityError):
            raise trap.error
        batch.rewind(mark)
        self._db.execute("ROLLBACK TO job")
        self._db.execute("RELEASE job")
        return RecordFault(str(trap.error)) if isinstance(trap.error, sqlite3.Error) else trap.error

    def _insert(self, batch: _Batch) -> None:
        if not batch.events:
            return
        db = self._db
        self._insert_rows(batch)
        subjects = self._subjects
        for seq, pseudonym, record in batch.records:
            kind = record.kind
            if kind is _OPENED:
                db.execute("INSERT OR IGNORE INTO open_sessions VALUES (?, ?)", (record.session, seq))
            elif kind is _CLOSED:
                db.execute("DELETE FROM open_sessions WHERE session = ?", (record.session,))
            if pseudonym and pseudonym not in subjects and record.principal is not None:
                text = principal_text(record.principal)
                db.execute("INSERT OR IGNORE INTO subjects VALUES (?, ?)", (pseudonym, text))
        # As of before this batch: too early is safe, it only makes the next start read a few rows more.
        db.execute(schema.MOVE_HEAD, (self._sealer.seq, self._sealer.head, self._settled(batch.events[0][0])))

    def _insert_rows(self, batch: _Batch) -> None:
        events, payloads = batch.inserted
        batch.inserted = (len(batch.events), len(batch.payloads))
        _insert_rows(self._db, schema.insert_events, batch.events[events:] if events else batch.events)
        _insert_rows(self._db, schema.insert_payloads, batch.payloads[payloads:] if payloads else batch.payloads)

    def _settled(self, following: int) -> int:
        return next(iter(self._open.values()), following) - 1

    def _follow(self, batch: _Batch) -> None:
        """What is committed is known: which calls are under way, whose names are stored."""
        under_way, subjects = self._open, self._subjects
        for seq, pseudonym, record in batch.records:
            kind = record.kind
            if kind is _INTENDED or kind is _ASKED:
                under_way.setdefault(record.invocation, seq)
            elif record.invocation in under_way and kind in ENDS:
                del under_way[record.invocation]
            if pseudonym:
                subjects.add(pseudonym)
        if len(self._subjects) > _KNOWN_SUBJECTS:
            self._subjects.clear()
        self._weight += 3 + len(batch.events) // 4 + (sum(len(body) for _, _, body in batch.payloads) >> 12)

    # Faults

    def _blame(self, error: Exception) -> RecordFault:
        """Undo, and decide whether there is a next time."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            return Busy("another process holds the record's database")
        if code == sqlite3.SQLITE_FULL:
            self._full_until = time.monotonic() + _PROBE_EVERY_S
            return RecordFault("the disk that holds the record is full")
        self.broken = f"the record cannot be written any more: {error}"
        return RecordFault(self.broken)

    def _room_again(self) -> bool:
        if time.monotonic() < self._full_until:
            return False
        with _Trap() as trap:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # the log can begin anew in its own space
            self._db.execute("INSERT OR REPLACE INTO probe VALUES (1, randomblob(?))", (PROBE_BYTES,))
        if trap.error is not None:
            self._blame(trap.error)
            return False
        self._full_until = 0.0
        return True

    # The files

    def _note_files(self) -> None:
        file, wal = os.stat(self._path), os.stat(self._wal)
        self._file = (file.st_dev, file.st_ino)
        self._wal_file = (wal.st_dev, wal.st_ino)
        self._file_bytes, self._wal_bytes = file.st_size, wal.st_size


def _insert_rows(db: sqlite3.Connection, statement: Callable[[int], str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Many rows by few statements. sqlite3 lets go of the interpreter at every step and has to win it back from a busy
    event loop each time: one step a row made the writer wait for milliseconds."""
    done = 0
    while done < len(rows):
        # Powers of two, so that few statements are ever prepared.
        count = min(schema.MOST_ROWS, 1 << ((len(rows) - done).bit_length() - 1))
        db.execute(statement(count), list(chain.from_iterable(rows[done : done + count])))
        done += count


def _create_private(path: str) -> None:
    """A new record can be read by its owner only; SQLite gives its side files the same mode. Opened and closed before
    SQLite holds any lock on it, for closing a descriptor would drop those (sqlite.org, How To Corrupt, §2.2)."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
