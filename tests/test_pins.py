"""Pins on disk: atomic, per command, and never taken for absent when they cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interposer.errors import ConfigurationError
from interposer.pins import FilePins, MemoryPins

TOOLS: dict[str, Any] = {"echo": {"name": "echo", "inputSchema": {"type": "object"}}}


def test_pins_survive_a_restart(tmp_path: Path) -> None:
    """What an operator agreed to is agreed to tomorrow."""
    FilePins(tmp_path, {"u": ["cmd"]}).save("u", TOOLS)
    assert FilePins(tmp_path, {"u": ["cmd"]}).load("u") == TOOLS


def test_another_command_is_another_upstream(tmp_path: Path) -> None:
    """A name that starts something else now is pinned anew."""
    FilePins(tmp_path, {"u": ["cmd"]}).save("u", TOOLS)
    assert FilePins(tmp_path, {"u": ["cmd", "--other"]}).load("u") is None


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"tools":1,"tools":2}', b"\xff"])
def test_a_damaged_pin_file_is_a_fault_and_not_a_first_sight(tmp_path: Path, raw: bytes) -> None:
    """Spoiling the file does not make the broker trust whatever comes next."""
    FilePins(tmp_path, {}).save("u", TOOLS)
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(raw)
    with pytest.raises(ConfigurationError):
        FilePins(tmp_path, {}).load("u")


def test_pin_files_are_private(tmp_path: Path) -> None:
    """Only the broker's user reads and writes pins, and nothing is left half written."""
    FilePins(tmp_path / "pins", {}).save("u", TOOLS)
    (path,) = (tmp_path / "pins").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_memory_pins_are_pins() -> None:
    """The implementation for tests forgets nothing while it lives."""
    pins = MemoryPins()
    assert pins.load("u") is None
    pins.save("u", TOOLS)
    assert pins.load("u") == TOOLS
