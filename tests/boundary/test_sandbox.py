"""The sandbox: what is granted follows from what is hidden, and the kernel holds a process to it."""

from __future__ import annotations

import errno
import json
import os
import pty
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.boundary import landlock, seccomp, selfattack
from interposer.boundary.sandbox import (
    Grant,
    Kernel,
    Prepared,
    Sandbox,
    aliases,
    beneath,
    grants,
    on_disk,
    prepared,
    readable,
    threatened,
)
from tests.boundary.installation import Installation, Person, installation  # noqa: F401
from tests.e2e.needs import missing

ENTER = """
import json, os, sys
from interposer.boundary.sandbox import Kernel, Sandbox, prepared
box = json.loads(sys.argv[1])
prepared(Sandbox(tuple(box["writable"]), tuple(box["hidden"])), Kernel.here()).enter()
os.execvp(sys.argv[2], sys.argv[2:])
"""
VICTIM = """
import os, signal, socket, sys
secret = os.environ["TOKEN"]
os.dup2(os.pipe()[0], 0)  # a pipe of its own uid's, as an upstream's is
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\\0" + sys.argv[1])
abstract.listen()
print("ready", flush=True)
signal.pause()
"""


LEASE = f"{sys.executable} -I -S -c 'import fcntl, os; fcntl.fcntl(os.open(\"other/file\", 0), {{}}, 0)'"


@pytest.fixture(autouse=True)
def _whole() -> None:
    lacking = Kernel.here().missing()
    if lacking:
        missing(f"this kernel has no {'; '.join(lacking)}")


# -- what is granted


TREE: dict[str, list[str]] = {
    "/": ["bin", "dev", "home", "proc"],
    "/home": ["ann", "bob"],
    "/home/ann": [".bashrc", ".local", "work"],
    "/home/ann/.local": ["share", "state"],
    "/home/ann/.local/state": ["interposer", "other"],
    "/home/ann/.local/state/interposer": ["record.db"],
}


def entries(folder: str) -> list[str]:
    return TREE.get(folder, [])


def test_everything_but_the_hidden_is_readable_as_high_up_as_can_be() -> None:
    """Along the way to a hidden place its neighbours are granted one by one, and it is not."""
    assert list(readable({"/home/ann/.local/state/interposer", "/dev"}, entries)) == [
        "/bin",
        "/home/ann/.bashrc",
        "/home/ann/.local/share",
        "/home/ann/.local/state/other",
        "/home/ann/work",
        "/home/bob",
        "/proc",
    ]


def test_a_folder_that_cannot_be_listed_does_not_hide_what_is_known_in_it() -> None:
    """On the way through a folder of mode 0711 the neighbours further down are granted."""
    tree = {"/": ["home"], "/home/ann": ["work", "state"]}
    assert list(readable({"/home/ann/state"}, lambda folder: tree.get(folder, []))) == ["/home/ann/work"]


def test_rights_are_reading_everywhere_and_writing_where_it_is_said() -> None:
    """Names may be listed from the root on, which opens no file; only writable places and devices can be written."""
    box = Sandbox(("/home/ann/work",), ("/home/ann/.local/state/interposer",), ("/dev/null",))
    found = {grant.place: grant for grant in grants(box, entries)}
    assert found["/"] == Grant("/", landlock.READ_DIR, needed=True)
    assert found["/bin"].rights == landlock.READ
    writing = {place for place, grant in found.items() if grant.rights & landlock.WRITE}
    assert writing == {"/home/ann/work", "/dev/null"}
    assert not any(grant.rights & (landlock.MAKE_BLOCK | landlock.MAKE_CHAR) for grant in found.values())


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.sets(PATHS, max_size=12), st.sets(PATHS, max_size=4))
def test_no_grant_covers_a_hidden_place(files: set[str], hidden: set[str]) -> None:
    """Whatever the tree, no granted place is, holds or lies beneath a hidden one, and all else is covered once."""
    places = {"/" + "/".join(path[1:].split("/")[:n]) for path in files | hidden for n in range(1, 5)}
    tree: dict[str, list[str]] = {}
    for place in sorted(places):
        tree.setdefault(os.path.dirname(place), []).append(os.path.basename(place))
    found = list(readable(hidden, lambda folder: tree.get(folder, [])))
    for place in found:
        assert not any(place == each or beneath(each, place) or beneath(place, each) for each in hidden)
    for place in places - {os.path.dirname(each) for each in places}:
        covering = [grant for grant in found if place == grant or beneath(place, grant)]
        concealed = any(place == each or beneath(place, each) for each in hidden)
        assert len(covering) == (0 if concealed else 1)


@pytest.mark.parametrize(
    ("path", "writable", "by"),
    [
        ("work/policy.yaml", "work", "work"),
        ("work/sub/policy.yaml", "work", "work"),
        ("linked/policy.yaml", "work", None),
        ("work/link.yaml", "work", "work"),
        ("through.yaml", "work", "work"),
        ("safe/policy.yaml", "work", None),
        ("workshop/policy.yaml", "work", None),
        ("work/policy.yaml", "work/policy.yaml", "work/policy.yaml"),
        ("work/not/there/yet", "work", "work"),
    ],
)
def test_what_could_be_replaced_is_found_through_every_link(
    tmp_path: Path, path: str, writable: str, by: str | None
) -> None:
    """A file is in danger where its name, a link to it, or a folder on the way lies in a writable place."""
    for name in ("work/sub", "safe", "workshop"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "safe/policy.yaml").touch()
    (tmp_path / "work/policy.yaml").touch()
    (tmp_path / "linked").symlink_to("safe")
    (tmp_path / "work/link.yaml").symlink_to("../safe/policy.yaml")
    (tmp_path / "through.yaml").symlink_to("work/link.yaml")
    found = threatened(str(tmp_path / path), [str(tmp_path / writable)])
    assert found == (str(tmp_path / by) if by else None)


MOUNTS = """\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 21 8:2 / /home rw,relatime shared:1 - ext4 /dev/sda2 rw
31 21 8:2 / /mnt/all rw,relatime - ext4 /dev/sda2 rw
32 21 8:2 /ann /srv/of\\040ann rw,relatime - ext4 /dev/sda2 rw
33 21 8:2 /ann/state/pins /srv/pins rw,relatime - ext4 /dev/sda2 rw
34 21 0:22 / /proc rw - proc proc rw
"""


def test_other_mounts_of_a_place_are_its_names_too() -> None:
    """A file system, or a part of it, that is mounted twice has each file under two paths."""
    assert aliases("/home/ann/state", MOUNTS) == ["/mnt/all/ann/state", "/srv/of ann/state", "/srv/pins"]
    assert aliases("/etc/passwd", MOUNTS) == []
    assert aliases("/etc/passwd", "") == []


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (Kernel(7, True), []),
        (Kernel(6, True), []),
        (Kernel(5, True), ["Landlock ABI 6"]),
        (Kernel(0, True), ["Landlock:"]),
        (Kernel(7, False), ["seccomp:"]),
        (Kernel(0, False), ["Landlock:", "seccomp:"]),
    ],
)
def test_what_a_kernel_lacks_is_said(kernel: Kernel, said: list[str]) -> None:
    """Signals and abstract sockets are kept in from ABI 6 on; less is not the whole sandbox."""
    found = kernel.missing()
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


def test_every_right_of_an_abi_is_handled() -> None:
    """A right that is not handled is granted to all, so none that the ABI knows is left out."""
    assert [landlock.handled(abi).bit_length() for abi in (1, 2, 3, 4, 5, 6, 7)] == [13, 14, 15, 15, 16, 16, 16]


# -- the filter


def answer(filter: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would answer: classic BPF over struct seccomp_data."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *(*arguments, *[0] * 6)[:6])
    code = list(struct.iter_unpack("=HBBI", filter))
    at = accumulator = 0
    while True:
        kind, true, false, k = code[at]
        at += 1
        if kind == 0x06:
            return int(k)
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        else:
            at += true if {0x15: accumulator == k, 0x35: accumulator >= k}[kind] else false


@pytest.mark.parametrize("machine", seccomp.MACHINES.values(), ids=list(seccomp.MACHINES))
def test_the_filter_refuses_what_it_names_and_allows_the_rest(machine: seccomp.Machine) -> None:
    """Every number up to 1000, with arguments of its own process and of another one."""
    filter = seccomp.program(machine)
    refused = {getattr(machine.refused, field.name) for field in fields(seccomp.Calls)}
    others = {machine.prlimit64, machine.sched_setparam, machine.sched_setscheduler, machine.sched_setattr}
    apart = {machine.setpriority, machine.ioprio_set}
    for number in range(1000):
        of_its_own = answer(filter, machine.audit, number, int(number == machine.ioprio_set), 0)
        of_another = answer(filter, machine.audit, number, 4242, 4242)
        assert of_its_own == (seccomp.REFUSE if number in refused else seccomp.ALLOW), number
        assert of_another == (seccomp.REFUSE if number in refused | others | apart else seccomp.ALLOW), number


@pytest.mark.parametrize("machine", seccomp.MACHINES.values(), ids=list(seccomp.MACHINES))
def test_the_filter_reads_arguments_as_the_kernel_does(machine: seccomp.Machine) -> None:
    """The kernel takes the low 32 bits; bits above them hide nothing."""
    filter = seccomp.program(machine)
    high = 0xDEAD << 32
    for request in (seccomp.TIOCSTI, seccomp.TIOCLINUX):
        assert answer(filter, machine.audit, machine.ioctl, 0, request) == seccomp.REFUSE
        assert answer(filter, machine.audit, machine.ioctl, 0, high | request) == seccomp.REFUSE
    assert answer(filter, machine.audit, machine.ioctl, 0, 0x5401) == seccomp.ALLOW
    assert answer(filter, machine.audit, machine.prlimit64, high) == seccomp.ALLOW
    assert answer(filter, machine.audit, machine.prlimit64, high | 7) == seccomp.REFUSE
    # A lease makes the broker wait when it opens what the agent may read.
    for command in (seccomp.F_SETLEASE, high | seccomp.F_SETLEASE):
        assert answer(filter, machine.audit, machine.fcntl, 0, command) == seccomp.REFUSE
    assert answer(filter, machine.audit, machine.fcntl, 0, 1025) == seccomp.ALLOW
    assert answer(filter, machine.audit, machine.ioctl, 0, seccomp.F_SETLEASE) == seccomp.ALLOW
    # PRIO_USER of 0 is every process of the user's, the broker among them.
    assert answer(filter, machine.audit, machine.setpriority, 2, 0, 19) == seccomp.REFUSE


@pytest.mark.parametrize("machine", seccomp.MACHINES.values(), ids=list(seccomp.MACHINES))
def test_numbers_of_another_architecture_end_the_process(machine: seccomp.Machine) -> None:
    """i386 on x86_64 has other numbers for the same calls; x32 has the same architecture and other numbers."""
    filter = seccomp.program(machine)
    assert answer(filter, 0x40000003, 26) == seccomp.KILL
    if machine is seccomp.MACHINES["x86_64"]:
        for number in (0x40000000 + 521, 0xFFFFFFFF):
            assert answer(filter, machine.audit, number) == 0x00050000 | errno.ENOSYS


# -- what the kernel makes of it


def inside(
    words: list[str], writable: list[Path], hidden: list[Path], **options: Any
) -> subprocess.CompletedProcess[str]:
    """A command in a sandbox, as whoever runs the test, in the first writable place."""
    box = json.dumps({"writable": [str(place) for place in writable], "hidden": [str(place) for place in hidden]})
    chosen = {"text": True, "capture_output": True, "timeout": 30, "cwd": writable[0], **options}
    environment = {**os.environ, "TMPDIR": str(writable[0])}
    return subprocess.run([sys.executable, "-c", ENTER, box, *words], env=environment, **chosen)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """(writable, hidden, other)"""
    found = (tmp_path / "work", tmp_path / "state", tmp_path / "other")
    for place in found:
        place.mkdir()
        (place / "file").write_text(place.name)
    (tmp_path / "state/deeper").mkdir()
    (tmp_path / "state/deeper/file").write_text("deep")
    return found


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ("cat state/file", True),
        ("cat state/deeper/file", True),
        ("cat work/../state/file", True),
        ("ln state/file work/other-name", True),
        ("ln -s ../state/file work/link && cat work/link", True),
        ("cat /proc/self/root$PWD/state/file", True),
        ("mv state work/", True),
        ("mv state/file work/", True),
        ("echo x > state/file", True),
        ("echo x >> state/file", True),
        ("truncate -s 0 state/file", True),
        ("rm state/file", True),
        ("touch state/new", True),
        ("mkdir state/new", True),
        ("echo x > other/file", True),
        ("touch other/new", True),
        ("rm other/file", True),
        ("mv work/file other/", True),
        ("mkdir new", True),
        ("mv other work/", True),
        ("mknod work/disk b 8 0", True),
        ("cat /dev/pts/*", True),
        (LEASE.format(1024), True),
        (LEASE.format(1025), False),
        ("cat other/file", False),
        ("ls state", False),
        ("echo x > work/file && rm work/file && touch work/new && mv work/new work/newer", False),
        ("mkdir -p work/a/b && mv work/a work/c && rm -r work/c", False),
        ("mkfifo work/fifo && ln -s file work/link && ln work/file work/two", False),
        ("mktemp", False),
        ("echo x > /dev/null && head -c 1 /dev/urandom > /dev/null", False),
        ("cat /proc/self/status > /dev/null", False),
    ],
)
def test_files_are_held_to_what_was_granted(places: tuple[Path, Path, Path], words: str, held: bool) -> None:
    """Hidden files cannot be had by any name, nothing is written outside, and what is granted works."""
    work, state, other = places
    before = (state / "file").read_text(), (other / "file").read_text()
    done = inside(["sh", "-ec", words], [work], [state], cwd=work.parent)
    assert (done.returncode != 0) is held, done
    if held:
        assert "state\n" not in done.stdout
        assert ((state / "file").read_text(), (other / "file").read_text()) == before


def test_modes_can_be_changed_which_is_not_promised(places: tuple[Path, Path, Path]) -> None:
    """Landlock has no right for chmod: an agent can open its own uid's files to others, and not to itself."""
    work, state, _ = places
    done = inside(["sh", "-c", "chmod 0666 ../state/file && cat ../state/file"], [work], [state])
    assert (state / "file").stat().st_mode & 0o777 == 0o666
    assert done.returncode != 0
    assert done.stdout == ""


def test_a_place_that_must_be_writable_and_is_not_there_is_named(tmp_path: Path) -> None:
    """What cannot be granted is an error with its path, before anything has been entered."""
    with pytest.raises(OSError, match="gone") as failed:
        prepared(Sandbox((str(tmp_path / "gone"),)), Kernel.here())
    assert failed.value.filename == str(tmp_path / "gone")


def test_a_neighbour_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """Between the listing and the rule, what was only to be read may have been removed."""
    (tmp_path / "state").mkdir()
    box = Sandbox((), (str(tmp_path / "state"),))

    def with_more(folder: str) -> list[str]:
        return [*on_disk(folder), "gone"]

    Prepared(box, Kernel.here(), list(grants(box, with_more))).close()


def test_no_capability_is_left_and_none_can_be_gained(tmp_path: Path) -> None:
    """Not even root keeps one: with capabilities it could load a module."""
    done = inside(["cat", "/proc/self/status"], [tmp_path], [])
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert {int(status[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Amb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    if os.geteuid() == 0:
        assert int(status["CapBnd"], 16) == 0


@contextmanager
def victim(run: Any, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing to protect itself."""
    with run(["-I", "-c", VICTIM, name]) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


MORE = textwrap.dedent(
    """
    import ctypes, json, os, socket, sys
    libc = ctypes.CDLL(None, use_errno=True)
    pid, name = int(sys.argv[1]), sys.argv[2]
    def call(function, *arguments):
        if function(*arguments) < 0:
            raise OSError(ctypes.get_errno(), "")
    def abstract():
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(chr(0) + name)
    numbers = {"x86_64": (312, 251, 250), "aarch64": (272, 30, 219)}[os.uname().machine]
    attempts = {
        "kcmp": lambda: call(libc.syscall, numbers[0], os.getpid(), pid, 1, 0, 0),
        "nice": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "scheduler": lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
        "ioprio": lambda: call(libc.syscall, numbers[1], 1, pid, 3 << 13),
        "keyring": lambda: call(libc.syscall, numbers[2], 0, -4, 1),
        "abstract-socket": abstract,
        "pidfd-signal": lambda: __import__("signal").pidfd_send_signal(os.pidfd_open(pid), 0),
        "own-priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 5),
        "own-limit": lambda: __import__("resource").setrlimit(7, (64, 64)),
    }
    done = {}
    for id, attempt in attempts.items():
        try:
            attempt()
            done[id] = False
        except OSError:
            done[id] = True
    json.dump(done, sys.stdout)
    """
)


def test_a_process_outside_is_out_of_reach(installation: Installation) -> None:  # noqa: F811
    """Every attack that succeeds on an unprotected process of the same uid fails from inside."""
    person = installation.person(6)
    (person.home / "work").mkdir(exist_ok=True)
    os.chown(person.home / "work", person.uid, person.uid)
    secret = person.file("secret", "credential")
    name = f"interposer-test-{os.getpid()}"

    def run(words: list[str]) -> subprocess.Popen[bytes]:
        return person.popen([installation.python, *words], env=person.environment(TOKEN="credential-of-the-victim"))

    with victim(run, name) as process:
        job = {
            "processes": [{"target": "victim", "pid": process.pid, "stdin": True}],
            "places": [{"target": "secret", "path": str(secret), "do": ["read", "write", "replace"], "deep": False}],
        }
        outside = attacked(installation, person, job, confined=False)
        confined = attacked(installation, person, job, confined=True)
        more = {
            where: found(installation, person, [str(process.pid), name], where == "inside")
            for where in ("outside", "inside")
        }
    assert confined.keys() ^ outside.keys() <= {"sandbox"}, "only inside it is told that there is one"
    tried = set(outside) - {id for id, held in outside.items() if held is not False}
    assert {
        "environ",
        "memory-read",
        "memory-write",
        "vm-read",
        "ptrace",
        "take-descriptor",
        "signal",
        "limits",
    } <= tried
    assert {"read-file", "write-file", "replace-file", "stdin", "descriptors", "maps"} <= tried
    assert {id for id in tried if confined[id] is not True} == set()
    own = {"own-priority", "own-limit"}
    assert {id for id, held in more["outside"].items() if held} == set()
    assert {id for id, held in more["inside"].items() if not held} == own


def attacked(
    installation: Installation,  # noqa: F811
    person: Person,
    job: Mapping[str, Any],
    *,
    confined: bool,
) -> dict[str, bool | None]:
    """What each attack of the doctor's thief came to."""
    done = person.run(
        launched(installation, person, ["-I", "-c", selfattack.thief_text()], confined),
        stdin=piped(json.dumps(job).encode()),
    )
    assert done.returncode == 0, done.stderr
    return {each["id"]: each["held"] for each in json.loads(done.stdout)}


def found(installation: Installation, person: Person, words: list[str], confined: bool) -> dict[str, bool]:  # noqa: F811
    done = person.run(launched(installation, person, ["-I", "-c", MORE, *words], confined))
    assert done.returncode == 0, done.stderr
    result: dict[str, bool] = json.loads(done.stdout)
    return result


def launched(installation: Installation, person: Person, words: list[str], confined: bool) -> list[str]:  # noqa: F811
    box = json.dumps({"writable": [str(person.home / "work")], "hidden": [str(person.home / "secret")]})
    into = [installation.python, "-I", "-c", ENTER, box] if confined else []
    return [*into, installation.python, *words]


def piped(content: bytes) -> int:
    """A pipe that holds this; small enough not to block."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    return reading


def test_nothing_is_typed_into_the_terminal(tmp_path: Path) -> None:
    """A program in the sandbox cannot put words into the terminal that it was given (TIOCSTI)."""
    ours, theirs = pty.openpty()
    try:
        text = "import fcntl, sys; fcntl.ioctl(0, 0x5412, b'y')"
        done = inside([sys.executable, "-c", text], [tmp_path], [], stdin=theirs, start_new_session=True)
        assert "PermissionError" in done.stderr
        assert "Operation not permitted" in done.stderr
    finally:
        os.close(ours)
        os.close(theirs)
