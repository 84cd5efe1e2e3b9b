"""Times of the week in which an approval counts, by the clocks of one place.

What counts is what those clocks show: a window keeps its hours when they are changed, an hour that is skipped is in no
window, and an hour that comes twice is in it twice. A zone that this machine does not know is never open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from math import floor
from typing import TYPE_CHECKING

from .terms import Window

if TYPE_CHECKING:
    from datetime import datetime


def is_open(windows: Sequence[Sequence[Window]], now: float) -> bool:
    """Whether `now` (seconds since 1970) lies in at least one window of each of these. Without any: always."""
    return all(any(_in(window, now) for window in alternatives) for alternatives in windows)


def _in(window: Window, now: float) -> bool:
    shown = _clock(window.zone)
    if shown is None:
        return False
    # Whole seconds: rounding microseconds up would open and close early.
    local = shown(floor(now))
    minute, today = local.hour * 60 + local.minute, local.weekday()
    if window.opens_min < window.closes_min:
        return today in window.days and window.opens_min <= minute < window.closes_min
    began_yesterday = (today - 1) % 7 in window.days and minute < window.closes_min
    return began_yesterday or (today in window.days and minute >= window.opens_min)


@lru_cache(maxsize=256)
def _clock(zone: str) -> Callable[[float], datetime] | None:
    """Reads one place's clocks."""
    # 8 ms to import, and a broker without hours in its policy starts without them.
    from datetime import datetime
    from zoneinfo import ZoneInfo

    try:
        # For what is no zone it raises KeyError, ValueError or OSError (a folder, `America`).
        return partial(datetime.fromtimestamp, tz=ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        return None
