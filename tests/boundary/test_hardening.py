"""What a process of the broker's own uid gets from it: nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from interposer.boundary import hardening
from interposer.errors import Unsafe
from tests.boundary import brokers
from tests.boundary.brokers import below, ended, stdio
from tests.boundary.installation import Installation, Person

THIEF = Path(__file__).with_name("thief.py")


@pytest.fixture
def person(installation: Installation) -> Person:
    return installation.person(2)


@pytest.fixture
def thief(installation: Installation, person: Person) -> list[str]:
    """The words that start a thief of that uid."""
    return [installation.python, "-I", str(person.file("thief.py", THIEF.read_text()))]


def test_another_process_of_the_same_uid_gets_nothing(
    installation: Installation, person: Person, thief: list[str]
) -> None:
    """Environment, memory, descriptors, ptrace, process_vm_readv and pidfd_getfd: each is refused, of both processes;
    and each works against a process that is not hardened."""
    plain = [installation.python, "-I", "-c", "print(flush=True); input()"]
    with stdio(installation, person) as broker, ended(person.popen(plain)) as unhardened:
        broker.greet()
        assert unhardened.stdout is not None
        unhardened.stdout.readline()
        pids = {name: str(pid) for name, pid in zip("kbu", (broker.keeper, broker.pid, unhardened.pid), strict=True)}
        found = json.loads(person.run([*thief, "touch", *pids.values()]).stdout)
    assert not [name for pid in "kb" for name, succeeded in found[pids[pid]].items() if succeeded]
    reached = {name for name, succeeded in found[pids["u"]].items() if succeeded}
    yama = Path("/proc/sys/kernel/yama/ptrace_scope")
    restricted = yama.exists() and yama.read_text().strip() != "0"
    assert reached >= {"environ", "maps", "descriptors"} | (set() if restricted else {"mem", "ptrace", "pidfd_getfd"})


def test_there_is_no_core_file(installation: Installation, person: Person) -> None:
    """Not even where the limit allows one: the broker and what it starts leave no copy of their memory."""
    # Ours is the hard limit that there is: `ulimit -c` cannot go beyond it.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    config = brokers.configured(installation, person, "x" * 20)
    words = [installation.python, "-m", "interposer", "stdio", "--config", str(config)]
    shell = ["/bin/sh", "-c", f'ulimit -c {"unlimited" if most < 0 else most // 512}; exec "$@"', "sh", *words]
    with ended(person.popen(shell)) as process:
        broker = brokers.Broker(process, "")
        broker.greet()
        for pid in (broker.keeper, *below(broker.keeper)):
            (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line]
            assert line.split()[4:6] == ["0", "0"]
        os.kill(broker.pid, signal.SIGABRT)
        assert process.wait(brokers.DEADLINE_S) == -signal.SIGABRT
    assert not list(person.home.glob("*core*"))


def test_nobody_gains_privileges_below_the_broker(installation: Installation, person: Person) -> None:
    """setuid programs are ordinary ones for the broker and for its upstreams."""
    with stdio(installation, person) as broker:
        broker.greet()
        everything = [broker.keeper, *below(broker.keeper)]
        assert len(everything) >= 4
        assert {brokers.status(pid, "NoNewPrivs") for pid in everything} == {"1"}


def test_a_traced_broker_does_not_start(installation: Installation, person: Person, thief: list[str]) -> None:
    """Whoever starts it under a debugger gets a refusal, before any credential was read."""
    config = brokers.configured(installation, person, "x" * 20)
    words = [installation.python, "-I", "-m", "interposer", "stdio", "--config", str(config)]
    done = person.run([*thief, "trace", *words])
    assert done.stdout.split() == [b"78"]
    assert b"traces this one" in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [("TracerPid:\t7", "process 7 traces"), ("Threads:\t1", "mount /proc"), ("TracerPid:\tx", "mount /proc")],
)
def test_a_status_that_does_not_say_so_is_no_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, said: str
) -> None:
    """A tracer is refused, and so is a /proc that does not tell."""
    (tmp_path / "status").write_text(f"Name:\tx\n{line}\n")
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *rest: real(tmp_path / "status", *rest))
    with pytest.raises(Unsafe, match=said):
        hardening.refuse_tracer()


def test_a_step_without_effect_refuses_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not take is noticed: nothing is taken for done because it was asked for."""
    monkeypatch.setattr(hardening, "_prctl", lambda: lambda *words: 1)
    with pytest.raises(Unsafe, match="dumpable"):
        hardening.harden()
    taken = {hardening._PR_GET_DUMPABLE: 0, hardening._PR_GET_NO_NEW_PRIVS: 0}
    monkeypatch.setattr(hardening, "_prctl", lambda: lambda option, *rest: taken.get(option, 0))
    with pytest.raises(Unsafe, match="privileges"):
        hardening.harden()
    with pytest.raises(Unsafe, match="PDEATHSIG"):
        hardening.die_with(os.getppid())


def test_the_thief_is_a_thief(installation: Installation, person: Person, thief: list[str]) -> None:
    """The control of the promise (promises/test_startup.py): a program that is not hardened loses what it reads."""
    person.file("credential", "kept-in-a-file")
    plain = "import sys; input(); kept = open('credential').read(); print('ok', flush=True); sys.stdin.read()"
    asked = json.dumps({"needle": "kept-in-a-" + "file", "hello": "go\n"}).encode()
    with ended(person.popen([*thief, "held", installation.python, "-I", "-c", plain])) as process:
        out, _ = process.communicate(asked, timeout=60)
    found = json.loads(out)
    assert found["early"]
    assert found["found"]
    assert sys.platform == "linux"
