"""The project's own tools for LangChain, which carry a ticket in the artifact."""

from __future__ import annotations

import asyncio
from typing import Any

from dialogue import order, say, told
from langchain_interposer import InterposerToolkit


async def main() -> None:
    wanted = order()
    more: dict[str, Any] = {"wait_for_approval_s": wanted["wait_s"]} if "wait_s" in wanted else {}
    async with InterposerToolkit.from_command(wanted["command"], env=wanted["env"], **more) as toolkit:
        tools = await toolkit.aget_tools()
        say("listed", tools=[tool.name for tool in tools])
        (tool,) = (tool for tool in tools if tool.name == "echo")
        while True:
            call = {"type": "tool_call", "id": "call-1", "name": "echo", "args": wanted["arguments"]}
            answer = await tool.ainvoke(call)
            if answer.artifact["status"] != "pending_approval":
                break
            say("ticket", **answer.artifact["pending"])
            await told()
        say("result", text=str(answer.text), error=answer.status == "error")


asyncio.run(main())
