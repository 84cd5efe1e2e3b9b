"""A chat model without a key: it says its lines in order, as a real one would after having read the tools' answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult


class ScriptedModel(BaseChatModel):
    """Says `lines` one after another, then an answer that quotes what the tools said."""

    lines: list[AIMessage]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> ScriptedModel:
        """A real model is told of the tools here; this one knows its lines."""
        return self

    def _generate(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> ChatResult:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        said = self.lines[turn] if turn < len(self.lines) else _conclusion(messages)
        return ChatResult(generations=[ChatGeneration(message=said)])


def wants(tool: str, **arguments: Any) -> AIMessage:
    """A line in which the model asks for a tool."""
    return AIMessage("", tool_calls=[{"type": "tool_call", "id": f"call-{tool}", "name": tool, "args": arguments}])


def _conclusion(messages: list[BaseMessage]) -> AIMessage:
    answers = [f"{message.name}: {message.text}" for message in messages if message.type == "tool"]
    return AIMessage("This is what I was told.\n" + "\n".join(answers))
