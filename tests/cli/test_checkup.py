"""What `doctor` says of clients that give up before the broker answers them."""

from __future__ import annotations

from typing import Any

import pytest

from interposer.cli.checkup import Check, holds
from interposer.config import Config
from interposer.config_approvals import ApprovalsConfig, ClientConfig
from interposer.parts import client_profiles
from interposer.reach import Profile


def warned(approvals: ApprovalsConfig) -> dict[str, Check]:
    config: Any = object.__new__(Config)
    object.__setattr__(config, "approvals", approvals)
    return {check.name: check for check in holds(config) if check.ok is None}


def test_usual_hold_is_shorter_than_any_client_waits() -> None:
    """Without configuration nobody is warned of."""
    assert warned(ApprovalsConfig()) == {}


def test_hold_of_a_client_counts_however_it_is_written() -> None:
    """A duration alone, or all that a client is known to bear; without a hold of its own, the usual one."""
    clients: dict[str, str | ClientConfig] = {
        "openai-agents": "20s",
        "codex": ClientConfig(hold="2m"),
        "crewai": ClientConfig(rounds="never"),
    }
    found = warned(ApprovalsConfig(hold="10s", clients=clients))
    assert found.keys() == {"client openai-agents", "client codex", "client google-adk"}
    assert "20 s" in found["client openai-agents"].said
    assert "approvals.clients: {codex: 59s}" in found["client codex"].remedy


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("20s", Profile(20.0)),
        (ClientConfig(), Profile(3.0)),
        (ClientConfig(hold="1m", rounds="ask_again", tasks=False), Profile(60.0, "ask_again", False)),
    ],
)
def test_profiles_are_what_is_configured(given: str | ClientConfig, expected: Profile) -> None:
    """And the usual hold, where it is not."""
    assert client_profiles(ApprovalsConfig(hold="3s", clients={"x": given})) == {"x": expected}
