"""The sandbox of an agent that has the broker's uid: what it may read and write, and how a process goes into it.

Reading and running is allowed everywhere but in the hidden places, writing only beneath the writable ones. Landlock
has no rule that forbids, so the places that hold nothing hidden are granted one by one: on the way to a hidden place,
what is made after the start is not granted either. Names may be listed everywhere, contents may not be opened.

What a process in here cannot do, whatever it runs: open hidden files, write elsewhere, trace, signal or read the memory
of a process outside, type into a terminal, gain rights by a setuid program. Pathname sockets stay reachable
(`reachable.py`), and so do the modes and times of files that its uid owns.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from interposer import ownership

from . import landlock, seccomp

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/shm")  # noqa: S108
"""Of /dev, all that is granted, with the terminal that the agent was given. Not /dev/pts: whoever reads there reads
what is typed into other terminals of the same user."""
NEVER_WRITABLE = ("/", "/proc", "/sys", "/dev")

_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 22, 24, 38
_SECCOMP_MODE_FILTER = 2
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)

Entries = Callable[[str], Iterable[str]]
"""The names in a folder, without symbolic links; none where it cannot be listed."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Real paths, symbolic links resolved."""

    writable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    """Neither read nor written, with all beneath."""
    devices: tuple[str, ...] = DEVICES


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights on a place and on all beneath it."""

    place: str
    rights: int
    needed: bool = False
    """Whether the sandbox is wrong without it; a place that only was there to be read may have gone."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What this kernel offers."""

    landlock: int
    seccomp: bool

    @classmethod
    def here(cls) -> Kernel:
        # A filter at address 0 is EFAULT where filters are known, EINVAL where they are not (prctl(2)).
        failed = _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), None, 0, 0)
        known = failed != 0 and ctypes.get_errno() == errno.EFAULT
        return cls(landlock.abi(), known and seccomp.machine() is not None)

    def missing(self) -> list[str]:
        """What the sandbox needs and does not get here, with what follows from it; nothing when it is whole."""
        found = []
        if self.landlock == 0:
            found.append("Landlock: the agent can read and write all that you can, and the broker's memory")
        elif self.landlock < landlock.SCOPED_ABI:
            found.append(
                f"Landlock ABI {landlock.SCOPED_ABI} (Linux 6.12), this is {self.landlock}: "
                "the agent can signal the broker and reach abstract sockets"
            )
        if not self.seccomp:
            found.append("seccomp: the agent can set the broker's limits and type into your terminal")
        return found


def grants(sandbox: Sandbox, entries: Entries) -> Iterator[Grant]:
    """Every rule of a sandbox, given what stands where."""
    yield Grant("/", landlock.READ_DIR, needed=True)
    for place in readable({*sandbox.hidden, "/dev"}, entries):
        yield Grant(place, landlock.READ)
    for place in sandbox.devices:
        yield Grant(place, landlock.READ | landlock.WRITE)
    for place in sandbox.writable:
        yield Grant(place, landlock.READ | landlock.WRITE, needed=True)


def readable(hidden: Collection[str], entries: Entries, folder: str = "/") -> Iterator[str]:
    """The places beneath a folder that neither are nor hold a hidden one, each as high up as can be."""
    # A folder that may be passed and not listed (mode 0711, as /home is on shared machines) names nothing: the way to
    # what is hidden is known all the same, and what stands beside that way is wanted.
    on_the_way = {each[len(folder.rstrip("/")) + 1 :].split("/")[0] for each in hidden if beneath(each, folder)}
    for name in sorted({*entries(folder), *on_the_way}):
        place = os.path.join(folder, name)
        if place in hidden:
            continue
        if any(beneath(each, place) for each in hidden):
            yield from readable(hidden, entries, place)
        else:
            yield place


def on_disk(folder: str) -> list[str]:
    """`Entries` of the real tree."""
    try:
        with os.scandir(folder) as found:
            return [entry.name for entry in found if not entry.is_symlink()]
    except OSError:
        return []


def beneath(place: str, folder: str) -> bool:
    """Whether a place stands in a folder or further down; the folder itself does not."""
    return place != folder and place.startswith(folder.rstrip("/") + "/")


def threatened(path: str, writable: Iterable[str], *, passable: bool = False) -> str | None:
    """The writable place from which what `path` leads to could be replaced; None when there is none. Raises
    `OSError` for what cannot be looked at. With `passable`, a folder that we may not pass ends the way: nobody of our
    uid finds anything behind it."""
    passed = list[str]()
    try:
        passed.extend(step.path for step in ownership.steps(path))
    except PermissionError:
        if not passable:
            raise
    for place in writable:
        if any(step == place or beneath(step, place) for step in passed):
            return place
    return None


def aliases(path: str, mountinfo: str) -> list[str]:
    """Other paths of a real path: where its file system, or a part of it, is mounted again (proc_pid_mountinfo(5))."""
    mounts = [(fields[2], _unescaped(fields[3]), _unescaped(fields[4])) for fields in map(str.split, _lines(mountinfo))]
    over = [mount for mount in mounts if path == mount[2] or beneath(path, mount[2])]
    if not over:
        return []
    device, root, point = max(enumerate(over), key=lambda each: (len(each[1][2]), each[0]))[1]
    inside = _joined(root, path, point)
    found = set()
    for other, top, where in mounts:
        if other != device:
            continue
        if inside == top or beneath(inside, top):
            found.add(_joined(where, inside, top))
        elif beneath(top, inside):
            found.add(where)
    return sorted(found - {path})


def _lines(mountinfo: str) -> list[str]:
    return [line for line in mountinfo.splitlines() if len(line.split()) > 4]


def _joined(base: str, path: str, top: str) -> str:
    rest = path[len(top) :].strip("/") if top != "/" else path.strip("/")
    return os.path.join(base, rest) if rest else base


def _unescaped(text: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


class Prepared:
    """A sandbox that is ready to be entered: everything that can fail for want of a file has been done."""

    def __init__(self, sandbox: Sandbox, kernel: Kernel, rules: Sequence[Grant]) -> None:
        """Raises `OSError` with the path when a place that must be granted cannot be."""
        self._ruleset = landlock.Ruleset(kernel.landlock) if kernel.landlock else None
        machine = seccomp.machine() if kernel.seccomp else None
        self._filter = seccomp.program(machine) if machine else b""
        for rule in rules:
            if self._ruleset is None:
                break
            try:
                self._ruleset.grant(rule.place, rule.rights)
            except OSError as error:
                if rule.needed:
                    self.close()
                    raise OSError(error.errno, error.strerror, rule.place) from None

    def __enter__(self) -> Prepared:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._ruleset is not None:
            self._ruleset.close()

    def enter(self) -> None:
        """Put this process in, for good; call it between fork and exec, with one thread. Raises `OSError`."""
        _drop_capabilities()
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if self._ruleset is not None:
            self._ruleset.restrict()
        if self._filter:
            _install(self._filter)


def prepared(sandbox: Sandbox, kernel: Kernel) -> Prepared:
    """Raises `OSError` with the path when a place that must be granted cannot be."""
    return Prepared(sandbox, kernel, list(grants(sandbox, on_disk)))


def _drop_capabilities() -> None:
    """Root keeps its files and nothing else: with capabilities it could load a module and undo the rest."""
    for number in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) != 0:
            break  # EINVAL: the kernel knows no more of them; EPERM: we are not root, and no_new_privs does it
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _install(filter: bytes) -> None:
    program = _Program(len(filter) // 8, filter)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _prctl(option: int, value: int, pointer: int = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(pointer), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
