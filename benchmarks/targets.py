"""The three ways to the upstream that are compared: directly, through a broker on stdio, through a daemon's socket.

Both brokers do everything for every call: the caller's identity, a rule with `who` and `arguments`, the skill's schema,
an intent and an outcome that are on disk, and masking.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.load import Broken, Client
from benchmarks.upstream import ITEMS, text_of

UPSTREAM = [sys.executable, "-I", "-S", str(Path(__file__).with_name("upstream.py"))]
NAMES = ("direct", "stdio", "socket")
PATIENCE_S = 30.0
_SCRIPT = Path(sys.executable).with_name("interposer")
_POLICY = """\
version: 1
rules:
  - id: nobody-orders-for-the-house
    effect: deny
    skills: ["*.echo"]
    arguments: {{required: [order], properties: {{order: {{properties: {{customer: {{const: c-0}}}}}}}}}}
  - id: small-orders
    effect: allow
    skills: ["*.echo"]
    who: {{uids: [{uid}]}}
    arguments:
      required: [size, order]
      properties:
        size: {{enum: [small, medium, large]}}
        order: {{required: [customer], properties: {{customer: {{type: string, maxLength: 12}}}}}}
obligations:
  - {{skills: ["*"], mask: [pii, secrets], max_result: 4MiB}}
"""
_CONFIG = """\
version: 1
policy: policy.yaml
upstreams:
  bench: {{command: {command}}}
"""


@dataclass(frozen=True, slots=True)
class Room:
    """A directory with what the brokers are started with; their state lies below it."""

    folder: Path

    @classmethod
    def furnished(cls, folder: Path) -> Room:
        (folder / "policy.yaml").write_text(_POLICY.format(uid=os.getuid()))
        words = ", ".join(f"'{word}'" for word in UPSTREAM)
        (folder / "interposer.yaml").write_text(_CONFIG.format(command=f"[{words}]"))
        return cls(folder)

    def home(self, name: str) -> Path:
        """The state of one broker. The socket's path must fit into 107 bytes."""
        return self.folder / name

    def stdio_command(self) -> list[str]:
        return [*interposer(), "stdio", "--policy", str(self.folder / "policy.yaml"), "--", *UPSTREAM]

    def daemon_command(self) -> list[str]:
        return [*interposer(), "serve", "--config", str(self.folder / "interposer.yaml")]

    def complaints(self) -> str:
        """The end of what the processes wrote to their standard error."""
        place = self.folder / "stderr"
        return place.read_text(errors="replace")[-2000:] if place.exists() else ""


@dataclass(frozen=True, slots=True)
class Target:
    """One way to the upstream, ready for calls."""

    name: str
    client: Client
    process: subprocess.Popen[bytes]
    broker: tuple[int, ...]
    """The broker and its leash: what CPU and memory are read of. None for the direct way."""
    upstream: tuple[int, ...]

    @property
    def pids(self) -> tuple[int, ...]:
        return self.broker + self.upstream


def interposer() -> list[str]:
    """The command as it was installed beside this interpreter."""
    return [str(_SCRIPT)] if _SCRIPT.exists() else [sys.executable, "-m", "interposer"]


def arguments(size: str, delay_ms: int = 0) -> dict[str, Any]:
    """What every call asks: about 200 bytes, nested as arguments are."""
    lines = [{"article": "filter-20", "count": 2}, {"article": "seal", "count": 12}]
    order = {"customer": "c-1042", "note": "leave it with the neighbours if nobody opens", "lines": lines}
    return {"size": size, "delay_ms": delay_ms, "order": order}


@contextmanager
def opened(name: str, room: Room) -> Iterator[Target]:
    """The way of that name, greeted and checked. Raises `Broken`, `TimeoutError`."""
    if name == "socket":
        with daemon(room, room.home("socket")) as (process, path), connected(path) as client:
            yield _checked(name, client, process)
        return
    command = UPSTREAM if name == "direct" else room.stdio_command()
    with processes.started(command, folder=room.folder, home=room.home(name)) as process:
        yield _checked(name, client_of(process), process)


@contextmanager
def daemon(room: Room, home: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`interposer serve`, ready, and the path of its socket."""
    with processes.started(room.daemon_command(), folder=room.folder, home=home, daemon=True) as process:
        if process.stdout is None:
            raise Broken("no pipe from the daemon")
        with processes.within(PATIENCE_S, process, "the daemon's start"):
            for line in process.stdout:
                if line.strip() == b"ready":
                    break
            else:
                raise Broken("the daemon did not get ready")
        yield process, home / "broker.sock"


@contextmanager
def connected(path: Path) -> Iterator[Client]:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        yield Client(peer.fileno(), peer.fileno())


def client_of(process: subprocess.Popen[bytes]) -> Client:
    if process.stdin is None or process.stdout is None:
        raise Broken("no pipes to the process")
    return Client(process.stdout.fileno(), process.stdin.fileno())


def first_answer_s(command: Sequence[str], room: Room, home: Path) -> float:
    """From before the spawn to the answer of the first call."""
    began = time.perf_counter()
    with processes.started(command, folder=room.folder, home=home) as process:
        client = client_of(process)
        with processes.within(PATIENCE_S, process, "a first call"):
            client.greet()
            client.call(arguments("small"))
        return time.perf_counter() - began


def _checked(name: str, client: Client, process: subprocess.Popen[bytes]) -> Target:
    """Calls every size once and looks at the text: as it was, or with every personal item masked. Raises `Broken`."""
    with processes.within(PATIENCE_S, process, f"{name}, checking"):
        client.greet()
        for size, items in ITEMS.items():
            text = client.call(arguments(size))
            whole = text == text_of(size)
            masked = text.count("[REDACTED:") == items
            if not (whole if name == "direct" or not items else masked and not whole):
                raise Broken(f"{name}: the {size} result is not what it should be: {text[:300]}")
    found = processes.below(process.pid)
    upstream = tuple(pid for pid in found if processes.command_of(pid) == UPSTREAM)
    if len(upstream) != 1:
        raise Broken(f"{name}: {len(upstream)} upstream processes instead of one")
    return Target(name, client, process, tuple(pid for pid in found if pid not in upstream), upstream)
