"""An MCP server made with the official SDK, which speaks both eras: the upstream of the SDK tests."""

from __future__ import annotations

import anyio
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

server = MCPServer("sdk-upstream", instructions="For tests.")


class Weather(BaseModel):
    """A structured answer, so that clients validate it against the advertised outputSchema."""

    city: str
    celsius: float
    reporter: str


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def weather(city: str) -> Weather:
    """Weather, reported by somebody with an e-mail address."""
    return Weather(city=city, celsius=21.5, reporter="jane.roe@example.org")


@server.tool()
def fail(reason: str) -> str:
    """Fails with the given reason."""
    raise ValueError(reason)


@server.tool()
async def count(steps: int, ctx: Context) -> str:
    """Reports its progress."""
    for step in range(steps):
        await ctx.report_progress(step + 1, steps, f"step {step + 1}")
    return "counted"


@server.tool()
async def wait(seconds: float) -> str:
    """Waits."""
    await anyio.sleep(seconds)
    return "waited"


@server.tool()
def forbidden() -> str:
    """The policy of the tests denies this one."""
    return "should not be seen"


@server.tool()
def gated(what: str) -> str:
    """The policy of the tests asks a human for this one."""
    return f"did {what}"


if __name__ == "__main__":
    server.run("stdio")
