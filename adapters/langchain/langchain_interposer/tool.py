"""One skill as a LangChain tool, sync and async, whose refusals are messages that a model can act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.tools import StructuredTool, ToolException

from langchain_interposer.client import InterposerClient
from langchain_interposer.connection import Message
from langchain_interposer.errors import SkillError
from langchain_interposer.runner import SkillCall, runners
from langchain_interposer.schema import args_schema, tool_names

_INJECTED = ("runtime", "config")
"""What agent runtimes add to a tool's arguments. A model that sends them by itself is not believed."""


class InterposerTool(StructuredTool):
    """A skill behind the broker, which checks the arguments itself; `metadata["interposer"]` names the skill."""

    @classmethod
    def from_definition(
        cls,
        definition: Message,
        client: InterposerClient,
        *,
        name: str | None = None,
        wait_for_approval_s: float = 0.0,
        raise_refusals: bool = False,
    ) -> InterposerTool:
        """The tool for one entry of `tools/list`.

        `wait_for_approval_s`: how long a call that needs a human's yes is repeated, at the broker's pace, before its
        ticket goes to the model. `raise_refusals`: raise the SkillError instead of answering with an error message.
        """
        skill = str(definition["name"])
        name = name or tool_names([skill])[skill]
        schema = args_schema(definition.get("inputSchema"))
        takes_runtime = "runtime" not in schema["properties"]
        run, arun = runners(client, skill, wait_s=wait_for_approval_s, takes_runtime=takes_runtime)
        return cls(
            name=name,
            description=str(definition.get("description") or definition.get("title") or skill),
            args_schema=schema,
            func=run,
            coroutine=arun,
            response_format="content_and_artifact",
            handle_tool_error=None if raise_refusals else _error_message(name),
            tags=["interposer"],
            metadata={"interposer": {"skill": skill, "broker": client.place, "read_only": _reads_only(definition)}},
        )

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # LangChain would pass arguments by keyword, where a skill's own `config`, `self` or `run_manager` collides.
        if isinstance(tool_input, str):
            return super()._to_args_and_kwargs(tool_input, tool_call_id)
        arguments, declared = dict(tool_input), self.args
        added = {name: arguments.pop(name, None) for name in _INJECTED if name not in declared}
        return (SkillCall(arguments, id=tool_call_id, runtime=added.get("runtime")),), {}


def _reads_only(definition: Message) -> bool:
    annotations = definition.get("annotations")
    return isinstance(annotations, dict) and annotations.get("readOnlyHint") is True


def _error_message(name: str) -> Callable[[ToolException], Any]:
    """The broker's text for the model; a ToolMessage where there is a tool call to answer, so it keeps the artifact."""

    def answer(fault: ToolException) -> Any:
        if not isinstance(fault, SkillError) or fault.tool_call_id is None:
            return str(fault)
        return ToolMessage(
            content=str(fault), artifact=fault.artifact, tool_call_id=fault.tool_call_id, name=name, status="error"
        )

    return answer
