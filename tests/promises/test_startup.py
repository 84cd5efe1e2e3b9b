"""The start-up contract: what the broker makes sure of before it reads a credential, as ordinary users see it."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

import pytest

from tests.boundary import brokers
from tests.boundary.brokers import below, children, ended, gone, stdio
from tests.boundary.installation import Installation, Person

THIEF = Path(__file__).parents[1] / "boundary/thief.py"
SPAWNS = 8


@pytest.fixture
def person(installation: Installation) -> Person:
    return installation.person(3)


@pytest.mark.parametrize("flags", [["-I"], []], ids=["isolated", "started anew"])
def test_memory_that_was_opened_before_the_hardening_holds_no_credential(
    installation: Installation, person: Person, flags: list[str]
) -> None:
    """A thief of the same uid starts the broker and holds its memory from the first moment on; it finds the credential
    in none of eight brokers, each of which has it."""
    script = str(person.file("thief.py", THIEF.read_text()))
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": brokers.HELLO}
    early = 0
    for _ in range(SPAWNS // 2):
        credential = secrets.token_urlsafe(24)
        config = brokers.configured(installation, person, credential)
        words = [installation.python, *flags, "-m", "interposer", "stdio", "--config", str(config)]
        asked = json.dumps({"needle": credential, "hello": json.dumps(hello) + "\n"}) + "\n"
        with ended(person.popen([installation.python, "-I", script, "held", *words])) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(asked.encode())
            process.stdin.close()
            found = json.loads(process.stdout.readline() or "{}")
            process.wait(brokers.DEADLINE_S)
        early += found["early"]
        assert found["answered"]
        assert found["found"] == []
    assert early == SPAWNS // 2


def test_the_broker_itself_has_the_credential(installation: Installation, person: Person) -> None:
    """The control: root, whom nothing stops, finds it in the broker, and not in its keeper."""
    from tests.boundary.thief import found_in

    with stdio(installation, person) as broker:
        broker.greet()
        broker.request("tools/list", {}, id=2)
        found = {}
        for pid in (broker.keeper, broker.pid):
            maps, mem = (os.open(f"/proc/{pid}/{name}", os.O_RDONLY) for name in ("maps", "mem"))
            found[pid] = found_in(maps, mem, broker.credential.encode())
            os.close(maps)
            os.close(mem)
        assert found == {broker.keeper: False, broker.pid: True}


def test_upstreams_get_what_they_are_given_and_nothing_else(installation: Installation, person: Person) -> None:
    """Of the broker's environment only what the list allows, three descriptors, and the credential that is theirs."""
    read, write = os.pipe()
    try:
        env = person.environment(MARKER_OF_THE_BROKER="x", LD_LIBRARY_PATH=str(installation.root / "lib"))
        with stdio(installation, person, env=env, pass_fds=(read,)) as broker:
            broker.greet()
            broker.request("tools/list", {}, id=2)
            (upstream,) = [pid for pid in below(broker.pid) if not children(pid)]
            environment = Path(f"/proc/{upstream}/environ").read_bytes().split(b"\0")
            assert f"TOKEN={broker.credential}".encode() in environment
            assert not [each for each in environment if each.startswith((b"MARKER", b"LD_", b"INTERPOSER"))]
            assert {fd.name for fd in Path(f"/proc/{upstream}/fd").iterdir()} <= {"0", "1", "2"}
    finally:
        os.close(read)
        os.close(write)


def test_a_broker_on_writable_files_does_not_start(installation: Installation, person: Person) -> None:
    """Exit code 78, each place with the command that mends it, all at once; mended, it starts
    (boundary/test_footing.py has every place in turn)."""
    config = brokers.configured(installation, person, "x" * 20)
    amiss = [config, person.home / "policy.yaml", person.home / "credential"]
    for file in amiss:
        file.chmod(0o666)
    words = [installation.python, "-m", "interposer", "stdio", "--config", str(config)]
    done = person.run(words)
    assert done.returncode == 78
    for file in amiss:
        assert f"chmod o-w {file}".encode() in done.stderr
    for file in amiss:
        file.chmod(0o400)
    assert person.run(words).returncode == 0


def test_a_killed_broker_leaves_nothing_running(installation: Installation, person: Person) -> None:
    """`kill -9` of either process ends both, and every upstream with them."""
    for kept in (True, False):
        with stdio(installation, person) as broker:
            broker.greet()
            everything = [broker.keeper, *below(broker.keeper)]
            os.kill(broker.keeper if kept else broker.pid, 9)
            broker.process.wait(brokers.DEADLINE_S)
            gone(everything)
