"""What the broker stands on, and whether anybody but root and us could change it: then it does not start.

Its code counts (interpreter, module path, the package itself with its compiled files) as well as the files that it is
told by. All that is amiss is named at once, each with the command that mends it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator

from interposer.errors import Problem, Unsafe
from interposer.ownership import Known, Step, fault, step_fault

_PATHS_OF_THEIR_OWN = frozenset({"site-packages", "dist-packages", "lib-dynload"})
"""Folders of the standard library that count where they stand on the module path, and not otherwise."""
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def require_firm(
    files: Iterable[str], passed: Iterable[str] = (), *, uid: int | None = None, whole: bool = False
) -> None:
    """Raises `Unsafe`. `files` are files and folders, there or not; `passed` are folders in which what is ours is safe
    when nobody can exchange it (sticky ones, such as /tmp). With `whole`, every file beneath the module path is looked
    at; without, the package, what has been imported, and the first level of the folders that more can come from."""
    found = [*faults([*files, *code()], uid=uid), *faults(passed, uid=uid, passed=True), *beneath(PACKAGE, uid=uid)]
    if whole:
        for place in dict.fromkeys(filter(os.path.isdir, map(os.path.realpath, sys.path))):
            found += beneath(place, uid=uid)
    else:
        found += imported(uid=uid)
    once = {text: path for path, text in reversed(found)}
    if once:
        raise Unsafe([Problem(path, 0, 0, text) for text, path in reversed(once.items())])


def faults(paths: Iterable[str], *, uid: int | None = None, passed: bool = False) -> list[tuple[str, str]]:
    """(path, what is wrong on the way to it or with it, and the remedy)."""
    known: Known = {}
    judged = ((path, fault(path, uid=uid, passed=passed, known=known)) for path in paths)
    return [(path, text) for path, text in judged if text]


def code() -> Iterator[str]:
    """Every place that this process takes its code from."""
    yield sys.executable
    yield os.path.join(sys.prefix, "pyvenv.cfg")
    # ld.so(8) looks there before anywhere else; an empty entry is the working directory.
    searched = os.environ.get("LD_LIBRARY_PATH", "")
    yield from (place or "." for place in searched.split(":") if searched)
    yield from filter(os.path.exists, sys.path)
    yield PACKAGE


def beneath(place: str, *, uid: int | None = None) -> Iterator[tuple[str, str]]:
    """What is wrong in a folder, compiled files included, by one look at each: the way to it is judged once."""
    folders = [place]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) and entry.name not in _PATHS_OF_THEIR_OWN:
                    folders.append(entry.path)
                yield from _judged(entry.path, found, uid)


def imported(*, uid: int | None = None) -> Iterator[tuple[str, str]]:
    """What is wrong with the modules that run already and their folders, and with what stands on the module path."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    places = {file for file in files if isinstance(file, str)}
    places |= {os.path.dirname(file) for file in places}
    for entry in filter(os.path.isdir, sys.path):
        places |= {os.path.join(entry, name) for name in os.listdir(entry)}
    for place in sorted(places):
        yield from _looked_at(place, uid)


def _looked_at(path: str, uid: int | None) -> Iterator[tuple[str, str]]:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return  # a compiled file that was just written anew; frozen modules have names and no files
    yield from _judged(path, found, uid)


def _judged(path: str, found: os.stat_result, uid: int | None) -> Iterator[tuple[str, str]]:
    me = os.geteuid() if uid is None else uid
    linked = stat.S_ISLNK(found.st_mode)
    # Most of tens of thousands: ours or root's, and nobody else may write.
    if not linked and not found.st_mode & 0o022 and found.st_uid in (0, me):
        return
    text = fault(path, uid=uid) if linked else step_fault(Step(path, found, last=True), me)
    if text:
        yield path, text
