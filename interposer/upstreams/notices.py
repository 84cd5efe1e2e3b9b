"""What an upstream does wrong, told without being told a million times.

Each kind is passed on a few times and then only counted; `settle` says in one notice what was counted. Notifications
have a budget of their own, by number and by bytes.
"""

from __future__ import annotations

from collections.abc import Callable

EACH = 5
"""Notices of one kind that are passed on before counting begins."""
FLOOD_COUNT = 1000
FLOOD_BYTES = 1024 * 1024


class Notices:
    """One upstream's misdeeds since the last call ended."""

    __slots__ = ("_bytes", "_counts", "_notices", "_tell")

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._counts: dict[str, int] = {}
        self._notices = 0
        self._bytes = 0

    @property
    def flooded(self) -> bool:
        """Whether the budget of notifications is spent."""
        return self._notices > FLOOD_COUNT or self._bytes > FLOOD_BYTES

    def spend(self, size: int) -> bool:
        """One more notification, of this many bytes. False: beyond the budget."""
        self._notices += 1
        self._bytes += size
        return not self.flooded

    def tell(self, kind: str, detail: str) -> None:
        seen = self._counts.get(kind, 0) + 1
        self._counts[kind] = seen
        if seen <= EACH:
            self._tell(kind, detail)

    def settle(self) -> None:
        """A new budget; what went beyond the old one is told now, once."""
        if self._notices or self._counts:
            counts, notices, size, flooded = self._counts, self._notices, self._bytes, self.flooded
            self._counts, self._notices, self._bytes = {}, 0, 0
            if flooded:
                self._tell("flood", f"{notices} notifications, {size} bytes; dropped beyond the budget")
            for kind, seen in counts.items():
                if seen > EACH:
                    self._tell(kind, f"{seen - EACH} more of the same")
