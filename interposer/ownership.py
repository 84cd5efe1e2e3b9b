"""Who else could change a file: nobody but root and us, or the broker does not build on it.

Whoever can write to a directory on the way can put something else in the file's place, so every directory that the
kernel passes through counts, symbolic links followed one by one, and then the file itself. A group counts as others
unless it is private: the user's own one, with nobody else in it. Where there is a POSIX ACL the group bits show its
mask (acl(5)): an entry that may write looks like a group that may, and then no group is private.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .errors import Problem, Unsafe

_LINKS_FOLLOWED = 40
"""As the kernel: path_resolution(7)."""


Known = dict[tuple[str, bool, bool], str]
"""What `fault` found for each step: its path, whether it was the last, whether it stood in a sticky directory."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the kernel passes on the way to a path, or what stands at its end."""

    path: str
    found: os.stat_result | None
    """Not followed; None where nothing is, and then this is the last step."""
    last: bool


def require_ours(path: str, *, uid: int | None = None) -> None:
    """Raises `Unsafe`, a `ConfigurationError`, where `fault` finds something."""
    found = fault(path, uid=uid)
    if found:
        raise Unsafe([Problem(path, 0, 0, found)])


def fault(path: str, *, uid: int | None = None, passed: bool = False, known: Known | None = None) -> str:
    """How somebody other than root and `uid` (we, if absent) could change what is at `path`, or put something there
    where nothing is: the offending place, and the command that mends it. Empty when nobody could.

    With `passed`, `path` is a directory that is only passed through: a sticky one will do, and one that is not there
    yet. `known` keeps what was found for each place, for whoever asks about many paths at one moment.
    """
    me = os.geteuid() if uid is None else uid
    known = {} if known is None else known
    shared = ""
    try:
        for step in steps(path):
            judged = replace(step, last=False) if passed else step
            key = (step.path, judged.last, bool(shared))
            if key not in known:
                known[key] = step_fault(judged, me, shared)
            if known[key]:
                return known[key]
            shared = step.path if step.found and step.found.st_mode & stat.S_ISVTX else ""
    except OSError as error:
        return f"{error.filename or path} cannot be looked at: {os.strerror(error.errno or 0)}"
    return ""


def steps(path: str) -> Iterator[Step]:
    """Everything that the kernel passes on the way to `path`, from the root on: directories and symbolic links.

    Raises `OSError` for what cannot be looked at, and for a chain of links that does not end.
    """
    current = "/"
    # Not abspath: with links on the way, `..` is the kernel's parent and not the text's.
    left = _parts(path if path.startswith("/") else os.path.join(os.getcwd(), path))
    yield Step(current, os.lstat(current), last=not left)
    followed = 0
    while left:
        part = left.pop()
        if part == "..":
            current = os.path.dirname(current)
            if not left:
                yield Step(current, os.lstat(current), last=True)
            continue
        reached = os.path.join(current, part)
        try:
            found = os.lstat(reached)
        except FileNotFoundError:
            yield Step(reached, None, last=True)
            return
        yield Step(reached, found, last=not left)
        if not stat.S_ISLNK(found.st_mode):
            current = reached
            continue
        followed += 1
        target = os.readlink(reached)
        if followed > _LINKS_FOLLOWED:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        current = "/" if target.startswith("/") else current
        left.extend(_parts(target))


def _parts(path: str) -> list[str]:
    """The names in a path, last to first."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


def directory_fault(found: os.stat_result, uid: int, path: str) -> str:
    """How somebody else could exchange what is in a directory, as the end of a sentence; empty when nobody could."""
    if not stat.S_ISDIR(found.st_mode):
        return "is not a directory"
    # With the sticky bit only the owner of an entry may rename or remove it (inode(7)).
    return owner_fault(found, uid) or ("" if found.st_mode & stat.S_ISVTX else mode_fault(found, uid, path))


def owner_fault(found: os.stat_result, uid: int) -> str:
    return "" if found.st_uid in (0, uid) else f"belongs to uid {found.st_uid}"


def mode_fault(found: os.stat_result, uid: int, path: str) -> str:
    if found.st_mode & stat.S_IWOTH:
        return "is writable by everybody"
    if found.st_mode & stat.S_IWGRP and (_has_acl(path) or not _nobody_else_in(found.st_gid, uid)):
        return f"is writable by group {found.st_gid}"
    return ""


def _has_acl(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "system.posix_acl_access", follow_symlinks=False))
    except OSError as error:
        # ENODATA: it has none. EOPNOTSUPP: nothing has one here. Whatever else is in the way, it may have one.
        return error.errno not in (errno.ENODATA, errno.EOPNOTSUPP)


def is_private(group: grp.struct_group, user: pwd.struct_passwd) -> bool:
    """Whether a group is one user's own: many systems give each user a group of the same name or number.

    Members alone do not tell: `users` lists none, and is the primary group of everybody.
    """
    named_alike = group.gr_name == user.pw_name or group.gr_gid == user.pw_uid
    return group.gr_gid == user.pw_gid and named_alike and set(group.gr_mem) <= {"root", user.pw_name}


def step_fault(step: Step, uid: int, shared: str = "") -> str:
    """How somebody else could change this one thing, and the remedy; the way to it is not looked at. `shared` is the
    directory around it, if that is one in which everybody may put things (sticky)."""
    if step.found is None:
        text = f"{step.path} does not exist, and others can make it: make it yourself, or choose another place"
        return text if shared and step.last else ""
    if stat.S_ISLNK(step.found.st_mode):
        said = owner_fault(step.found, uid) if shared else ""
    elif stat.S_ISCHR(step.found.st_mode) or stat.S_ISBLK(step.found.st_mode):
        said = ""  # only root makes devices, and what is written to one stays in no file
    elif step.last:
        said = owner_fault(step.found, uid) or mode_fault(step.found, uid, step.path)
    else:
        said = directory_fault(step.found, uid, step.path)
    return f"{step.path} {said}: {_mended(step.path, said, uid)}" if said else ""


def _mended(path: str, said: str, uid: int) -> str:
    """The command that mends it."""
    if said.startswith("belongs"):
        # What root is told of another user's state must not take it away from a broker that runs.
        return f"chown {uid} {path}" if uid else f"do this as that user (sudo -u), or chown {uid} {path}"
    if said.endswith("everybody"):
        return f"chmod o-w {path}"
    return f"chmod g-w {path}" if "group" in said else "choose another path"


def _nobody_else_in(gid: int, uid: int) -> bool:
    """Whether a group is private to `uid` or to root."""
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return any(is_private(group, user) for user in map(_user, {uid, 0}) if user is not None)


def _user(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None
