"""`make bench` works and says what it measured. How fast anything is, is for a quiet machine and not for a test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.upstream import BYTES, ITEMS, item_of, text_of

ROOT = Path(__file__).parents[1]
CALLS = ROOT / "benchmarks" / "calls.py"
DEADLINE_S = 90
ENDLESS = ["--only", "small", "16", "--seconds", "0.05", "--rounds", "100"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark reads Linux's /proc")


@pytest.fixture
def room() -> Iterator[Path]:
    """A short path: the sockets have to fit into 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        yield Path(folder)


def living(room: Path) -> list[str]:
    """Command lines of processes that work in the room."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                words = f"{(place / 'cwd').readlink()} {(place / 'cmdline').read_text()}"
            except OSError:
                continue
            if str(room) in words:
                found.append(words)
    return found


def test_a_short_run_measures_everything_and_leaves_nothing(room: Path) -> None:
    """Every cell of every way is there with the same keys, each answer was right, and no process or file is left."""
    results = room / "results.json"
    words = ["--quick", "--seconds", "0.02", "--rounds", "1", "--directory", str(room), "--json", str(results)]
    done = subprocess.run([sys.executable, str(CALLS), *words], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text())
    assert set(found) == {"machine", "samples", "startup", "memory", "overlap"}
    cells = {(sample["size"], sample["in_flight"], sample["way"]) for sample in found["samples"]}
    sizes = [("small", 1), ("small", 16), ("small", 64), ("medium", 1), ("medium", 16), ("medium", 64)]
    sizes += [("large", 1), ("large", 16)]
    assert cells == {(*each, way) for each in sizes for way in ("direct", "stdio", "socket")}
    assert all(sample["calls"] >= sample["in_flight"] and not sample["wrong"] for sample in found["samples"])
    assert all(sample["calls_per_s"] > 0 and sample["p50_us"] <= sample["p99_us"] for sample in found["samples"])
    assert all((sample["cpu_us"] > 0) is (sample["way"] != "direct") for sample in found["samples"])
    assert {each["way"] for each in found["startup"]} == {"direct", "stdio", "socket", "shim"}
    assert {each["way"] for each in found["overlap"]} == {"direct", "stdio", "socket"}
    assert found["memory"][0]["load"] == "idle"
    assert "| broker, socket |" in done.stdout
    assert living(room) == []
    assert list(room.iterdir()) == [results]


def test_an_interrupted_run_clears_up(room: Path) -> None:
    """SIGTERM in the middle ends every process and removes the directory."""
    words = [sys.executable, str(CALLS), *ENDLESS, "--directory", str(room)]
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    assert any(line.startswith("calls.py: round 2") for line in run.stderr)
    assert len(living(room)) > 5
    run.send_signal(signal.SIGTERM)
    run.stderr.close()
    assert run.wait(DEADLINE_S) == 143
    assert living(room) == []
    assert list(room.iterdir()) == []


def test_a_killed_run_leaves_no_process(room: Path) -> None:
    """The brokers end with the benchmark, however it dies."""
    words = [sys.executable, str(CALLS), *ENDLESS, "--directory", str(room)]
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    assert any(line.startswith("calls.py: round 1") for line in run.stderr)
    os.kill(run.pid, signal.SIGKILL)
    run.stderr.close()
    run.wait(DEADLINE_S)
    until = time.monotonic() + DEADLINE_S
    while living(room):
        assert time.monotonic() < until, living(room)
        time.sleep(0.01)


@pytest.mark.parametrize("size", list(BYTES))
def test_results_have_their_size_and_their_items(size: str) -> None:
    """A text is exactly as long as it is said to be and holds each of its personal items once."""
    text = text_of(size)
    assert len(text.encode()) == BYTES[size]
    assert all(text.count(f"; {item_of(number)}; ") == 1 for number in range(ITEMS[size]))
