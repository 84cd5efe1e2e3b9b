"""One writer per record: an exclusive lock beside the database, held for as long as the process lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from interposer.errors import ConfigurationError, Problem


class RecordHeld(ConfigurationError):
    """Another broker writes this record. `pid` is what that broker noted of itself, 0 if it noted nothing."""

    def __init__(self, path: Path, pid: int) -> None:
        who = f"another broker (pid {pid})" if pid else "another broker"
        text = f"{who} holds this record: stop it, or give this one its own INTERPOSER_HOME or record path"
        super().__init__([Problem(str(path), 0, 0, text)])
        self.pid = pid


class RecordLock:
    """flock(2) on `<record>.lock`. The kernel lets go of it when the process ends, however it ends."""

    def __init__(self, record: Path) -> None:
        """Raises `RecordHeld`, or `OSError` where the directory cannot be written."""
        self._fd = os.open(f"{record}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            noted = os.pread(self._fd, 20, 0).strip()
            os.close(self._fd)
            raise RecordHeld(record, int(noted) if noted.isdigit() else 0) from None
        with contextlib.suppress(
            OSError
        ):  # the number is a courtesy to the operator: a full disk must not cost the lock
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
