"""How people are told and where they answer: what could never work, or is not theirs alone, stops the start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from interposer import parts
from interposer.errors import ConfigurationError
from interposer.people import require_notice_secrets
from interposer.settings import Settings, settings
from tests.fakes.agent import COMMAND

LINES = (
    "upstreams: {crm: {command: [cat]}}",
    "console: {enabled: true, tls: {certificate: tls.pem, key: tls.key}}",
)


def chosen(folder: Path, *lines: str) -> Settings:
    path = folder / "interposer.yaml"
    path.write_text("\n".join(("version: 1", "state: state", *lines)) + "\n")
    return settings(str(path), None, [])


def hook(folder: Path, program: str) -> Settings:
    return chosen(folder, f"approvals: {{notify: [{{command: [{program}]}}]}}")


@pytest.mark.parametrize("program", ["nosuchprogram", "/nowhere/at-all", "./unmarked", "./folder", "unmarked"])
async def test_hook_that_could_never_run_stops_the_start(program: str, tmp_path: Path) -> None:
    """A program that is not there, may not be run, or is none."""
    (tmp_path / "unmarked").write_text("#!/bin/sh\n")
    (tmp_path / "folder").mkdir()
    found = hook(tmp_path, program)
    with pytest.raises(ConfigurationError, match=r"approvals\.notify\[0\]\.command: there is no program"):
        await require_notice_secrets(found, parts.credentials(found))


@pytest.mark.parametrize("program", ["'true'", "/bin/false", "./told"])
async def test_hook_is_looked_for_where_it_is_started(program: str, tmp_path: Path) -> None:
    """On PATH, or from the folder of the configuration."""
    (tmp_path / "told").write_text("#!/bin/sh\n")
    (tmp_path / "told").chmod(0o700)
    found = hook(tmp_path, program)
    await require_notice_secrets(found, parts.credentials(found))


def test_key_of_the_console_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    """Whoever has it can pass for the console: it is held to what a credential is."""
    file = chosen(tmp_path, *LINES).file
    key = tmp_path / "tls.key"
    key.write_text("not read by anybody\n")
    key.chmod(0o644)
    env = {**os.environ, "INTERPOSER_HOME": str(tmp_path / "state")}
    done = subprocess.run([*COMMAND, "serve", "--config", str(file)], capture_output=True, timeout=60, env=env)
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"{key}: others can reach it (mode 0644); chmod 0400 {key}" in done.stderr.decode()
