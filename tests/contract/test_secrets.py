"""What every source of credentials promises, whatever it takes them from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from interposer.errors import ConfigurationError
from interposer.ports import Secrets
from interposer.secrets.command import CommandSecrets
from interposer.secrets.descriptor import DescriptorSecrets
from interposer.secrets.env import EnvSecrets
from interposer.secrets.file import FileSecrets
from interposer.secrets.keyring import KeyringSecrets
from interposer.secrets.sources import SourcedSecrets
from interposer.secrets.systemd import SystemdSecrets
from tests.fakes.canary import canary, credential_file

VALUE = canary("contract")
NEVER_CHANGE = ("fd", "env")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Drawer(KeyringBackend):
    """A keyring that has the credential."""

    priority = 1

    def get_password(self, service: str, username: str) -> str:
        return VALUE

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@contextmanager
def in_keyring() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(Drawer())  # type: ignore[no-untyped-call]
    yield
    keyring.set_keyring(before)


@pytest.fixture(params=["file", "systemd", "command", "keyring", "fd", "env", "sourced"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def secrets(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secrets]:
    """Each kind, with one credential called `crm`."""
    path = str(credential_file(tmp_path, "contract", VALUE))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with in_keyring():
        match kind:
            case "file":
                yield FileSecrets({"crm": path})
            case "systemd":
                yield SystemdSecrets({"crm": "contract.credential"})
            case "command":
                yield CommandSecrets({"crm": f"/bin/cat {path}"})
            case "keyring":
                yield KeyringSecrets({"crm": "service/user"})
            case "fd":
                number = os.open(path, os.O_RDONLY)
                os.set_inheritable(number, True)
                yield DescriptorSecrets({"crm": str(number)})
            case "env":
                monkeypatch.setenv("CRM_TOKEN", VALUE)
                yield EnvSecrets({"crm": "CRM_TOKEN"}, insecure=True)
            case _:
                yield SourcedSecrets({"crm": f"file:{path}"})


async def test_a_credential_is_revealed_as_often_as_it_is_asked_for(secrets: Secrets) -> None:
    """Each process that is started needs it."""
    for _ in range(2):
        assert (await secrets.reveal("crm")).reveal() == VALUE


async def test_an_unknown_name_is_a_configuration_error(secrets: Secrets) -> None:
    """Never a credential of somebody else, and never another exception."""
    with pytest.raises(ConfigurationError, match="unknown"):
        await secrets.reveal("unknown")


async def test_a_stamp_stays_as_long_as_the_credential_does(secrets: Secrets, kind: str) -> None:
    """It is None where a credential never changes or nothing is known of it; using one changes nothing."""
    before = secrets.stamp("crm")
    await secrets.reveal("crm")
    assert (before is None) == (kind in NEVER_CHANGE)
    if kind not in ("command", "keyring"):  # their stamps are minutes
        assert secrets.stamp("crm") == before


async def test_nothing_shows_a_credential(secrets: Secrets) -> None:
    """Neither the source nor what it gives, however it is printed."""
    secret = await secrets.reveal("crm")
    assert VALUE not in f"{secrets} {secrets!r} {secret} {secret!r} {[secret]}"
