"""The durable record under everything that can happen to it: kills, full disks, removed files, rivals."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from interposer.errors import ConfigurationError, RecordFault
from interposer.model import Kind, Principal, Record
from interposer.records import schema
from interposer.records.lock import RecordHeld
from interposer.records.reader import RecordReader
from interposer.records.sqlite import SqliteRecordStore

NOW = 1_800_000_000.0
ALICE = Principal("local", "alice")

# Writes rows and prints each number once it was acknowledged; at a fault it says so and ends.
WRITER = """
import asyncio, sys
from interposer.errors import RecordFault
from interposer.model import Kind, Record
from interposer.records.sqlite import SqliteRecordStore

async def main(path, waiting, rows):
    store = SqliteRecordStore.open(path)
    async def one(lane):
        for n in range(rows):
            try:
                seq = await store.append(Record(Kind.ALARM, f"s{lane}", 1.0, payload=b'{"x":"' + b"y" * 2000 + b'"}'))
            except RecordFault as fault:
                print("fault", fault, flush=True)
                return
            print(seq, flush=True)
    await asyncio.gather(*(one(lane) for lane in range(waiting)))
    print("healthy" if store.healthy() else "unhealthy", flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def record(invocation: str = "i1", kind: Kind = Kind.INTENDED, **fields: object) -> Record:
    return Record(kind, "s1", NOW, invocation, principal=ALICE, payload=b'{"a":1}', **fields)  # type: ignore[arg-type]


def writer(path: Path, waiting: int, rows: int, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(waiting), str(rows)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
        cwd=Path(__file__).parents[2],
    )


def acknowledged(lines: list[str]) -> set[int]:
    return {int(line) for line in lines if line.strip().isdigit()}


def recorded(path: Path) -> set[int]:
    """The rows of a record that verifies."""
    with RecordReader(path) as reader:
        assert reader.verify().found is None
        return {link.row.seq for link in reader.links()}


@pytest.mark.parametrize("waiting", [1, 8])
@pytest.mark.parametrize("rows_before", [1, 40, 150])
def test_a_killed_writer_loses_no_acknowledged_row(tmp_path: Path, waiting: int, rows_before: int) -> None:
    """kill -9 at any moment: what was acknowledged is there, in an unbroken chain, and the record opens again."""
    path = tmp_path / "record.db"
    with writer(path, waiting, 100_000) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(rows_before)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert len(acknowledged(lines)) >= rows_before
    assert acknowledged(lines) <= recorded(path)
    store = SqliteRecordStore.open(path)
    anyio.run(store.aclose)
    assert acknowledged(lines) <= recorded(path)


@pytest.mark.parametrize("limit_bytes", [60_000, 90_000, 200_000, 333_333, 500_001, 700_000])
def test_a_write_that_fails_is_a_fault_and_loses_nothing_acknowledged(tmp_path: Path, limit_bytes: int) -> None:
    """Whichever write is the first to fail (RLIMIT_FSIZE, `disk I/O error`), the record stays closed from there on."""
    path = tmp_path / "record.db"
    with writer(path, 4, 400, limit_bytes) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()
    faults = [line for line in lines if line.startswith("fault")]
    if faults:
        assert len(faults) == 4
        assert lines[-1].strip() == "unhealthy"
    else:
        assert acknowledged(lines) == set()
    assert acknowledged(lines) <= (recorded(path) if acknowledged(lines) else set())


FAILING_SYNC = """
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int left = -1;
static int sync_or_fail(void) {
    if (left < 0) left = atoi(getenv("SYNCS_BEFORE_FAULT"));
    if (left-- > 0) return 0;
    left = 0;
    errno = EIO;
    return -1;
}
int fsync(int fd) { (void)fd; return sync_or_fail(); }
int fdatasync(int fd) { (void)fd; return sync_or_fail(); }
"""


@pytest.fixture(scope="module")
def failing_sync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("making fsync fail needs a C compiler (cc)")
    folder = tmp_path_factory.mktemp("sync")
    (folder / "sync.c").write_text(FAILING_SYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "sync.so", "sync.c"], cwd=folder, check=True)
    return folder / "sync.so"


@pytest.mark.parametrize("waiting", [1, 8])
@pytest.mark.parametrize("syncs", [12, 13, 20, 40])
def test_a_flush_that_fails_ends_writing_for_good(
    tmp_path: Path, failing_sync: Path, monkeypatch: pytest.MonkeyPatch, syncs: int, waiting: int
) -> None:
    """After a failed fsync nothing more is acknowledged, and what was acknowledged before is there (F10)."""
    path = tmp_path / "record.db"
    monkeypatch.setenv("LD_PRELOAD", str(failing_sync))
    monkeypatch.setenv("SYNCS_BEFORE_FAULT", str(syncs))
    with writer(path, waiting, 100) as process:
        assert process.stdout is not None
        lines = [line.strip() for line in process.stdout]
    first_fault = next(number for number, line in enumerate(lines) if line.startswith("fault"))
    assert acknowledged(lines[:first_fault]) == acknowledged(lines)
    assert len(lines) - first_fault == waiting + 1
    assert lines[-1] == "unhealthy"
    monkeypatch.delenv("LD_PRELOAD")
    assert acknowledged(lines) <= recorded(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("a disk of its own needs root and mount(8)")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    return folder


async def fill(store: SqliteRecordStore, written: list[int]) -> None:
    while True:
        written.append(await store.append(record(f"i{len(written)}")))


async def test_a_full_disk_closes_the_record_until_there_is_room(small_disk: Path) -> None:
    """ENOSPC: a fault for everything, no acknowledged row lost, and service again once a full-size probe fits."""
    path = small_disk / "record.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    store = SqliteRecordStore.open(path)
    written: list[int] = []
    try:
        with anyio.fail_after(10):
            with pytest.raises(RecordFault, match="full"):
                await fill(store, written)
            with pytest.raises(RecordFault, match="full"):
                await store.append(record("small"))
            ballast.unlink()
            while True:
                try:
                    written.append(await store.append(record("again")))
                    break
                except RecordFault:
                    await anyio.lowlevel.checkpoint()  # the record looks for room once a second
        assert store.healthy()
        await store.aclose()
        assert recorded(path) == set(written)
    finally:
        await store.aclose()
        subprocess.run(["umount", "-l", str(small_disk)], check=True)


async def test_a_removed_replaced_or_cut_file_is_noticed_before_the_next_call(tmp_path: Path) -> None:
    """In WAL mode SQLite reports success while the record is being lost: the store must see it first."""

    def replace(path: Path) -> None:
        copy = path.with_suffix(".copy")
        shutil.copy(path, copy)
        os.replace(copy, path)

    attacks: dict[str, Callable[[Path], object]] = {
        "remove the record": lambda path: path.unlink(),
        "remove the log": lambda path: Path(f"{path}-wal").unlink(),
        "replace the record": replace,
        "replace the log": lambda path: replace(Path(f"{path}-wal")),
        "cut the record": lambda path: os.truncate(path, path.stat().st_size - 1),
        "empty the record": lambda path: os.truncate(path, 0),
        "empty the log": lambda path: os.truncate(f"{path}-wal", 0),
        "link the record elsewhere": lambda path: os.link(path, path.with_suffix(".link")),
        "move the folder": lambda path: path.parent.rename(path.parent.with_name("moved")),
    }
    for number, (goal, attack) in enumerate(attacks.items()):
        path = tmp_path / str(number) / "record.db"
        store = SqliteRecordStore.open(path)
        await store.append(record())
        assert store.healthy(), goal
        attack(path)
        assert not store.healthy(), goal
        with pytest.raises(RecordFault):
            await store.append(record("i2"))
        with pytest.raises(RecordFault):
            await store.append(record("i3"))
        await store.aclose()


async def test_a_healthy_store_stays_healthy_through_checkpoints_and_readers(tmp_path: Path) -> None:
    """Nothing that SQLite itself does to its files looks like an attack."""
    store = SqliteRecordStore.open(tmp_path / "record.db")
    with anyio.fail_after(20):
        for turn in range(12):
            async with anyio.create_task_group() as tasks:
                for number in range(300):
                    tasks.start_soon(store.append, record(f"i{turn}-{number}"))
            assert store.healthy()
            out = (
                subprocess.run(
                    [sys.executable, "-c", READ, str(store.path)],
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=20,
                )
                if turn % 6 == 0
                else None
            )
            assert out is None or out.stdout.split() == [str((turn + 1) * 300), "None"]
    assert store.healthy()
    await store.aclose()


READ = """
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from interposer.records.reader import RecordReader
with RecordReader(Path(sys.argv[1])) as reader:
    verdict = reader.verify()
    print(verdict.rows, verdict.found)
"""


async def test_a_second_broker_on_the_same_record_is_refused(tmp_path: Path) -> None:
    """One writer: the other one is told who holds the record and what to do."""
    path = tmp_path / "record.db"
    store = SqliteRecordStore.open(path)
    with pytest.raises(RecordHeld, match=rf"another broker \(pid {os.getpid()}\) holds this record: stop it") as held:
        SqliteRecordStore.open(path)
    assert held.value.pid == os.getpid()
    assert await store.append(record()) == 1
    await store.aclose()
    again = SqliteRecordStore.open(path)
    assert await again.append(record("i2")) == 2
    await again.aclose()


async def test_the_chain_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    """Reopened, the record knows its end, its names and what is unfinished."""
    path = tmp_path / "record.db"
    for run in range(3):
        store = SqliteRecordStore.open(path)
        await store.append(record(f"i{run}"))
        assert [each.invocation for each in await store.unfinished()] == [f"i{n}" for n in range(run + 1)]
        await store.aclose()
    assert recorded(path) == {1, 2, 3}


async def test_a_locked_database_is_a_fault_and_not_the_end(tmp_path: Path) -> None:
    """Another process that holds the database costs the waiting calls, within a second or so, and nothing after."""
    store = SqliteRecordStore.open(tmp_path / "record.db")
    rival = sqlite3.connect(store.path, isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    with anyio.fail_after(5):
        with pytest.raises(RecordFault, match="another process"):
            await store.append(record())
        rival.execute("ROLLBACK")
        rival.close()
        assert store.healthy()
        assert await store.append(record()) == 1
    await store.aclose()


async def test_a_locked_database_does_not_stop_the_event_loop(tmp_path: Path) -> None:
    """While one record waits for a rival to let go, everything else goes on."""
    store = SqliteRecordStore.open(tmp_path / "record.db")
    rival = sqlite3.connect(store.path, isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.append, record())
            for _ in range(20):
                await anyio.sleep(0.001)
            rival.execute("ROLLBACK")
            rival.close()
    assert await store.append(record("i2")) == 2
    await store.aclose()


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE events SET skill = 'x' WHERE seq = 3",
        "DELETE FROM events WHERE seq = 5",
        "DELETE FROM payloads WHERE seq = 4",
        "UPDATE head SET seq = 4",
    ],
)
async def test_nothing_is_chained_to_a_broken_end(tmp_path: Path, edit: str) -> None:
    """A record whose last rows are not as they were written is not continued."""
    path = tmp_path / "record.db"
    store = SqliteRecordStore.open(path)
    for number in range(5):
        await store.append(record(f"i{number}"))
    await store.aclose()
    with sqlite3.connect(path) as db:
        db.execute(edit)
    db.close()
    with pytest.raises(ConfigurationError, match="its chain is broken, row"):
        SqliteRecordStore.open(path)


async def test_rows_wait_together_and_share_a_commit(tmp_path: Path) -> None:
    """Sixty-four that wait at once are one transaction, not sixty-four."""
    store = SqliteRecordStore.open(tmp_path / "record.db", boottime=iter(range(1_000_000)).__next__)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for number in range(64):
                tasks.start_soon(store.append, record(f"i{number}"))
    await store.aclose()
    with RecordReader(store.path) as reader:
        assert len({link.row.boottime for link in reader.links()}) <= 3


def test_a_record_is_for_its_owner_only(tmp_path: Path) -> None:
    """Folder 0700, files 0600."""
    path = tmp_path / "home" / "record.db"
    store = SqliteRecordStore.open(path)
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    anyio.run(store.aclose)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}


def test_a_record_of_a_newer_interposer_is_not_touched(tmp_path: Path) -> None:
    """An unknown version is refused, saying what to do."""
    path = tmp_path / "record.db"
    anyio.run(SqliteRecordStore.open(path).aclose)
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    with pytest.raises(ConfigurationError, match="use the newer interposer"):
        SqliteRecordStore.open(path)


def test_an_older_record_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version has one step to the next, and they are taken in order."""
    path = tmp_path / "record.db"
    anyio.run(SqliteRecordStore.open(path).aclose)
    today = schema.VERSION
    monkeypatch.setattr(schema, "VERSION", today + 1)
    monkeypatch.setitem(schema.MIGRATIONS, today, lambda database: database["notes"].create({"id": int}))
    anyio.run(SqliteRecordStore.open(path).aclose)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (today + 1,)
    assert db.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    db.close()


@pytest.mark.parametrize("content", [b"not a database, only some text\n" * 50, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    """A configuration error that names the file, and nothing is held afterwards."""
    path = tmp_path / "record.db"
    path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            SqliteRecordStore.open(path)


async def test_an_error_of_ours_on_the_loops_own_thread_is_a_fault(tmp_path: Path) -> None:
    """A record that is committed without the writer's thread is answered too, whatever happens."""
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, about: heard.append(about["exception"]))
    store = SqliteRecordStore.open(tmp_path / "record.db", boottime=iter(()).__next__)
    with anyio.fail_after(5):
        for _ in range(2):
            with pytest.raises(RecordFault, match="writer has failed"):
                await store.append(record())
    assert [type(each) for each in heard] == [StopIteration, StopIteration]
    await store.aclose()


async def test_a_writer_that_dies_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of our own ends in a fault for everybody, never in silence."""
    seen: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    broken = iter([1.0])
    store = SqliteRecordStore.open(tmp_path / "record.db", boottime=lambda: next(broken))
    faults: list[RecordFault] = []

    async def append(number: int) -> None:
        try:
            await store.append(record(f"i{number}"))
        except RecordFault as fault:
            faults.append(fault)

    with anyio.fail_after(5):
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                for number in range(3):
                    tasks.start_soon(append, number)
    assert len(faults) == 3
    assert not store.healthy()
    with pytest.raises(RecordFault):
        await store.append(record("later"))
    await store.aclose()
    assert len(seen) == 1
    again = SqliteRecordStore.open(store.path)
    await again.aclose()
