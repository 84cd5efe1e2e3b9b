"""Credentials that systemd provides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interposer.errors import ConfigurationError
from interposer.secrets.systemd import SystemdSecrets

VALUE = "-".join(["not", "a", "real", "credential"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service's directory of credentials with one called `crm`."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "crm").write_text(VALUE + "\n")
    (tmp_path / "crm").chmod(0o400)
    return tmp_path


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
async def test_a_credential_of_the_service_is_revealed(folder: Path, mode: int) -> None:
    """The modes that systemd gives them are taken, the group's bits being those of an ACL's mask."""
    (folder / "crm").chmod(mode)
    secrets = SystemdSecrets({"up": "crm"})
    assert (await secrets.reveal("up")).reveal() == VALUE
    assert secrets.stamp("up") == secrets.stamp("up") is not None


@pytest.mark.parametrize("mode", [0o404, 0o444, 0o420, 0o402, 0o460])
async def test_a_credential_that_others_reach_is_refused(folder: Path, mode: int) -> None:
    """Readable by all or writable by anybody else is no credential of systemd's."""
    (folder / "crm").chmod(mode)
    with pytest.raises(ConfigurationError, match="others can reach it") as raised:
        await SystemdSecrets({"up": "crm"}).reveal("up")
    assert VALUE not in str(raised.value)


@pytest.mark.parametrize("directory", [None, "", "credentials"])
async def test_outside_of_a_service_it_is_said_what_is_missing(
    directory: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the directory, or with a relative one, the message says LoadCredential."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    if directory is not None:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", directory)
    with pytest.raises(ConfigurationError, match="LoadCredential=crm"):
        await SystemdSecrets({"up": "crm"}).reveal("up")


@pytest.mark.parametrize("name", ["../crm", "a/b", "/etc/shadow", ".", "..", ".hidden"])
def test_a_name_cannot_leave_the_directory(name: str) -> None:
    """Slashes and leading dots are refused before anything is opened."""
    with pytest.raises(ConfigurationError, match="systemd credential"):
        SystemdSecrets({"up": name})


async def test_what_is_no_file_is_refused(folder: Path) -> None:
    """A missing credential, a directory, a FIFO and an unknown name are configuration errors."""
    os.mkfifo(folder / "fifo", 0o400)
    (folder / "folder").mkdir()
    secrets = SystemdSecrets({"a": "missing", "b": "fifo", "c": "folder"})
    for name in ("a", "b", "c", "unknown"):
        with pytest.raises(ConfigurationError):
            await secrets.reveal(name)
    assert secrets.stamp("unknown") is None
