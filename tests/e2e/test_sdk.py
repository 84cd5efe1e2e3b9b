"""The official Python SDK on both sides of the broker: client and server, each in both eras, on stdio and socket."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

from tests.e2e.daemon import daemon, operator

HERE = Path(__file__).parent
POLICY = """
version: 1
rules:
  - {id: most, effect: allow, skills: [sdk.add, sdk.weather, sdk.fail, sdk.count, sdk.wait]}
  - {id: never, effect: deny, skills: [sdk.add], arguments: {properties: {a: {const: 666}}}, message: Not that number.}
  - {id: human, effect: ask, skills: [sdk.gated]}
"""
DEADLINE_S = 60


def configure(folder: Path, era: str) -> Path:
    """An interposer.yaml with the SDK server as its upstream, spoken to in the given era."""
    (folder / "policy.yaml").write_text(POLICY)
    path = folder / "interposer.yaml"
    path.write_text(f"""
version: 1
policy: policy.yaml
upstreams:
  sdk: {{command: [{sys.executable}, {HERE / "sdk_server.py"}], era: {era}}}
approvals: {{hold: 300ms}}
""")
    return path


@asynccontextmanager
async def agent(folder: Path, *, mode: str, upstream: str, transport: str) -> AsyncIterator[Client]:
    """An SDK client connected through the broker."""
    path = configure(folder, upstream)
    env = {"INTERPOSER_HOME": str(folder / "home")}
    if transport == "stdio":
        words = ["-m", "interposer", "stdio", "--config", str(path)]
        async with Client(StdioServerParameters(command=sys.executable, args=words, env=env), mode=mode) as client:
            yield client
        return
    async with daemon(path, env):
        words = ["-m", "interposer", "connect", str(folder / "home/broker.sock")]
        async with Client(StdioServerParameters(command=sys.executable, args=words, env=env), mode=mode) as client:
            yield client


COMBINATIONS = [
    pytest.param(mode, upstream, transport, id=f"{mode}-client-{upstream}-server-{transport}")
    for mode, upstream, transport in (
        ("legacy", "legacy", "stdio"),
        ("legacy", "modern", "unix"),
        ("2026-07-28", "legacy", "unix"),
        ("2026-07-28", "modern", "stdio"),
    )
]
"""All eras with each other; each transport with either era of either side."""


@pytest.mark.parametrize(("mode", "upstream", "transport"), COMBINATIONS)
async def test_every_combination_of_eras_works(tmp_path: Path, mode: str, upstream: str, transport: str) -> None:
    """Lists, calls, structured results, errors, progress, denials and tickets look to a client as they should."""
    with anyio.fail_after(DEADLINE_S):
        async with agent(tmp_path, mode=mode, upstream=upstream, transport=transport) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(listed) == {"add", "weather", "fail", "count", "wait", "gated"}

            added = await client.call_tool("add", {"a": 2, "b": 3})
            assert added.structured_content == {"result": 5}
            assert not added.is_error

            weather = await client.call_tool("weather", {"city": "Graz"})
            assert weather.structured_content is not None
            assert weather.structured_content["reporter"] == "[REDACTED:email]"
            assert "jane.roe" not in weather.model_dump_json()

            failed = await client.call_tool("fail", {"reason": "on purpose"})
            assert failed.is_error
            assert "Error executing tool fail" in failed.content[0].text  # type: ignore[union-attr]

            steps: list[float] = []

            async def told(progress: float, total: float | None, message: str | None) -> None:
                steps.append(progress)

            counted = await client.call_tool("count", {"steps": 3}, progress_callback=told)
            assert counted.content[0].text == "counted"  # type: ignore[union-attr]
            assert steps == sorted(set(steps))
            assert len(steps) == 3

            denied = await client.call_tool("add", {"a": 666, "b": 1})
            assert denied.is_error
            assert "Not that number." in denied.content[0].text  # type: ignore[union-attr]

            with pytest.raises(MCPError) as unknown:
                await client.call_tool("forbidden", {})
            with pytest.raises(MCPError) as missing:
                await client.call_tool("nosuch", {})
            assert str(unknown.value).replace("forbidden", "nosuch") == str(missing.value)

            ticket = await client.call_tool("gated", {"what": "it"})
            assert ticket.is_error
            assert ticket.meta is not None
            id = ticket.meta["interposer/pending"]["approval_id"]
            await operator(tmp_path / "home", "approve", id)
            done = await client.call_tool("gated", {"what": "it"})
            assert done.content[0].text == "did it"  # type: ignore[union-attr]
            again = await client.call_tool("gated", {"what": "it"})
            assert again.is_error


async def test_calls_overlap(tmp_path: Path) -> None:
    """Sixteen calls that wait upstream take about as long as one, and a held approval delays none of them."""
    with anyio.fail_after(DEADLINE_S):
        async with agent(tmp_path, mode="legacy", upstream="legacy", transport="stdio") as client:
            await client.call_tool("add", {"a": 1, "b": 1})
            began = anyio.current_time()
            async with anyio.create_task_group() as calls:
                calls.start_soon(client.call_tool, "gated", {"what": "nothing"})
                for _ in range(16):
                    calls.start_soon(client.call_tool, "wait", {"seconds": 1})
            assert anyio.current_time() - began < 8, "16 calls of a second each were not made at the same time"


async def test_the_default_mode_of_the_client_finds_the_broker(tmp_path: Path) -> None:
    """A client that probes for the era by itself is understood."""
    with anyio.fail_after(DEADLINE_S):
        async with agent(tmp_path, mode="auto", upstream="auto", transport="stdio") as client:
            assert (await client.call_tool("add", {"a": 1, "b": 1})).structured_content == {"result": 2}
