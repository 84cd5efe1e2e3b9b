"""What a thief would go for: the processes of a broker and the places it trusts or keeps things in.

The broker says so itself, over its administration socket (`boundary/targets`). Who may not ask looks for what anybody
can see: who listens on the socket, and which processes are below it.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from interposer.model import JsonObject

KEPT = ("write", "replace")
SECRET = ("read", "write", "replace")
BROKER, SUPERVISOR, UPSTREAM = "broker", "supervisor", "upstream"


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder, and what a thief may not do there."""

    target: str
    """What it is, for people."""
    path: str
    do: tuple[str, ...]
    deep: bool = False
    """A folder with everything below it."""

    def shown(self) -> JsonObject:
        return {"target": self.target, "path": self.path, "do": list(self.do), "deep": self.deep}


def kept(
    *,
    config: Path | None,
    policy: Path | None,
    revoked: Path | None,
    folder: Path,
    credentials: Iterable[tuple[str, str]],
    sockets: Iterable[str],
    commands: Iterable[tuple[str, Sequence[str], str]],
) -> list[Place]:
    """The places of one broker. `credentials` are (name, path); `commands` are (upstream, words, working directory)."""
    named = [("configuration", config), ("policy", policy), ("revoked list", revoked)]
    record = [
        Place(f"record {name}", str(folder / name), SECRET) for name in ("record.db", "record.db-wal", "record.db-shm")
    ]
    return [
        *(Place(f"{what} {path}", str(path), KEPT) for what, path in named if path is not None),
        Place(f"state folder {folder}", str(folder), KEPT),
        *record,
        *(Place(f"credential of {name}", path, SECRET) for name, path in credentials),
        *(Place(f"place of the socket {path}", path, ("replace",)) for path in sockets),
        *(Place(f"program of {name}", path, KEPT) for name, path in _programs(commands)),
        *_code(),
    ]


def _programs(commands: Iterable[tuple[str, Sequence[str], str]]) -> Iterator[tuple[str, str]]:
    """What an upstream runs: the program, and every word that names a file."""
    for name, words, cwd in commands:
        found = [shutil.which(words[0]), *(os.path.join(cwd, word) for word in words[1:])]
        yield from ((name, path) for path in dict.fromkeys(filter(None, found)) if os.path.isfile(path))


def _code() -> Iterator[Place]:
    """Whoever writes these runs as the broker after its next start."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    yield Place("the broker's code", package, KEPT, deep=True)
    for path in dict.fromkeys((sys.executable, os.path.realpath(sys.executable))):
        yield Place(f"interpreter {path}", path, KEPT)
    for path in dict.fromkeys(os.path.abspath(entry) for entry in sys.path if entry):
        if os.path.exists(path):
            yield Place(f"library {path}", path, KEPT)


def processes(broker: int, supervisor: int | None = None) -> list[JsonObject]:
    """The broker, who watches over it, and everything below it."""
    above = [(SUPERVISOR, supervisor)] if supervisor else []
    below = [(f"{UPSTREAM} {pid} ({name})", pid) for pid, name in descendants(broker) if pid != supervisor]
    ours: list[JsonObject] = [
        {"target": f"{role} {pid}", "pid": pid, "stdin": False} for role, pid in [(BROKER, broker), *above]
    ]
    return ours + [{"target": target, "pid": pid, "stdin": True} for target, pid in below]


def descendants(pid: int) -> list[tuple[int, str]]:
    """(pid, name) of every process below; anybody may see who is whose child (proc(5): stat)."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            parent, name = _stat(int(entry))
            children.setdefault(parent, []).append((int(entry), name))
    found: list[tuple[int, str]] = []
    open_ = [pid]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += [child for child, _ in below if child != os.getpid()]
    return [(child, name) for child, name in found if child != os.getpid()]


def parent(pid: int) -> int:
    """0 where there is none to see."""
    return max(0, _stat(pid)[0])


def uid_of(pid: int) -> int:
    """Raises `OSError` when the process has gone."""
    with open(f"/proc/{pid}/status", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"Uid:"))


def watcher(broker: int) -> int | None:
    """The process that forked the broker and waits for it (launch.py): same user, same command line."""
    above = parent(broker)
    try:
        ours = above > 0 and uid_of(above) == uid_of(broker) and _command_line(above) == _command_line(broker)
    except OSError:
        return None
    return above if ours else None


def _command_line(pid: int) -> bytes:
    """Anybody may read it, of a process that is not dumpable too."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()


def listener(path: str) -> tuple[int, int]:
    """(pid, uid) of who listens on a Unix socket, told by the kernel (SO_PEERCRED). Raises `OSError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        probe.connect(path)
        pid, uid, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid & 0xFFFFFFFF


def _stat(pid: int) -> tuple[int, str]:
    """(parent, name); (-1, "") for a process that has gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # proc(5): the name stands in parentheses and may hold any character.
            head, _, tail = file.read().rpartition(b")")
        return int(tail.split()[1]), head.partition(b"(")[2].decode("utf-8", "replace")
    except (OSError, IndexError, ValueError):
        return -1, ""
