"""What a thief would go for: the processes of a broker and the places it trusts or keeps things in.

The broker says so itself, over its administration socket (`boundary/targets`). Who may not ask looks for what anybody
can see: who listens on the socket, and which processes are below it.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from interposer import ownership
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
        shown: JsonObject = {"target": self.target, "path": self.path, "do": list(self.do), "deep": self.deep}
        return shown | {"way": _way(self.path)}


def _way(path: str) -> list[str]:
    """What the kernel passes on the way: where links lead may be hidden from a thief who can get there otherwise."""
    found = list[str]()
    with contextlib.suppress(OSError):
        found += [step.path for step in ownership.steps(path)]
    return found


@dataclass(frozen=True, slots=True)
class Command:
    """What a broker runs."""

    name: str
    """What for."""
    words: Sequence[str]
    cwd: str
    path: str = os.defpath
    """PATH, where a program without a slash is looked for."""
    sure: bool = True
    """Whether that is the PATH which the broker uses, and not ours."""


def kept(
    *,
    config: Path | None,
    policy: Path | None,
    revoked: Path | None,
    folder: Path,
    credentials: Iterable[tuple[str, str]],
    sockets: Iterable[str],
    commands: Iterable[Command],
    keys: Iterable[Path] = (),
    tls: tuple[Path, Path] | None = None,
) -> list[Place]:
    """The places of one broker. `credentials` are (name, path); `keys` check the issuers' tokens; `tls` is the
    console's certificate and its key."""
    named = [("configuration", config), ("policy", policy), ("revoked list", revoked)]
    named += [("keys of an issuer", path) for path in keys]
    named += [("certificate of the console", tls[0])] if tls else []
    secret = [("key of the console's certificate", tls[1])] if tls else []
    record = [
        Place(f"record {name}", str(folder / name), SECRET) for name in ("record.db", "record.db-wal", "record.db-shm")
    ]
    return [
        *(Place(f"{what} {path}", str(path), KEPT) for what, path in named if path is not None),
        Place(f"state folder {folder}", str(folder), KEPT),
        *record,
        Place("key of sealed states", str(folder / "seal.key"), SECRET),
        *(Place(what, str(path), SECRET) for what, path in secret),
        *(Place(f"credential of {name}", path, SECRET) for name, path in credentials),
        *(Place(f"place of the socket {path}", path, ("replace",)) for path in sockets),
        *(place for command in commands for place in _run(command)),
        *_code(),
    ]


def _run(command: Command) -> Iterator[Place]:
    """The folder it starts in, the program and the folders that it is looked for in before it is found, and every word
    that names a file."""
    yield Place(f"working directory of {command.name}", command.cwd, KEPT)
    program = command.words[0] if command.words else ""
    found = list[str]()
    if "/" in program:
        found.append(os.path.join(command.cwd, program))
    elif program:
        # As execvp(3): what is relative in PATH is relative to where the program starts.
        for entry in command.path.split(os.pathsep):
            folder = os.path.join(command.cwd, entry)
            if command.sure:
                yield Place(f"PATH of {command.name}", folder, KEPT)
            if there := shutil.which(program, path=folder):
                found.append(there)
                break
    files = [os.path.join(command.cwd, word) for word in command.words[1:]]
    for path in dict.fromkeys([*found, *filter(os.path.isfile, files)]):
        yield Place(f"program of {command.name}", path, KEPT)


def _code() -> Iterator[Place]:
    """Whoever writes these runs as the broker after its next start."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    yield Place("the broker's code", package, KEPT, deep=True)
    for path in dict.fromkeys((sys.executable, os.path.realpath(sys.executable))):
        yield Place(f"interpreter {path}", path, KEPT)
    # Started by `python -m`, doctor's own first entry is the working directory; the broker, isolated, has none.
    entries = sys.path[0 if sys.flags.safe_path else 1 :]
    paths = list(dict.fromkeys(os.path.abspath(entry) for entry in entries if entry))
    for path in paths:
        # What lies in another one is looked through with that, unless below a name that is left out there.
        above = [other for other in paths if path.startswith(f"{other}/") and path[len(other) + 1] != "."]
        deep = os.path.isdir(path) and not above
        yield Place(f"library {path}", path, KEPT, deep=deep)


def members(gid: int) -> list[int]:
    """The users of a group, by their primary group or by its list."""
    found = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid}
    with contextlib.suppress(KeyError):
        for name in grp.getgrgid(gid).gr_mem:
            with contextlib.suppress(KeyError):
                found.add(pwd.getpwnam(name).pw_uid)
    return sorted(found)


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


def elsewhere(pid: int) -> str:
    """Why a process cannot be attacked from here, for it is in another PID namespace; empty when it is in ours."""
    if pid <= 0:
        return "it runs in another PID namespace, where we see no process of its (a container?)"
    if os.readlink("/proc/self") != str(os.getpid()):
        return "the /proc that we see is of another PID namespace than ours"
    with contextlib.suppress(OSError):
        if os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid"):
            return f"its process {pid} is in another PID namespace (a container?)"
    # Who may not read the link may read this: one number for each namespace that it is in (proc(5)).
    if len(_numbers(pid)) > len(_numbers(os.getpid())):
        return f"its process {pid} is in another PID namespace (a container?)"
    return ""


def _numbers(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
        return next((line.split()[1:] for line in file if line.startswith(b"NSpid:")), [])
    return []


def listener(path: str) -> tuple[int, int]:
    """(pid, uid) of who listens on a Unix socket, told by the kernel (SO_PEERCRED). Raises `OSError`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        probe.connect(path)
        return peer(probe)


def peer(line: socket.socket) -> tuple[int, int]:
    """(pid, uid) of who listens at the other end, at the time when it began to; pid 0 for one that we cannot see."""
    pid, uid, _ = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
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
