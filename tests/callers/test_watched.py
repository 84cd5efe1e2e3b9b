"""A file that is read again when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interposer.callers.watched import Watched


def noted(path: Path) -> Watched:
    """The file as one that was read a while ago."""
    os.utime(path, (1, 1))
    found = Watched(str(path), limit_bytes=10, young_s=0.0)
    stamp = found.stamp()
    assert stamp is not None
    found.note(stamp)
    assert found.stamp() is None
    return found


def test_two_writes_in_one_tick_are_both_seen(tmp_path: Path) -> None:
    """A file that was written while it was read is read once more, though its times and size are the same."""
    path = tmp_path / "f"
    path.write_text("a")
    file = Watched(str(path), limit_bytes=10)
    stamp = file.stamp()
    assert stamp is not None
    file.note(stamp)
    assert file.stamp() == stamp


@pytest.mark.parametrize("change", ["write", "replace", "remove", "touch back"])
def test_a_change_is_seen(tmp_path: Path, change: str) -> None:
    """Written over, replaced, removed, or changed with its time set back: each is another state."""
    path = tmp_path / "f"
    path.write_text("a")
    file = noted(path)
    if change == "write":
        path.write_text("ab")
    elif change == "replace":
        (tmp_path / "g").write_text("b")
        (tmp_path / "g").replace(path)
    elif change == "remove":
        path.unlink()
    else:
        path.write_text("b")
        os.utime(path, (1, 1))
    assert file.stamp() is not None


def test_a_missing_file_is_missing_once(tmp_path: Path) -> None:
    """That there is no file is a state like any other."""
    file = Watched(str(tmp_path / "f"), limit_bytes=10)
    stamp = file.stamp()
    assert stamp is not None
    file.note(stamp)
    assert file.stamp() is None
    (tmp_path / "f").write_text("a")
    assert file.stamp() is not None


def test_only_small_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe does not hold us up, and a large file does not fill the memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("12345678901")
    for name, said in (("pipe", "regular"), ("large", "10 bytes")):
        with pytest.raises(ValueError, match=said):
            Watched(str(tmp_path / name), limit_bytes=10).read()
    with pytest.raises(OSError):
        Watched(str(tmp_path / "none"), limit_bytes=10).read()
