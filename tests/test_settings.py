"""What a configuration comes to: which credentials there are, and where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interposer import config, parts
from interposer.clock import SystemClock
from interposer.errors import ConfigurationError
from interposer.masking.engine import Engine
from interposer.model import Principal
from interposer.settings import Settings, settings
from interposer.upstreams.choice import Choice
from interposer.upstreams.mcp_stdio import McpStdio

ONE = "credential: {env: KEY, source: 'file:keys/one'}"
LEADS = "{env: KEY, source: 'file:keys/leads', who: {groups: [leads]}}"
REST = "{env: KEY, source: 'systemd:rest'}"


def chosen(folder: Path, *upstream: str) -> Settings:
    lines = ["version: 1", "upstreams:", "  crm:", "    command: [serve]", *(f"    {line}" for line in upstream)]
    path = folder / "interposer.yaml"
    path.write_text("\n".join(lines) + "\n")
    return settings(str(path), None, [])


def assembled(found: Settings) -> Any:
    return parts.upstream(
        "crm",
        found.upstreams["crm"],
        found,
        secrets=parts.credentials(found),
        clock=SystemClock(),
        masker=Engine(),
        on_notice=lambda kind, detail: None,
    )


@pytest.mark.parametrize(
    ("lines", "sources"),
    [
        ([], {}),
        ([ONE], {"crm": "file:{}/keys/one"}),
        ([f"credentials: [{LEADS}, {REST}]"], {"crm#1": "file:{}/keys/leads", "crm#2": "systemd:rest"}),
    ],
)
def test_each_credential_has_a_name_and_a_place(lines: list[str], sources: dict[str, str], tmp_path: Path) -> None:
    """Several of one upstream are numbered, and paths are relative to the configuration."""
    named = chosen(tmp_path, *lines).sources()
    assert named == {name: source.format(tmp_path) for name, source in sources.items()}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([ONE, f"credentials: [{REST}]"], "both given"),
        ([f"credentials: [{REST}, {LEADS}]"], "credential 1 is for everybody"),
        ([f"credentials: [{LEADS}, {REST}, {REST}]"], "credential 2 is for everybody"),
        (["credentials: [{env: KEY, source: 'file:x', who: {}}]"], "names nobody"),
        (["credentials: [{env: KEY, source: 'file:x', who: {groups: []}}]"], "names nobody"),
    ],
)
def test_credentials_that_contradict_each_other_are_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    """Two ways to say it, one that is never used, and one that would be everybody's by mistake; with the place."""
    with pytest.raises(ConfigurationError, match=said) as raised:
        chosen(tmp_path, *lines)
    assert raised.value.problems[0].line == 3


async def test_several_credentials_are_several_processes(tmp_path: Path) -> None:
    """One for everybody is one process; as soon as it matters who calls, a choice is made."""
    assert isinstance(assembled(chosen(tmp_path)), McpStdio)
    assert isinstance(assembled(chosen(tmp_path, ONE)), McpStdio)
    both = assembled(chosen(tmp_path, f"credentials: [{LEADS}, {REST}]"))
    only = assembled(chosen(tmp_path, f"credentials: [{LEADS}]"))
    assert isinstance(both, Choice)
    assert isinstance(only, Choice)
    anybody, lead = Principal("local", "ann"), Principal("local", "ben", ("leads",))
    assert [both.serves(anybody), only.serves(anybody), only.serves(lead)] == [True, False, True]
    for each in (both, only):
        await each.aclose()


def test_a_source_that_cannot_be_used_keeps_the_broker_from_starting(tmp_path: Path) -> None:
    """Before anything is served."""
    found = chosen(tmp_path, "credential: {env: KEY, source: 'command:relative program'}")
    with pytest.raises(ConfigurationError, match="whole path"):
        parts.credentials(found)


def test_a_configuration_shows_no_source(tmp_path: Path) -> None:
    """A command's arguments may be secret: no `repr` has them."""
    found = chosen(tmp_path, "credential: {env: KEY, source: 'command:/bin/x --pin 84613'}")
    assert "84613" not in f"{found!r} {config.load(tmp_path / 'interposer.yaml')!r}"
