"""A ReAct agent in one loop, with no model key, no skill credential and no framework: its tools go through the broker.

    agent.py -- interposer stdio --config interposer.yaml      a broker of our own
    agent.py --socket /path/to/broker.sock                     a running one
    agent.py                                                   as INTERPOSER_SOCKET, _URL or _COMMAND say

With --async, the same on an event loop. The last line is the agent's answer.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langchain_interposer import InterposerToolkit
from scripted_model import ScriptedModel, wants

LINES = [
    wants("get_customer", id="C-1002"),
    wants("query", sql="DROP TABLE customers"),
    wants("refund", customer="C-1002", amount=75, reason="loose lid"),
]


def converse(model: BaseChatModel, tools: Sequence[BaseTool], question: str) -> Iterator[BaseMessage]:
    """Reason, act, observe, until the model answers without asking for a tool; each message as it is said."""
    messages: list[BaseMessage] = [HumanMessage(question)]
    thinker = model.bind_tools(tools)
    while True:
        said = thinker.invoke(messages)
        messages.append(said)
        yield said
        if not said.tool_calls:
            return
        for wanted in said.tool_calls:
            tool = _find(tools, wanted)
            seen = tool.invoke(wanted) if tool else _no_such_tool(wanted)
            messages.append(seen)
            yield seen


async def aconverse(model: BaseChatModel, tools: Sequence[BaseTool], question: str) -> list[BaseMessage]:
    """`converse` on an event loop; what the model asks for in one breath is called at the same time."""
    messages: list[BaseMessage] = [HumanMessage(question)]
    thinker = model.bind_tools(tools)
    while True:
        said = await thinker.ainvoke(messages)
        messages.append(said)
        if not said.tool_calls:
            return messages[1:]
        found = [(wanted, _find(tools, wanted)) for wanted in said.tool_calls]
        answers = await asyncio.gather(*(tool.ainvoke(wanted) for wanted, tool in found if tool))
        messages.extend([*answers, *(_no_such_tool(wanted) for wanted, tool in found if not tool)])


def _find(tools: Sequence[BaseTool], wanted: ToolCall) -> BaseTool | None:
    return next((tool for tool in tools if tool.name == wanted["name"]), None)


def _no_such_tool(wanted: ToolCall) -> ToolMessage:
    return ToolMessage(
        "There is no such tool.",
        tool_call_id=wanted["id"],
        name=wanted["name"],
        status="error",
        artifact={"status": "-"},
    )


def show(message: BaseMessage) -> None:
    if isinstance(message, AIMessage) and message.tool_calls:
        for wanted in message.tool_calls:
            print(f"agent -> {wanted['name']} {wanted['args']}")
    elif isinstance(message, ToolMessage):
        print(f"      <- [{message.status}, {message.artifact['status']}] {message.text}")
    else:
        print(f"agent: {message.text}")


def choose(arguments: argparse.Namespace) -> InterposerToolkit:
    if arguments.socket:
        return InterposerToolkit.from_socket(arguments.socket)
    if arguments.command:
        return InterposerToolkit.from_command(arguments.command, stderr="inherit")
    return InterposerToolkit.from_env()


async def amain(arguments: argparse.Namespace) -> None:
    async with choose(arguments) as toolkit:
        for message in await aconverse(ScriptedModel(lines=LINES), await toolkit.aget_tools(), arguments.question):
            show(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--socket", help="the broker's Unix socket")
    parser.add_argument("--async", dest="on_loop", action="store_true", help="run on an event loop")
    parser.add_argument("--question", default="Who is C-1002, and can they have 75 dollars back?")
    parser.add_argument("command", nargs="*", help="the command that starts a broker, after --")
    arguments = parser.parse_args()
    if arguments.on_loop:
        asyncio.run(amain(arguments))
        return
    with choose(arguments) as toolkit:
        for message in converse(ScriptedModel(lines=LINES), toolkit.get_tools(), arguments.question):
            show(message)


if __name__ == "__main__":
    main()
