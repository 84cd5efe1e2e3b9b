"""From question to result with the clients that people have, as they come: whatever each of them can bear, a gated call
ends with the skill's answer, and the skill ran once."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.e2e.clients.scene import ARGUMENTS, SAID, Program, Scene, approve, program, python, python_of, scene
from tests.e2e.daemon import daemon, doomed
from tests.e2e.needs import ROOT, missing
from tests.fakes.agent import environment

WITH_LINKS = "console: {enabled: true}\napprovals: {hold: 500ms}\n"
BROKERS_OWN = ""
"""No `approvals` section: a call is held as long as the broker does by itself."""


def python_sdk() -> list[str]:
    return python("python_sdk.py")


def typescript() -> list[str]:
    if shutil.which("node") is None or not (ROOT / ".node/node_modules/@modelcontextprotocol/client").exists():
        missing("the TypeScript clients are not installed; run `make clients` (needs Node 20 or newer)")
    return ["node", str(ROOT / "tests/e2e/clients/programs/typescript.mjs")]


def own_adapter() -> list[str]:
    return ["env", f"PYTHONPATH={ROOT / 'adapters/langchain'}", *python("own_adapter.py")]


def langchain_adapters() -> list[str]:
    return python("langchain_adapters.py", python_of("adapters"))


def langchain_mcp() -> list[str]:
    return python("langchain_mcp.py", python_of("native"))


DEFAULTS = [
    pytest.param(python_sdk, {}, id="mcp-2"),
    pytest.param(typescript, {"sdk": "v2"}, id="typescript-client-2"),
    pytest.param(typescript, {"sdk": "v1"}, id="typescript-sdk-1"),
    pytest.param(langchain_adapters, {}, id="langchain-mcp-adapters"),
    pytest.param(own_adapter, {}, id="langchain-interposer"),
]
SHOW_LINKS = [
    pytest.param(python_sdk, {}, id="mcp-2"),
    pytest.param(typescript, {"sdk": "v2"}, id="typescript-client-2"),
]


@asynccontextmanager
async def running(
    stage: Scene, words: list[str], *, through_daemon: bool = False, **more: Any
) -> AsyncIterator[Program]:
    """A client before a broker that it spawned itself, or before a daemon."""
    async with AsyncExitStack() as stack:
        if through_daemon:
            await stack.enter_async_context(daemon(stage.config, environment(stage.home)))
        command = stage.connect if through_daemon else stage.stdio
        yield await stack.enter_async_context(program(stage, words, command, **more))


def stderr_of(stage: Scene) -> str:
    return "\n".join(file.read_text()[-4000:] for file in stage.home.glob("*stderr"))


@pytest.mark.parametrize(("words", "more"), DEFAULTS)
async def test_a_client_with_its_defaults_gets_the_result_after_its_ticket(
    tmp_path: Path, words: Any, more: dict[str, Any]
) -> None:
    """Who can do no more than call gets a ticket, and the result when it calls again after the yes: executed once."""
    stage = scene(tmp_path)
    # langchain-mcp-adapters spawns a process for every call: what it spawned is gone while the human decides.
    async with running(stage, words(), through_daemon=words is langchain_adapters, **more) as client:
        await client.next("ticket")
        assert stage.executed() == []
        await approve(stage)
        await client.go_on()
        result = await client.next("result", "ticket")
        assert (result["event"], result.get("text")) == ("result", SAID), stderr_of(stage)
        assert result["error"] is False
        assert await client.ended() == 0
    assert stage.executed() == [ARGUMENTS]
    assert stage.verified()


@pytest.mark.parametrize(("words", "more"), DEFAULTS[:3])
async def test_a_client_with_its_defaults_sees_one_call_if_the_human_is_quick(
    tmp_path: Path, words: Any, more: dict[str, Any]
) -> None:
    """Within the broker's own hold the call simply takes a moment: no client gives up before, and none calls twice."""
    stage = scene(tmp_path, BROKERS_OWN)
    async with running(stage, words(), **more) as client, anyio.create_task_group() as people:
        await client.next("listed")
        people.start_soon(approve, stage)
        result = await client.next("result", "ticket")
        assert (result["event"], result.get("text")) == ("result", SAID), stderr_of(stage)
        assert await client.ended() == 0
    assert stage.executed() == [ARGUMENTS]


def links_of(client: Program) -> int:
    return sum(event["event"] == "link" for event in client.events)


@pytest.mark.parametrize(("words", "more"), SHOW_LINKS)
async def test_a_client_that_can_show_a_link_shows_it_and_waits(
    tmp_path: Path, words: Any, more: dict[str, Any]
) -> None:
    """Its user is sent to the console; it then comes back by itself until the human has answered there, and the one
    call that its program made returns the result: executed once, no ticket."""
    stage = scene(tmp_path, WITH_LINKS)
    async with running(stage, words(), links=True, **more) as client:
        shown = await client.next("link", "ticket", "result")
        assert shown["event"] == "link", (shown, stderr_of(stage))
        assert stage.executed() == []
        assert await approve(stage) in shown["url"]
        result = await client.next("ticket", "result")
        assert (result["event"], result.get("text")) == ("result", SAID), stderr_of(stage)
        assert await client.ended() == 0
    assert stage.executed() == [ARGUMENTS]
    assert stage.verified()


@pytest.mark.parametrize(("words", "more"), SHOW_LINKS)
async def test_a_client_that_shows_a_link_gets_a_ticket_before_it_gives_up(
    tmp_path: Path, words: Any, more: dict[str, Any]
) -> None:
    """SDKs come back ten times and then raise; they have their ticket before, and the result when they call again. The
    link is shown once, but to who goes by the name of `mcp`: behind it may be a user who has to be asked each time."""
    stage = scene(tmp_path, WITH_LINKS.replace("500ms", "50ms"))
    async with running(stage, words(), links=True, **more) as client:
        ended = await client.next("ticket", "result")
        assert ended["event"] == "ticket", (ended, stderr_of(stage))
        assert links_of(client) == 1 or words is python_sdk
        assert await approve(stage) == ended["id"]
        await client.go_on()
        result = await client.next("ticket", "result")
        assert (result["event"], result.get("text")) == ("result", SAID), stderr_of(stage)
        assert await client.ended() == 0
    assert stage.executed() == [ARGUMENTS]


async def test_a_paused_langgraph_run_is_resumed_in_another_process(tmp_path: Path) -> None:
    """`langchain.mcp` with a checkpointer: the gated call interrupts the run with the link, its process ends, the
    broker is killed with `kill -9`, a human approves at the next one, and another process resumes the run to its end:
    executed once."""
    stage, words = scene(tmp_path, WITH_LINKS), langchain_mcp()
    checkpoints = str(tmp_path / "checkpoints.db")
    async with doomed(stage.config, environment(stage.home)) as broker:
        async with program(stage, words, stage.connect, checkpoints=checkpoints) as client:
            paused = await client.next("paused", "result")
            assert paused["event"] == "paused", (paused, stderr_of(stage))
            await client.leave()
            assert await client.ended() == 0
        (request,) = paused["requests"]
        assert (paused["type"], request["mode"]) == ("mcp_elicitation", "url")
        assert stage.executed() == []
        broker.kill()
        await broker.wait()
    async with daemon(stage.config, environment(stage.home)):
        assert await approve(stage) in request["url"]
        more = {"checkpoints": checkpoints, "resume": paused["requests"]}
        async with program(stage, words, stage.connect, **more) as client:
            result = await client.next("paused", "result")
            assert (result["event"], result.get("text")) == ("result", SAID), stderr_of(stage)
            assert result["error"] is False
            assert await client.ended() == 0
    assert stage.executed() == [ARGUMENTS]
    assert stage.verified()


async def test_a_langgraph_run_resumed_too_early_pauses_again(tmp_path: Path) -> None:
    """Who resumes before the human has answered is shown the link again, as often as it takes: executed once."""
    stage, words = scene(tmp_path, WITH_LINKS), langchain_mcp()
    async with (
        daemon(stage.config, environment(stage.home)),
        program(stage, words, stage.connect, checkpoints=str(tmp_path / "checkpoints.db")) as client,
    ):
        for _ in range(2):
            paused = await client.next("paused", "result")
            assert paused["event"] == "paused", (paused, stderr_of(stage))
            await client.go_on()
        assert (await client.next("paused", "result"))["event"] == "paused", stderr_of(stage)
        await approve(stage)
        await client.go_on()
        result = await client.next("paused", "result")
        assert (result["event"], result.get("text")) == ("result", SAID), stderr_of(stage)
        assert await client.ended() == 0
    assert stage.executed() == [ARGUMENTS]
