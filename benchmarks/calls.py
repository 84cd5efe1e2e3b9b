"""One call through the wall, in figures: the same calls made directly and through the broker, in one run.

    python benchmarks/calls.py                    everything, under four minutes
    python benchmarks/calls.py --quick            everything, roughly, in 20 seconds
    python benchmarks/calls.py --only small socket startup

Every round visits the direct way and the brokers one after the other, in a changing order; a ratio is formed within a
round, and the medians over the rounds are printed. What is measured and how to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import processes, report, targets
from benchmarks.load import Broken, Load
from benchmarks.report import Foot, Overlap, Results, Sample, Startup
from benchmarks.targets import Room, Target

CELLS = [
    (size, in_flight)
    for size in ("small", "medium", "large")
    for in_flight in (1, 16, 64)
    if (size, in_flight) != ("large", 64)
]
PARTS = ("calls", "startup", "memory", "overlap")
WORDS = (*PARTS, "small", "medium", "large", "1", "16", "64", "stdio", "socket")
DELAY_MS = 100
AT_ONCE = 16
_WARM_SHARE = 0.15
_FLUSHES = 20
_RT_PRIORITY = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and for how long."""

    seconds: float
    rounds: int
    parts: tuple[str, ...]
    names: tuple[str, ...]
    cells: tuple[tuple[str, int], ...]


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.rt:
        _go_realtime()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as folder:
        room = Room.furnished(Path(folder))
        try:
            results = run(_plan(options), room, realtime=options.rt)
        except (Broken, ProcessLookupError, TimeoutError, OSError) as error:
            sys.exit(f"calls.py: {error}\n{room.complaints()}")
        wrong = any(sample.wrong for sample in results.samples)
        if wrong:
            print(f"calls.py: wrong answers; standard error of the processes:\n{room.complaints()}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(asdict(results), indent=1) + "\n")
    print(report.text(results))
    sys.exit(1 if wrong else 0)


def run(plan: Plan, room: Room, *, realtime: bool) -> Results:
    """Everything that the plan names. Raises `Broken`, `TimeoutError`, `ProcessLookupError`, `OSError`."""
    began = time.monotonic()
    flushes: list[float] = []
    results = Results(machine=_machine(plan, realtime=realtime))
    if "memory" in plan.parts:
        _say("memory")
        results.memory = measure_memory(room, plan.seconds)
    if "startup" in plan.parts:
        _say("start-up")
        results.startup = measure_startup(room, plan.rounds)
    if {"calls", "overlap"} & set(plan.parts):
        with ExitStack() as standing:
            ways = [standing.enter_context(targets.opened(name, room)) for name in plan.names]
            if "overlap" in plan.parts:
                _say("overlap")
                results.overlap = [each for _ in range(plan.rounds) for each in measure_overlap(ways)]
            if "calls" in plan.parts:
                results.machine |= _watched(ways, plan, room, flushes, results.samples)
    results.machine["fdatasync_us"] = report.median(flushes or flush_us(room))
    results.machine["elapsed_s"] = round(time.monotonic() - began, 1)
    return results


def _watched(
    ways: Sequence[Target], plan: Plan, room: Room, flushes: list[float], samples: list[Sample]
) -> dict[str, float]:
    """Measures all rounds into `samples` and `flushes`. Returns the shares of the processors that other processes used
    and that the machine below us took away."""
    pids = [os.getpid(), *(pid for way in ways for pid in way.pids)]
    began, (busy, stolen), ours = time.monotonic(), processes.busy_s(), processes.cpu_s(pids)
    for number in range(plan.rounds):
        _say(f"round {number + 1} of {plan.rounds}")
        flushes += flush_us(room)
        for place, (size, in_flight) in enumerate(plan.cells):
            samples += measure_cell(_turned(ways, number + place), size, in_flight, plan.seconds, number)
    busy, stolen = (now - then for now, then in zip(processes.busy_s(), (busy, stolen), strict=True))
    ours = processes.cpu_s(pids) - ours
    whole = (time.monotonic() - began) * (os.cpu_count() or 1)
    return {"foreign_share": round(max(0.0, busy - ours) / whole, 3), "stolen_share": round(stolen / whole, 3)}


def measure_cell(ways: Sequence[Target], size: str, in_flight: int, seconds: float, number: int) -> Iterator[Sample]:
    """One window of load for each way, and how it compares with the direct one of the same round."""
    measured = {way.name: _window(way, size, in_flight, seconds) for way in ways}
    direct = measured["direct"][0]
    for name, (load, cpu_us, peak_mb) in measured.items():
        yield Sample(
            size=size,
            in_flight=in_flight,
            way=name,
            round=number,
            calls=len(load.latencies_s),
            wrong=load.wrong,
            wrong_sample=load.sample,
            calls_per_s=load.calls_per_s,
            p50_us=load.centile_us(50),
            p99_us=load.centile_us(99),
            ratio=load.calls_per_s / direct.calls_per_s,
            added_p50_us=load.centile_us(50) - direct.centile_us(50),
            cpu_us=cpu_us,
            peak_mb=peak_mb,
        )


def _window(way: Target, size: str, in_flight: int, seconds: float) -> tuple[Load, float, float]:
    """The load, the broker's CPU time per call in µs, and the most memory in MB that it held."""
    asked = targets.arguments(size)
    with processes.within(seconds * 2 + targets.PATIENCE_S, way.process, f"{way.name}, {size}, {in_flight} in flight"):
        length = way.client.length_of(asked)
        way.client.load(asked, length=length, in_flight=in_flight, seconds=seconds * _WARM_SHARE)
        processes.forget_peak(way.broker)
        before = processes.cpu_s(way.broker)
        load = way.client.load(asked, length=length, in_flight=in_flight, seconds=seconds)
        used = processes.cpu_s(way.broker) - before
    return load, used / len(load.latencies_s) * 1e6, processes.peak_mb(way.broker)


def measure_overlap(ways: Sequence[Target]) -> Iterator[Overlap]:
    """How long 16 calls take that are made at once and last 100 ms each."""
    asked = targets.arguments("small", DELAY_MS)
    for way in ways:
        with processes.within(targets.PATIENCE_S, way.process, f"{way.name}, overlap"):
            length = way.client.length_of(asked)
            load = way.client.load(asked, length=length, in_flight=AT_ONCE, seconds=targets.PATIENCE_S, calls=AT_ONCE)
        if load.wrong:
            raise Broken(f"{way.name}: overlapping calls went wrong: {load.sample}")
        yield Overlap(way=way.name, calls=AT_ONCE, delay_ms=DELAY_MS, elapsed_ms=load.elapsed_s * 1000)


def measure_startup(room: Room, repeats: int) -> list[Startup]:
    """From spawn to the answer of the first call, for the upstream alone, the broker on stdio, and the shim; and for a
    socket without a shim. The state that the broker opens exists already: an agent's first start is not its usual one.
    """
    found: list[Startup] = []
    home = room.home("starting")
    with targets.daemon(room, room.home("shimmed")) as (process, path):
        shim = [*targets.interposer(), "connect", str(path)]
        for repeat in range(-1, repeats):
            times = {
                "direct": targets.first_answer_s(targets.UPSTREAM, room, home),
                "stdio": targets.first_answer_s(room.stdio_command(), room, home),
            }
            with processes.within(targets.PATIENCE_S, process, "a first call by the socket"):
                times["socket"] = _first_answer_at(path)
                times["shim"] = targets.first_answer_s(shim, room, home)
            if repeat >= 0:
                found += [Startup(way=way, round=repeat, elapsed_ms=taken * 1000) for way, taken in times.items()]
    return found


def _first_answer_at(path: Path) -> float:
    began = time.perf_counter()
    with targets.connected(path) as client:
        client.greet()
        client.call(targets.arguments("small"))
        return time.perf_counter() - began


def measure_memory(room: Room, seconds: float) -> list[Foot]:
    """What a fresh daemon and its leash hold: after the first calls, and at most under each load, one after another."""
    found: list[Foot] = []
    with targets.daemon(room, room.home("weighed")) as (process, path), targets.connected(path) as client:
        with processes.within(targets.PATIENCE_S, process, "memory, idle"):
            client.greet()
            client.call(targets.arguments("small"))
        broker = [pid for pid in processes.below(process.pid) if processes.command_of(pid) != targets.UPSTREAM]
        found.append(Foot(load="idle", megabytes=processes.resident_mb(broker)))
        for size, in_flight in (("small", 64), ("medium", 64), ("large", 16)):
            asked = targets.arguments(size)
            with processes.within(seconds * 2 + targets.PATIENCE_S, process, f"memory, {size}, {in_flight} in flight"):
                length = client.length_of(asked)
                client.load(asked, length=length, in_flight=in_flight, seconds=seconds)
            found.append(Foot(load=f"{size}, {in_flight} in flight", megabytes=processes.peak_mb(broker)))
    return found


def flush_us(room: Room) -> list[float]:
    """What `fdatasync` of a page costs where the record lies."""
    taken = []
    with open(room.folder / "flushed", "ab", buffering=0) as file:
        for _ in range(_FLUSHES):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e6)
    return taken


def _turned(ways: Sequence[Target], by: int) -> list[Target]:
    by %= len(ways)
    return [*ways[by:], *ways[:by]]


def _machine(plan: Plan, *, realtime: bool) -> dict[str, str | float | bool]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": os.cpu_count() or 1,
        "realtime": realtime,
        "seconds": plan.seconds,
        "rounds": plan.rounds,
    }


def _plan(options: argparse.Namespace) -> Plan:
    """`--only` words narrow: sizes, numbers in flight and ways narrow the table of calls, and what is not named of the
    parts is left out."""
    only = set(options.only)
    parts = tuple(part for part in PARTS if part in only)
    cells = tuple(
        (size, in_flight)
        for size, in_flight in CELLS
        if (size in only or not only & {"small", "medium", "large"})
        and (str(in_flight) in only or not only & {"1", "16", "64"})
    )
    ways = tuple(name for name in ("stdio", "socket") if name in only or not only & {"stdio", "socket"})
    if only - set(PARTS) and "calls" not in parts and "overlap" not in parts:
        parts = ("calls", *parts)
    return Plan(
        seconds=options.seconds or (0.2 if options.quick else 0.7),
        rounds=options.rounds or (2 if options.quick else 7),
        parts=parts or PARTS,
        names=("direct", *ways),
        cells=cells,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short windows, two rounds: about 20 s")
    parser.add_argument("--only", nargs="+", choices=WORDS, default=[], metavar="WORD", help=", ".join(WORDS))
    parser.add_argument("--seconds", type=float, help="length of one window of load")
    parser.add_argument("--rounds", type=int, help="how often everything is visited")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every sample there")
    parser.add_argument("--directory", type=Path, help="where the record is written; default: the temporary directory")
    parser.add_argument("--rt", action="store_true", help="run at SCHED_RR (root), so that other work disturbs less")
    options = parser.parse_args()
    if options.seconds is not None and not 0 < options.seconds <= 10:
        parser.error("--seconds is more than 0 and at most 10")
    if options.rounds is not None and not 1 <= options.rounds <= 100:
        parser.error("--rounds is from 1 to 100")
    return options


def _go_realtime() -> None:
    """Processes started from now on inherit it."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_RT_PRIORITY))
    except PermissionError:
        print("calls.py: --rt needs root (CAP_SYS_NICE); run it with sudo, or without --rt", file=sys.stderr)
        sys.exit(2)


def _say(step: str) -> None:
    print(f"calls.py: {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
