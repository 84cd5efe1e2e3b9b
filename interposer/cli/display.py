"""How commands show foreign text and time."""

from __future__ import annotations

import json
from typing import Any

from interposer.display import printable, printable_json

__all__ = ["as_json", "duration", "printable", "printable_json"]


def as_json(value: Any) -> str:
    """One line of ASCII JSON, for `--json`."""
    return printable_json(json.dumps(value, ensure_ascii=True, separators=(", ", ": ")).encode())


def duration(seconds: float) -> str:
    """`29m`, `1h 05m`, `12s`; `over` when nothing is left."""
    whole = int(seconds)
    if seconds <= 0:
        return "over"
    if whole < 60:
        return f"{whole}s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m"
