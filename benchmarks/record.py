"""Records a second, durable, with 1, 16 and 64 calls waiting: `python benchmarks/record.py [--seconds S]`.

Each of the waiting calls writes an intent, then its outcome, then begins again: two records a call, as the broker does.
Prints one JSON line per table row; `fdatasync_us` is the floor of this disk, measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from interposer.model import Kind, Principal, Record
from interposer.records.sqlite import SqliteRecordStore

PRINCIPAL = Principal("local", "alice", ("support",), 1000)
PAYLOAD = json.dumps({"arguments": {"customer": "c-1042", "note": "x" * 120}}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--waiting", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    parser.add_argument("--directory", type=Path, default=None, help="where the record is written; default: temporary")
    options = parser.parse_args()
    for waiting in options.waiting:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            floor = fdatasync_us(Path(directory) / "floor")
            loop = uvloop.new_event_loop if options.loop == "uvloop" else asyncio.new_event_loop
            with asyncio.Runner(loop_factory=loop) as runner:
                row = runner.run(measure(Path(directory) / "record.db", waiting, options.seconds))
        sys.stdout.write(json.dumps({"waiting": waiting, **row, "fdatasync_us": floor}) + "\n")
        sys.stdout.flush()


async def measure(path: Path, waiting: int, seconds: float) -> dict[str, float]:
    store = SqliteRecordStore.open(path)
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        call = 0
        while time.perf_counter() < end:
            call += 1
            for kind in (Kind.INTENDED, Kind.ANSWERED):
                started = time.perf_counter()
                await store.append(record(kind, f"{number}-{call}"))
                latencies.append(time.perf_counter() - started)

    started, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for number in range(waiting):
            group.create_task(caller(number))
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    await store.aclose()
    centiles = statistics.quantiles(latencies, n=100)
    return {
        "records_per_s": round(len(latencies) / elapsed),
        "cpu_us": round(cpu / len(latencies) * 1e6, 1),
        "p50_us": round(centiles[49] * 1e6),
        "p99_us": round(centiles[98] * 1e6),
    }


def record(kind: Kind, invocation: str) -> Record:
    return Record(
        kind=kind,
        session="0198c9d2-session",
        at=time.time(),
        invocation=invocation,
        skill="crm.get_customer",
        principal=PRINCIPAL,
        effect="allow",
        rules=("support-reads",),
        policy="5" * 64,
        skill_digest="7" * 64,
        payload=PAYLOAD,
    )


def fdatasync_us(path: Path) -> int:
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(8192))
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    return round(statistics.median(taken) * 1e6)


if __name__ == "__main__":
    main()
