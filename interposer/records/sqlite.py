"""The durable record: SQLite with a write-ahead log, every acknowledged row on disk, many rows to one flush.

Everything that waits at the same time shares one commit on one dedicated thread, and the whole batch comes back to the
event loop in one call. A record that waits alone while no other call is under way is committed on the loop's own
thread: that saves two thread hops, and there is nobody whom it could keep waiting.

A caller that is cancelled while it waits leaves its record in the queue: it is still written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from interposer.errors import ConfigurationError, InterposerError, Problem, RecordFault
from interposer.grant import Grant, Kept, KeptState
from interposer.model import Kind, Question, Record
from interposer.ports import Revision

from . import grants as granting
from . import keeping
from . import questions as asking
from .ledger import Busy, Job, Ledger
from .lock import RecordLock
from .tail import left_open

T = TypeVar("T")
_Waiting: TypeAlias = "list[tuple[asyncio.Future[Any], Job]]"

LIMIT_WAITING = 65_536
"""Jobs that may wait; more are refused, so that a dying disk costs no more than this memory."""

_FAILED = "the record's writer has failed"


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SqliteRecordStore:
    """The `RecordStore` on one SQLite file. Belongs to the event loop that first writes to it."""

    def __init__(self, path: Path, ledger: Ledger, lock: RecordLock) -> None:
        self.path = path
        self._ledger = ledger
        self._lock = lock
        self._queue: _Waiting = []
        self._hand = threading.Lock()
        """Guards `_queue` and `_busy`."""
        self._busy = False
        """The ledger is in somebody's hands."""
        self._flushing = False
        self._closed = False
        """Nothing more is taken."""
        self._released = False
        self._inbox: SimpleQueue[tuple[asyncio.AbstractEventLoop, _Waiting] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="interposer-record", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, path: Path | str, *, boottime: Callable[[], float] = boottime) -> SqliteRecordStore:
        """Create or open the record. Raises `RecordHeld` (a `ConfigurationError`) when another broker writes it,
        `ConfigurationError` when it cannot be had."""
        path = Path(os.path.abspath(path))
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = RecordLock(path)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            ledger = Ledger(path, boottime)
        except (OSError, sqlite3.Error, InterposerError, TypeError, ValueError) as error:
            lock.release()
            raise error if isinstance(error, ConfigurationError) else _unusable(path, error) from error
        return cls(path, ledger, lock)

    # The port

    async def append(self, record: Record) -> int:
        return await self._submit(record)  # type: ignore[no-any-return]  # a record's result is its sequence number

    async def open_question(self, question: Question, record: Record) -> Question:
        return await self._transact(lambda db, chain: asking.open_question(db, chain, question, record))

    async def question(self, id: str) -> Question | None:
        return await self._transact(lambda db, _: asking.find(db, id))

    async def questions(self, *, unanswered: bool = True, skill: str = "", limit: int = 1_000) -> list[Question]:
        return await self._transact(lambda db, _: asking.listed(db, unanswered=unanswered, skill=skill, limit=limit))

    async def standing(self, now: float) -> list[Question]:
        return await self._transact(lambda db, _: asking.standing(db, now))

    async def revise(self, id: str, revise: Callable[[Question], Revision]) -> Question:
        return await self._transact(lambda db, chain: asking.revise(db, chain, id, revise))

    async def consume(self, id: str, digest: str, now: float, record: Record) -> bool:
        return await self._transact(lambda db, chain: asking.consume(db, chain, id, digest, now, record))

    async def close_question(self, id: str, record: Record) -> bool:
        return await self._transact(lambda db, chain: asking.close_question(db, chain, id, record))

    async def keep(self, question: str, state: KeptState, body: bytes, withheld: str, *, delivered: bool) -> None:
        await self._transact(lambda db, _: keeping.keep(db, question, state, body, withheld, delivered=delivered))

    async def kept(self, question: str) -> Kept | None:
        return await self._transact(lambda db, _: keeping.shown(db, question))

    async def waiting(self) -> list[Kept]:
        return await self._transact(lambda db, _: keeping.waiting(db))

    async def discard(self, now: float) -> None:
        await self._transact(lambda db, _: keeping.discard(db, now))

    async def grants(self, *, active: bool = True) -> list[Grant]:
        return await self._transact(lambda db, _: granting.listed(db, active=active))

    async def use_grant(self, id: str, now: float, record: Record) -> bool:
        return await self._transact(lambda db, chain: granting.use(db, chain, id, now, record))

    async def end_grant(self, id: str, record: Record) -> bool:
        return await self._transact(lambda db, chain: granting.end(db, chain, id, record))

    async def unfinished(self) -> list[Record]:
        return [record for record in await self.left_open() if record.kind is Kind.INTENDED]

    async def left_open(self) -> list[Record]:
        """Calls asked or intended that have no end, and sessions that were not closed, oldest first."""
        return await self._transact(lambda db, _: [record for _seq, record in left_open(db)])

    def healthy(self) -> bool:
        return not self._closed and self._ledger.in_place()

    async def aclose(self) -> None:
        if self._released:
            return
        self._closed = self._released = True
        if self._writer.is_alive() and (self._queue or self._busy):
            with contextlib.suppress(RecordFault):  # whoever waited has been told
                await self._enqueue(lambda _db, _chain: None)
        self._inbox.put(None)
        self._writer.join()
        self._ledger.close()
        self._lock.release()

    # The event loop's side

    async def _transact(self, work: Callable[[sqlite3.Connection, asking.Chain], T]) -> T:
        return await self._submit(work)  # type: ignore[no-any-return]  # a work's result is what it returned

    def _submit(self, job: Job) -> asyncio.Future[Any]:
        if self._closed:
            raise RecordFault("the record is closed")
        if len(self._queue) >= LIMIT_WAITING:
            raise RecordFault("too much waits to be recorded")
        return self._enqueue(job)

    def _enqueue(self, job: Job) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._hand:
            self._queue.append((future, job))
            wake = not self._busy and not self._flushing
        if wake:
            # Not at once: whatever else becomes ready in this turn of the loop shares the commit.
            self._flushing = True
            loop.call_soon(self._flush, loop)
        return future

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._flushing = False
        with self._hand:
            if self._busy or not self._queue:
                return
            batch, self._queue = self._queue, []
            self._busy = True
        if len(batch) != 1 or not self._ledger.lonely(batch[0][1]) or self._ledger.checkpoint_due:
            self._inbox.put((loop, batch))
            return
        results: list[Any] = [RecordFault(_FAILED)]
        try:
            results = self._ledger.commit([batch[0][1]], patient=False)
        finally:
            if isinstance(results[0], Busy):
                self._inbox.put((loop, batch))
            else:
                with self._hand:
                    self._busy = False
                _settle(batch, results)

    # The writer's side

    def _write(self) -> None:
        loop: asyncio.AbstractEventLoop | None = None
        batch: _Waiting = []
        try:
            while (parcel := self._inbox.get()) is not None:
                loop, batch = parcel
                while batch:
                    results = self._ledger.commit([job for _, job in batch])
                    _hand_back(loop, batch, results)
                    if self._ledger.checkpoint_due:
                        self._ledger.checkpoint()
                    batch = self._next()
        finally:
            # Reached with a batch only by an error of ours: nobody is left waiting, and nothing more is taken.
            self._closed = True
            if loop is not None:
                waiting = [*batch, *self._next()]
                _hand_back(loop, waiting, [RecordFault(_FAILED)] * len(waiting))

    def _next(self) -> _Waiting:
        with self._hand:
            batch, self._queue = self._queue, []
            self._busy = bool(batch)
        return batch


def _hand_back(loop: asyncio.AbstractEventLoop, batch: _Waiting, results: list[Any]) -> None:
    try:
        loop.call_soon_threadsafe(partial(_settle, batch, results))
    except RuntimeError:
        return  # the loop is closed: nobody waits any more, and what was written is written


def _settle(batch: _Waiting, results: list[Any]) -> None:
    for (future, _), result in zip(batch, results, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _unusable(path: Path, error: Exception) -> ConfigurationError:
    remedy = "" if isinstance(error, RecordFault) else ": check that the folder is writable and the file is a record"
    return ConfigurationError([Problem(str(path), 0, 0, f"the record cannot be opened ({error}){remedy}")])
