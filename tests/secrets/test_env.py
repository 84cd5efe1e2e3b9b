"""Credentials from the environment."""

from __future__ import annotations

import logging

import pytest

from interposer.errors import ConfigurationError
from interposer.secrets.env import EnvSecrets


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_environment_needs_the_insecure_switch() -> None:
    """Without being told that it is insecure, the environment is refused."""
    with pytest.raises(ConfigurationError, match="insecure_env: true"):
        EnvSecrets({"crm": "CRM_TOKEN"}, insecure=False)


async def test_the_environment_is_read_with_a_loud_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the switch the value is revealed, and a warning names the variable but not its value."""
    monkeypatch.setenv("CRM_TOKEN", "quite-secret")
    with caplog.at_level(logging.WARNING):
        secrets = EnvSecrets({"crm": "CRM_TOKEN"}, insecure=True)
    assert (await secrets.reveal("crm")).reveal() == "quite-secret"
    assert "CRM_TOKEN" in caplog.text
    assert "quite-secret" not in caplog.text


async def test_a_missing_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset and empty variables are configuration errors, and so is an unknown name."""
    monkeypatch.setenv("CRM_TOKEN", "")
    secrets = EnvSecrets({"crm": "CRM_TOKEN"}, insecure=True)
    for name in ("crm", "other"):
        with pytest.raises(ConfigurationError):
            await secrets.reveal(name)
