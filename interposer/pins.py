"""Pinned skill definitions on disk: one JSON file per upstream, replaced in one step or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .canonical import Malformed, digest, encode, parse
from .errors import ConfigurationError, Problem
from .model import JsonObject


class FilePins:
    """Implements `Pins` in a folder.

    An upstream is known by its name and by what is started under that name: another command is another upstream, and
    is pinned anew.
    """

    def __init__(self, folder: Path, commands: Mapping[str, list[str]]) -> None:
        self._folder = folder
        self._commands = commands
        self._loaded: dict[str, dict[str, JsonObject]] = {}

    def load(self, upstream: str) -> dict[str, JsonObject] | None:
        """Raises `ConfigurationError` for a file that cannot be read: it is never taken for "not pinned"."""
        if upstream in self._loaded:
            return self._loaded[upstream]
        path = self._path(upstream)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, str(error.strerror)) from None
        try:
            pins: dict[str, JsonObject] = parse(raw)["tools"]
        except (Malformed, KeyError, TypeError):
            raise _unreadable(path, "it is not a pin file") from None
        self._loaded[upstream] = pins
        return pins

    def save(self, upstream: str, definitions: dict[str, JsonObject]) -> None:
        path = self._path(upstream)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(encode({"upstream": upstream, "tools": definitions}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        self._loaded[upstream] = dict(definitions)

    def _path(self, upstream: str) -> Path:
        return self._folder / f"{upstream}-{digest(self._commands.get(upstream, []))[:16]}.json"


class MemoryPins:
    """Implements `Pins` for as long as it lives."""

    def __init__(self) -> None:
        self._pins: dict[str, dict[str, JsonObject]] = {}

    def load(self, upstream: str) -> dict[str, JsonObject] | None:
        return self._pins.get(upstream)

    def save(self, upstream: str, definitions: dict[str, JsonObject]) -> None:
        self._pins[upstream] = dict(definitions)


def _unreadable(path: Path, why: str) -> ConfigurationError:
    text = f"cannot be read ({why}); restore it, or remove it and run `interposer skills pin`"
    return ConfigurationError([Problem(str(path), 0, 0, text)])
