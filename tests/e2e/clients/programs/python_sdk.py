"""The `mcp` 2.x client; with `links` it has an elicitation callback, as a host with a user before it has one."""

from __future__ import annotations

import asyncio
from typing import Any

from dialogue import order, say, told
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.types import ElicitResult


async def follow(context: Any, params: Any) -> ElicitResult:
    say("link", url=getattr(params, "url", ""), message=params.message)
    return ElicitResult(action="accept")


async def main() -> None:
    wanted = order()
    command, *words = wanted["command"]
    server = StdioServerParameters(command=command, args=words, env=wanted["env"])
    user = follow if wanted.get("links") else None
    async with Client(server, elicitation_callback=user) as client:
        say("listed", tools=[tool.name for tool in (await client.list_tools()).tools], era=client.protocol_version)
        while True:
            result = await client.call_tool("echo", wanted["arguments"])
            pending = (result.meta or {}).get("interposer/pending")
            if pending is None:
                break
            say("ticket", id=pending["approval_id"])
            await told()
        say("result", text=result.content[0].text, error=bool(result.is_error))  # type: ignore[union-attr]


asyncio.run(main())
