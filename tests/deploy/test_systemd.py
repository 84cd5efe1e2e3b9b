"""The systemd unit: systemd reads it, its exposure is low, and the broker works under what it forbids."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interposer import config
from tests.boundary.installation import Installation, Person, installation
from tests.e2e.needs import missing
from tests.fakes import canary

from .conversation import DEADLINE_S, Conversation, connect, until_ready
from .layout import DEPLOY, Layout, laid_out

__all__ = ["installation"]

UNITS = DEPLOY / "systemd"
EXPOSURE = 2.0
"""In systemd's own count: 0 is nothing, 10 everything. 1.3 when this was written."""


def unit(name: str = "interposer.service") -> dict[str, list[str]]:
    """A unit's directives, each with its values in order."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        key, sign, value = line.partition("=")
        if sign and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def tool(*words: str) -> str:
    """What a tool of systemd's prints; it must succeed."""
    return ran(*words).stdout


def complaints(machine: Path) -> str:
    """What systemd says of the units. Of most it only warns, and succeeds."""
    done = ran("systemd-analyze", "verify", f"--root={machine}", "interposer.service", "interposer.socket")
    return done.stdout + done.stderr


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(words[0]) is None:
        missing(f"{words[0]} is not installed: apt-get install systemd")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine that has the units, and the programs that they start."""
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for file in (*UNITS.glob("*.service"), *UNITS.glob("*.socket")):
        shutil.copy(file, units)
    provided = tmp_path / "usr/lib/systemd/system"
    provided.mkdir(parents=True)
    for name in ("sysinit", "basic", "sockets", "network-online", "multi-user", "shutdown"):
        (provided / f"{name}.target").write_text(f"[Unit]\nDescription={name}\n")
    for program in (unit()["ExecStart"][0].split()[0], unit()["ExecReload"][0].split()[0]):
        file = tmp_path / program.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    return tmp_path


def test_systemd_takes_the_units(machine: Path) -> None:
    """systemd finds no unknown directive, no wrong value and no missing program in them."""
    assert complaints(machine) == ""
    with (machine / "etc/systemd/system/interposer.service").open("a") as broken:
        broken.write("\n[Service]\nNoSuchDirective=yes\n")
    assert "NoSuchDirective" in complaints(machine)


def test_the_units_exposure_is_low(machine: Path) -> None:
    """systemd's own judgement of what the service could still do."""
    threshold = f"--threshold={round(EXPOSURE * 10)}"
    tool("systemd-analyze", "security", "--offline=true", f"--root={machine}", threshold, "interposer.service")


def test_users_and_folders_are_as_the_configuration_names_them(tmp_path: Path) -> None:
    """systemd makes the broker's user, the agent with the uid of interposer.yaml and the group that may connect; the
    ways to the socket, the configuration and the credentials belong to root."""
    if os.geteuid() != 0:
        missing("users are made by root: run as root")
    for kind in ("sysusers.d", "tmpfiles.d"):
        shutil.copytree(UNITS / kind, tmp_path / "etc" / kind)
    tool("systemd-sysusers", f"--root={tmp_path}")
    tool("systemd-tmpfiles", f"--root={tmp_path}", "--create", "interposer.conf")
    users = listed(tmp_path / "etc/passwd")
    groups = listed(tmp_path / "etc/group")
    read = config.load(UNITS / "interposer.yaml")
    assert [int(users["support-agent"][2])] == [caller.uid for caller in read.callers]
    assert groups[str(read.listen.socket.group)][3] == "support-agent"
    broker = int(groups["interposer"][2])
    found = {place: (tmp_path / place).stat() for place in ("run/interposer", "etc/interposer")}
    found["credentials"] = (tmp_path / "etc/interposer/credentials").stat()
    seen = {place: (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) for place, stat in found.items()}
    assert seen == {
        "run/interposer": (0, 0, 0o755),
        "etc/interposer": (0, broker, 0o750),
        "credentials": (0, 0, 0o700),
    }


def listed(file: Path) -> dict[str, list[str]]:
    """passwd(5) and group(5), by name."""
    return {line.split(":")[0]: line.split(":") for line in file.read_text().splitlines()}


def test_the_units_and_the_configuration_agree() -> None:
    """Socket, credentials, state and user are the same in the units and in interposer.yaml."""
    service, socket = unit(), unit("interposer.socket")
    read = config.load(UNITS / "interposer.yaml")
    assert socket["ListenStream"] == [read.listen.socket.path]
    assert socket["SocketGroup"] == [read.listen.socket.group]
    assert socket["SocketMode"] == ["0660"]
    loaded = {line.partition(":")[0] for line in service["LoadCredential"]}
    wanted = {one.credential.source for one in read.upstreams.values() if one.credential}
    assert wanted == {f"systemd:{name}" for name in loaded}
    assert read.state == f"/var/lib/{service['StateDirectory'][0].split()[0]}"
    assert read.boundary == "L4"
    assert read.unmapped_callers == "refuse"
    assert not read.insecure_env


def allowed_system_calls() -> list[str]:
    """SystemCallFilter= with its sets written out: an allow list, and then what is taken off it."""
    names: set[str] = set()
    for line in unit()["SystemCallFilter"]:
        listed = {call for word in line.removeprefix("~").split() for call in members(word)}
        names = names - listed if line.startswith("~") else names | listed
    return sorted(names)


def members(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    listed = tool("systemd-analyze", "syscall-filter", word).split("\n")[1:]
    words = {line.strip() for line in listed if line.startswith(" ") and "#" not in line}
    return {call for one in words for call in members(one)}


@contextmanager
def service(layout: Layout, installation: Installation, broker: Person, agent: Person) -> Iterator[int]:
    """The broker as the unit starts it, and stopped in order; its process."""
    command = [installation.python, *unit()["ExecStart"][0].replace("/etc/interposer", str(layout.etc)).split()[1:]]
    provided = layout.root / "provided"
    provided.mkdir(mode=0o700)
    key = provided / "skills.key"
    key.write_bytes(layout.credential.read_bytes())
    key.chmod(0o400)
    for path in (provided, key):
        os.chown(path, broker.uid, broker.uid)
    plan = {
        "uid": broker.uid,
        "socket": str(layout.socket),
        "socket_gid": agent.uid,
        "credentials": str(provided),
        "system_calls": allowed_system_calls(),
        "environment": {"PATH": "/usr/bin:/bin", "INTERPOSER_HOME": str(layout.state), "PYTHONDONTWRITEBYTECODE": "1"},
        "command": command,
    }
    (layout.root / "plan.json").write_text(json.dumps(plan))
    starter = Path(__file__).with_name("service_manager.py")
    with (layout.root / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", str(starter), str(layout.root / "plan.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=layout.state,
            bufsize=0,
        )
    try:
        until_ready(process, layout.root / "log")
        yield process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0, (layout.root / "log").read_text()
    finally:
        process.kill()
        process.communicate()
        canary.require_absent((layout.root / "log").read_bytes(), "the broker's log")


def test_the_broker_works_under_what_the_unit_forbids(installation: Installation) -> None:
    """With systemd's socket and credential, its system calls, no new rights and no writable code, as its own user: the
    mapped agent gets masked answers, somebody else does not reach the socket, and nobody else reads the state."""
    broker, agent, stranger = (installation.person(number) for number in (1, 2, 3))
    changes = {"uid: 4201": f"uid: {agent.uid}", ", group: interposer-agents": ""}
    layout = laid_out("systemd", installation, broker, changes)
    words = connect(installation.python, layout.socket)
    with service(layout, installation, broker, agent) as pid:
        assert "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
        with Conversation(agent.popen(words, bufsize=0)) as talk:
            talk.open()
            answer = talk.call("get_customer", id="C-1001")
            assert "[REDACTED:" in answer["result"]["content"][0]["text"], answer
            assert talk.call("debug_info")["error"]["code"] == -32602
            canary.require_absent(talk.raw, "what the agent was sent")
        refused = stranger.run(words)
        assert refused.returncode == 5
        assert b"Permission denied" in refused.stderr
        for path in (layout.state / "record.db", layout.root / "provided/skills.key", layout.credential):
            assert agent.run(["/bin/cat", str(path)]).returncode == 1
        doctor = ["-I", "-m", "interposer", "doctor", "--config", str(layout.config), "--claim", "L4"]
        words = [installation.python, *doctor, "--as", str(agent.uid)]
        proved = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd="/", env=agent.environment())
        assert proved.returncode == 0, proved.stdout + proved.stderr
    canary.require_clean(layout.state)
    shutil.rmtree(layout.root)
