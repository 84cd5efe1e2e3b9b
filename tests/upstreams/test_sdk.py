"""The reference server of MCP's own SDK, in both eras."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import anyio
import pytest

from interposer.model import Answered, Era, Failed, Progress
from interposer.upstreams.server import Limits
from tests.upstreams.rig import intent, running

pytest.importorskip("mcp", reason="needs the development dependency `mcp`")

SERVER = """
    from mcp.server.mcpserver import Context, MCPServer

    server = MCPServer("reference", instructions="Be exact.")

    @server.tool()
    def add(a: int, b: int) -> int:
        \"\"\"Add two numbers.\"\"\"
        return a + b

    @server.tool()
    def fail() -> str:
        raise ValueError("on purpose")

    @server.tool()
    async def steps(ctx: Context) -> str:
        for step in (1, 2, 3):
            await ctx.report_progress(step, 3, f"step {step}")
        return "done"

    server.run("stdio")
"""
SLOW = Limits(start_s=60, probe_s=20, close_s=5)


@pytest.mark.parametrize("known", [None, Era.LEGACY])
async def test_the_reference_server_is_understood(known: Era | None, tmp_path: Path) -> None:
    """Skills, results, failed tools, unknown tools and progress come through, found modern or opened legacy."""
    script = tmp_path / "server.py"
    script.write_text(textwrap.dedent(SERVER))
    async with running(argv=(sys.executable, str(script)), limits=SLOW, era=known) as rig:
        with anyio.fail_after(60):
            skills = await rig.upstream.skills()
            assert [skill["name"] for skill in skills] == ["add", "fail", "steps"]
            verdict = rig.upstream.verdict
            assert verdict is not None
            assert verdict.era is (known or Era.MODERN)
            assert verdict.server_info["name"] == "reference"
            assert verdict.instructions == "Be exact."

            answer = await rig.call("add", {"a": 1, "b": 2})
            assert isinstance(answer, Answered)
            assert answer.result["structuredContent"] == {"result": 3}
            assert "resultType" not in answer.result

            failed = await rig.call("fail")
            assert isinstance(failed, Answered)
            assert failed.result["isError"] is True

            unknown = await rig.call("nothing")
            assert isinstance(unknown, Failed) or (isinstance(unknown, Answered) and unknown.result["isError"])

            seen: list[Progress] = []
            await rig.upstream.call(intent("steps"), seen.append)
            assert [progress.message for progress in seen] == ["step 1", "step 2", "step 3"]
