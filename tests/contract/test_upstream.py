"""What every `Upstream` promises, kept by the child process and by the one in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from interposer.errors import UpstreamFault
from interposer.model import Failed, InDoubt, JsonObject, Outcome, Principal, Progress
from interposer.ports import Upstream
from interposer.upstreams.memory import MemoryUpstream
from tests.upstreams.rig import intent, running, text

SCHEMA: JsonObject = {"inputSchema": {"type": "object"}}


async def _echo(arguments: JsonObject) -> JsonObject | Outcome:
    return {"content": [{"type": "text", "text": arguments.get("text", "")}]}


async def _slow(arguments: JsonObject) -> JsonObject | Outcome:
    await anyio.sleep(arguments["ms"] / 1000)
    return {"content": [{"type": "text", "text": arguments["text"]}]}


async def _boom(arguments: JsonObject) -> JsonObject | Outcome:
    return Failed("refused", {"code": -32050, "message": "boom"})


async def _die(arguments: JsonObject) -> JsonObject | Outcome:
    return InDoubt("gone")


async def _steps(arguments: JsonObject) -> JsonObject | Outcome:
    return {"content": []}


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Upstream]:
    if kind == "memory":
        functions = {"echo": _echo, "slow": _slow, "boom": _boom, "die": _die, "steps": _steps}
        yield MemoryUpstream("fake", {name: (SCHEMA, function) for name, function in functions.items()})
        return
    async with running("--era", kind) as rig:
        yield rig.upstream


@pytest.fixture(params=["memory", "legacy", "modern"])
async def upstream(request: pytest.FixtureRequest) -> AsyncIterator[Upstream]:
    async with opened(request.param) as upstream:
        yield upstream


async def test_skills_have_names_and_schemas(upstream: Upstream) -> None:
    """Every definition can be pinned and judged."""
    skills = await upstream.skills()
    assert {"echo", "slow", "boom", "die"} <= {skill["name"] for skill in skills}
    assert all(isinstance(skill["inputSchema"], dict) for skill in skills)


async def test_a_call_is_answered(upstream: Upstream) -> None:
    """What the skill said comes back as it was said."""
    assert text(await upstream.call(intent("echo", {"text": "x"}), None)) == "x"


async def test_an_upstream_with_one_credential_or_none_serves_everybody(upstream: Upstream) -> None:
    """Only several credentials are chosen from."""
    assert upstream.serves(Principal("local", "anybody"))


async def test_calls_overlap_and_keep_their_answers(upstream: Upstream) -> None:
    """Nobody waits for another call, and nobody gets another's answer."""
    await upstream.call(intent("echo"), None)
    answers: dict[str, str] = {}

    async def one(word: str) -> None:
        answers[word] = text(await upstream.call(intent("slow", {"ms": 200, "text": word}), None))

    with anyio.fail_after(2):
        async with anyio.create_task_group() as tasks:
            for word in "abcdefgh":
                tasks.start_soon(one, word)
    assert answers == {word: word for word in "abcdefgh"}


async def test_a_failed_skill_is_an_outcome(upstream: Upstream) -> None:
    """Refusals and losses are returned, never raised."""
    refused = await upstream.call(intent("boom"), None)
    assert isinstance(refused, Failed)
    assert refused.error is not None
    assert refused.error["code"] == -32050
    assert isinstance(await upstream.call(intent("die"), None), InDoubt)
    assert text(await upstream.call(intent("echo", {"text": "x"}), None)) == "x"


async def test_an_unknown_skill_fails(upstream: Upstream) -> None:
    """What is not there was not run."""
    assert isinstance(await upstream.call(intent("nothing"), None), Failed)


async def test_progress_is_given_to_whoever_asked(upstream: Upstream) -> None:
    """A listener hears of progress; without one nothing breaks."""
    seen: list[Progress] = []
    await upstream.call(intent("steps", {"values": [1, 2]}), seen.append)
    assert seen
    await upstream.call(intent("steps", {"values": [1, 2]}), None)


async def test_a_cancelled_call_ends_for_its_caller(upstream: Upstream) -> None:
    """Cancellation is not held up by the skill, and the next call is served."""
    await upstream.call(intent("echo"), None)
    with anyio.move_on_after(0.05) as scope:
        await upstream.call(intent("slow", {"ms": 60_000, "text": "never"}), None)
    assert scope.cancelled_caught
    with anyio.fail_after(2):
        assert text(await upstream.call(intent("echo", {"text": "x"}), None)) == "x"


async def test_nothing_runs_after_close(upstream: Upstream) -> None:
    """Closed is closed; closing twice is fine."""
    await upstream.aclose()
    await upstream.aclose()
    assert isinstance(await upstream.call(intent("echo"), None), Failed)
    with pytest.raises(UpstreamFault):
        await upstream.skills()
