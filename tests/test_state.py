"""Who gets which record: one broker each, and a private folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from interposer.records.lock import RecordHeld
from interposer.state import claim


async def test_a_second_daemon_is_refused_and_a_second_stdio_broker_gets_a_slot(tmp_path: Path) -> None:
    """One record never has two writers."""
    home = tmp_path / "home"
    first = claim(home, several=True)
    try:
        with pytest.raises(RecordHeld):
            claim(home, several=False)
        second = claim(home, several=True)
        try:
            assert second.folder == home / "slots/2"
        finally:
            await second.store.aclose()
        third = claim(home, several=True)
        assert third.folder == home / "slots/2", "a slot that is free again is used again"
        await third.store.aclose()
    finally:
        await first.store.aclose()


async def test_state_is_private(tmp_path: Path) -> None:
    """Nobody else can look into the record, even where the folder was open before."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    state = claim(home, several=False)
    await state.store.aclose()
    assert home.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o077 == 0 for path in home.iterdir())
