"""How commands show foreign text and time."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from interposer.display import printable, printable_json

__all__ = ["as_json", "duration", "moment", "printable", "printable_json"]


def as_json(value: Any) -> str:
    """One line of ASCII JSON, for `--json`."""
    return printable_json(json.dumps(value, ensure_ascii=True, separators=(", ", ": ")).encode())


def duration(seconds: float) -> str:
    """`29m`, `1h 05m`, `3d 04h`, `12s`; `over` when nothing is left."""
    if seconds <= 0:
        return "over"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    hours, minutes = divmod(whole // 60, 60)
    if hours >= 48:
        return f"{hours // 24}d {hours % 24:02d}h"
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m"


def moment(at: float) -> str:
    """`2026-11-22 19:05:12 +0100`, by the clocks of whoever looks."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
