"""A run of digits, cut into its groups: what the families of numbers look at."""

from __future__ import annotations

import re

from .detector import MARK

_GROUP = re.compile(r"[0-9]+", re.ASCII)


class Run:
    """A run of digit groups inside a text, and which of the groups are explained already."""

    __slots__ = ("end", "groups", "start", "taken", "text")

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.groups = [match.span() for match in _GROUP.finditer(text, start, end)]
        self.taken = [False] * len(self.groups)
        self.start = self.groups[0][0]
        self.end = self.groups[-1][1]

    def digits(self, at: int) -> str:
        start, end = self.groups[at]
        return self.text[start:end]

    def gap(self, at: int) -> str:
        """What stands between group `at` and the next one."""
        return self.text[self.groups[at][1] : self.groups[at + 1][0]]

    def before(self, at: int, size: int) -> str:
        """The text before group `at`, as far back as the last placeholder: that one tells of something else."""
        start = self.groups[at][0]
        begin = max(0, start - size)
        close = self.text.rfind("]", begin, start)
        if close >= 0 and self.text.rfind(MARK, max(0, close - 64), close) >= 0:
            begin = close + 1
        return self.text[begin:start]

    def stands_alone(self, first: int, last: int) -> bool:
        """No letter touches the groups, and they are not the fraction of a number."""
        start, end = self.groups[first][0], self.groups[last][1]
        if start > 0:
            before = self.text[start - 1]
            if before.isalnum() or before == "_":
                return False
            if before == "." and start > 1 and self.text[start - 2].isdigit() and first == last:
                return False
        if end < len(self.text):
            after = self.text[end]
            return not (after.isalnum() or after == "_")
        return True
