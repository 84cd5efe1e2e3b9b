"""Where a socket may stand: a directory in which nobody else can put another one under its name.

Whoever can write to a directory on the way can rename what is below it and answer in our place, so every directory
that the path passes through counts, symbolic links followed one by one.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Iterator

from interposer.errors import ConfigurationError, Problem

_LINKS_FOLLOWED = 40
"""As the kernel: path_resolution(7)."""


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
    for directory in _directories(path, parent):
        try:
            fault = _fault(os.stat(directory, follow_symlinks=False))
        except FileNotFoundError:
            fault = "does not exist: create it with mode 0700 (0750 to let a group in)"
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        if fault:
            raise problem(path, f"the directory {directory} {fault}")


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


def _directories(path: str, parent: str) -> Iterator[str]:
    """Every directory that the kernel passes through on the way to `parent`, from the root on."""
    current = "/"
    yield current
    left = [part for part in parent.split("/") if part][::-1]
    followed = 0
    while left:
        part = left.pop()
        if part in (".", ".."):
            current = os.path.dirname(current) if part == ".." else current
            continue
        step = os.path.join(current, part)
        if not os.path.islink(step):
            current = step
            yield current
            continue
        followed += 1
        if followed > _LINKS_FOLLOWED:
            raise problem(path, "too many symbolic links on the way; use the real path")
        target = os.readlink(step)
        if target.startswith("/"):
            current = "/"
        left.extend([link_part for link_part in target.split("/") if link_part][::-1])


def _fault(directory: os.stat_result) -> str:
    """What is wrong with a directory, and what to do about it; empty when nothing is."""
    if not stat.S_ISDIR(directory.st_mode):
        return "is not a directory: choose another path"
    if directory.st_uid not in (0, os.geteuid()):
        return f"belongs to uid {directory.st_uid}, who could replace the socket: choose another one"
    # With the sticky bit only the owner of an entry may rename or remove it (inode(7)).
    if directory.st_mode & stat.S_ISVTX:
        return ""
    if directory.st_mode & stat.S_IWOTH:
        return "is writable by everybody: chmod o-w, or choose another one"
    if directory.st_mode & stat.S_IWGRP and not _is_private(directory.st_gid):
        return f"is writable by group {directory.st_gid}: chmod g-w, or choose another one"
    return ""


def _is_private(gid: int) -> bool:
    """Whether a group has no member but ourselves and root: many systems give every user one of their own."""
    if gid not in (0, os.getegid()):
        return False
    try:
        members = set(grp.getgrgid(gid).gr_mem)
        return members <= {"root", pwd.getpwuid(os.geteuid()).pw_name}
    except KeyError:
        return False
