"""What a run of `calls.py` found, and how it is told: the samples, their medians, and the tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

WAYS = {
    "direct": "direct",
    "stdio": "broker, stdio",
    "socket": "broker, socket",
}
STARTS = {
    "direct": "upstream alone",
    "stdio": "`interposer stdio -- upstream`",
    "socket": "a connection to the daemon",
    "shim": "`interposer connect` to the daemon",
}
_MEMORY_NOT_DISK_US = 30
_NOISY = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """One window of load."""

    size: str
    in_flight: int
    way: str
    round: int
    calls: int
    wrong: int
    wrong_sample: str
    calls_per_s: float
    p50_us: float
    p99_us: float
    ratio: float
    """Calls a second over those of the direct way in the same round."""
    added_p50_us: float
    """p50 less that of the direct way in the same round."""
    cpu_us: float
    """CPU time of the broker and its leash per call; 0 for the direct way."""
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Startup:
    way: str
    round: int
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class Overlap:
    way: str
    calls: int
    delay_ms: int
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class Foot:
    """What the broker and its leash held in memory."""

    load: str
    megabytes: float


@dataclass(slots=True)
class Results:
    """Everything that was measured; what the plan left out is empty."""

    machine: dict[str, str | float | bool]
    samples: list[Sample] = field(default_factory=list)
    startup: list[Startup] = field(default_factory=list)
    memory: list[Foot] = field(default_factory=list)
    overlap: list[Overlap] = field(default_factory=list)


def median(numbers: Iterable[float]) -> float:
    return statistics.median(numbers)


def text(results: Results) -> str:
    """Markdown that also reads well in a terminal."""
    parts = [_about(results)]
    if results.samples:
        parts += [_table(_call_rows(results.samples)), _flush_line(results)]
    if results.startup:
        parts.append(_table(_startup_rows(results.startup)))
    if results.overlap:
        parts.append(_table(_overlap_rows(results.overlap)))
    if results.memory:
        parts.append(_table(_memory_rows(results.memory)))
    return "\n\n".join([*(part for part in parts if part), *_warnings(results)])


def _about(results: Results) -> str:
    machine = results.machine
    return (
        f"Python {machine['python']}, Linux {machine['kernel']}, {machine['processors']} processors"
        f"{', SCHED_RR' if machine['realtime'] else ''}; medians of {machine['rounds']} rounds, windows of "
        f"{machine['seconds']:g} s; fdatasync {machine['fdatasync_us']:.0f} µs; took {machine['elapsed_s']:.0f} s"
    )


def _call_rows(samples: Sequence[Sample]) -> Iterator[list[str]]:
    yield ["result", "in flight", "way", "calls/s", "× direct", "p50 µs", "p99 µs", "CPU µs/call", "peak MB"]
    for (size, in_flight, way), found in _grouped(samples).items():
        direct = way == "direct"
        yield [
            size,
            str(in_flight),
            WAYS[way],
            f"{median(each.calls_per_s for each in found):,.0f}",
            "" if direct else f"{median(each.ratio for each in found):.3f}",
            f"{median(each.p50_us for each in found):,.0f}",
            f"{median(each.p99_us for each in found):,.0f}",
            "" if direct else f"{median(each.cpu_us for each in found):,.0f}",
            "" if direct else f"{max(each.peak_mb for each in found):.0f}",
        ]


def _grouped(samples: Sequence[Sample]) -> dict[tuple[str, int, str], list[Sample]]:
    """By cell in the order of the run, and within a cell in the order of `WAYS`."""
    cells = dict.fromkeys((sample.size, sample.in_flight) for sample in samples)
    groups = {(*cell, way): list[Sample]() for cell in cells for way in WAYS}
    for sample in samples:
        groups[sample.size, sample.in_flight, sample.way].append(sample)
    return {key: found for key, found in groups.items() if found}


def _flush_line(results: Results) -> str:
    """What a single call costs beyond the two flushes that its record takes."""
    flushes = 2 * float(results.machine["fdatasync_us"])
    told = []
    for (size, in_flight, way), found in _grouped(results.samples).items():
        if (size, in_flight) == ("small", 1) and way != "direct":
            added = median(each.added_p50_us for each in found)
            told.append(f"{WAYS[way]} {added:.0f} µs, of which two fdatasync {flushes:.0f} µs")
    return f"Added to p50, small, 1 in flight: {'; '.join(told)}." if told else ""


def _startup_rows(found: Sequence[Startup]) -> Iterator[list[str]]:
    yield ["spawn to first answered call", "ms", "over the way without it, ms"]
    times = {way: {each.round: each.elapsed_ms for each in found if each.way == way} for way in STARTS}
    without = {"stdio": "direct", "shim": "socket"}
    for way, taken in times.items():
        base = without.get(way)
        over = f"{median(taken[number] - times[base][number] for number in taken):.0f}" if base else ""
        yield [STARTS[way], f"{median(taken.values()):.1f}", over]


def _overlap_rows(found: Sequence[Overlap]) -> Iterator[list[str]]:
    yield [f"{found[0].calls} calls of {found[0].delay_ms} ms at once", "ms"]
    for way in dict.fromkeys(each.way for each in found):
        yield [WAYS[way], f"{median(each.elapsed_ms for each in found if each.way == way):.1f}"]


def _memory_rows(found: Sequence[Foot]) -> Iterator[list[str]]:
    yield ["broker and leash, resident", "MB"]
    for foot in found:
        yield [foot.load, f"{foot.megabytes:.0f}"]


def _table(rows: Iterable[list[str]]) -> str:
    """The first row is the heading; columns of figures are aligned to the right."""
    head, *body = rows
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    right = [
        all(not cell or cell[0].isdigit() or cell[0] == "-" for cell in column) for column in zip(*body, strict=True)
    ]
    rule = [f"{'-' * (width - 1)}{':' if side else '-'}" for width, side in zip(widths, right, strict=True)]
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if side else cell.ljust(width)
            for cell, width, side in zip(row, widths, right, strict=True)
        )
        + " |"
        for row in (head, rule, *body)
    )


def _warnings(results: Results) -> Iterator[str]:
    wrong = [sample for sample in results.samples if sample.wrong]
    if wrong:
        count = sum(sample.wrong for sample in wrong)
        first = wrong[0]
        yield f"WRONG ANSWERS: {count}; the first of them ({first.way}, {first.size}): {first.wrong_sample}"
    if float(results.machine["fdatasync_us"]) < _MEMORY_NOT_DISK_US:
        yield "CAUTION: the record lay in memory and not on a disk; name one by --directory."
    foreign, stolen = (float(results.machine.get(share, 0)) for share in ("foreign_share", "stolen_share"))
    if foreign + stolen > _NOISY:
        yield (
            f"CAUTION: other processes took {foreign:.0%} of the processors meanwhile, and the machine below "
            f"{stolen:.0%}: measure again when it is quiet."
        )
