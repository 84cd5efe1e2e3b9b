"""Several credentials of one service, each with a process of its own: who calls says which.

Two callers share a process only where they share its credential. A caller for whom there is none gets nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from interposer.model import Failed, Intent, JsonObject, Outcome, Principal, Progress

from .mcp_stdio import McpStdio


@dataclass(frozen=True, slots=True)
class Who:
    """Principals: every list that is not empty must match; without any, everybody."""

    groups: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()

    def takes(self, principal: Principal) -> bool:
        return (
            (not self.groups or not self.groups.isdisjoint(principal.groups))
            and (not self.subjects or principal.subject in self.subjects)
            and (not self.issuers or principal.issuer in self.issuers)
        )


class Choice:
    """The `Upstream` port over several processes of one service; the first whose `Who` takes the caller is theirs."""

    def __init__(self, name: str, options: Sequence[tuple[Who, McpStdio]]) -> None:
        """The first one's process says what the skills are; the others are started when somebody calls them."""
        self.name = name
        self._options = tuple(options)
        self._first = options[0][1]

    def start(self) -> None:
        self._first.start()

    def serves(self, principal: Principal) -> bool:
        return self._chosen(principal) is not None

    async def skills(self) -> list[JsonObject]:
        return await self._first.skills()

    async def call(self, intent: Intent, on_progress: Callable[[Progress], None] | None) -> Outcome:
        chosen = self._chosen(intent.permit.invocation.principal)
        if chosen is None:
            return Failed("not executed: there is no credential for this caller")
        return await chosen.call(intent, on_progress)

    def on_change(self, changed: Callable[[], None]) -> None:
        self._first.on_change(changed)

    async def aclose(self) -> None:
        async with anyio.create_task_group() as closing:
            for _, each in self._options:
                closing.start_soon(each.aclose)

    def _chosen(self, principal: Principal) -> McpStdio | None:
        return next((each for who, each in self._options if who.takes(principal)), None)
