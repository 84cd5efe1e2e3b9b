"""Sources of credentials as configuration writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from interposer.errors import ConfigurationError
from interposer.secrets.sources import SourcedSecrets


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_name_has_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and variables may be mixed."""
    path = tmp_path / "credential"
    path.write_text("from-file\n")
    path.chmod(0o400)
    monkeypatch.setenv("MAIL_TOKEN", "from-env")
    secrets = SourcedSecrets({"crm": f"file:{path}", "mail": "env:MAIL_TOKEN"}, insecure_env=True)
    assert (await secrets.reveal("crm")).reveal() == "from-file"
    assert (await secrets.reveal("mail")).reveal() == "from-env"
    with pytest.raises(ConfigurationError):
        await secrets.reveal("other")


def test_what_is_no_source_is_refused_unseen() -> None:
    """A credential written where its source belongs is refused without being repeated; so is env without the switch."""
    with pytest.raises(ConfigurationError) as raised:
        SourcedSecrets({"crm": "hunter2", "mail": "file:"})
    assert len(raised.value.problems) == 2
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ConfigurationError):
        SourcedSecrets({"crm": "env:CRM_TOKEN"})
