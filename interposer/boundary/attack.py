"""The thief: tries, with whatever identity it was started, to get at a broker, and tells what held and what did not.

Run as `python -I -S -c` of one text, `process_attacks.py` and then this (`selfattack.thief_text`): a JSON job on stdin,
a JSON list of `{"id", "target", "held", "how"}` on stdout. `held` is null where the attack could not be tried. Standard
library only, nothing else of this project, and old Pythons are fine: the victim's own interpreter may be out of the
thief's reach.

It proves permission and changes nothing: a file is opened for writing and not written, a byte of memory is written back
as it was read (the constant zero at the end of the stack), a limit is set to what it is, and a name that was created in
a directory is removed again. The job:

    {"processes": [{"target", "pid", "stdin": bool}],
     "places": [{"target", "path", "do": ["read" | "write" | "replace"], "deep": bool, "way": [path, …]}],
     "operator": [{"target", "socket", "key": path | null}],
     "self": bool,
     "canary": {"prefix", "length", "sha256"} | null}

`self` asks for what does not depend on a target: whether we can become root, and whether a sandbox is around us.
`way` are the steps that the kernel passes on the way to a path, as somebody saw them who may look everywhere.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import time
from functools import partial
from typing import Any, Callable, Iterator  # noqa: UP035  for old Pythons

from .process_attacks import NO_MEMORY, ON_PROCESSES, PIECE, Process, finding

_ENTRIES = 200_000
_SEARCHED_S = 60.0
"""How much is looked through, and for how long, before the rest counts as not tried."""
_LINKS_FOLLOWED = 40
_ENGINES = (
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
)
"""Whoever may connect to one of these starts programs as root."""
_ANSWER_S = 5.0

Result = Any


def run(job: Any) -> list[Result]:
    canary = job.get("canary")
    return [
        *(found for process in job.get("processes", []) for found in _processed(process, canary)),
        *(found for place in job.get("places", []) for found in _placed(place, canary)),
        *(_tried("operate", one["target"], partial(_operated, one)) for one in job.get("operator", [])),
        *([*_becoming(), *_surroundings()] if job.get("self") else []),
    ]


def _processed(wanted: Any, canary: Any) -> Iterator[Result]:
    process = Process(wanted["pid"], canary)
    attacks = {**ON_PROCESSES, **({"stdin": Process.standard_input} if wanted.get("stdin") else {})}
    for id, attack in attacks.items():
        found = _tried(id, wanted["target"], partial(attack, process))
        if not process.has_memory():
            found.update(held=None, how=NO_MEMORY)
        elif found["held"] is None and process.has_ended():
            found["how"] = "the process has ended"
        elif found["how"] == os.strerror(errno.ENOENT):
            found.update(held=True, how="hidden: /proc does not show it")
        yield found


def _placed(place: Any, canary: Any) -> Iterator[Result]:
    target, path, way = place["target"], place["path"], place.get("way") or []
    attacks: dict[str, Callable[[str], str]] = {
        "read": lambda path: _read(path, canary),
        "write": _write_below if place.get("deep") else _write,
        "replace": lambda path: _replace(path, way),
    }
    for name in place["do"]:
        # A way that is closed to us is not the only one: the file itself may stand elsewhere.
        yield _tried(f"{name}-file", target, partial(_either, attacks[name], [path, *way[-1:]]))


def _either(attack: Callable[[str], str], paths: list[str]) -> str:
    """The first success. Raises what the first attempt raised."""
    first: Exception | None = None
    for path in dict.fromkeys(paths):
        try:
            return attack(path)
        except (OSError, LookupError) as failed:
            first = first or failed
    assert first is not None
    raise first


def _tried(id: str, target: str, attack: Callable[[], str]) -> Result:
    """What came of one attack: a refusal by the kernel is what was hoped for, any other error proves nothing."""
    held: bool | None
    try:
        held, how = False, attack()
    except OSError as refused:
        held = True if refused.errno in _REFUSALS else None
        how = refused.strerror or type(refused).__name__
    except (ValueError, LookupError, AttributeError) as failed:
        held, how = None, str(failed)[:200] or type(failed).__name__
    return {"id": id, "target": target, "held": held, "how": how}


_REFUSALS = {errno.EPERM, errno.EACCES, errno.EROFS, errno.ENXIO, errno.ETXTBSY}
"""ENXIO: a socket cannot be opened by its name in /proc. ETXTBSY: see `_write`."""


# -- files


def _read(path: str, canary: Any) -> str:
    with _loosened(path, stat.S_IRUSR), open(path, "rb", buffering=0) as file:
        return finding("read it", file.read(PIECE), canary)


def _write(path: str) -> str:
    if os.path.isdir(path):
        _create_in(path)
        return "created a file in it"
    with _loosened(path, stat.S_IWUSR):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY))
        except OSError as refused:
            # A program that runs: told after modes were asked, and before Landlock is.
            if refused.errno != errno.ETXTBSY or not os.access(path, os.W_OK, effective_ids=True) or _landlocked():
                raise
            return "may write to it once it does not run"
    return "opened it for writing"


def _write_below(path: str) -> str:
    """The folder or anything in it, and where links in it lead. Raises the last refusal when nothing could be written,
    and `LookupError` when not everything was looked at."""
    refusal: OSError = PermissionError(errno.EACCES, "nothing in it is writable")
    missed, seen, until = "", 0, time.monotonic() + _SEARCHED_S
    open_, entered = [path], set()
    while open_:
        each = open_.pop()
        seen += 1
        if seen > _ENTRIES or time.monotonic() > until:
            raise LookupError(f"{seen - 1} entries were tried, the rest was not")
        try:
            return f"{_write(each)}: {each}"
        except OSError as refused:
            refusal = refused if refused.errno != errno.ENOENT else refusal
        try:
            if os.path.islink(each):
                with contextlib.suppress(OSError):
                    return f"{_replace(each, [])}: {each}"
            found = os.stat(each)
            if stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) not in entered:
                entered.add((found.st_dev, found.st_ino))
                # What is named like this at the top of a search path cannot be imported (.git, .venv).
                names = [name for name in os.listdir(each) if each != path or not name.startswith(".")]
                open_ += [os.path.join(each, name) for name in names]
        except OSError as unseen:
            if each == path:
                raise
            if unseen.errno != errno.ENOENT and os.access(each, os.X_OK, effective_ids=True):
                missed = missed or f"{each} may be passed and not listed"
    if missed:
        raise LookupError(missed)
    raise refusal


def _replace(path: str, way: list[str]) -> str:
    """Whether another file could be put in its place: a directory that is passed on the way takes new names from us."""
    refusal: OSError = PermissionError(errno.EACCES, "no directory on the way is writable")
    for entry in reversed(list(dict.fromkeys([*way, *_steps(path)]))):
        folder = os.path.dirname(entry)
        try:
            if entry != "/" and os.path.isdir(folder) and not _sticks(folder, entry):
                _create_in(folder)
                return f"could be replaced: {folder} takes new names"
        except OSError as refused:
            if refused.errno in _PERMITTED:
                return f"could be replaced: {folder} takes new names, and there is no room just now"
            refusal = refused if refused.errno != errno.ENOENT else refusal
    raise refusal


_PERMITTED = {errno.ENOSPC, errno.EDQUOT}


def _steps(path: str) -> Iterator[str]:
    """Every entry that the kernel passes on the way to `path`, links and what they lead to, as far as we may look."""
    current, followed = "/", 0
    left = path.split("/")[::-1]
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            current = os.path.dirname(current)
            continue
        reached = os.path.join(current, part)
        yield reached
        try:
            link = os.readlink(reached)
        except OSError as refused:
            if refused.errno != errno.EINVAL:
                return
            current = reached
            continue
        followed += 1
        if followed > _LINKS_FOLLOWED:
            return
        current = "/" if link.startswith("/") else current
        left += link.split("/")[::-1]


def _sticks(folder: str, entry: str) -> bool:
    """inode(7): in a sticky directory only the owner of an entry, or of the directory, may rename it."""
    found = os.stat(folder)
    if not found.st_mode & stat.S_ISVTX or os.geteuid() in (0, found.st_uid):
        return False
    try:
        return os.lstat(entry).st_uid != os.geteuid()
    except FileNotFoundError:
        return False


def _create_in(folder: str) -> None:
    name = os.path.join(folder, f".interposer-doctor-{os.getpid()}")
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    os.unlink(name)


class _loosened:  # noqa: N801  reads as a verb
    """Its owner can give himself a permission that the mode denies: done for the blink of one open, and undone."""

    def __init__(self, path: str, bit: int) -> None:
        self._path, self._bit = path, bit
        self._before: int | None = None

    def __enter__(self) -> None:
        found = os.stat(self._path)
        if 0 != os.geteuid() == found.st_uid and not found.st_mode & self._bit and stat.S_ISREG(found.st_mode):
            self._before = stat.S_IMODE(found.st_mode)
            os.chmod(self._path, self._before | self._bit)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            os.chmod(self._path, self._before)


# -- other users


def _becoming() -> Iterator[Result]:
    """What would make us root, where this host has it."""
    if os.geteuid() == 0:
        return
    for path in dict.fromkeys(os.path.realpath(path) for path in _ENGINES):
        with contextlib.suppress(OSError):
            # A folder that we may not look into has a socket that we may not reach.
            if stat.S_ISSOCK(os.stat(path).st_mode):
                yield _tried("become", path, partial(_connected, path))
    for path in ("/usr/bin/sudo", "/usr/local/bin/sudo", "/bin/sudo"):
        if os.access(path, os.X_OK, effective_ids=True):
            yield _tried("become", "sudo", partial(_sudo, path))
            return


def _connected(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_ANSWER_S)
        try:
            line.connect(path)
        except ConnectionRefusedError:
            raise PermissionError(errno.EPERM, "nobody listens there") from None
    return "it takes connections from us, and starts programs as root"


def _sudo(path: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            [path, "-n", "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_ANSWER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LookupError("it did not answer in time") from None
    if done.returncode:
        raise PermissionError(errno.EPERM, "it refuses us")
    return "runs programs as root without a password"


# -- what is around us


def _surroundings() -> Iterator[Result]:
    """Told only where there is a sandbox: what it kept from us says nothing about who is outside of it."""
    with open("/proc/self/status", "rb") as file:
        told = dict(line.split(b":\t", 1) for line in file if b":\t" in line)
    if told.get(b"NoNewPrivs", b"").strip() == b"1" and told.get(b"Seccomp", b"").strip() == b"2" and _landlocked():
        how = "no_new_privs, seccomp, and writing is refused where modes allow it"
        yield {"id": "sandbox", "target": "attacker", "held": True, "how": how}


def _landlocked() -> bool:
    """Whether something refuses what modes and owners allow: access(2) does not ask Landlock, open(2) does."""
    for folder in ("/tmp", "/var/tmp"):  # noqa: S108
        if os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            try:
                _create_in(folder)
            except OSError as refused:
                if refused.errno in (errno.EACCES, errno.EPERM):
                    return True
    return False


# -- the operator's socket


def _operated(wanted: Any) -> str:
    """Whether the broker takes us for an operator. Raises `PermissionError` when it does not."""
    key = ""
    with contextlib.suppress(OSError, UnicodeDecodeError, TypeError), open(wanted["key"], encoding="ascii") as file:
        key = file.read().strip()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_ANSWER_S)
        line.connect(wanted["socket"])
        # The first request may be about the key; what counts is the answer to the second.
        hello = {"jsonrpc": "2.0", "id": 1, "method": "operator/key", "params": {"key": key}}
        asked = {"jsonrpc": "2.0", "id": 2, "method": "broker/status", "params": {}}
        line.sendall("".join(json.dumps(each) + "\n" for each in ([hello, asked] if key else [asked])).encode())
        answer = _answer_to(line, 2)
    if "result" not in answer:
        raise PermissionError(errno.EPERM, "the broker refused it")
    return "the broker takes it for an operator, who may approve"


def _answer_to(line: socket.socket, id: int) -> Any:
    held = b""
    while True:
        piece = b""
        with contextlib.suppress(ConnectionError):
            piece = line.recv(65536)
        if not piece:
            raise PermissionError(errno.EPERM, "the broker hung up")
        held += piece
        *lines, held = held.split(b"\n")
        for each in lines:
            answer = json.loads(each)
            if answer.get("id") == id:
                return answer


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
