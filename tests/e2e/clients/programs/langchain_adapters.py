"""An agent's tool of `langchain-mcp-adapters`: a process for every call, as its defaults have it."""

from __future__ import annotations

import asyncio

from dialogue import order, say, told
from langchain_core.messages import ToolMessage
from langchain_mcp_adapters.client import MultiServerMCPClient


async def main() -> None:
    wanted = order()
    command, *words = wanted["command"]
    client = MultiServerMCPClient(
        {"interposer": {"transport": "stdio", "command": command, "args": words, "env": wanted["env"]}}
    )
    tools = await client.get_tools()
    say("listed", tools=[tool.name for tool in tools])
    (tool,) = (tool for tool in tools if tool.name == "echo")
    while True:
        call = {"type": "tool_call", "id": "call-1", "name": "echo", "args": wanted["arguments"]}
        answer = await tool.ainvoke(call)
        assert isinstance(answer, ToolMessage)
        if "identical arguments" not in str(answer.text):
            break
        say("ticket", text=str(answer.text))
        await told()
    say("result", text=str(answer.text), error=answer.status == "error")


asyncio.run(main())
