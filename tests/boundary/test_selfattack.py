"""The thief steals what can be stolen and changes nothing; a level is proven by what it did not get."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interposer import parts
from interposer.boundary import attack as thief
from interposer.boundary import process_attacks, selfattack, targets
from interposer.boundary.selfattack import Attacker, Finding, NotTried, Verdict, attack, myself, user, verdict, weakest
from interposer.model import JsonObject
from interposer.settings import settings
from tests.e2e.needs import missing

BROKER_UID, OTHER_UID = 900, 901
SECRET = "interposer-canary-" + "5" * 16
CANARY: JsonObject = {
    "prefix": "interposer-canary-",
    "length": len(SECRET),
    "sha256": hashlib.sha256(SECRET.encode()).hexdigest(),
}
VICTIM = "import sys; kept = sys.stdin.readline(); print('ready', flush=True); sys.stdin.read()"
OUTSIDER = Attacker(64103, 64103)


def finding(held: bool | None, id: str = "environ", target: str = "broker 7") -> Finding:
    return Finding(id, target, held, "")


HELD = [finding(True), finding(True, "signal"), finding(True, "write-file", "policy p")]
SANDBOX = finding(True, "sandbox", "attacker")
SAME, CONFINED = Attacker(BROKER_UID, 1), Attacker(BROKER_UID, 1, confined=True)
OTHER, ROOT = Attacker(OTHER_UID, 1), Attacker(0, 0)


@pytest.mark.parametrize(
    ("findings", "attacker", "level"),
    [
        (HELD, OTHER, "L4"),
        ([*HELD, SANDBOX], CONFINED, "L2"),
        ([*HELD, SANDBOX], SAME, "L2"),
        ([*HELD, SANDBOX], ROOT, "L2"),
        (HELD, CONFINED, "L1"),
        (HELD, SAME, "L1"),
        (HELD, ROOT, "L1"),
        (HELD, Attacker(OTHER_UID, 1, confined=True), "L1"),
        (HELD[:1], SAME, "L1"),
        (HELD[:1], ROOT, "L1"),
        (HELD[:1], CONFINED, "L1"),
        ([], OTHER, "L1"),
        ([], CONFINED, "L1"),
        ([finding(True, "write-file", "policy p")], OTHER, "L1"),
        ([*HELD, finding(False, "signal")], OTHER, "L1"),
        ([*HELD, finding(False, "read-file", "record r")], CONFINED, "L1"),
        ([*HELD, finding(False, "environ", "upstream 9 (node)")], CONFINED, "L1"),
        ([*HELD, finding(None, "ptrace")], OTHER, "L1"),
        ([*HELD, finding(None, "ptrace", "upstream 9 (node)")], OTHER, "L4"),
        ([*HELD, Finding("write-file", "revoked list", None, "No such file or directory")], OTHER, "L4"),
        ([*HELD, Finding("write-file", "library", None, "9 entries were tried, the rest was not")], OTHER, "L1"),
        ([*HELD, SANDBOX], OTHER, "L2"),
        ([*HELD, finding(None, "places", "policy")], OTHER, "L1"),
    ],
)
def test_a_level_is_proven_by_attacks_that_got_nothing(findings: list[Finding], attacker: Attacker, level: str) -> None:
    """One success, or one attack on the broker that could not be tried, and the gate counts as soft."""
    assert verdict(findings, attacker, BROKER_UID).level == level


def test_the_weakest_of_several_counts() -> None:
    """A boundary that holds against one caller and not against another does not hold."""
    strong, weak = Verdict("L4", ""), Verdict("L2", "")
    assert weakest([strong, weak]) is weak
    assert weakest([]).level == "L1"


@pytest.mark.parametrize(
    ("proven", "claim", "covered"),
    [("L4", "L4", True), ("L4", "L1", True), ("L2", "L4", False), ("L1", "L2", False), ("L4", "L5", False)],
)
def test_a_claim_needs_its_proof(proven: str, claim: str, covered: bool) -> None:
    """A stronger boundary covers a weaker claim, and nothing here proves another host."""
    assert Verdict(proven, "").covers(claim) is covered


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process without any protection, with a credential in its environment and in its memory."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", VICTIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"KEY": SECRET},
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(SECRET.encode() + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.communicate(timeout=10)


def job(pid: int | None = None, places: list[targets.Place] | None = None) -> JsonObject:
    processes: list[JsonObject] = [{"target": f"broker {pid}", "pid": pid, "stdin": True}] if pid else []
    return {"processes": processes, "places": [p.shown() for p in places or []], "operator": [], "canary": CANARY}


def outsider() -> Attacker:
    if os.geteuid() != 0:
        missing("only root can attack as another user: run as root")
    return OUTSIDER


def test_a_thief_of_the_same_user_gets_everything_and_leaves_the_process_alive(
    victim: subprocess.Popen[bytes],
) -> None:
    """The attacks are real: an unprotected process loses its credential to them, and runs on."""
    found = {one.id: one for one in attack(job(victim.pid), myself())}
    assert {id for id, one in found.items() if one.held is not False} <= {"memory-read", "ptrace", "core"}
    assert "with the credential" in found["environ"].how
    assert set(process_attacks.ON_PROCESSES) < set(found)
    assert victim.poll() is None


def test_a_thief_of_another_user_gets_nothing_from_a_process(victim: subprocess.Popen[bytes]) -> None:
    """The kernel keeps users apart, and every attack is told as held, none as not tried."""
    found = attack(job(victim.pid), outsider())
    assert [one for one in found if one.held is not True] == []


def test_a_process_that_has_ended_proves_nothing() -> None:
    """Silence is not safety."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    assert {one.held for one in attack(job(process.pid), myself())} == {None}


def test_files_are_attacked_and_not_changed(tmp_path: Path) -> None:
    """Content, mode and neighbours are as they were, whatever the thief could have done."""
    credential, policy = tmp_path / "credential", tmp_path / "policy.yaml"
    credential.write_text(SECRET)
    credential.chmod(0o400)
    policy.write_text("version: 1")
    before = {path: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    places = [targets.Place("credential", str(credential), targets.SECRET)]
    places += [
        targets.Place("policy", str(policy), targets.KEPT),
        targets.Place("all", str(tmp_path), ("write",), True),
    ]
    found = attack(job(places=places), myself())
    assert {one.held for one in found} == {False}
    assert "with the credential" in next(one.how for one in found if one.id == "read-file")
    assert {p: (p.read_bytes(), p.stat().st_mode, p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before


def test_what_others_may_write_is_found_however_deep_it_lies(tmp_path: Path) -> None:
    """One file of the broker's code with a wrong mode is enough."""
    shared = Path("/tmp") / f"interposer-deep-{os.getpid()}"
    attacker = outsider()
    try:
        (shared / "a/b").mkdir(parents=True)
        shared.chmod(0o755)
        (shared / "a/b/module.py").write_text("")
        place = targets.Place("the broker's code", str(shared), targets.KEPT, deep=True)
        assert {one.held for one in attack(job(places=[place]), attacker)} == {True}
        (shared / "a/b/module.py").chmod(0o666)
        found = {one.id: one for one in attack(job(places=[place]), attacker)}
        assert found["write-file"].held is False
        assert found["write-file"].how.endswith("module.py")
        assert found["replace-file"].held is True
    finally:
        (shared / "a/b/module.py").unlink()
        for folder in (shared / "a/b", shared / "a", shared):
            folder.rmdir()


def test_the_sticky_bit_protects_a_name_and_a_writable_directory_does_not(tmp_path: Path) -> None:
    """Creating files in /tmp is everybody's right; replacing one there is its owner's."""
    attacker = outsider()
    shared = Path("/tmp") / f"interposer-sticky-{os.getpid()}"
    shared.write_text("")
    try:
        place = targets.Place("policy", str(shared), ("replace",))
        assert [one.held for one in attack(job(places=[place]), attacker)] == [True]
    finally:
        shared.unlink()


def test_a_user_without_a_name_attacks_with_the_group_of_the_socket(tmp_path: Path) -> None:
    """An agent that may connect is a stronger attacker than one that may not."""
    path = tmp_path / "broker.sock"
    path.write_text("")
    if os.geteuid() != 0:
        missing("only root can give files to another group: run as root")
    os.chown(path, 0, 64110)
    assert user("64103", socket=str(path)) == Attacker(64103, 64103, (64110,))
    with pytest.raises(NotTried):
        user("nobody-of-this-name")


def test_processes_below_are_found_and_named(victim: subprocess.Popen[bytes]) -> None:
    """Whatever a broker started is a target, with its standard input."""
    found = targets.processes(os.getpid())
    assert found[0] == {"target": f"broker {os.getpid()}", "pid": os.getpid(), "stdin": False}
    assert any(one["pid"] == victim.pid and one["stdin"] and one["target"].startswith("upstream ") for one in found)


def test_the_places_of_a_broker_are_those_it_trusts_and_those_it_keeps_secret(tmp_path: Path) -> None:
    """Configuration, policy and code may not be written; record and credential may not be read either."""
    program = tmp_path / "server.py"
    program.write_text("")
    found = targets.kept(
        config=tmp_path / "interposer.yaml",
        policy=tmp_path / "policy.yaml",
        revoked=None,
        folder=tmp_path / "state",
        credentials=[("crm", str(tmp_path / "key"))],
        sockets=[str(tmp_path / "broker.sock")],
        commands=[targets.Command("crm", [sys.executable, "server.py"], str(tmp_path))],
    )
    done = {place.path: place.do for place in found}
    assert done[str(tmp_path / "interposer.yaml")] == done[str(tmp_path / "policy.yaml")] == targets.KEPT
    assert done[str(tmp_path / "state/record.db-wal")] == done[str(tmp_path / "key")] == targets.SECRET
    assert done[str(tmp_path / "broker.sock")] == ("replace",)
    assert done[str(program)] == targets.KEPT
    assert any(place.deep and place.path.endswith("/interposer") for place in found)


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that every user can pass through and nobody but root changes."""
    with tempfile.TemporaryDirectory(prefix="interposer-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def replaced(path: Path, attacker: Attacker) -> bool | None:
    place = targets.Place("program", str(path), ("replace",))
    (found,) = attack(job(places=[place]), attacker)
    return found.held


@pytest.mark.parametrize(("name", "hidden"), [("server", False), ("server", True), ("folder/x/server", False)])
def test_a_link_in_a_folder_of_the_agents_is_a_way_to_replace_what_it_leads_to(name: str, hidden: bool) -> None:
    """A program that is root's, found by a link that is not, is not root's; also where only others see the link."""
    attacker = outsider()
    with shared_folder() as root:
        (root / "real/x").mkdir(parents=True)
        (root / "real/x/server").write_text("")
        (root / "agents").mkdir()
        for link in ("server", "folder"):
            (root / "agents" / link).symlink_to(root / {"server": "real/x/server", "folder": "real"}[link])
        assert replaced(root / "agents" / name, attacker) is True
        os.chown(root / "agents", attacker.uid, attacker.gid)
        named = root / "agents" / name
        if hidden:
            (root / "private").mkdir(mode=0o700)
            (root / "private/first").symlink_to(named)
            named = root / "private/first"
        assert replaced(named, attacker) is False


@pytest.mark.parametrize(("mode", "held"), [(0o777, False), (0o755, True)])
def test_a_program_that_runs_is_writable_where_its_mode_says_so(mode: int, held: bool) -> None:
    """`Text file busy` comes after the question for permission: it is a yes."""
    attacker = outsider()
    with shared_folder() as root:
        program = root / "server"
        shutil.copy("/bin/sleep", program)
        program.chmod(mode)
        with subprocess.Popen([program, "60"]) as process:
            try:
                place = targets.Place("program", str(program), ("write",))
                (found,) = attack(job(places=[place]), attacker)
            finally:
                process.kill()
        assert found.held is held


def test_what_was_not_looked_through_does_not_count_as_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither more entries than are tried, nor a folder that can be passed and not listed."""
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(thief, "_write", lambda path: (_ for _ in ()).throw(PermissionError(errno.EACCES, "no")))
    shown = targets.Place("library", str(tmp_path), ("write",), deep=True).shown()
    assert thief.run({"places": [shown]})[0]["held"] is True
    monkeypatch.setattr(thief, "_ENTRIES", 1)
    (unfinished,) = thief.run({"places": [shown]})
    assert unfinished["held"] is None
    found = [*HELD, Finding(**unfinished)]
    assert verdict(found, OTHER, BROKER_UID).level == "L1"


def test_a_folder_of_the_broker_that_can_be_passed_and_not_listed_is_not_held() -> None:
    """Who knows a name in it may write there, and the names of modules are known."""
    attacker = outsider()
    with shared_folder() as root:
        (root / "package").mkdir()
        (root / "package/module.py").touch()
        (root / "package/module.py").chmod(0o666)
        (root / "package").chmod(0o711)
        place = targets.Place("library", str(root), ("write",), deep=True)
        assert [one.held for one in attack(job(places=[place]), attacker)] == [None]


def test_a_dependency_that_agents_may_write_is_found() -> None:
    """Through a link in the folder of libraries as well."""
    attacker = outsider()
    with shared_folder() as root:
        for folder in ("site/package", "elsewhere"):
            (root / folder).mkdir(parents=True)
            (root / folder / "module.py").touch()
        (root / "site/linked").symlink_to(root / "elsewhere")
        place = targets.Place("library", str(root / "site"), ("write",), deep=True)
        assert [one.held for one in attack(job(places=[place]), attacker)] == [True]
        for found in ("site/package", "elsewhere"):
            (root / found / "module.py").chmod(0o666)
            assert [one.held for one in attack(job(places=[place]), attacker)] == [False]
            (root / found / "module.py").chmod(0o644)
    deep = {place.path for place in targets._code() if place.deep}
    assert any(place.path.endswith("/site-packages") for place in targets._code()), (
        "the suite runs from a folder of them"
    )
    for path in (place.path for place in targets._code() if os.path.isdir(place.path)):
        assert any(path == each or (path.startswith(f"{each}/") and "/." not in path[len(each) :]) for each in deep)


def test_kernel_threads_are_no_broker() -> None:
    """They have no memory that could be read, and nothing about a boundary follows from that."""
    threads = [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and not process_attacks.Process(int(name), None).has_memory()
    ]
    process = subprocess.Popen(["/bin/true"])
    try:
        # It has ended and is not waited for: the same to see as a kernel thread, and there is one on every machine.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        for pid in [process.pid, *threads[:1]]:
            assert {one.held for one in attack(job(pid), myself())} == {None}
    finally:
        process.wait()


def test_a_program_is_looked_for_as_its_upstream_would(tmp_path: Path) -> None:
    """By its own PATH and from its own folder; whoever can put one of that name in an earlier folder is a danger."""
    for name in ("bin", "first", "run"):
        (tmp_path / name).mkdir()
    for path in ("bin/serve", "run/here"):
        (tmp_path / path).write_text("#!/bin/sh\n")
        (tmp_path / path).chmod(0o755)
    cwd = str(tmp_path / "run")
    path = f"{tmp_path}/first:../bin:{tmp_path}/run"
    found = {place.path: place.do for place in targets._run(targets.Command("crm", ["serve"], cwd, path))}
    assert found == dict.fromkeys([cwd, f"{tmp_path}/first", f"{cwd}/../bin", f"{cwd}/../bin/serve"], targets.KEPT)
    found = {place.path: place.do for place in targets._run(targets.Command("crm", ["./here"], cwd, path))}
    assert found == dict.fromkeys([cwd, f"{cwd}/./here"], targets.KEPT)


def test_sockets_that_start_programs_as_root_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may connect to a container engine is root, whatever the broker does."""
    attacker = outsider()
    with shared_folder() as root, socket.socket(socket.AF_UNIX) as engine:
        path = root / "docker.sock"
        engine.bind(str(path))
        engine.listen()
        changed = selfattack.thief_text().replace('"/run/docker.sock"', repr(str(path)))
        monkeypatch.setattr(selfattack, "thief_text", lambda: changed)
        for mode, held in ((0o600, True), (0o666, False)):
            path.chmod(mode)
            found = [one for one in attack({**job(), "self": True}, attacker) if one.target == str(path)]
            assert [(one.id, one.held) for one in found] == [("become", held)]


def test_keys_and_programs_of_credentials_are_places_too(tmp_path: Path) -> None:
    """Whoever writes an issuer's keys is everybody; whoever writes the program that prints a credential gets it."""
    program, file = tmp_path / "print", tmp_path / "interposer.yaml"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file.write_text(
        "version: 1\nissuers: [{issuer: 'https://a.example', audience: broker, keys: {file: keys.json}}]\n"
        "console: {enabled: true, tls: {certificate: tls.pem, key: tls.key},\n"
        "  login: {issuer: 'https://b.example', client_id: c, keys: {file: login.json}}}\n"
        f"approvals: {{notify: [{{command: [{tmp_path}/told]}}, "
        "{webhook_from: 'file:address', secret: 'file:signing'}]}\n"
        f"callers: [{{uid: 64101, subject: a}}]\nlisten: {{socket: {{uids: [64102]}}}}\nupstreams:\n"
        f"  crm: {{command: [cat], credential: {{env: KEY, source: 'command:{program} x'}}}}\n"
    )
    told = parts.targets(settings(str(file), None, []), tmp_path / "state", os.getpid())
    done = {place["path"]: tuple(place["do"]) for place in told["places"]}
    for kept in ("keys.json", "login.json", "tls.pem", "told"):
        assert done[str(tmp_path / kept)] == targets.KEPT
    for secret in ("tls.key", "state/seal.key", "address", "signing"):
        assert done[str(tmp_path / secret)] == targets.SECRET
    assert done[str(program)] == done[str(tmp_path)] == targets.KEPT
    assert told["callers"] == [64101, 64102]
