"""The thief steals what can be stolen and changes nothing; a level is proven by what it did not get."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interposer.boundary import attack as thief
from interposer.boundary import targets
from interposer.boundary.selfattack import Attacker, Finding, NotTried, Verdict, attack, myself, user, verdict, weakest
from interposer.model import JsonObject
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
SAME, CONFINED = Attacker(BROKER_UID, 1), Attacker(BROKER_UID, 1, confined=True)
OTHER, ROOT = Attacker(OTHER_UID, 1), Attacker(0, 0)


@pytest.mark.parametrize(
    ("findings", "attacker", "level"),
    [
        (HELD, OTHER, "L4"),
        (HELD, CONFINED, "L2"),
        (HELD, SAME, "L2"),
        (HELD, ROOT, "L2"),
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
        ([*HELD, finding(None, "write-file", "revoked list")], OTHER, "L4"),
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
    assert set(thief.ON_PROCESSES) < set(found)
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
        commands=[("crm", [sys.executable, "server.py"], str(tmp_path))],
    )
    done = {place.path: place.do for place in found}
    assert done[str(tmp_path / "interposer.yaml")] == done[str(tmp_path / "policy.yaml")] == targets.KEPT
    assert done[str(tmp_path / "state/record.db-wal")] == done[str(tmp_path / "key")] == targets.SECRET
    assert done[str(tmp_path / "broker.sock")] == ("replace",)
    assert done[str(program)] == targets.KEPT
    assert any(place.deep and place.path.endswith("/interposer") for place in found)
