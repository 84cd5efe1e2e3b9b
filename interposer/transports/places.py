"""Where a socket may stand: a directory in which nobody else can put another one under its name.

Whoever can write to a directory on the way can rename what is below it and answer in our place, so every directory
that the path passes through counts (ownership.py).
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat

from interposer import ownership
from interposer.errors import ConfigurationError, Problem


def require_bindable(path: str) -> None:
    """Raises `ConfigurationError` for a path that the kernel would not bind as a file."""
    # unix(7): sun_path holds 108 bytes. A leading NUL is an abstract socket, which has no owner and no mode.
    if not path or "\0" in path:
        raise problem(path.replace("\0", "@"), "abstract sockets can be taken by anybody; give a path")
    if len(os.fsencode(path)) > 107:
        raise problem(path, "the path of a socket holds at most 107 bytes; choose a shorter directory")


def require_safe_directory(path: str) -> None:
    """Raises `ConfigurationError` when another user could replace the file at `path`."""
    parent = os.path.dirname(os.path.abspath(path))
    try:
        for step in ownership.steps(parent):
            fault = _fault(step.found, step.path)
            if fault:
                raise problem(path, f"the directory {step.path} {fault}")
    except OSError as error:
        raise problem(path, f"{error.filename or parent} cannot be read: {os.strerror(error.errno or 0)}") from None


def remove_stale(path: str) -> None:
    """Clear the name of a socket that a broker of ours left behind; anything else keeps its place."""
    try:
        placed = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(placed.st_mode):
        raise problem(path, "there is something here that is not a socket; move it away or choose another path")
    if placed.st_uid != os.geteuid():
        raise problem(path, f"uid {placed.st_uid} owns the socket that is here; choose another path")
    if _answers(path):
        raise problem(path, "another broker listens here; stop it or choose another path")
    os.unlink(path)


def taken_over(descriptor: int) -> socket.socket:
    """The Unix socket that a descriptor listens on. Raises `ConfigurationError` for anything else."""
    try:
        found = socket.socket(fileno=descriptor)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        raise problem(f"descriptor {descriptor}", "is not a socket; pass the agents' one") from None
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM or not listens:
        raise problem(f"descriptor {descriptor}", "is not a Unix stream socket that listens; pass the agents' one")
    found.setblocking(False)
    return found


def path_of(taken: socket.socket) -> str:
    """Where a Unix socket stands; abstract ones begin with NUL."""
    return os.fsdecode(taken.getsockname())


def require_socket(path: str) -> None:
    """Raises `ConfigurationError` unless a socket of ours or of root's stands there."""
    try:
        placed = os.lstat(path)
    except OSError as error:
        raise problem(path, f"the passed socket is no longer here: {os.strerror(error.errno or 0)}") from None
    if not stat.S_ISSOCK(placed.st_mode) or placed.st_uid not in (0, os.geteuid()):
        raise problem(path, "what is here is not a socket of ours or of root's")


def resolve_group(group: str | int | None) -> int | None:
    """The gid of a group's name. Raises `ConfigurationError` for one that does not exist."""
    if group is None or isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise problem("socket group", f"there is no group {group!r}; create it or name another one") from None


def problem(place: str, message: str) -> ConfigurationError:
    """One thing wrong with an address, and what to do."""
    return ConfigurationError([Problem(place, 0, 0, message)])


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError as error:
            return error.errno != errno.ENOENT
    return True


def _fault(directory: os.stat_result | None, path: str) -> str:
    """What is wrong with a directory on the way, and what to do about it; empty when nothing is."""
    if directory is None:
        return "does not exist: create it with mode 0700 (0750 to let a group in)"
    if stat.S_ISLNK(directory.st_mode):
        return ""
    said = ownership.directory_fault(directory, os.geteuid(), path)
    if said.startswith("belongs"):
        return f"{said}, who could replace the socket: choose another one"
    if "writable" in said:
        return f"{said}: chmod {'o' if said.endswith('everybody') else 'g'}-w, or choose another one"
    return said and f"{said}: choose another path"
