"""Sources of credentials as configuration writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interposer.errors import ConfigurationError
from interposer.secrets.sources import SourcedSecrets


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_name_has_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds may be mixed."""
    path = tmp_path / "credential"
    path.write_text("from-file\n")
    path.chmod(0o400)
    monkeypatch.setenv("MAIL_TOKEN", "from-env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    read, write = os.pipe()
    os.set_inheritable(read, True)
    os.write(write, b"from-descriptor")
    os.close(write)
    sources = {
        "crm": f"file:{path}",
        "mail": "env:MAIL_TOKEN",
        "pay": f"fd:{read}",
        "cli": "command:/bin/echo from-command",
        "unit": "systemd:credential",
        "desk": "keyring:service/user",
    }
    secrets = SourcedSecrets(sources, insecure_env=True)
    assert (await secrets.reveal("pay")).reveal() == "from-descriptor"
    assert (await secrets.reveal("cli")).reveal() == "from-command"
    assert (await secrets.reveal("unit")).reveal() == "from-file"
    assert {name for name in sources if secrets.stamp(name) is not None} == {"crm", "cli", "unit", "desk"}
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


def test_every_source_that_cannot_be_used_is_told_of_at_once() -> None:
    """Each with its credential's name."""
    with pytest.raises(ConfigurationError) as raised:
        SourcedSecrets({"a": "x", "b": "systemd:../b", "c": "command:c", "d": "keyring:d", "e": "fd:1", "f": "env:F"})
    assert [problem.file for problem in raised.value.problems] == [
        *(f"credential {name}" for name in "abcde"),
        "env:F",
    ]
