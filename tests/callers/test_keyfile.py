"""Keys in a file: what it holds counts at once, and a broken file for a while only."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from interposer.callers.keyfile import FileKeys
from interposer.errors import ConfigurationError
from tests.fakes.house import HandClock
from tests.fakes.issuer import SigningKey


def put(path: Path, *keys: SigningKey) -> None:
    path.write_text(json.dumps({"keys": [key.jwk() for key in keys]}))


def kids(keys: FileKeys) -> list[str | None]:
    found = keys.current()
    return [] if found is None else [key.kid for key in found.keys]


async def test_a_change_counts_at_the_next_call(tmp_path: Path, clock: HandClock) -> None:
    """Keys that were added and removed in the file are known and unknown at once."""
    path = tmp_path / "keys.json"
    one, two = SigningKey("one"), SigningKey("two")
    put(path, one)
    keys = FileKeys(str(path), clock)
    before = keys.current()
    assert keys.current() is before or kids(keys) == ["one"]
    put(path, two)
    assert kids(keys) == ["two"]
    put(path, one, two)
    assert kids(keys) == ["one", "two"]
    clock.time_s += 10_000.0
    assert await keys.refreshed() is not None


@pytest.mark.parametrize("broken", ["gone", "empty", "folder"])
async def test_a_broken_file_is_believed_no_longer_than_fetched_keys(
    tmp_path: Path, clock: HandClock, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """The old keys stand for 300 s, said once; then there are none until the file is whole again."""
    path = tmp_path / "keys.json"
    put(path, SigningKey("one"))
    keys = FileKeys(str(path), clock)
    path.unlink()
    if broken == "empty":
        path.write_text("")
    elif broken == "folder":
        path.mkdir()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert kids(keys) == ["one"]
    assert len(caplog.messages) == 1
    clock.time_s += 300.0
    assert keys.current() is None
    assert not keys.status().loaded
    assert keys.status().error
    if broken == "folder":
        path.rmdir()
    put(path, SigningKey("two"))
    assert kids(keys) == ["two"]
    assert keys.status().error == ""


@pytest.mark.parametrize("text", [None, "", '{"keys": []}'])
def test_without_keys_there_is_no_start(tmp_path: Path, clock: HandClock, text: str | None) -> None:
    """A file that was never good is a mistake of the operator, said before anything is served."""
    path = tmp_path / "keys.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        FileKeys(str(path), clock)
