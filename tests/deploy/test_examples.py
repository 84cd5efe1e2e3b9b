"""What the deployments have in common: configurations that are read, policies that can be used, pinned packages."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import click
import pytest

from interposer import config
from interposer.cli import cli

from .layout import DEPLOY, ROOT

KINDS = ("systemd", "container")
PAGES = [
    DEPLOY / "systemd/README.md",
    DEPLOY / "container/README.md",
    ROOT / "docs/how-to/deploy.md",
    ROOT / "docs/how-to/developer-machine.md",
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_is_read(kind: str) -> None:
    """It claims the level that it is for, and takes no credential from an environment."""
    read = config.load(DEPLOY / kind / "interposer.yaml")
    assert read.boundary == "L4"
    assert not read.insecure_env
    assert read.unmapped_callers == "refuse"
    assert all(upstream.credential for upstream in read.upstreams.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_can_be_used(kind: str) -> None:
    """`interposer policy check` has nothing to say against it, and it names no upstream that is not there."""
    policy = DEPLOY / kind / "policy.yaml"
    words = [sys.executable, "-m", "interposer", "policy", "check", str(policy)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r"[\[ ]([a-z]+)\.[a-z_*]+[,\]]", policy.read_text()))
    assert named <= set(config.load(DEPLOY / kind / "interposer.yaml").upstreams)


def pinned(file: Path) -> dict[str, str]:
    """Each package's whole entry: version and hashes."""
    entries = re.findall(r"(?m)^([a-z0-9._-]+)(==[^\n]+(?:\n +--hash=[^\n]+)+)", file.read_text())
    return dict(entries)


def test_what_is_deployed_is_what_was_tested() -> None:
    """requirements.txt holds versions and hashes of constraints.txt, and all that the broker asks for itself."""
    deployed, tested = pinned(DEPLOY / "requirements.txt"), pinned(ROOT / "constraints.txt")
    assert deployed
    assert deployed.items() <= tested.items()
    asked = {re.match(r"[\w.-]+", line)[0] for line in requires("interposer") or [] if "extra ==" not in line}  # type: ignore[index]
    assert {name.lower() for name in asked} <= deployed.keys()


def test_no_secret_is_in_the_examples() -> None:
    """What looks like one is a placeholder for something that a command of the README makes."""
    realm = (DEPLOY / "container/realm/acme.json").read_text()
    assert re.findall(r'"secret": "([^"]*)"', realm) == ["${SUPPORT_AGENT}"]
    assert "credentials" not in realm
    compose = (DEPLOY / "container/compose.yaml").read_text()
    for value in re.findall(r"(?m)^ *(?:SUPPORT_AGENT|KC_BOOTSTRAP_ADMIN_PASSWORD): (.*)$", compose):
        assert value.startswith("${")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_commands_in_the_documents_exist(page: Path) -> None:
    """Every command of ours that a reader is told to type is there, with the options that it is given."""
    blocks = "\n".join(re.findall(r"(?s)```console\n(.*?)```", page.read_text())).replace("\\\n", " ")
    # Where a line begins, after sudo, by its path, or as a module; not the user of the same name.
    ours = r"(?:^\$ |^\$ sudo |/bin/|-m )interposer((?: +[\w./~:=-]+)+)"
    told = re.findall(ours, blocks, re.MULTILINE)
    checked = 0
    for words in (line.partition(" -- ")[0].split() for line in told):
        command = cli.get_command(click.Context(cli), words[0])
        assert command is not None, words
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
        checked += 1
    assert checked
