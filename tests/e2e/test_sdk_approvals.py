"""Approvals as the official Python SDK sees them: its own retries, callbacks and claims, against the broker in this
process; and once over stdio, against the broker as a process."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import mcp_types as types
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.session import ElicitationFnT
from mcp.shared.message import SessionMessage

from interposer.model import Question
from interposer.session import Limits
from interposer.transports.memory import connect
from tests.fakes.house import ANN, OPERATOR, Indoors, echoing, indoors, rules

HERE = Path(__file__).parent
ASK = rules("ask fake.*")
CONFIRM = "version: 1\nrules: [{id: r, effect: ask, skills: ['%s.*'], approval: {confirm: caller}}]\n"
MODERN = "2026-07-28"
Asked = types.ElicitRequestFormParams | types.ElicitRequestURLParams


@asynccontextmanager
async def bridged(broker: Indoors) -> AsyncIterator[tuple[Any, Any]]:
    """The SDK's streams to a conversation in memory."""
    peer = connect(broker.accept, caller=ANN)
    inward, read = anyio.create_memory_object_stream[SessionMessage | Exception](100)
    write, outward = anyio.create_memory_object_stream[SessionMessage](100)

    async def listen(inward: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        kept = b""
        async with inward:
            while data := await peer.receive():
                *lines, kept = (kept + data).split(b"\n")
                for line in lines:
                    message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                    await inward.send(SessionMessage(message))

    async def say(outward: MemoryObjectReceiveStream[SessionMessage]) -> None:
        async with outward:
            async for each in outward:
                await peer.send(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        peer.end()

    async with anyio.create_task_group() as both, read, write:
        both.start_soon(listen, inward)
        both.start_soon(say, outward)
        try:
            yield read, write
        finally:
            peer.vanish()
            both.cancel_scope.cancel()


def page(id: str) -> str:
    return f"https://console.test/{id}"


async def granted(broker: Indoors) -> Question:
    """The only question, granted as soon as it is there."""
    with anyio.fail_after(10):
        while not (waiting := await broker.desk.pending()):
            await broker.desk.changes(broker.desk.revision, 10.0)
    return await broker.desk.vote(waiting[0].id, OPERATOR, True)


def said(result: Any) -> str:
    text: str = result.content[0].text
    return text


def answering(action: Literal["accept", "decline"], seen: list[Asked], **content: bool) -> ElicitationFnT:
    async def answer(context: Any, params: Asked) -> types.ElicitResult:
        seen.append(params)
        return types.ElicitResult(action=action, content=dict(content) or None)

    return answer


async def test_driver_of_the_sdk_comes_back_until_a_human_has_answered() -> None:
    """The user sees the link once; the SDK's own loop does the rest, and the call runs once."""
    fake, seen = echoing(), list[Asked]()
    async with indoors(ASK, [fake], link=page, limits=Limits(hold_s=10.0)) as broker:

        async def answer(context: Any, params: Asked) -> types.ElicitResult:
            seen.append(params)
            await granted(broker)
            return types.ElicitResult(action="accept")

        with anyio.fail_after(20):
            async with Client(bridged(broker), mode=MODERN, elicitation_callback=answer) as client:
                result = await client.call_tool("echo", {"text": "pay"})
        assert (said(result), result.is_error) == ("pay", False)
        (asked,) = seen
        assert isinstance(asked, types.ElicitRequestURLParams)
        assert asked.url.startswith("https://console.test/q_")
    assert len(fake.called) == 1


async def test_driver_of_the_sdk_ends_with_a_ticket_when_nobody_answers() -> None:
    """Before its own limit of rounds, where it would raise; its user saw the link once."""
    fake, seen = echoing(), list[Asked]()
    info, answer = types.Implementation(name="mcp", version="1"), answering("accept", seen)
    async with indoors(ASK, [fake], link=page) as broker:
        with anyio.fail_after(20):
            async with Client(bridged(broker), mode=MODERN, elicitation_callback=answer, client_info=info) as client:
                ticket = await client.call_tool("echo", {"text": "pay"})
                assert ticket.is_error
                assert ticket.meta is not None
                assert "interposer/pending" in ticket.meta
                assert len(seen) == 1
                await granted(broker)
                assert said(await client.call_tool("echo", {"text": "pay"})) == "pay"
    assert len(fake.called) == 1


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_user_of_the_sdk_confirms_or_declines(mode: str) -> None:
    """Where policy lets the caller's own user answer, a callback of the client is enough, in both eras."""
    fake, seen = echoing(), list[Asked]()
    async with indoors(CONFIRM % "fake", [fake]) as broker:
        with anyio.fail_after(20):
            for action, approve, runs in (("accept", True, True), ("accept", False, False), ("decline", None, False)):
                content = {} if approve is None else {"approve": approve}
                callback = answering("accept" if action == "accept" else "decline", seen, **content)
                text = f"{action} {approve}"
                async with Client(bridged(broker), mode=mode, elicitation_callback=callback) as client:
                    result = await client.call_tool("echo", {"text": text})
                assert result.is_error is not runs
                assert (said(result) == text) is runs
                shown = seen[-1]
                assert isinstance(shown, types.ElicitRequestFormParams)
                assert f'{{"text":"{text}"}}' in shown.message
    assert len(fake.called) == 1


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_client_without_a_callback_gets_a_ticket(mode: str) -> None:
    """Nothing is asked of it, so it does not raise."""
    async with indoors(CONFIRM % "fake", link=page) as broker:
        with anyio.fail_after(20):
            async with Client(bridged(broker), mode=mode) as client:
                assert (await client.call_tool("echo", {"text": "pay"})).is_error


class Task(types.Result):
    """A CreateTaskResult, as a client that knows the extension reads it."""

    result_type: Literal["task"] = "task"
    task_id: str
    poll_interval_ms: int


class Told(types.Result):
    """A DetailedTask."""

    status: str
    result: dict[str, Any] | None = None


class TaskRequest(types.Request[dict[str, Any], Any]):
    method: Any
    params: dict[str, Any]


class Tasks(ClientExtension):
    """Polls a task until it has ended."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, before_each_look: Callable[[], Awaitable[object]]) -> None:
        self._before = before_each_look
        self.statuses: list[str] = []

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Task, resolve=self._resolve)]

    async def _resolve(self, task: Task, context: ClaimContext) -> types.CallToolResult:
        while True:
            await self._before()
            request = TaskRequest(method="tasks/get", params={"taskId": task.task_id})
            told = await context.session.send_request(request, Told)
            self.statuses.append(told.status)
            if told.status == "completed":
                return types.CallToolResult.model_validate(told.result, by_name=False)


@pytest.mark.parametrize("yes", [True, False])
async def test_claim_of_the_sdk_follows_a_task_to_its_end(yes: bool) -> None:
    """A client that declares the extension polls, and gets the tool's own result, or the refusal as one."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:

        async def before() -> None:
            if waiting := await broker.desk.pending():
                await broker.desk.vote(waiting[0].id, OPERATOR, yes, "" if yes else "no")
            await anyio.lowlevel.checkpoint()

        tasks = Tasks(before)
        with anyio.fail_after(20):
            async with Client(bridged(broker), mode=MODERN, extensions=[tasks]) as client:
                result = await client.call_tool("echo", {"text": "pay"})
        assert result.is_error is not yes
        assert said(result) == "pay" if yes else "A human refused this call" in said(result)
    assert len(fake.called) == yes


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_confirmation_over_stdio(tmp_path: Path, mode: str) -> None:
    """The broker as a process, an upstream made by the SDK: the client's user says yes to one call, no to another."""
    (tmp_path / "policy.yaml").write_text(CONFIRM % "sdk")
    config = tmp_path / "interposer.yaml"
    command = f"[{sys.executable}, {HERE / 'sdk_server.py'}]"
    config.write_text(f"version: 1\npolicy: policy.yaml\nupstreams:\n  sdk: {{command: {command}}}\n")

    async def answer(context: Any, params: Asked) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        if '"good"' in params.message:
            return types.ElicitResult(action="accept", content={"approve": True})
        return types.ElicitResult(action="decline")

    words = ["-m", "interposer", "stdio", "--config", str(config)]
    server = StdioServerParameters(command=sys.executable, args=words, env={"INTERPOSER_HOME": str(tmp_path / "home")})
    with anyio.fail_after(60):
        async with Client(server, mode=mode, elicitation_callback=answer) as client:
            assert said(await client.call_tool("gated", {"what": "good"})) == "did good"
            bad = await client.call_tool("gated", {"what": "bad"})
            assert bad.is_error
            assert "nothing was executed" in said(bad)
