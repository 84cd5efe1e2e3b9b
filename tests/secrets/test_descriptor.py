"""Credentials from inherited descriptors."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from interposer.errors import ConfigurationError
from interposer.secrets.descriptor import DescriptorSecrets

VALUE = "-".join(["not", "a", "real", "credential"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def inherited(data: bytes, *, end: bool = True) -> tuple[int, int]:
    """A pipe with these bytes in it, as it looks behind an exec: (reading end, writing end or -1)."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.write(write, data)
    os.set_inheritable(read, True)
    if end:
        os.close(write)
    return read, -1 if end else write


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


async def test_a_pipe_is_read_once_and_closed() -> None:
    """The credential stays after the descriptor has gone, for everybody who is given that number."""
    read, _ = inherited(VALUE.encode() + b"\n")
    secrets = DescriptorSecrets({"crm": str(read), "mail": str(read)})
    assert not is_open(read)
    assert [(await secrets.reveal(name)).reveal() for name in ("crm", "mail", "crm")] == [VALUE] * 3
    assert secrets.stamp("crm") is None
    with pytest.raises(ConfigurationError):
        await secrets.reveal("other")


async def test_sockets_and_files_serve_as_well(tmp_path: Path) -> None:
    """Whatever can be read to its end."""
    (tmp_path / "file").write_text(VALUE)
    file = os.open(tmp_path / "file", os.O_RDONLY)
    near, far = socket.socketpair()
    far.sendall(VALUE.encode())
    far.close()
    for number in (file, near.detach()):
        os.set_inheritable(number, True)
        assert (await DescriptorSecrets({"crm": str(number)}).reveal("crm")).reveal() == VALUE
        assert not is_open(number)


def test_a_descriptor_of_our_own_is_not_taken(tmp_path: Path) -> None:
    """A wrong number neither reads nor closes what the broker itself has opened; nor does one that is not open."""
    with open(tmp_path / "record", "w+") as ours:
        with pytest.raises(ConfigurationError, match="was not inherited"):
            DescriptorSecrets({"crm": str(ours.fileno())})
        assert is_open(ours.fileno())
    with pytest.raises(ConfigurationError, match="was not inherited"):
        DescriptorSecrets({"crm": "987"})


@pytest.mark.parametrize("written", ["0", "1", "2", "-1", "x", "٣", "3 ", "99999999999999999999", "2147483648"])
def test_what_is_no_number_of_one_is_refused(written: str) -> None:
    """The standard streams are no credentials."""
    with pytest.raises(ConfigurationError, match="fd:NUMBER"):
        DescriptorSecrets({"crm": written})


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff" + VALUE.encode(), VALUE.encode() + b"\0"])
def test_content_that_is_no_credential_is_refused(data: bytes) -> None:
    """Empty and binary content is refused without being shown, and the descriptor is closed all the same."""
    read, _ = inherited(data)
    with pytest.raises(ConfigurationError) as raised:
        DescriptorSecrets({"crm": str(read)})
    assert VALUE not in str(raised.value)
    assert not is_open(read)


def test_too_much_is_refused(tmp_path: Path) -> None:
    """64 KiB are enough for any credential."""
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    number = os.open(tmp_path / "big", os.O_RDONLY)
    os.set_inheritable(number, True)
    with pytest.raises(ConfigurationError, match="more than 65536"):
        DescriptorSecrets({"crm": str(number)})


def test_one_that_does_not_end_holds_nobody_up() -> None:
    """A writer that forgets to close is told of, in time."""
    read, write = inherited(VALUE.encode(), end=False)
    with pytest.raises(ConfigurationError, match="did not end within") as raised:
        DescriptorSecrets({"crm": str(read)}, within_s=0.05)
    os.close(write)
    assert VALUE not in str(raised.value)
    assert not is_open(read)
