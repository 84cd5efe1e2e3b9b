"""`interposer run`: real agents of ordinary users in the sandbox, and the broker outside of it."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interposer.boundary import seccomp
from interposer.boundary.sandbox import Kernel
from tests.boundary.installation import Installation, Person, installation  # noqa: F401
from tests.e2e.needs import missing
from tests.fakes import canary

DEADLINE_S = 30.0
POLICY = """\
version: 1
rules:
  - {id: reads, effect: allow, skills: [fake.echo]}
  - {id: about-asks, effect: ask, skills: [fake.about], approval: {expires: 30m}}
"""
AGENT = """
import json, subprocess, sys
shim = subprocess.Popen([sys.executable, "-I", "-m", "interposer", "connect"], stdin=-1, stdout=-1)
def ask(id, method, params):
    shim.stdin.write(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\\n")
    shim.stdin.flush()
    while True:
        answer = json.loads(shim.stdout.readline())
        if answer.get("id") == id:
            return answer
ask(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}})
def call(name, **arguments):
    return ask(name, "tools/call", {"name": name, "arguments": arguments})
"""
CALL = AGENT + 'print(json.dumps(call("echo", text="hello")))\n'
APPROVE = (
    AGENT
    + """
import os, pathlib, socket
state = pathlib.Path(sys.argv[1])
ticket = call("about")["result"]["_meta"]["interposer/pending"]["approval_id"]
said = []
for first in ({}, {"key": ""}, {"key": "0" * 64}, {"key": os.environ["INTERPOSER_SOCKET"]}):
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(state / "admin.sock"))
        for id, (method, params) in enumerate([("operator/key", first), ("approvals/approve", {"id": ticket})]):
            try:
                message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
                line.sendall(json.dumps(message).encode() + b"\\n")
            except OSError:
                break
        held = b""
        try:
            while piece := line.recv(65536):
                held += piece
        except OSError:
            pass
        said.append(held.decode())
command = [sys.executable, "-I", "-m", "interposer", "approvals", "approve", ticket]
cli = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "INTERPOSER_HOME": str(state)})
again = call("about")["result"]["_meta"]
print(json.dumps({"ticket": ticket, "said": said, "cli": [cli.returncode, cli.stderr], "again": again}))
"""
)


@dataclass(frozen=True)
class House:
    """One user's home with a configuration, a policy, a credential and a folder to work in."""

    installation: Installation
    person: Person

    @property
    def work(self) -> Path:
        return self.person.home / "work"

    @property
    def state(self) -> Path:
        return self.person.home / "state"

    @property
    def settings(self) -> Path:
        return self.person.home / ".config/interposer"

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{self.installation.root}/bin:{os.environ['PATH']}"
        return self.person.environment(PATH=path, TMPDIR=str(self.person.home / "tmp"), **more)

    def without_broker(self) -> dict[str, str]:
        """For runs that need none: a socket that listens is taken for one that stands."""
        return self.environment(INTERPOSER_SOCKET=str(self.person.home / "any.sock"))

    def popen(self, words: list[str], *, through: list[str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        command = [*(through or []), self.installation.python, "-I", "-m", "interposer", *words]
        return self.person.popen(command, **{"cwd": self.work, "env": self.environment(), **options})

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`interposer run`, to its end."""
        with self.popen(["run", *words], **{"stdin": subprocess.DEVNULL, **options}) as process:
            try:
                out, err = process.communicate(timeout=DEADLINE_S)
            finally:
                process.kill()
        return subprocess.CompletedProcess(list(words), process.returncode, out.decode(), err.decode())

    def python(self, text: str, *words: str) -> list[str]:
        return [self.installation.python, "-I", "-c", text, *words]

    def configure(self, folder: Path, more: str = "", upstream: str = "") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "policy.yaml").write_text(POLICY)
        key = canary.credential_file(folder, "fake")
        command = json.dumps([self.installation.python, self.installation.upstream])
        text = "version: 1\npolicy: policy.yaml\napprovals: {hold: 300ms}\n"
        text += f"upstreams:\n  fake:\n    command: {command}\n{upstream}"
        text += f"    credential: {{env: UPSTREAM_TOKEN, source: 'file:{key.name}'}}\n{more}"
        file = folder / "interposer.yaml"
        file.write_text(text)
        self.own(folder)
        return file

    def own(self, top: Path) -> None:
        for path in (top, *top.rglob("*")):
            os.chown(path, self.person.uid, self.person.uid, follow_symlinks=False)


@pytest.fixture
def house(installation: Installation) -> Iterator[House]:  # noqa: F811
    lacking = Kernel.here().missing()
    if lacking:
        missing(f"this kernel has no {'; '.join(lacking)}")
    person = installation.person(7)
    found = House(installation, person)
    try:
        found.configure(found.settings)
        found.work.mkdir()
        (person.home / "tmp").mkdir()
        with socket.socket(socket.AF_UNIX) as any_socket:
            any_socket.bind(str(person.home / "any.sock"))
            any_socket.listen()
            found.own(person.home)
            yield found
    finally:
        installation.forget(person)


def until(holds: Callable[[], object], why: str) -> None:
    """Look again until it is so; for what no descriptor tells of."""
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, why
        select.select([], [], [], 0.02)


def lines(process: subprocess.Popen[bytes], expected: bytes) -> None:
    """Read until a line has come."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == expected:
            return
    raise AssertionError(f"{expected!r} did not come")


def of(uid: int) -> dict[int, str]:
    """The living processes of a user: pid -> command line."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"\nUid:\t{uid}\t" in status and "\nState:\tZ" not in status:
            found[int(pid)] = line
    return found


def test_an_agent_calls_through_the_broker_outside(house: House) -> None:
    """The shim works inside; the broker that was started for the run ends with it, and leaves a record."""
    done = house.run("--", *house.python(CALL))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["content"][0]["text"] == "hello"
    assert of(house.person.uid) == {}
    assert not (house.state / "admin.key").exists()
    assert (house.state / "record.db").exists()


def test_the_block_says_what_holds(house: House) -> None:
    """Standard error has the level, what is writable and what is hidden; with --quiet it has nothing."""
    said = house.run("--", "true").stderr
    assert "boundary L2" in said
    assert f"writable  {house.work}" in said
    assert str(house.state) in said
    assert str(house.settings / "fake.credential") in said
    assert house.run("--quiet", "--", "true", env=house.without_broker()).stderr == ""


def test_the_agent_cannot_answer_its_own_question(house: House) -> None:
    """It reaches the administration socket, and gets nothing done there: it has no key, and cannot read it."""
    done = house.run("--", *house.python(APPROVE, str(house.state)))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all('"error"' in said and "granted" not in said for said in found["said"])
    assert found["cli"][0] == 5
    assert "agents in a sandbox" in found["cli"][1]
    assert found["again"]["interposer/pending"]["approval_id"] == found["ticket"]


def test_an_operator_outside_answers_it(house: House) -> None:
    """The same request from outside the sandbox, by the same uid, is granted: the key is the difference."""
    waits = AGENT + 'print(json.dumps(call("about")), flush=True); input(); print(json.dumps(call("about")))'
    with house.popen(["run", "--", *house.python(waits)]) as process:
        try:
            assert process.stdout is not None
            meta = json.loads(process.stdout.readline())["result"]["_meta"]
            ticket = meta["interposer/pending"]["approval_id"]
            with house.popen(["approvals", "approve", ticket]) as approval:
                approval.communicate(timeout=DEADLINE_S)
            assert approval.returncode == 0
            out, err = process.communicate(b"\n", timeout=DEADLINE_S)
        finally:
            process.kill()
    assert "interposer/pending" not in json.loads(out)["result"].get("_meta", {}), err


THEFT = """
import glob, json, os, sys
state, settings, python = sys.argv[1:4]
def tried(attempt):
    try:
        attempt()
    except OSError as error:
        return error.errno in (1, 13)
    return False
names = [os.path.join(state, name) for name in os.listdir(state)] + [os.path.join(settings, "fake.credential")]
held = {f"read {name}": tried(lambda: open(name, "rb")) for name in names if not name.endswith(".sock")}
written = [*names, os.path.join(settings, "policy.yaml"), os.path.join(settings, "interposer.yaml"), python]
written += [os.path.join(sys.prefix, "lib/x.py"), os.path.join(os.environ["HOME"], ".bashrc"), "/tmp/interposer-x"]
held |= {f"write {name}": tried(lambda: open(name, "ab")) for name in written if not name.endswith(".sock")}
held |= {f"remove {name}": tried(lambda: os.unlink(name)) for name in names}
held |= {f"move {place}": tried(lambda: os.rename(place, "taken")) for place in (state, settings)}
brokers = []
for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
    try:
        uid = int(open(f"/proc/{pid}/status").read().partition("Uid:\\t")[2].split()[0])
        line = open(f"/proc/{pid}/cmdline").read() + "\\0"
    except OSError:
        continue
    if uid == os.getuid() and ("\\0serve\\0" in line or "upstream" + ".py" in line):
        brokers.append(pid)
        for name in ("mem", "environ", "maps", "fd/0"):
            held[f"{pid} {name}"] = tried(lambda: open(f"/proc/{pid}/{name}", "rb"))
        held[f"{pid} fds"] = tried(lambda: os.readlink(f"/proc/{pid}/fd/1"))
        held[f"{pid} kill"] = tried(lambda: os.kill(pid, 15))
held["parent"] = tried(lambda: os.kill(os.getppid(), 9))
print(json.dumps({"held": held, "brokers": len(brokers), "credentials": "CREDENTIALS_DIRECTORY" in os.environ}))
"""


def test_nothing_of_the_brokers_is_within_reach(house: House) -> None:
    """Record, key, credential, policy, code, the broker's processes and its upstreams: each attempt is refused."""
    words = house.python(THEFT, str(house.state), str(house.settings), house.installation.python)
    done = house.run("--", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["brokers"] >= 3, "the keeper, the broker, an upstream"
    assert {name for name, held in found["held"].items() if not held} == set()
    assert {"record.db", "admin.key"} <= {Path(name).name for name in found["held"]}
    # The same program without the sandbox gets at them.
    house.run("--", "true")
    control = house.person.run(words, cwd=house.work)
    held = json.loads(control.stdout)["held"]
    assert not held[f"read {house.state / 'record.db'}"]
    assert not held[f"write {house.settings / 'policy.yaml'}"]


def test_the_environment_is_handed_down_without_the_brokers_own(house: House) -> None:
    """Where its configuration, its state and its credentials are is not the agent's."""
    more = "insecure_env: true\nlisten: {tcp: {tokens: [{source: 'env:FAKE_TOKEN', subject: a}]}}\n"
    file = house.configure(house.settings, more=more)
    private = house.person.home / "given"
    private.mkdir()
    house.own(private)
    given = house.environment(
        INTERPOSER_CONFIG=str(file), FAKE_TOKEN="t" * 32, CREDENTIALS_DIRECTORY=str(private), KEPT="kept"
    )
    done = house.run("--", "env", env=given)
    assert done.returncode == 0, done.stderr
    seen = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert seen["KEPT"] == "kept"
    assert seen["INTERPOSER_SOCKET"] == str(house.state / "broker.sock")
    assert not {"INTERPOSER_CONFIG", "INTERPOSER_HOME", "CREDENTIALS_DIRECTORY", "FAKE_TOKEN"} & set(seen)
    assert not Path(seen["TMPDIR"]).exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("true", 0)],
)
def test_the_exit_code_is_the_agents(house: House, words: str, code: int) -> None:
    """128 + n where a signal ended it, as shells say it."""
    assert house.run("--quiet", "--", "sh", "-c", words, env=house.without_broker()).returncode == code


def test_a_program_that_is_not_there_starts_nothing(house: House) -> None:
    """127, and no broker; a file that cannot be executed is 126."""
    assert house.run("--", "no-such-program-anywhere").returncode == 127
    assert not (house.state / "record.db").exists()
    bad = house.person.file("bad", "\x7fELFnot", 0o755)
    assert house.run("--quiet", "--", str(bad), env=house.without_broker()).returncode == 126


IN_PYTHON = "import multiprocessing, tempfile; multiprocessing.Lock(); print(tempfile.mkdtemp())"
IN_NODE = "require('fs').writeFileSync('x', 'y'); console.log(require('os').tmpdir())"
IN_GIT = "git init -q r; cd r; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x; git status"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python3", "-c", IN_PYTHON], "interposer-run-"),
        (["node", "-e", IN_NODE], "interposer-run-"),
        (["npx", "--version"], "."),
        (["git", "-c", f"alias.all=!{IN_GIT}", "all"], "clean"),
        (["ps", "-e"], "ps"),
        (["sh", "-c", "echo x > here && echo y > $TMPDIR/there && cat here $TMPDIR/there"], "x\ny"),
        (["setsid", "-w", "sh", "-c", "echo apart"], "apart"),
        (["nice", "-n", "5", "sh", "-c", "ulimit -n 100; ulimit -n"], "100"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_ordinary_programs_run_inside(house: House, words: list[str], expected: str) -> None:
    """What agents use every day works, with the working directory and TMPDIR writable."""
    if shutil.which(words[0]) is None:
        missing(f"{words[0]} is not installed")
    done = house.run("--quiet", "--", *words, env=house.without_broker())
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_read_only_and_more_places(house: House) -> None:
    """With --read-only nothing but TMPDIR and what --write names is writable."""
    (house.person.home / "more").mkdir()
    house.own(house.person.home / "more")
    words = "echo a > $TMPDIR/a && echo b > ../more/b && ! echo c > c"
    done = house.run(
        "--quiet", "--read-only", "--write", "../more", "--", "sh", "-c", words, env=house.without_broker()
    )
    assert done.returncode == 0, done.stderr
    assert list(house.work.iterdir()) == []


def beside_work(house: House) -> list[str]:
    return ["--config", str(house.configure(house.work))]


def config_through_link(house: House) -> list[str]:
    (house.work / "link.yaml").symlink_to(house.settings / "interposer.yaml")
    house.own(house.work)
    return ["--config", "link.yaml"]


def linked_code(house: House) -> list[str]:
    """As uv links a cache into each environment."""
    code = house.person.home / "server.py"
    shutil.copy(house.installation.upstream, code)
    (house.work / ".venv/lib").mkdir(parents=True)
    os.link(code, house.work / ".venv/lib/server.py")
    house.own(house.person.home)
    file = house.settings / "interposer.yaml"
    file.write_text(file.read_text().replace(house.installation.upstream, str(code)))
    return []


def write_cache(house: House) -> list[str]:
    for name in (".npm", ".cache"):
        (house.person.home / name).mkdir()
    house.own(house.person.home)
    file = house.settings / "interposer.yaml"
    file.write_text(file.read_text() + "  other: {command: [npx, -y, some-server]}\n")
    return ["--write", str(house.person.home / ".npm")]


def write_uv_cache(house: House) -> list[str]:
    write_cache(house)
    file = house.settings / "interposer.yaml"
    file.write_text(file.read_text().replace("npx, -y", "/usr/bin/env, uvx"))
    return ["--write", str(house.person.home / ".cache")]


def upstream_path_in_work(house: House) -> list[str]:
    house.configure(house.settings, upstream=f"    env: {{PATH: '/usr/bin:{house.work}/bin'}}\n")
    return []


def policy_in_work(house: House) -> list[str]:
    policy = house.work / "p.yaml"
    policy.write_text(POLICY)
    house.own(policy)
    return ["--policy", str(policy)]


def policy_through_link(house: House) -> list[str]:
    (house.work / "link.yaml").symlink_to(house.settings / "policy.yaml")
    house.own(house.work)
    return ["--policy", str(house.work / "link.yaml")]


def credential_in_work(house: House) -> list[str]:
    file = house.settings / "interposer.yaml"
    canary.credential_file(house.work, "fake")
    house.own(house.work)
    file.write_text(file.read_text().replace("file:fake", f"file:{house.work}/fake"))
    return []


def credential_with_two_names(house: House) -> list[str]:
    os.link(house.settings / "fake.credential", house.person.home / "copy.credential")
    return []


def state_in_work(house: House) -> list[str]:
    file = house.settings / "interposer.yaml"
    file.write_text(file.read_text() + f"state: {house.work / 'state'}\n")
    return []


def revoked_in_work(house: House) -> list[str]:
    house.configure(house.settings, more=f"revoked: {house.work / 'revoked.yaml'}\n")
    return []


def socket_in_work(house: House) -> list[str]:
    house.configure(house.settings, more=f"listen: {{socket: {{path: {house.work / 'b.sock'}}}}}\n")
    return []


def upstream_runs_in_work(house: House) -> list[str]:
    house.configure(house.settings, upstream=f"    cwd: {house.work}\n")
    return []


def upstream_code_in_work(house: House) -> list[str]:
    file = house.settings / "interposer.yaml"
    shutil.copy(house.installation.upstream, house.work / "server.py")
    file.write_text(file.read_text().replace(house.installation.upstream, str(house.work / "server.py")))
    return []


def write_home(house: House) -> list[str]:
    return ["--write", str(house.person.home)]


def write_within_state(house: House) -> list[str]:
    (house.state / "pins").mkdir(parents=True)
    house.own(house.state)
    return ["--write", str(house.state / "pins")]


def write_code(house: House) -> list[str]:
    return ["--write", str(house.installation.package / "boundary")]


def write_packages(house: House) -> list[str]:
    return ["--write", str(house.installation.package.parent)]


def write_interpreter(house: House) -> list[str]:
    return ["--write", str(house.installation.root / "bin")]


def write_everything(house: House) -> list[str]:
    return ["--write", "/"]


def write_proc(house: House) -> list[str]:
    return ["--write", "/proc/self"]


def write_nothing(house: House) -> list[str]:
    return ["--write", str(house.work / "gone")]


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (beside_work, "the configuration"),
        (config_through_link, "the configuration"),
        (linked_code, "hard link"),
        (write_cache, "takes code from (npx)"),
        (write_uv_cache, "where upstream other takes code from"),
        (upstream_path_in_work, "in PATH, where the agent could write"),
        (policy_in_work, "the policy"),
        (policy_through_link, "the policy"),
        (credential_in_work, "a credential"),
        (credential_with_two_names, "second name"),
        (state_in_work, "state"),
        (revoked_in_work, "revoked"),
        (socket_in_work, "socket"),
        (upstream_runs_in_work, "where upstream fake runs"),
        (upstream_code_in_work, "run by upstream fake"),
        (write_home, "state"),
        (write_within_state, "state"),
        (write_code, "code"),
        (write_packages, "code"),
        (write_interpreter, "interpreter"),
        (write_everything, "never writable"),
        (write_proc, "never writable"),
        (write_nothing, "does not exist"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_the_agent_could_rewrite_refuses_the_run(
    house: House, arrange: Callable[[House], list[str]], said: str
) -> None:
    """Nothing is weakened silently: the run does not start, and the text says what to move."""
    done = house.run(*arrange(house), "--", "touch", "started")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not (house.work / "started").exists()
    assert not (house.state / "record.db").exists()


@pytest.mark.parametrize(("call", "lacks"), [(444, "Landlock"), (0, "seccomp")], ids=["landlock", "seccomp"])
def test_a_weaker_kernel_refuses_unless_that_is_accepted(house: House, call: int, lacks: str) -> None:
    """Without Landlock or seccomp nothing starts; with --allow-weaker it says loudly what is missing."""
    machine = seccomp.machine()
    assert machine is not None
    refuse = 0x00050000 | (38 if call else 22)
    prctl = {"x86_64": 157, "aarch64": 167}[os.uname().machine]
    lacking = [
        (0x20, 0, 0, 0),
        (0x15, 0, 3 if not call else 1, call or prctl),
        *([] if call else [(0x20, 0, 0, 16), (0x15, 0, 1, 22)]),
        (0x06, 0, 0, refuse),
        (0x06, 0, 0, seccomp.ALLOW),
    ]
    through = [house.installation.python, "-I", "-c", WITHOUT, seccomp.assembled(lacking).hex()]
    refused = house.run("--", "touch", "started", through=through)
    assert refused.returncode == 2
    assert lacks in refused.stderr
    assert not (house.work / "started").exists()
    accepted = house.run("--allow-weaker", "--", *house.python(CALL), through=through)
    assert accepted.returncode == 0, accepted.stderr
    assert f"WEAKER {lacks}" in accepted.stderr
    assert "boundary L1" in accepted.stderr
    assert "hello" in accepted.stdout


WITHOUT = """
import ctypes, os, sys
code = bytes.fromhex(sys.argv[1])
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
libc.prctl(22, 2, ctypes.byref(Program(len(code) // 8, code)), 0, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_broker_that_stands_is_used_and_stays(house: House) -> None:
    """Found by its socket, it serves the run and outlives it."""
    with house.popen(["serve"]) as daemon:
        try:
            lines(daemon, b"ready")
            done = house.run("--", *house.python(CALL))
            assert done.returncode == 0, done.stderr
            assert "which was running" in done.stderr
            assert "hello" in done.stdout
            assert daemon.poll() is None
        finally:
            daemon.terminate()
            daemon.communicate(timeout=DEADLINE_S)


def test_a_broker_that_was_named_and_does_not_answer_starts_no_other(house: House) -> None:
    """$INTERPOSER_SOCKET is an order; another broker would be another policy."""
    done = house.run("--", "true", env=house.environment(INTERPOSER_SOCKET=str(house.work / "none.sock")))
    assert done.returncode == 5
    assert "none.sock" in done.stderr


def test_a_broker_that_does_not_start_says_why(house: House) -> None:
    """Its own code and its last words; the agent is not started, and nothing is left."""
    (house.settings / "policy.yaml").write_text("version: 1\nrules: [{id: x, efect: allow}]\n")
    done = house.run("--", "touch", "started")
    assert done.returncode == 2
    assert "efect" in done.stderr
    assert not (house.work / "started").exists()
    assert of(house.person.uid) == {}


def test_a_broker_that_dies_is_said_and_the_agent_goes_on(house: House) -> None:
    """Its calls fail from then on; where to look stands on standard error."""
    with house.popen(["run", "--quiet", "--", "sh", "-c", "echo up; read word; exit 6"]) as process:
        try:
            lines(process, b"up")
            for pid in [pid for pid, line in of(house.person.uid).items() if " serve " in line]:
                os.kill(pid, signal.SIGKILL)
            assert process.stderr is not None
            assert b"the broker has ended" in process.stderr.readline()
            process.communicate(b"word\n", timeout=DEADLINE_S)
        finally:
            process.kill()
    assert process.returncode == 6


def test_what_the_agent_leaves_behind_ends_with_it(house: House) -> None:
    """Daemons of the agent's would go on reading its terminal."""
    stubborn = "import os, signal; signal.signal(15, signal.SIG_IGN); os.setsid(); signal.alarm(600); signal.pause()"
    words = f"sleep 600 & setsid sleep 600 & {house.installation.python} -I -c '{stubborn}' & exit 4"
    assert house.run("--quiet", "--", "sh", "-c", words, env=house.without_broker()).returncode == 4
    assert of(house.person.uid) == {}


def test_signals_are_passed_on(house: House) -> None:
    """Who ends the run ends the agent, by the same signal, and gets its answer."""
    words = "trap 'echo told; exit 9' TERM; echo up; while :; do sleep 0.05; done"
    with house.popen(["run", "--quiet", "--", "sh", "-c", words], env=house.without_broker()) as process:
        try:
            lines(process, b"up")
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    assert (process.returncode, out) == (9, b"told\n")


def test_a_run_that_is_killed_takes_agent_and_broker_along(house: House) -> None:
    """kill -9 leaves no agent, and no broker that was started for it."""
    with house.popen(["run", "--quiet", "--", "sh", "-c", "echo up; sleep 600 & exec sleep 600"]) as process:
        lines(process, b"up")
        process.kill()
        process.wait()
        left = {pid: line for pid, line in of(house.person.uid).items() if line.strip() == "sleep 600"}
        until(lambda: not [line for line in of(house.person.uid).values() if "serve" in line], "the broker stays")
        until(lambda: len([p for p in left if Path(f"/proc/{p}/exe").exists()]) <= 1, "the agent stays")
        # Its own children stay in the sandbox, and have no broker any more.
        for pid in of(house.person.uid):
            os.kill(pid, signal.SIGKILL)


def test_a_configuration_in_the_working_directory_is_not_taken(house: House) -> None:
    """An earlier agent could have put it there, and its commands would run outside; that is said."""
    file = house.configure(house.work)
    planted = house.person.home / "planted"
    file.write_text(file.read_text().replace('["', f'["/usr/bin/touch", "{planted}", "'))
    done = house.run("--", *house.python(CALL))
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    assert f"{file} is ignored" in done.stderr
    assert not planted.exists()


def test_a_broker_of_ours_that_stands_is_protected_as_well(house: House) -> None:
    """Its own configuration, not the one that is found here, says what is hidden; where that is within reach of the
    agent, the run does not start."""
    away = house.person.home / "away"
    file = house.configure(away, more=f"listen: {{socket: {{path: {away}/b.sock}}}}\nstate: {away}/kept\n")
    words = ["serve", "--config", str(file), "--policy", "p.yaml"]
    where = house.environment(INTERPOSER_SOCKET=str(away / "b.sock"))
    shutil.copy(away / "policy.yaml", house.work / "p.yaml")
    house.own(house.work)
    with house.popen(words) as daemon:
        try:
            lines(daemon, b"ready")
            refused = house.run("--", "touch", "started", env=where)
            assert refused.returncode == 2, refused.stderr
            assert "policy" in refused.stderr
            assert str(house.work / "p.yaml") in refused.stderr
            assert not (house.work / "started").exists()
            stolen = house.run("--read-only", "--", "cat", str(away / "fake.credential"), env=where)
            assert stolen.returncode == 1, stolen.stderr
            assert stolen.stdout == ""
            assert str(away / "kept") in stolen.stderr
        finally:
            daemon.terminate()


def test_a_broker_of_ours_that_cannot_be_asked_is_not_joined(house: House) -> None:
    """What it stands on is unknown, so nothing keeps the agent from it: exit 2, and what to do."""
    listens = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('mute.sock'); s.listen(); print('ready', flush=True)"
    )
    with house.person.popen(house.python(f"{listens}; input()")) as mute:
        try:
            lines(mute, b"ready")
            where = house.environment(INTERPOSER_SOCKET=str(house.person.home / "mute.sock"))
            done = house.run("--", "touch", "started", env=where)
        finally:
            mute.kill()
    assert done.returncode == 2, done.stderr
    assert "does not say what it stands on" in done.stderr
    assert "stop it" in done.stderr
    assert not (house.work / "started").exists()


@pytest.mark.parametrize("safe", [True, False], ids=["its own folder", "a folder of ours"])
def test_a_broker_of_another_user_is_joined_where_nobody_else_could_take_its_place(house: House, safe: bool) -> None:
    """L4: nothing of its is ours to hide. Where we, or everybody, could have put the socket, it is not believed."""
    other = house.installation.person(8)
    listens = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
    listens += "os.chmod(sys.argv[1], 0o666); print('ready', flush=True); input()"
    other.home.chmod(0o711 if safe else 0o777)
    place = other.home / "b.sock"
    try:
        with other.popen(house.python(listens, str(place))) as foreign:
            try:
                lines(foreign, b"ready")
                done = house.run("--", "echo", "in", env=house.environment(INTERPOSER_SOCKET=str(place)))
            finally:
                foreign.kill()
    finally:
        house.installation.forget(other)
    assert (done.returncode, done.stdout) == ((0, "in\n") if safe else (2, "")), done.stderr
    assert (f"as uid {other.uid} (L4" if safe else "could be by others") in done.stderr


def test_the_broker_finds_no_programs_where_the_agent_writes(house: House) -> None:
    """Entries of PATH that are writable, empty or relative are the agent's, and not the broker's."""
    file = house.settings / "interposer.yaml"
    file.write_text(file.read_text().replace(house.installation.python, "python"))
    tools = house.work / ".venv/bin"
    tools.mkdir(parents=True)
    (house.person.home / "tools").symlink_to(tools)
    house.own(house.work)
    started = house.environment()
    started["PATH"] = f"{house.person.home}/tools:{tools}::bin:{started['PATH']}"
    evil = f"import os; open({str(tools / 'python')!r}, 'w').write('#!/bin/sh\\ntouch {house.work}/outside\\n'); "
    evil += f"os.chmod({str(tools / 'python')!r}, 0o755); print(os.environ['PATH'])\n"
    done = house.run("--", *house.python(evil + CALL), env=started)
    assert done.returncode == 0, done.stderr
    assert started["PATH"] in done.stdout
    assert "hello" in done.stdout
    assert "the broker's PATH is without" in done.stderr
    assert not (house.work / "outside").exists()


def test_a_standing_broker_with_a_path_into_a_writable_place_is_not_joined(house: House) -> None:
    """It looks programs up again at each start of an upstream."""
    path = f"{house.work}/.venv/bin:{house.environment()['PATH']}"
    with house.popen(["serve"], env={**house.environment(), "PATH": path}) as daemon:
        try:
            lines(daemon, b"ready")
            done = house.run("--", "true")
        finally:
            daemon.terminate()
    assert done.returncode == 2, done.stderr
    assert "in its PATH" in done.stderr


def test_a_credential_that_a_command_prints_is_said(house: House) -> None:
    """The agent may run that command as well; the private files that are named to it are hidden."""
    file, key = house.settings / "interposer.yaml", house.settings / "fake.credential"
    file.write_text(file.read_text().replace("file:fake.credential", f"command:/bin/cat {key}"))
    done = house.run("--", "cat", str(key))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "! a credential comes from /bin/cat" in done.stderr


def test_run_imports_nothing_from_the_working_directory(tmp_path: Path) -> None:
    """`python -m interposer run` would take modules from there, before there is a sandbox."""
    (tmp_path / "shutil.py").write_text("open('outside', 'w')\n")
    words = [sys.executable, "-m", "interposer", "run", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "outside").exists()


def test_what_was_left_open_is_not_the_agents(house: House) -> None:
    """A descriptor that the shell passed to us does not reach the agent."""
    reading, writing = os.pipe()
    try:
        os.set_inheritable(reading, True)
        done = house.run(
            "--quiet", "--", "sh", "-c", "ls /proc/self/fd", pass_fds=[reading], env=house.without_broker()
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert str(reading) not in done.stdout.split()
    assert {"0", "1", "2"} <= set(done.stdout.split())


def test_a_terminal_passes_through(house: House) -> None:
    """The agent has the terminal: it is asked, hears Ctrl-C, and goes on; the run waits for it."""
    talk = textwrap.dedent(
        """
        import os, signal, sys
        caught = []
        signal.signal(signal.SIGINT, lambda *_: caught.append(1))
        print("tty", os.isatty(0), os.tcgetpgrp(0) == os.getpgrp(), open("/dev/tty").fileno() > 2, flush=True)
        while not caught:
            signal.pause()
        print("heard", flush=True)
        print("said", input(), flush=True)
        """
    )
    ours, theirs = pty.openpty()
    os.chown(os.ttyname(theirs), house.person.uid, -1)
    words = [house.installation.python, "-I", "-c", JOB, house.installation.python, *["-I", "-m", "interposer", "run"]]
    process = house.person.popen(
        [*words, "--quiet", "--", *house.python(talk)],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=house.work, env=house.without_broker(), start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        typed(ours, b"", "tty True True True")
        typed(ours, b"\x03", "heard")
        typed(ours, b"yes\n", "said yes")
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_stopped_agent_stops_the_run(house: House) -> None:
    """Ctrl-Z gives the shell its terminal back, and `fg` goes on."""
    ours, theirs = pty.openpty()
    os.chown(os.ttyname(theirs), house.person.uid, -1)
    words = [house.installation.python, "-I", "-c", JOB, "bash", "--norc", "-i"]
    process = house.person.popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=house.work, start_new_session=True,
        env={**house.without_broker(), "PS1": "PROMPT ", "TERM": "dumb"},
    )  # fmt: skip
    os.close(theirs)
    try:
        typed(ours, b"", "PROMPT")
        program = house.person.file("agent.py", RESUMED)
        python = house.installation.python
        run = f"{python} -I -m interposer run --quiet -- {python} -I {program}\n"
        typed(ours, run.encode(), "\nup")
        typed(ours, b"\x1a", "PROMPT")
        typed(ours, b"fg\n", "again")
        typed(ours, b"\x03", "PROMPT")
        os.write(ours, b"exit\n")
        process.wait(DEADLINE_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert of(house.person.uid) == {}


RESUMED = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(3))
signal.signal(signal.SIGCONT, lambda *_: print("again", flush=True))
print("up", flush=True)
while True:
    signal.pause()
"""
JOB = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def typed(terminal: int, keys: bytes, expected: str) -> str:
    """Type, and read until the expected text has come."""
    os.write(terminal, keys)
    seen = ""
    end = time.monotonic() + DEADLINE_S
    while expected not in seen.replace("\r\n", "\n"):
        assert select.select([terminal], [], [], max(0, end - time.monotonic()))[0], seen
        seen += os.read(terminal, 65_536).decode(errors="replace")
    return seen


def test_a_dry_run_starts_nothing(house: House) -> None:
    """--dry-run prints what the sandbox would be to standard output."""
    done = house.run("--dry-run", "--", "touch", "started")
    assert done.returncode == 0
    assert f"writable  {house.work}" in done.stdout
    assert not (house.work / "started").exists()
    assert not (house.state / "record.db").exists()


def test_services_that_could_act_for_the_agent_are_named(house: House) -> None:
    """A socket like docker's that this user may use stands in the block, marked."""
    with socket.socket(socket.AF_UNIX) as line:
        path = house.person.home / "docker.sock"
        line.bind(str(path))
        line.listen()
        house.own(path)
        said = house.run("--", "true").stderr
    assert any(str(path) in each and each.strip().startswith("!") for each in said.splitlines())
    assert "admin.sock" not in said


def test_help_ends_with_an_example() -> None:
    """Every `--help` ends with an example that can be copied."""
    done = subprocess.run([sys.executable, "-m", "interposer", "run", "--help"], capture_output=True, text=True)
    assert done.stdout.rstrip().splitlines()[-1].strip().startswith("interposer run ")
