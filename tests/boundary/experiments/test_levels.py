"""The levels, by experiment: thieves as two ordinary users against real brokers, and what `doctor` says of each.

Root makes the users of numbers; elsewhere this is skipped with the reason.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from interposer.boundary.sandbox import Kernel
from tests.boundary import installation as installed
from tests.boundary.experiments.deployments import RUNS, Deployment, sandboxed, separate, soft
from tests.boundary.installation import Installation, Person
from tests.e2e.needs import missing

installation = installed.installation
ON_MEMORY = {"environ", "maps", "memory-read", "memory-write", "vm-read", "ptrace", "descriptors", "take-descriptor"}
"""What a broker that is not dumpable holds against its own uid."""


def broken(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(attack, on what kind of target) of all that succeeded."""
    return {(one["id"], one["target"].split(" ")[0]) for one in found if one["held"] is False}


def leaked(found: list[dict[str, Any]]) -> list[str]:
    """Where the credential itself was found."""
    return [f"{one['id']} {one['target']}" for one in found if "the credential" in one["how"]]


def untried(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Attacks on processes that came to nothing for another reason than a refusal."""
    return [
        one
        for one in found
        if one["held"] is None and not one["id"].endswith("-file") and one["how"] != "it reads nothing"
    ]


def nothing(found: list[dict[str, Any]]) -> bool:
    held = {(one["id"], one["target"].split(" ")[0]) for one in found if one["held"]}
    assert {(id, who) for id in ON_MEMORY for who in ("broker", "supervisor", "upstream")} <= held
    assert {("read-file", "credential"), ("write-file", "policy"), ("operate", "administration")} <= held
    assert (broken(found), leaked(found), untried(found)) == (set(), [], [])
    return True


@dataclass(frozen=True)
class Ground:
    """Users who know nothing of each other, and what they run."""

    installation: Installation
    owner: Person
    """The broker's user; at L1 and L2 the agent's too."""
    agent: Person
    stranger: Person


@pytest.fixture(scope="module")
def ground(installation: Installation) -> Iterator[Ground]:
    people = [installation.person(number) for number in (5, 6, 7)]
    for person in people:
        (person.home / "work").mkdir(exist_ok=True)
        os.chown(person.home / "work", person.uid, person.uid)
    yield Ground(installation, *people)
    for person in people:
        installation.forget(person)


@pytest.fixture(scope="module")
def l1(ground: Ground) -> Iterator[Deployment]:
    with soft(ground.installation, ground.owner) as deployment:
        yield deployment
    assert deployment.unchanged()
    verified(deployment)


@pytest.fixture(scope="module")
def l4(installation: Installation) -> Iterator[Deployment]:
    """Its broker has a user of its own, so that it can stand beside the one at L1."""
    owner, agent = installation.person(8), installation.person(6)
    with separate(installation, owner, agent) as deployment:
        yield deployment
    assert deployment.unchanged()
    verified(deployment)
    installation.forget(owner)


@pytest.fixture
def l2(ground: Ground) -> Iterator[Deployment]:
    """A user of its own, and an agent that can be used once."""
    lacking = Kernel.here().missing()
    if lacking:
        missing(f"the sandbox needs a newer kernel: {lacking[0]}")
    owner = ground.installation.person(4)
    with sandboxed(ground.installation, owner) as deployment:
        yield deployment
    assert deployment.unchanged()
    ground.installation.forget(owner)


def verified(deployment: Deployment) -> None:
    """The record is whole, by its own proof."""
    done = deployment.owner.run([deployment.installation.python, "-I", "-m", "interposer", "record", "verify"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_at_l1_a_thief_of_the_same_user_gets_the_credential_and_the_decision(l1: Deployment) -> None:
    """Said loudly because it is so: the upstream's environment, the files and the operator's key are open to it."""
    tables = [l1.steal(l1.owner) for _ in range(RUNS)]
    assert len({frozenset(broken(found)) for found in tables}) == 1
    taken = broken(tables[0])
    assert {("environ", "upstream"), ("memory-write", "upstream"), ("read-file", "credential")} <= taken
    assert {("signal", "broker"), ("write-file", "policy"), ("operate", "administration")} <= taken
    assert any(place.startswith("environ upstream") for place in leaked(tables[0]))
    # What hardening gives all the same: the broker's own process keeps its memory.
    assert not {(id, "broker") for id in ON_MEMORY} & taken
    assert l1.unchanged()


def test_at_l1_a_thief_of_another_user_gets_nothing(l1: Deployment, ground: Ground) -> None:
    """The kernel keeps users apart, whatever the broker does."""
    for _ in range(RUNS):
        assert nothing(l1.steal(ground.stranger))


def test_at_l2_a_thief_in_the_sandbox_gets_nothing(l2: Deployment) -> None:
    """With the broker's own uid: no memory, no descriptor, no file, no signal and no operator's right."""
    tables = l2.steal_inside()
    assert len(tables) == RUNS
    assert all(nothing(found) for found in tables)
    assert l2.unchanged()
    verified(l2)


def test_at_l2_a_thief_outside_of_the_sandbox_is_only_held_by_another_uid(l2: Deployment, ground: Ground) -> None:
    """The sandbox is around the agent, not around the broker: another program of the user stands at L1."""
    assert ("environ", "upstream") in broken(l2.steal(l2.owner))
    assert nothing(l2.steal(ground.stranger))


def test_at_l4_an_agent_and_a_stranger_get_nothing(l4: Deployment, ground: Ground) -> None:
    """Nothing read, nothing changed: by a user who may connect, and by one who may not."""
    for _ in range(RUNS):
        assert nothing(l4.steal(l4.agent, l4.agent_groups))
        assert nothing(l4.steal(ground.stranger))
    assert l4.unchanged()


def test_at_l4_only_the_brokers_own_user_gets_in(l4: Deployment) -> None:
    """The same thief, the same attacks, another uid: what holds at L4 is the uid."""
    assert leaked(l4.steal(l4.owner))


def test_doctor_says_l1_of_a_broker_with_the_agents_uid(l1: Deployment) -> None:
    """A claim of more is answered with exit code 1, and what to change."""
    code, said = l1.doctor("--claim", "L4", person=l1.owner)
    assert (code, said["proven"], said["covered"]) == (1, "L1", False)
    assert any(one.get("remedy") for one in said["attacked"][0]["attacks"])
    assert l1.doctor(person=l1.owner)[0] == 0


def test_doctor_says_l2_of_an_agent_in_the_sandbox(l2: Deployment) -> None:
    """The operator proves it with the sandbox around the thief, and that it is not L4."""
    code, said = l2.doctor("--claim", "L2", person=l2.owner)
    assert (code, said["proven"]) == (0, "L2"), said["why"]
    assert l2.doctor("--claim", "L4", "--sandboxed", person=l2.owner)[0] == 1


def test_an_agent_in_the_sandbox_can_prove_it_too(l2: Deployment) -> None:
    """`interposer run -- interposer doctor`: what counts is what the attacks got, not who says so."""
    python, config = l2.installation.python, str(l2.config)
    inner = [python, "-I", "-m", "interposer", "doctor", "--config", config]
    words = [python, "-I", "-m", "interposer", "run", "--quiet", "--config", config, "--", *inner]
    done = l2.owner.run(words, cwd=l2.owner.home / "work")
    assert b"proven: L2" in done.stdout, (done.stdout + done.stderr).decode()


def test_doctor_says_l4_of_a_broker_with_its_own_uid(l4: Deployment, ground: Ground) -> None:
    """Root attacks as the callers that the configuration names; another host is not proven by this one."""
    code, said = l4.doctor("--claim", "L4")
    assert (code, said["proven"]) == (0, "L4"), said["why"]
    assert [one["as"]["uid"] for one in said["attacked"]] == [l4.agent.uid]
    assert l4.agent_groups[0] in said["attacked"][0]["as"]["groups"]
    assert l4.doctor("--as", str(ground.stranger.uid), "--claim", "L4")[0] == 0
    assert l4.doctor("--claim", "L5")[0] == 1


def test_an_agent_at_l4_learns_what_it_may_not_see(l4: Deployment) -> None:
    """Without the configuration the files are not attacked, and what was not tried is not proven."""
    words = [l4.installation.python, "-I", "-m", "interposer", "doctor", "--socket"]
    words += [place["path"] for place in l4.job["places"] if place["path"].endswith("broker.sock")]
    done = subprocess.run(
        words,
        user=l4.agent.uid,
        group=l4.agent.uid,
        extra_groups=l4.agent_groups,
        cwd="/",
        env=l4.agent.environment(),
        capture_output=True,
        timeout=60,
    )
    said = done.stdout.decode()
    assert "BROKEN" not in said, said + done.stderr.decode()
    assert "not tried" in said
    assert "proven: L1" in said
