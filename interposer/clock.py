"""The time, as the machine has it."""

from __future__ import annotations

import time


class SystemClock:
    """Wall clock for display; a monotonic clock that counts through suspend for deadlines."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.clock_gettime(_SINCE_BOOT)


_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
