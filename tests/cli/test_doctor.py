"""`interposer doctor`: what it attacks and as whom, what it says, and its exit code."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.boundary import targets
from interposer.boundary.selfattack import Attacker, Finding, verdict
from interposer.cli import checkup, patients, prescription
from interposer.cli.doctor import NOBODY, attackers
from interposer.cli.patients import Patient, chosen_by
from interposer.config import Config
from interposer.config_approvals import ApprovalsConfig, ConsoleConfig, LoginConfig, TlsConfig
from interposer.errors import ConfigurationError
from tests.cli.test_commands import run
from tests.e2e.needs import missing

REPORT: dict[str, Any] = {"pid": 7, "uid": 900, "processes": [], "places": [], "operator": [], "agents": None}
STATUS = {"healthy": True, "record": "record.db"}


def patient(**told: Any) -> Patient:
    return Patient({**REPORT, **told}, "by test")


async def doctor(home: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    code, said, talk = await run(home, "doctor", "--json", *words)
    return code, json.loads(said or "{}"), talk


async def test_without_a_broker_one_is_attacked_that_was_started_for_it(tmp_path: Path) -> None:
    """The check works on a new machine, says what it did, and leaves nothing behind."""
    code, said, talk = await doctor(tmp_path / "home")
    assert (code, said["proven"], said["claimed"]) == (0, "L1", None), talk
    (one,) = said["attacked"]
    assert "was started for this check" in one["found"]
    assert one["started"] is True
    assert one["as"]["uid"] == os.geteuid()
    assert any("with the credential" in each["how"] for each in one["attacks"])
    checks = {check["name"]: check["ok"] for check in said["checks"]}
    assert (checks["upstream canary"], checks["console"]) == (True, None)
    assert not (tmp_path / "home").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(one["broker"], 0)


async def test_a_claim_that_is_not_proven_ends_with_1(tmp_path: Path) -> None:
    """By the option, or by the configuration; the running broker tells where its console is."""
    code, said, _ = await doctor(tmp_path / "home", "--claim", "L4")
    assert (code, said["covered"], said["ok"]) == (1, False, False)
    upstream = Path(__file__).parents[1] / "fakes/upstream.py"
    config = tmp_path / "interposer.yaml"
    config.write_text(
        "version: 1\nboundary: L4\nstate: home\nconsole: {}\n"
        f"upstreams: {{fake: {{command: [python3, {upstream}]}}}}\n"
    )
    config.chmod(0o600)
    code, said, talk = await doctor(tmp_path / "home", "--config", str(config))
    assert (code, said.get("claimed")) == (1, "L4"), talk
    (console,) = [check for check in said["checks"] if check["name"] == "console"]
    assert console["ok"], console
    assert console["said"].startswith("http://127.0.0.1:")


async def test_the_answer_in_text_is_plain_when_piped(tmp_path: Path) -> None:
    """No colour, one line for each kind of attack, and a loud word for a soft gate."""
    code, said, talk = await run(tmp_path / "home", "doctor", "--claim", "L1")
    assert code == 0, talk
    assert "\x1b" not in said
    assert "SOFT GATE" in said
    assert "to change:" in said
    assert sum("read the environment" in line and line.startswith("BROKEN") for line in said.splitlines()) == 1


async def test_a_broker_that_does_not_start_is_a_finding(tmp_path: Path) -> None:
    """Its own words are shown."""
    config = tmp_path / "interposer.yaml"
    config.write_text("version: 1\npolicy: nosuch.yaml\nupstreams: {fake: {command: [cat]}}\n")
    config.chmod(0o600)
    code, _, talk = await run(tmp_path / "home", "doctor", "--config", str(config))
    assert code == 1
    assert "nosuch.yaml" in talk


async def test_nobody_but_root_becomes_another_user(tmp_path: Path) -> None:
    """Asking for it as anybody else is a mistake in the words, exit code 2."""
    if os.geteuid() == 0:
        code, said, talk = await doctor(tmp_path / "home", "--as", "64102", "--claim", "L4")
        assert said.get("attacked", [{}])[0].get("as", {}).get("uid") == 64102, talk
        assert code in (0, 1)
    else:
        assert (await run(tmp_path / "home", "doctor", "--as", "0"))[0] == 2


def test_root_attacks_as_the_callers_and_anybody_else_as_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The identity is that of those who the broker must hold against."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert [one.uid for one in attackers(patient(callers=[64101, 64102]), None, sandboxed=False)] == [64101, 64102]
    assert [one.uid for one in attackers(patient(), None, sandboxed=False)] == [NOBODY]
    assert [one.uid for one in attackers(patient(uid=0), None, sandboxed=False)] == [0]
    assert [one.uid for one in attackers(patient(callers=[5]), "64103", sandboxed=False)] == [64103]
    assert [one.confined for one in attackers(patient(callers=[5]), None, sandboxed=True)] == [True]
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert [one.uid for one in attackers(patient(callers=[64101]), None, sandboxed=False)] == [1234]


async def test_a_socket_that_is_no_brokers_gives_no_proof(tmp_path: Path) -> None:
    """Nobody listens: exit code 5, with the reason."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with anyio.fail_after(30):
        code, _, talk = await run(tmp_path / "home", "doctor", "--socket", str(path))
    assert code == 5
    assert "is the broker running" in talk


@pytest.mark.parametrize(
    ("approvals", "warned"),
    [
        (ApprovalsConfig(), set()),
        (ApprovalsConfig(hold="5s"), {"openai-agents", "google-adk"}),
        (ApprovalsConfig(hold="10s", clients={"openai-agents": "4s", "google-adk": "4s"}), set()),
        (ApprovalsConfig(clients={"codex": "2m"}), {"codex"}),
    ],
)
def test_clients_that_give_up_before_the_ticket_are_named(approvals: ApprovalsConfig, warned: set[str]) -> None:
    """The default is below what any known client waits; a client's own hold counts for it."""
    found = list(checkup.holds(Config(version=1, approvals=approvals)))
    assert {check.name.removeprefix("client ") for check in found if check.ok is None} == warned
    assert all(check.remedy for check in found if check.ok is None)


def test_what_is_broken_in_the_broker_is_a_finding() -> None:
    """A record that takes nothing, keys that cannot be had, clocks apart and a silent upstream."""
    chosen = chosen_by(None)
    issuers = [
        {"issuer": "https://a", "loaded": False, "error": "refused"},
        {"issuer": "https://b", "loaded": True, "skew_s": 90.0},
        {"issuer": "https://c", "loaded": True, "skew_s": 0.5},
    ]
    told = replace(patient(), status={"healthy": False, "record": "r", "issuers": issuers}, skills={"skills": []})
    found = {check.name: check.ok for check in checkup.checks(told, chosen)}
    assert found["record"] is False
    assert (found["issuer https://a"], found["issuer https://b"], found["issuer https://c"]) == (False, False, True)
    silent = replace(patient(), status=STATUS)
    assert next(check.ok for check in checkup.checks(silent, chosen) if check.name == "upstreams") is False


def test_credentials_from_the_environment_are_named(tmp_path: Path) -> None:
    """Whoever has the broker's uid reads them there."""
    config = tmp_path / "interposer.yaml"
    config.write_text(
        "version: 1\ninsecure_env: true\nupstreams:\n"
        "  crm: {command: [cat], credential: {env: KEY, source: 'env:CRM_KEY'}}\n"
    )
    found = {check.name: check for check in checkup.checks(patient(), chosen_by(str(config)))}
    assert found["credentials"].ok is False
    with pytest.raises(ConfigurationError):
        chosen_by(str(tmp_path / "nosuch.yaml"))


@pytest.fixture
def answering() -> Iterator[str]:
    """Somebody who takes connections on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address of this machine where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_a_console_that_cannot_be_reached_is_a_finding(answering: str, silent: str) -> None:
    """By the address that the running broker tells, else by the configured one; a login needs its provider too."""

    def found(status: dict[str, Any] | None, config: ConsoleConfig | None = None) -> list[tuple[str, bool | None, str]]:
        return [(check.name, check.ok, check.said) for check in checkup.console(status, config)]

    told = {**STATUS, "console": f"{answering}/"}
    ((name, ok, said),) = found(told)
    assert (name, ok) == ("console", True)
    assert said == f"{answering}/ answers, on this machine alone; people log in with one-time addresses"
    port = int(answering.rpartition(":")[2])
    assert [ok for _, ok, _ in found(None, ConsoleConfig(port=port))] == [True]
    assert [ok for _, ok, _ in found({**STATUS, "console": f"{silent}/"})] == [False]
    ((_, ok, said),) = found(told, ConsoleConfig(tls=TlsConfig("chain.pem", "key.pem"), url="https://console.example"))
    assert (ok, "with TLS;" in said) == (True, True)
    off = [found(told, ConsoleConfig(enabled=False)), found({**STATUS, "console": None}), found(None, ConsoleConfig())]
    assert [[ok for _, ok, _ in each] for each in off] == [[None], [None], [None]]
    for issuer, answers in ((answering, True), (silent, False)):
        login = LoginConfig(issuer=issuer, client_id="console")
        ((_, _, said), (name, ok, _)) = found(told, ConsoleConfig(login=login))
        assert (name, ok) == (f"login {issuer}", answers)
        assert "at their provider" in said


def test_receivers_that_cannot_be_told_are_findings(tmp_path: Path, answering: str, silent: str) -> None:
    """A host that answers nobody and a program that is not there; of an address only the host is shown."""
    config = tmp_path / "interposer.yaml"
    config.write_text(
        "version: 1\napprovals:\n  notify:\n"
        f"    - {{webhook: '{answering}/hook?of=mine', secret: 'file:key'}}\n"
        f"    - {{webhook: '{silent}/hook?of=mine', format: slack}}\n"
        "    - {webhook_from: 'file:slack.url', format: slack}\n"
        f"    - {{command: ['{sys.executable}']}}\n"
        "    - {command: [./nosuch]}\n"
    )
    found = list(checkup.receivers(chosen_by(str(config))))
    assert [(check.name, check.ok) for check in found] == [
        ("webhook-1", True),
        ("slack-2", False),
        ("slack-3", None),
        ("command-4", True),
        ("command-5", False),
    ]
    assert not any("mine" in check.said for check in found)
    assert all(check.remedy for check in found if check.ok is False)


def test_attacks_that_ended_alike_are_one_row() -> None:
    """Forty lines of `held` hide the one that matters."""
    held = [Finding("environ", f"upstream {n}", True, "Permission denied") for n in range(5)]
    broke = [
        Finding("environ", "broker 7", False, "read 10 bytes"),
        Finding("environ", "gone", None, "it reads nothing"),
    ]
    assert list(prescription.rows([*held, *broke])) == [
        ("held", "read the environment", "upstream 0, upstream 1, upstream 2 and 2 more", ""),
        ("BROKEN", "read the environment", "broker 7", "read 10 bytes"),
    ]
    told = verdict([*held, *broke], Attacker(900, 900), 900)
    assert len(list(prescription.remedies(told))) == 1


def test_our_configuration_is_not_taken_for_another_brokers(tmp_path: Path) -> None:
    """Attacking the wrong files would prove nothing about the right ones."""
    config = tmp_path / "interposer.yaml"
    config.write_text("version: 1\nstate: state\nlisten: {socket: {path: run/broker.sock}}\n")
    chosen = chosen_by(str(config))
    assert patients._folder(chosen, str(tmp_path / "run/broker.sock")) == tmp_path / "state"
    assert patients._folder(chosen, str(tmp_path / "other/broker.sock")) is None
    config.write_text("version: 1\n")
    assert patients._folder(chosen_by(str(config)), str(tmp_path / "x/broker.sock")) == tmp_path / "x"


_IMPOSTOR = """
import json, os, socket, sys
home = sys.argv[1]
told = json.loads(sys.argv[2])
told = {name: os.getpid() if value == "SELF" else value for name, value in told.items()}
os.chdir(home)
line = socket.socket(socket.AF_UNIX)
line.bind("admin.sock")
line.listen()
print("ready", flush=True)
while True:
    peer, _ = line.accept()
    for asked in peer.makefile():
        asked = json.loads(asked)
        status = {"healthy": True, "record": "r"}
        found = {"boundary/targets": told, "broker/status": status, "skills/list": {"skills": []}}
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": found.get(asked["method"], {})}
        peer.sendall(json.dumps(answer).encode() + b"\\n")
"""


@contextlib.contextmanager
def impostor(told: dict[str, Any], uid: int) -> Iterator[Path]:
    """A program of the agent's that answers as a broker, in a state folder that is the agent's. Yields that."""
    with tempfile.TemporaryDirectory(prefix="interposer-", dir="/tmp") as name:
        home = Path(name)
        (home / "admin.key").write_text("x")
        home.chmod(0o755)
        os.chown(home, uid, uid)
        words = ["/usr/bin/python3", "-I", "-S", "-c", _IMPOSTOR, name, json.dumps(told)]
        words[0] = os.path.realpath(sys.executable) if not os.path.exists(words[0]) else words[0]
        with subprocess.Popen(words, stdout=subprocess.PIPE, user=uid, group=uid, extra_groups=[]) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                yield home
            finally:
                process.kill()


INIT = [{"target": "broker 1", "pid": 1, "stdin": False}]
LIES: dict[str, dict[str, Any]] = {
    "another process": {"pid": 1, "uid": 0, "processes": INIT},
    "another user": {"pid": "SELF", "uid": 0, "processes": INIT},
    "no number": {"pid": "7", "uid": 0, "processes": INIT},
    "nothing": {"pid": None, "uid": None},
}


@pytest.mark.parametrize("lie", LIES)
async def test_who_answers_in_the_brokers_place_is_not_believed(lie: str) -> None:
    """An agent that owns the state folder may answer there, and what it says of another process proves nothing."""
    if os.geteuid() != 0:
        missing("only root can start a program as another user: run as root")
    with impostor({**REPORT, **LIES[lie]}, 64101) as home, anyio.fail_after(60):
        code, said, talk = await doctor(home, "--as", "64101", "--claim", "L4")
    assert (code, said) == (5, {}), talk
    assert "nothing is proven" in talk


async def test_who_tells_of_nothing_proves_nothing() -> None:
    """Of itself it cannot lie; what it leaves out is attacked all the same, and does not count as held."""
    if os.geteuid() != 0:
        missing("only root can start a program as another user: run as root")
    told = {**REPORT, "pid": "SELF", "uid": 64101}
    with impostor(told, 64101) as home, anyio.fail_after(60):
        code, said, talk = await doctor(home, "--as", "64102", "--claim", "L4")
        assert (code, said["proven"]) == (1, "L1"), talk
        attacks = said["attacked"][0]["attacks"]
        assert {("places", None), ("environ", True)} <= {(one["id"], one["held"]) for one in attacks}
        assert any(one["target"].startswith(f"state folder {home}") for one in attacks)
        code, said, talk = await doctor(home, "--as", "64101")
        assert said["proven"] == "L1", talk


def test_a_process_in_another_pid_namespace_is_not_taken_for_one_of_ours() -> None:
    """Its number means another process here, or none."""
    assert targets.elsewhere(os.getpid()) == ""
    assert "PID namespace" in targets.elsewhere(0)
    if os.geteuid() != 0 or not shutil.which("unshare"):
        missing("only root makes PID namespaces, by unshare(1): run as root")
    words = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo $$; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            ((inside, _),) = targets.descendants(process.pid)
            assert "PID namespace" in targets.elsewhere(inside)
        finally:
            process.kill()


async def test_a_claim_is_not_proven_by_a_broker_of_doctors_own(tmp_path: Path) -> None:
    """How the deployment's is started is not known, whatever the attacks on ours came to."""
    if os.geteuid() != 0:
        missing("only root can attack as another user: run as root")
    code, said, talk = await doctor(tmp_path / "home", "--as", "64102", "--claim", "L4")
    assert (code, said["proven"], said["covered"]) == (1, "L4", False), said["why"] + talk
    code, text, _ = await run(tmp_path / "home", "doctor", "--as", "64102", "--claim", "L4")
    assert code == 1
    assert "a broker of doctor's own" in text


async def test_no_broker_is_started_by_what_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent may have written it, and a configuration names programs."""
    file = tmp_path / "interposer.yaml"
    file.write_text(f"version: 1\nupstreams: {{planted: {{command: [touch, '{tmp_path / 'planted'}']}}}}\n")
    file.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert chosen_by(None).file is None
    assert chosen_by(str(file)).file == file
    code, said, talk = await doctor(tmp_path / "home")
    assert code == 0, talk
    assert not (tmp_path / "planted").exists()
    assert "upstream planted" not in {check["name"] for check in said["checks"]}


def test_the_members_of_the_agents_group_attack_too(tmp_path: Path) -> None:
    """By primary group as well, besides the callers that are configured; the broker's own user is not its attacker."""
    if os.geteuid() != 0:
        missing("only root can give files to another group: run as root")
    path = tmp_path / "broker.sock"
    path.touch()
    someone = next(user for user in pwd.getpwall() if user.pw_uid not in (0, 900) and user.pw_gid != 0)
    os.chown(path, 900, someone.pw_gid)
    named = [one.uid for one in attackers(patient(callers=[64101], agents=str(path)), None, sandboxed=False)]
    assert {64101, someone.pw_uid} <= set(named)
    own = patient(callers=[64101], agents=str(path), uid=someone.pw_uid)
    assert someone.pw_uid not in [one.uid for one in attackers(own, None, sandboxed=False)]
