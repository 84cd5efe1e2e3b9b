"""A channel that remembers what it was told."""

from __future__ import annotations

from interposer.model import Question


class MemoryChannel:
    """For tests and demonstrations. With `fault`, every announcement raises it."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.told: list[Question] = []
        self.fault = fault

    async def announce(self, question: Question) -> None:
        self.told.append(question)
        if self.fault is not None:
            raise self.fault
