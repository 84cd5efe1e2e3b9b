"""Skills that are functions in this process: what tests and embedders use in place of a child."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from interposer.errors import UpstreamFault
from interposer.model import Answered, Failed, Intent, JsonObject, Outcome, Principal, Progress

Skill: TypeAlias = Callable[[JsonObject], Awaitable[JsonObject | Outcome]]
"""Arguments -> a `tools/call` result, or an outcome other than `Answered`."""


class MemoryUpstream:
    """The `Upstream` port over a mapping of name -> (definition, function)."""

    def __init__(self, name: str, skills: Mapping[str, tuple[JsonObject, Skill]]) -> None:
        self.name = name
        self._skills = dict(skills)
        self._changed: list[Callable[[], None]] = []
        self._closed = False
        self.called: list[Intent] = []
        """Every call that arrived, in order: this upstream's own truth."""

    def serves(self, principal: Principal) -> bool:
        return True

    async def skills(self) -> list[JsonObject]:
        if self._closed:
            raise UpstreamFault("the upstream is closed")
        return [copy.deepcopy({**definition, "name": name}) for name, (definition, _) in self._skills.items()]

    async def call(self, intent: Intent, on_progress: Callable[[Progress], None] | None) -> Outcome:
        if self._closed:
            return Failed("not executed: the upstream is closed")
        invocation = intent.permit.invocation
        known = self._skills.get(invocation.skill.name)
        if known is None:
            return Failed("the upstream refused the call (code -32602)", {"code": -32602, "message": "Unknown tool"})
        self.called.append(intent)
        if on_progress is not None:
            on_progress(Progress(progress=0, total=1))
        answer = await known[1](copy.deepcopy(invocation.arguments))
        return Answered(answer) if isinstance(answer, dict) else answer

    def on_change(self, changed: Callable[[], None]) -> None:
        self._changed.append(changed)

    def replace(self, skills: Mapping[str, tuple[JsonObject, Skill]]) -> None:
        """Offer these skills from now on, and say so."""
        self._skills = dict(skills)
        for changed in self._changed:
            changed()

    async def aclose(self) -> None:
        self._closed = True
