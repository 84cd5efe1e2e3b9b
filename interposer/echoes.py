"""Alarms for credentials that an upstream sends back outside of an answer: at most one a minute for each upstream.

Answers and errors have alarms of their own, one each, beside the call that they belong to.
"""

from __future__ import annotations

from collections.abc import Callable

from .model import Masked
from .ports import Clock

CODE = "credential_echoed"
EVERY_S = 60.0
_COUNTED = "credential"


def echoed(masked: Masked) -> bool:
    """Whether a credential of ours stood in what was masked."""
    return _COUNTED in masked.counts


class Echoes:
    """Where upstreams' credentials came back."""

    def __init__(self, tell: Callable[[str, str, str], None], clock: Clock) -> None:
        """`tell(upstream, code, detail)` makes the alarm."""
        self._tell = tell
        self._clock = clock
        self._told_at: dict[str, float] = {}

    def told(self, upstream: str, place: str) -> None:
        """It stood in something of this upstream's: `stderr`, `definition`, `progress` or `notice`."""
        now = self._clock.monotonic()
        if now - self._told_at.get(upstream, float("-inf")) >= EVERY_S:
            self._told_at[upstream] = now
            self._tell(upstream, CODE, f"in its {place}")
