"""Servers that nobody here wrote, behind the broker, as their users start them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client

from tests.e2e.daemon import operator
from tests.e2e.needs import ROOT, node_server

DEADLINE_S = 90


@asynccontextmanager
async def through_the_broker(home: Path, *words: str, cwd: Path | None = None) -> AsyncIterator[Client]:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "interposer", "stdio", *words],
        env={"INTERPOSER_HOME": str(home)},
        cwd=cwd,
    )
    async with Client(parameters, mode="legacy") as client:
        yield client


@pytest.mark.parametrize("npx", [False, True], ids=["installed", "npx"])
async def test_the_filesystem_server_needs_no_configuration(tmp_path: Path, npx: bool) -> None:
    """One word in front of the server's own command: reads pass, writes wait for a human and then happen once."""
    server = node_server("mcp-server-filesystem")
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("card 4111 1111 1111 1111, nothing else\n")
    command = ["npx", "-y", "@modelcontextprotocol/server-filesystem"] if npx else [server]
    with anyio.fail_after(DEADLINE_S):
        async with through_the_broker(tmp_path / "home", "--", *command, str(notes), cwd=ROOT / ".node") as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert {"read_text_file", "write_file", "list_directory"} <= names

            read = await client.call_tool("read_text_file", {"path": str(notes / "a.txt")})
            assert not read.is_error
            assert "[REDACTED:credit_card], nothing else" in read.content[0].text  # type: ignore[union-attr]

            new = {"path": str(notes / "b.txt"), "content": "written"}
            ticket = await client.call_tool("write_file", new)
            assert ticket.meta is not None
            assert not (notes / "b.txt").exists()
            await operator(tmp_path / "home", "approve", ticket.meta["interposer/pending"]["approval_id"])
            written = await client.call_tool("write_file", new)
            assert not written.is_error
            assert (notes / "b.txt").read_text() == "written"


async def test_the_everything_server_behaves_as_without_us(tmp_path: Path) -> None:
    """Text, structured content, images, annotations and progress come through; the schemas are those of the server."""
    server = node_server("mcp-server-everything")
    allow = tmp_path / "allow.yaml"
    allow.write_text(
        'version: 1\nrules:\n  - {id: all, effect: allow, skills: ["*"]}\nobligations:\n  - {skills: ["*"], mask: []}\n'
    )
    parameters = StdioServerParameters(command=server, args=["stdio"])
    with anyio.fail_after(DEADLINE_S):
        async with (
            Client(parameters, mode="legacy") as direct,
            through_the_broker(tmp_path / "home", "--policy", str(allow), "--", server, "stdio") as client,
        ):
            theirs = {tool.name: tool for tool in (await direct.list_tools()).tools}
            ours = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(ours) == set(theirs)
            for name, tool in theirs.items():
                assert ours[name].input_schema == tool.input_schema
                assert ours[name].description == tool.description
            for name, arguments in (
                ("echo", {"message": "hello"}),
                ("get-sum", {"a": 2, "b": 3}),
                ("get-tiny-image", {}),
                ("get-structured-content", {"location": "Chicago"}),
            ):
                expected = await direct.call_tool(name, arguments)
                assert (await client.call_tool(name, arguments)).content == expected.content
            steps: list[float] = []

            async def told(progress: float, total: float | None, message: str | None) -> None:
                steps.append(progress)

            await client.call_tool(
                "trigger-long-running-operation", {"duration": 1, "steps": 3}, progress_callback=told
            )
            assert steps
            assert steps == sorted(steps)
