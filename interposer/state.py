"""Where one broker keeps its state, and which of several brokers of one user this is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigurationError, Problem
from .records.lock import RecordHeld
from .records.sqlite import SqliteRecordStore

MAX_SLOTS = 64


@dataclass(frozen=True, slots=True)
class State:
    """An open record and the folder that it and the sockets stand in."""

    folder: Path
    store: SqliteRecordStore

    @property
    def admin_socket(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def admin_key(self) -> Path:
        return self.folder / "admin.key"


def claim(home: Path, *, several: bool) -> State:
    """Open the record under `home`. Where another broker holds it: with `several`, take the next free slot (agent
    runtimes start one stdio broker each), else raise `RecordHeld`."""
    private(home)
    try:
        return State(home, SqliteRecordStore.open(home / "record.db"))
    except RecordHeld:
        if not several:
            raise
    for number in range(2, MAX_SLOTS):
        folder = home / "slots" / str(number)
        private(folder.parent)
        private(folder)
        try:
            return State(folder, SqliteRecordStore.open(folder / "record.db"))
        except RecordHeld:
            continue
    raise ConfigurationError([Problem(str(home), 0, 0, f"{MAX_SLOTS} brokers hold a record here; stop some")])


def private(folder: Path) -> None:
    """A folder that only its owner can look into (architecture: state is mode 0700)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        ours = not any(folder.iterdir()) or (folder / "record.db").exists() or (folder / "slots").exists()
    except OSError as error:
        text = f"cannot be made ({error.strerror}); set INTERPOSER_HOME to a folder of yours"
        raise _problem(folder, text) from None
    if found.st_uid != os.getuid():
        raise _problem(folder, "belongs to somebody else; set INTERPOSER_HOME to a folder of yours")
    if found.st_mode & 0o077 and not ours and folder.name != "slots":
        raise _problem(folder, "is open to others and holds other things; set INTERPOSER_HOME to a folder of its own")
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def _problem(folder: Path, text: str) -> ConfigurationError:
    return ConfigurationError([Problem(str(folder), 0, 0, text)])
