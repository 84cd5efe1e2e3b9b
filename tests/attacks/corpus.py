"""Where the attack corpora are, how their rows become bytes, and the broker process that the attacks share."""

from __future__ import annotations

import base64
import gzip
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.agent import COMMAND, UPSTREAM, configured, environment

ROOT = Path(__file__).parents[2]
CORPORA = ROOT.parent / "shared" / "corpora"
MISSING = f"needs the attack corpora ({{}}) in {CORPORA.relative_to(ROOT.parent)} beside the checkout"

Row = dict[str, Any]


def frames(direction: str) -> list[Any]:
    """The stdio rows of one direction as pytest parameters; one that is skipped where there is no corpus."""
    path = CORPORA / "hostile_frames.jsonl.gz"
    if not path.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason=MISSING.format(path.name)))]
    with gzip.open(path) as file:
        rows = [json.loads(line) for line in file]
    return [
        pytest.param(row, id=f"{row['id']}-{row['name']}")
        for row in rows
        if row["transport"] == "stdio" and row["direction"] == direction
    ]


def structural(*tiers: str) -> list[Row]:
    """The messages with something hidden in them; empty where there is no corpus."""
    path = CORPORA / "structural_masking.py"
    if not path.is_file():
        return []
    printed = subprocess.run([sys.executable, str(path)], capture_output=True, check=True, timeout=30).stdout
    return [row for row in map(json.loads, printed.splitlines()) if row["tier"] in tiers]


def parts(row: Row) -> tuple[bytes, bytes, int, bytes]:
    """A row's bytes as prefix, unit, count, suffix."""
    if "raw_b64" in row:
        return base64.b64decode(row["raw_b64"]), b"", 0, b""
    generated = row["gen"]
    prefix, unit, suffix = (base64.b64decode(generated[key]) for key in ("prefix", "unit", "suffix"))
    return prefix, unit, generated["count"], suffix


class Daemon:
    """A running `interposer serve`."""

    def __init__(self, home: Path, process: subprocess.Popen[bytes]) -> None:
        self.home = home
        self.process = process
        self.socket = home / "state" / "broker.sock"
        self.truth = home / "truth"

    def arrived(self) -> list[Row]:
        """What the upstream received until now."""
        return [json.loads(line) for line in self.truth.read_bytes().splitlines()] if self.truth.is_file() else []

    def peak_bytes(self) -> int:
        """The most memory that the broker ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@contextmanager
def daemon(home: Path, *options: str, upstream: Sequence[str] = UPSTREAM, **config: str) -> Iterator[Daemon]:
    """`interposer serve` in front of the fake upstream, started, and stopped in order; it must end by itself."""
    file = configured(home, [*upstream, "--truth", str(home / "truth"), "--witness", *options], **config)
    with (home / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(file)], stdout=subprocess.PIPE, stderr=stderr, env=environment(home)
        )
    guard = threading.Timer(30, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        assert b"ready\n" in iter(process.stdout.readline, b""), (home / "stderr").read_text()
        guard.cancel()
        yield Daemon(home, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        guard.cancel()
        if process.poll() is None:
            process.kill()
            process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
