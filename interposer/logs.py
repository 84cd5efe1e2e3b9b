"""The log: lines for operators on standard error, which may be lost. The record is elsewhere and may not."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from contextlib import suppress


class DroppingHandler(logging.Handler):
    """Writes log lines from a thread of its own and drops what nobody reads: a full pipe behind standard error must
    not stall the broker, nor keep it from ending."""

    def __init__(self, lines: int = 10_000) -> None:
        super().__init__()
        self._lines: queue.Queue[str | None] = queue.Queue(lines)
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self._lines.put_nowait(f"interposer: {record.getMessage()}\n")

    def stop(self) -> None:
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._writer.join(1.0)

    def _write(self) -> None:
        for line in iter(self._lines.get, None):
            with suppress(OSError, ValueError):
                sys.stderr.write(line)
                sys.stderr.flush()
