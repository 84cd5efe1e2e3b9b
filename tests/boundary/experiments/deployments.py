"""A broker in each of the deployments that can be proven on one host, and thieves of every kind around it."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import os
import secrets
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interposer.boundary import selfattack
from interposer.cli.admin_client import AdminClient, BrokerUnavailable
from tests.boundary.brokers import DEADLINE_S, ended
from tests.boundary.installation import Installation, Person

PREFIX = "interposer-canary-"
GROUP = "users"
"""Any group with a name will do for the agents' socket."""
SOURCE = selfattack.thief_text()
RUNS = 3
_AGENT = """
import json, sys
thief = {"__name__": "thief"}
exec(sys.argv[1], thief)
job = json.load(sys.stdin)
json.dump([thief["run"](job) for _ in range(int(sys.argv[2]))], sys.stdout)
"""
"""An agent that was taken over: waits for its job, and steals over and over."""
POLICY = "version: 1\nrules: [{id: all, effect: allow, skills: ['*']}]\n"


@dataclass(frozen=True)
class Deployment:
    """One running broker, and what must not change while thieves are about."""

    level: str
    installation: Installation
    owner: Person
    """The user that the broker runs as."""
    agent: Person
    config: Path
    credential: str
    job: dict[str, Any]
    agent_groups: tuple[int, ...] = ()
    inside: subprocess.Popen[bytes] | None = None
    """At L2: the agent in the sandbox, which waits for its job on standard input."""
    before: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.owner.home / "state"

    def digests(self) -> dict[str, str]:
        """Of what decides and what is secret."""
        paths = [self.config, self.owner.home / "policy.yaml", self.owner.home / "credential"]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def unchanged(self) -> bool:
        return self.digests() == self.before

    def steal(self, person: Person, groups: Sequence[int] = ()) -> list[dict[str, Any]]:
        """What a thief of that user's gets, outside of any sandbox."""
        done = subprocess.run(
            [self.installation.python, "-I", "-S", "-c", SOURCE],
            input=json.dumps(self.job).encode(),
            capture_output=True,
            user=person.uid,
            group=person.uid,
            extra_groups=groups,
            cwd="/",
            env={},
            timeout=60,
            check=True,
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def steal_inside(self) -> list[list[dict[str, Any]]]:
        """What the agent in the sandbox gets, in each run."""
        assert self.inside is not None
        out, err = self.inside.communicate(json.dumps(self.job).encode(), timeout=60)
        assert self.inside.returncode == 0, err.decode()
        found: list[list[dict[str, Any]]] = json.loads(out)
        return found

    def doctor(
        self, *words: str, person: Person | None = None, groups: Sequence[int] = ()
    ) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of `interposer doctor --json`, run by that user; by root if none is named."""
        identity: dict[str, Any] = (
            {} if person is None else {"user": person.uid, "group": person.uid, "extra_groups": groups}
        )
        done = subprocess.run(
            [
                self.installation.python,
                "-I",
                "-m",
                "interposer",
                "doctor",
                "--json",
                "--config",
                str(self.config),
                *words,
            ],
            capture_output=True,
            cwd="/" if person is None else person.home / "work",
            env=(person or self.owner).environment(INTERPOSER_HOME=str(self.home)),
            timeout=90,
            **identity,
        )
        assert done.stdout, done.stderr.decode()
        answer: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, answer


@contextlib.contextmanager
def soft(installation: Installation, owner: Person) -> Iterator[Deployment]:
    """L1: the agent spawned the broker; both have one uid."""
    credential, config = _configured(installation, owner, owner.home)
    words = [installation.python, "-m", "interposer", "stdio", "--config", str(config)]
    with ended(owner.popen(words)):
        yield _standing("L1", installation, owner, owner, config, credential)


@contextlib.contextmanager
def sandboxed(installation: Installation, owner: Person) -> Iterator[Deployment]:
    """L2: the broker started the agent in a sandbox; both have one uid. The agent here is a thief."""
    credential, config = _configured(installation, owner, owner.home)
    words = ["run", "--quiet", "--config", str(config), "--", installation.python, "-I", "-S", "-c", _AGENT]
    words += [SOURCE, str(RUNS)]
    command = [installation.python, "-m", "interposer", *words]
    with ended(owner.popen(command, cwd=owner.home / "work")) as process:
        yield _standing("L2", installation, owner, owner, config, credential, inside=process)


@contextlib.contextmanager
def separate(installation: Installation, owner: Person, agent: Person) -> Iterator[Deployment]:
    """L4: the broker is a daemon with a uid of its own; agents reach its socket by a group."""
    gid = grp.getgrnam(GROUP).gr_gid
    run = installation.root / f"run-{owner.uid}"
    run.mkdir(exist_ok=True)
    os.chown(run, owner.uid, gid)
    run.chmod(0o750)
    more = (
        f"listen: {{socket: {{path: '{run / 'broker.sock'}', group: {GROUP}}}}}\n"
        f"callers: [{{uid: {agent.uid}, subject: agent}}]\n"
    )
    credential, config = _configured(installation, owner, owner.home, more)
    process = subprocess.Popen(
        [installation.python, "-m", "interposer", "serve", "--config", str(config)],
        user=owner.uid,
        group=owner.uid,
        extra_groups=[gid],
        cwd=owner.home,
        env=owner.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with ended(process):
        _await_ready(process)
        yield _standing("L4", installation, owner, agent, config, credential, groups=(gid,))


def _configured(installation: Installation, owner: Person, home: Path, more: str = "") -> tuple[str, Path]:
    credential = PREFIX + secrets.token_hex(16)
    owner.file("policy.yaml", POLICY)
    (home / "credential").unlink(missing_ok=True)
    owner.file("credential", credential, 0o400)
    work = home / "work"
    work.mkdir(exist_ok=True)
    os.chown(work, owner.uid, owner.uid)
    config = owner.file(
        "interposer.yaml",
        f"version: 1\npolicy: policy.yaml\nstate: state\n{more}upstreams:\n"
        f"  fake:\n    command: [{installation.python}, -I, {installation.upstream}]\n"
        f"    credential: {{env: TOKEN, source: 'file:{home / 'credential'}'}}\n",
    )
    return credential, config


def _standing(
    level: str,
    installation: Installation,
    owner: Person,
    agent: Person,
    config: Path,
    credential: str,
    *,
    groups: tuple[int, ...] = (),
    inside: subprocess.Popen[bytes] | None = None,
) -> Deployment:
    report = _report(owner.home / "state")
    digest = hashlib.sha256(credential.encode()).hexdigest()
    canary = {"prefix": PREFIX, "length": len(credential), "sha256": digest}
    job = {**{name: report[name] for name in ("processes", "places", "operator")}, "canary": canary}
    found = Deployment(level, installation, owner, agent, config, credential, job, groups, inside)
    found.before.update(found.digests())
    return found


def _report(home: Path) -> dict[str, Any]:
    """What the broker tells its operator (here root), once its upstream runs."""
    until = time.monotonic() + DEADLINE_S
    while True:
        assert time.monotonic() < until, "the broker does not answer"
        with contextlib.suppress(BrokerUnavailable), AdminClient(home / "admin.sock") as client:
            client.request("skills/list", wait_s=DEADLINE_S)
            return client.request("boundary/targets")
        time.sleep(0.01)


def _await_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    said = b""
    until = time.monotonic() + DEADLINE_S
    while b"\nready\n" not in said:
        left = max(0.0, until - time.monotonic())
        assert select.select([process.stdout], [], [], left)[0], f"not ready in time: {said!r}"
        piece = os.read(process.stdout.fileno(), 4096)
        if not piece:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read().decode())
        said += piece
