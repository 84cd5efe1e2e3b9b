"""The broker's process: isolated, with a keeper in front of it that ends as it ends."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from interposer.boundary import launch
from interposer.errors import Unsafe
from tests.boundary import brokers
from tests.boundary.brokers import below, children, ended, eventually, gone, status, stdio
from tests.boundary.installation import Installation, Person
from tests.e2e.needs import missing

EXECUTE = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
INJECTED = """
import sys
open({!r}, "a").write(__name__ + " " + " ".join(sys.orig_argv) + "\\n")
raise ImportError
"""


@pytest.fixture
def person(installation: Installation) -> Person:
    return installation.person(1)


def test_the_broker_is_the_child_of_a_keeper_with_nothing_open(installation: Installation, person: Person) -> None:
    """The keeper holds no pipe of the agent's: the agent sees the end of the broker's when the broker ends."""
    with stdio(installation, person) as broker:
        broker.greet()
        held = {fd.name: os.readlink(fd) for fd in Path(f"/proc/{broker.keeper}/fd").iterdir()}
        assert {held.pop("0"), held.pop("1")} == {"/dev/null"}
        assert list(held) == ["2"]
        assert len(os.listdir(f"/proc/{broker.keeper}/task")) == 1
        everything = [broker.keeper, *below(broker.keeper)]
        assert broker.end() == 0
        gone(everything)


@pytest.mark.parametrize("words", [("-m", "interposer"), ("-I", "-m", "interposer"), ("-E", "-B", "-m", "interposer")])
def test_the_broker_runs_isolated_however_it_is_started(
    installation: Installation, person: Person, words: tuple[str, ...]
) -> None:
    """`-I` is there in the end, whether or not it was given."""
    with stdio(installation, person, words) as broker:
        broker.greet()
        command = Path(f"/proc/{broker.pid}/cmdline").read_bytes().split(b"\0")
        assert b"-I" in command
        assert broker.end() == 0


def test_the_installed_command_starts_the_broker(installation: Installation, person: Person) -> None:
    """The console script, which pip writes without `-I`, ends up as the same process."""
    script = installation.root / "bin" / "interposer"
    script.write_text(f"#!{installation.python}\nimport sys\nfrom interposer.__main__ import main\nsys.exit(main())\n")
    script.chmod(0o755)
    config = brokers.configured(installation, person, "x" * 20)
    with ended(person.popen([str(script), "stdio", "--config", str(config)])) as process:
        broker = brokers.Broker(process, "")
        broker.greet()
        assert b"-I" in Path(f"/proc/{broker.pid}/cmdline").read_bytes().split(b"\0")
        assert broker.end() == 0


def test_nothing_that_the_environment_names_runs_in_the_broker(installation: Installation, person: Person) -> None:
    """PYTHONPATH, PYTHONSTARTUP, sitecustomize, usercustomize and modules in the working directory have no effect."""
    hostile = person.home / "hostile"
    hostile.mkdir(exist_ok=True)
    for folder in (hostile, person.home):
        for name in ("sitecustomize", "usercustomize", "anyio", "yaml", "msgspec"):
            (folder / f"{name}.py").write_text(INJECTED.format(str(person.home / "ran")))
    os.chown(hostile, person.uid, person.uid)
    env = person.environment(
        PYTHONPATH=f"{hostile}:{person.home}",
        PYTHONUSERBASE=str(hostile),
        PYTHONSTARTUP=str(hostile / "anyio.py"),
        PYTHONINSPECT="1",
        PYTHONBREAKPOINT="anyio.x",
    )
    try:
        with stdio(installation, person, env=env) as broker:
            broker.greet()
            assert broker.end() == 0
    finally:
        for name in ("sitecustomize", "usercustomize", "anyio", "yaml", "msgspec"):
            (person.home / f"{name}.py").unlink()
    ran = (person.home / "ran").read_text().splitlines() if (person.home / "ran").exists() else []
    # sitecustomize runs in the process that starts itself anew, and in no other.
    assert not [line for line in ran if " -I " in line]
    assert {line.split()[0] for line in ran} <= {"sitecustomize", "usercustomize"}


def test_libraries_for_every_program_are_not_for_the_broker(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    """LD_PRELOAD and LD_AUDIT are taken out, loudly: what they name is not mapped in the broker, nor in its keeper."""
    library = installation.root / "lib" / "preloaded.so"
    if shutil.which("gcc") is None:
        missing("gcc is not installed; install it")
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=b"int preloaded = 1;", check=True)
    library.chmod(0o755)
    with stdio(installation, person, ("-I", "-m", "interposer"), env=person.environment(LD_PRELOAD=str(library))) as it:
        it.greet()
        for pid in (it.keeper, it.pid):
            assert "preloaded" not in Path(f"/proc/{pid}/maps").read_text()
            assert b"LD_PRELOAD" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert it.end() == 0
        assert "LD_PRELOAD is not passed on" in it.said()


def test_a_package_that_only_the_environment_finds_is_refused(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    """A source tree on PYTHONPATH is not what an isolated Python finds: the refusal says what to do."""
    elsewhere = installation.root / "elsewhere"
    shutil.copytree(installation.package, elsewhere / "interposer")
    done = person.run(
        [installation.python, "-m", "interposer", "stdio", "--", "true"],
        env=person.environment(PYTHONPATH=str(elsewhere)),
    )
    assert done.returncode == 78
    assert b"-m pip install" in done.stderr


def test_an_interpreter_that_cannot_be_isolated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper that sets LD_PRELOAD again does not make us start for ever."""
    monkeypatch.setitem(sys._xoptions, "launched", True)
    monkeypatch.setenv("LD_PRELOAD", "x")
    with pytest.raises(Unsafe, match="wrapper"):
        launch.isolate()


def test_the_agent_is_who_started_the_command(installation: Installation, person: Person) -> None:
    """The caller's pid on record is the agent's, and not that of a process of ours."""
    with stdio(installation, person) as broker:
        broker.greet()
        assert broker.end() == 0
    record = person.home / "state" / "record.db"
    assert f'"pid":{os.getpid()}'.encode() in record.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_keeper_drains_the_broker(
    installation: Installation, person: Person, number: signal.Signals
) -> None:
    """The broker ends as it does by a signal of its own, and the exit code says that all is well."""
    with stdio(installation, person) as broker:
        broker.greet()
        everything = below(broker.keeper)
        broker.process.send_signal(number)
        assert broker.process.wait(brokers.DEADLINE_S) == 0
        gone(everything)


def test_a_signal_to_all_processes_is_one_signal(installation: Installation, person: Person) -> None:
    """systemd and timeout(1) tell each process: the broker drains all the same, and does not end at once."""
    with stdio(installation, person, start_new_session=True) as broker:
        broker.greet()
        broker.request("tools/list", {}, id=2)
        assert broker.process.stdin is not None
        broker.process.stdin.write(
            b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"slow","arguments":{"ms":300}}}\n'
        )
        broker.process.stdin.flush()
        upstream = below(broker.pid)
        eventually(lambda: _intended(person))
        os.killpg(broker.keeper, signal.SIGTERM)
        assert broker.process.wait(brokers.DEADLINE_S) == 0
        assert broker.process.stdout is not None
        assert b'"id":3' in broker.process.stdout.read()
        gone(upstream)


def _intended(person: Person) -> bool:
    return any(b"intended" in file.read_bytes() for file in (person.home / "state").glob("record.db*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
def test_the_keeper_ends_as_the_broker_did(
    installation: Installation, person: Person, number: signal.Signals, tmp_path: Path
) -> None:
    """Whoever waits for the command sees by which signal the broker died, or its exit code; there is no core file."""
    with stdio(installation, person) as broker:
        broker.greet()
        below_it = below(broker.pid)
        os.kill(broker.pid, number)
        assert broker.process.wait(brokers.DEADLINE_S) == (0 if number == signal.SIGTERM else -number)
        gone(below_it)
    assert not list(person.home.glob("core*"))


def test_a_killed_keeper_takes_everything_with_it(installation: Installation, person: Person) -> None:
    """After `kill -9` no broker and no upstream is left."""
    with stdio(installation, person) as broker:
        broker.greet()
        eventually(lambda: len(below(broker.keeper)) >= 3)
        everything = below(broker.keeper)
        broker.process.kill()
        gone(everything)


def test_exit_codes_pass_through(installation: Installation, person: Person) -> None:
    """The keeper adds nothing and hides nothing."""
    words = [installation.python, "-m", "interposer"]
    assert person.run([*words, "stdio", "--config", "/nosuch"]).returncode == 2
    assert person.run([*words, "serve", "--nosuch"]).returncode == 2
    assert person.run([*words, "serve", "--help"]).returncode == 0


COUNTING = """
import os, signal, sys
from interposer.boundary.launch import launch
launch()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("ready", os.getpid(), flush=True)
found, wait_s = [], 20.0
while heard := signal.sigtimedwait({signal.SIGINT}, wait_s):
    found.append(heard.si_code)
    wait_s = 0.3
print(found, flush=True)
"""


@pytest.mark.parametrize(("typed", "codes"), [(True, "[128]"), (False, "[0]")], ids=["terminal", "kill"])
def test_an_interrupt_reaches_the_broker_once(
    installation: Installation, person: Person, typed: bool, codes: str
) -> None:
    """The terminal tells both processes, and the keeper does not tell the broker again, for a second time means "now";
    what the keeper alone is told it passes on."""
    near, far = pty.openpty()
    take = f"import fcntl, os; os.setsid(); fcntl.ioctl(0, {termios.TIOCSCTTY}, 0)\n{EXECUTE}"
    os.chown(os.ttyname(far), person.uid, -1)
    words = [installation.python, "-I", "-c", take, installation.python, "-I", "-c", COUNTING]
    try:
        with ended(person.popen(words, stdin=far)) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready")
            if typed:
                os.write(near, b"\x03")
            else:
                process.send_signal(signal.SIGINT)
            assert process.stdout.readline().decode().strip() == codes
            assert process.wait(brokers.DEADLINE_S) == 0
    finally:
        os.close(near)
        os.close(far)


def test_stopping_the_command_stops_the_broker_too(installation: Installation, person: Person) -> None:
    """SIGTSTP and SIGCONT to the keeper alone reach both."""
    with stdio(installation, person) as broker:
        broker.greet()
        pid = broker.pid
        broker.process.send_signal(signal.SIGTSTP)
        eventually(lambda: status(pid, "State").startswith("T") and status(broker.keeper, "State").startswith("T"))
        broker.process.send_signal(signal.SIGCONT)
        eventually(lambda: not status(pid, "State").startswith("T"))
        assert broker.request("ping", {}, id=5)["id"] == 5
        assert broker.end() == 0


def test_a_socket_that_was_passed_is_the_agents(installation: Installation, person: Person) -> None:
    """Socket activation: who listens already hands over the socket, and it stays when the broker ends."""
    if shutil.which("systemd-socket-activate") is None:
        missing("systemd-socket-activate is not installed; it is part of systemd")
    config = brokers.configured(installation, person, "x" * 20)
    path = person.home / "agents.sock"
    words = ["systemd-socket-activate", "-l", str(path), installation.python, "-m", "interposer", "serve"]
    with ended(person.popen([*words, "--config", str(config)])) as process:
        eventually(path.exists)
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(brokers.DEADLINE_S)
            eventually(lambda: _connected(agent, path))
            agent.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
            assert b'"id":1' in agent.recv(4096)
        (broker,) = children(process.pid)
        for pid in below(broker):
            assert b"LISTEN_" not in Path(f"/proc/{pid}/environ").read_bytes()
        process.terminate()
        assert process.wait(brokers.DEADLINE_S) == 0
        assert f"listening on unix:{path}".encode() in (process.stdout.read() if process.stdout else b"")
    assert path.is_socket()
    path.unlink()


def _connected(agent: socket.socket, path: Path) -> bool:
    try:
        agent.connect(str(path))
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("kind", ["tcp", "file", "two"])
def test_a_socket_that_is_no_agents_socket_is_refused(installation: Installation, person: Person, kind: str) -> None:
    """One Unix stream socket that listens is taken, and nothing else."""
    config = brokers.configured(installation, person, "x" * 20)
    with socket.socket() as tcp, open("/dev/null", "rb") as null:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        given = null if kind == "file" else tcp
        hand = (
            f"import os, sys; os.dup2({given.fileno()}, 3); os.dup2({given.fileno()}, 4);"
            f"os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv.pop(1))\n{EXECUTE}"
        )
        words = [installation.python, "-m", "interposer", "serve", "--config", str(config)]
        count = "2" if kind == "two" else "1"
        done = person.run([installation.python, "-I", "-c", hand, count, *words], pass_fds=(given.fileno(),))
    assert done.returncode == 2
    assert re.search(rb"is not a (Unix stream )?socket|sockets were passed", done.stderr)


def test_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_listen_fds(3): the variables are for the process that they name, and are removed all the same."""
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "agents")
    assert launch._sockets() == ()
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


def test_the_keeper_is_small(installation: Installation, person: Person) -> None:
    """The keeper stays what it was before anything was imported: its own memory is below 8 MB."""
    with stdio(installation, person) as broker:
        broker.greet()
        rollup = Path(f"/proc/{broker.keeper}/smaps_rollup").read_text()
        pss_kb = int(re.search(r"^Pss:\s+(\d+)", rollup, re.M)[1])  # type: ignore[index]
        assert pss_kb < 8192
        assert broker.end() == 0
