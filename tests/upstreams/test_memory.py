"""The in-memory upstream keeps the port's promises."""

from __future__ import annotations

import pytest

from interposer.errors import UpstreamFault
from interposer.model import Answered, Failed, InDoubt, JsonObject, Outcome
from interposer.upstreams.memory import MemoryUpstream
from tests.upstreams.rig import intent

SCHEMA: JsonObject = {"inputSchema": {"type": "object"}}


async def echo(arguments: JsonObject) -> JsonObject | Outcome:
    return {"content": [{"type": "text", "text": arguments["text"]}]}


async def doubtful(arguments: JsonObject) -> JsonObject | Outcome:
    return InDoubt("lost")


def upstream() -> MemoryUpstream:
    return MemoryUpstream("memory", {"echo": (SCHEMA, echo), "doubtful": (SCHEMA, doubtful)})


async def test_skills_are_the_mapping() -> None:
    """Each definition carries its name."""
    assert await upstream().skills() == [{**SCHEMA, "name": "echo"}, {**SCHEMA, "name": "doubtful"}]


async def test_a_call_is_the_function() -> None:
    """A result becomes `Answered`, any other outcome is passed on, and what arrived is remembered."""
    memory = upstream()
    assert await memory.call(intent("echo", {"text": "x"}), None) == Answered(
        {"content": [{"type": "text", "text": "x"}]}
    )
    assert await memory.call(intent("doubtful"), None) == InDoubt("lost")
    assert isinstance(await memory.call(intent("nothing"), None), Failed)
    assert [each.permit.invocation.skill.name for each in memory.called] == ["echo", "doubtful"]


async def test_changes_are_told() -> None:
    """Whoever asked hears of new skills."""
    memory, heard = upstream(), []
    memory.on_change(lambda: heard.append(1))
    memory.replace({})
    assert heard == [1]
    assert await memory.skills() == []


async def test_a_closed_upstream_makes_no_call() -> None:
    """Nothing runs after `aclose`."""
    memory = upstream()
    await memory.aclose()
    assert isinstance(await memory.call(intent("echo"), None), Failed)
    with pytest.raises(UpstreamFault):
        await memory.skills()
    assert memory.called == []
