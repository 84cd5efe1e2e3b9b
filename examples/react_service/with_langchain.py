"""The demo's LangChain agent: a scripted model, and tools whose every call goes through the broker.

It connects to the broker's socket, knows no key, and prints what came back to the model as one line of JSON.

    with_langchain.py /path/to/broker.sock
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

try:
    from langchain_core.messages import AIMessage, ToolMessage
    from langchain_core.tools import BaseTool
    from langchain_interposer import InterposerToolkit
except ImportError:
    print("langchain-core and langchain-interposer are needed for this one.", file=sys.stderr)
    sys.exit(7)

SCRIPT = (
    ("customer", "get_customer", {"id": "C-1002"}),
    ("blocked", "query", {"sql": "DROP TABLE customers"}),
)


def model_says(tool: str, arguments: dict[str, str]) -> AIMessage:
    """What a model's answer looks like when it wants a tool."""
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": f"call-{tool}", "type": "tool_call"}])


def answer(said: AIMessage, tools: Sequence[BaseTool]) -> ToolMessage:
    """Run the tool that the model wants, as an agent loop does."""
    [wanted] = said.tool_calls
    message = next(tool for tool in tools if tool.name == wanted["name"]).invoke(wanted)
    if not isinstance(message, ToolMessage):
        raise TypeError("a tool call is answered with a ToolMessage")
    return message


def main(socket: str) -> None:
    with InterposerToolkit.from_socket(socket) as toolkit:
        tools = toolkit.get_tools()
        told: dict[str, object] = {"tools": [tool.name for tool in tools]}
        for step, tool, arguments in SCRIPT:
            message = answer(model_says(tool, arguments), tools)
            told[step] = {"status": message.status, "text": str(message.content)}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
