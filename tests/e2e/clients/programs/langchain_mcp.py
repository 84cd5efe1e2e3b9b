"""An agent on `langchain.mcp` with a checkpointer. It starts a run, or resumes the one that another process
left paused, and says `paused` with what it asks for, until it can say `result`."""

from __future__ import annotations

import asyncio
from typing import Any

from dialogue import order, say, told
from langchain.agents import create_agent
from langchain.mcp import MCPAdapter
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command


class Scripted(BaseChatModel):
    """Calls the tool, then repeats what it said. No key."""

    arguments: dict[str, Any]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **options: Any) -> Scripted:
        return self

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        seen = messages[-1]
        if isinstance(seen, ToolMessage):
            said = AIMessage(str(seen.text))
        else:
            call = {"type": "tool_call", "id": "call-1", "name": "echo", "args": self.arguments}
            said = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=said)])


def resumed(requests: list[dict[str, Any]]) -> Any:
    """What a host says when its user has seen the link."""
    return Command(resume={"responses": {request["key"]: {"action": "accept"} for request in requests}})


async def main() -> None:
    wanted = order()
    command, *words = wanted["command"]
    servers = {"mcpServers": {"interposer": {"command": command, "args": words, "env": wanted["env"]}}}
    thread: Any = {"configurable": {"thread_id": "one"}}
    async with AsyncSqliteSaver.from_conn_string(wanted["checkpoints"]) as saver, MCPAdapter(servers) as adapter:
        agent = create_agent(Scripted(arguments=wanted["arguments"]), await adapter.list_tools(), checkpointer=saver)
        given: Any = {"messages": [("user", "Do it.")]}
        if wanted.get("resume"):
            given = resumed(wanted["resume"])
        while paused := (state := await agent.ainvoke(given, thread)).get("__interrupt__"):
            (value,) = [each.value for each in paused]
            say("paused", **value)
            if not await told():
                return
            given = resumed(value["requests"])
    tool = next(message for message in reversed(state["messages"]) if isinstance(message, ToolMessage))
    say("result", text=str(tool.text), error=tool.status == "error")


asyncio.run(main())
