"""Credentials from files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interposer.errors import ConfigurationError
from interposer.secrets.file import FileSecrets


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


VALUE = "-".join(["not", "a", "real", "credential"])


def _file(tmp_path: Path, content: bytes, mode: int = 0o400) -> FileSecrets:
    path = tmp_path / "credential"
    path.write_bytes(content)
    path.chmod(mode)
    return FileSecrets({"crm": str(path)})


@pytest.mark.parametrize(
    ("content", "expected"),
    [(VALUE, VALUE), (VALUE + "\n", VALUE), (VALUE + "\n\n", VALUE + "\n"), (" " + VALUE + " \n", " " + VALUE + " ")],
)
async def test_one_trailing_newline_is_no_part_of_it(tmp_path: Path, content: str, expected: str) -> None:
    """Exactly one newline at the end is taken off, and nothing else."""
    assert (await _file(tmp_path, content.encode()).reveal("crm")).reveal() == expected


async def test_a_rotated_credential_counts_at_once(tmp_path: Path) -> None:
    """Each reveal reads the file anew."""
    secrets = _file(tmp_path, b"old", 0o600)
    assert (await secrets.reveal("crm")).reveal() == "old"
    (tmp_path / "credential").write_text("new")
    assert (await secrets.reveal("crm")).reveal() == "new"


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o420, 0o401])
async def test_a_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Any permission bit of the group or of others refuses the file, and the message says what to do."""
    with pytest.raises(ConfigurationError, match="chmod 0400") as raised:
        await _file(tmp_path, VALUE.encode(), mode).reveal("crm")
    assert VALUE not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff" + VALUE.encode(), VALUE.encode() * 10_000])
async def test_content_that_is_no_credential_is_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, binary and huge files are refused without showing what is in them."""
    with pytest.raises(ConfigurationError) as raised:
        await _file(tmp_path, content).reveal("crm")
    assert VALUE not in str(raised.value)


async def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A directory, a FIFO (without waiting for its writer) and a missing file are refused."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("", "fifo", "missing"):
        with pytest.raises(ConfigurationError):
            await FileSecrets({"crm": str(tmp_path / name)}).reveal("crm")


@pytest.mark.parametrize("where", ["folder", "link"])
async def test_a_file_in_a_folder_that_others_change_is_refused(tmp_path: Path, where: str) -> None:
    """Whoever can write to a directory on the way, also of a symbolic link, could put another file in its place."""
    folder = tmp_path / "folder"
    folder.mkdir()
    _file(folder, VALUE.encode())
    (tmp_path / "link").symlink_to(folder)
    secrets = FileSecrets({"crm": str(tmp_path / where / "credential")})
    assert (await secrets.reveal("crm")).reveal() == VALUE
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod o-w"):
        await secrets.reveal("crm")


def test_a_stamp_tells_that_a_file_changed(tmp_path: Path) -> None:
    """Content, mode, replacement and absence each change it; a look does not; it never raises."""
    secrets, path = _file(tmp_path, b"old", 0o600), tmp_path / "credential"
    seen = [secrets.stamp("crm")]
    assert secrets.stamp("crm") == seen[0]
    path.write_text("new")
    seen.append(secrets.stamp("crm"))
    path.chmod(0o640)
    seen.append(secrets.stamp("crm"))
    (tmp_path / "other").write_text("new")
    (tmp_path / "other").rename(path)
    seen.append(secrets.stamp("crm"))
    path.unlink()
    seen.append(secrets.stamp("crm"))
    assert len(set(seen)) == 5
    assert FileSecrets({}).stamp("crm") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
async def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Who owns the file could change it, so only our own uid and root may."""
    secrets = _file(tmp_path, VALUE.encode())
    os.chown(tmp_path / "credential", 65534, -1)
    with pytest.raises(ConfigurationError, match="belongs to uid 65534"):
        await secrets.reveal("crm")


async def test_an_unknown_name_is_refused() -> None:
    """A credential without a file is a configuration error."""
    with pytest.raises(ConfigurationError):
        await FileSecrets({}).reveal("crm")
