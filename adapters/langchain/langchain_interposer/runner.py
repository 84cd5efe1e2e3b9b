"""The functions inside a tool: make the call, wait for a human where that was asked for, read the answer."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from langchain_core.tools import InjectedToolArg

from langchain_interposer.answer import Artifact, no_json, read_answer
from langchain_interposer.client import InterposerClient
from langchain_interposer.connection import Message, OnProgress
from langchain_interposer.content import Content
from langchain_interposer.errors import ApprovalPending, NotJson, SkillError

Answer: TypeAlias = tuple[Content, Artifact]
Run: TypeAlias = Callable[..., Answer]
ARun: TypeAlias = Callable[..., Awaitable[Answer]]
Runtime: TypeAlias = Annotated[object | None, InjectedToolArg()]

_SHORTEST_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class SkillCall:
    """The model's arguments, kept apart from what the agent runtime adds: no argument's name can collide with it."""

    arguments: dict[str, Any]
    id: str | None = None
    runtime: object = None


def runners(client: InterposerClient, skill: str, *, wait_s: float, takes_runtime: bool) -> tuple[Run, ARun]:
    """The sync and the async function of one tool.

    Both take one SkillCall, or the skill's arguments by keyword. LangGraph hands a `runtime` to functions that name
    one, so they do, unless the skill has an argument of that name (`takes_runtime=False`).
    """

    def make(call: SkillCall) -> Answer:
        patience = _Patience(wait_s)
        while True:
            try:
                return read_answer(client.call(skill, call.arguments, on_progress=_progress(call, skill)), skill)
            except (SkillError, NotJson) as fault:
                client.sleep(patience.pause(_told(fault, call, skill)))

    async def amake(call: SkillCall) -> Answer:
        patience = _Patience(wait_s)
        while True:
            try:
                return read_answer(await client.acall(skill, call.arguments, on_progress=_progress(call, skill)), skill)
            except (SkillError, NotJson) as fault:
                await asyncio.sleep(patience.pause(_told(fault, call, skill)))

    def run_plain(*call: SkillCall, **arguments: Any) -> Answer:
        return make(*call or (SkillCall(arguments),))

    async def arun_plain(*call: SkillCall, **arguments: Any) -> Answer:
        return await amake(*call or (SkillCall(arguments),))

    def run(*call: SkillCall, runtime: Runtime = None, **arguments: Any) -> Answer:
        return make(*call or (SkillCall(arguments, runtime=runtime),))

    async def arun(*call: SkillCall, runtime: Runtime = None, **arguments: Any) -> Answer:
        return await amake(*call or (SkillCall(arguments, runtime=runtime),))

    return (run, arun) if takes_runtime else (run_plain, arun_plain)


class _Patience:
    """How much longer a call that waits for a human is repeated."""

    def __init__(self, wait_s: float) -> None:
        self._until = time.monotonic() + wait_s

    def pause(self, fault: SkillError) -> float:
        """Seconds until the identical call is made again; raises `fault` if it is no ticket, or the time is over."""
        left_s = self._until - time.monotonic()
        if not isinstance(fault, ApprovalPending) or left_s <= 0:
            raise fault
        return max(_SHORTEST_PAUSE_S, min(fault.retry_after_s, left_s))


def _told(fault: SkillError | NotJson, call: SkillCall, skill: str) -> SkillError:
    """The error for the model, marked with the tool call it answers; a ticket also goes to the graph's own stream."""
    error = no_json(fault, skill) if isinstance(fault, NotJson) else fault
    error.tool_call_id = call.id
    if isinstance(error, ApprovalPending) and (write := _stream(call)):
        write(error.artifact["pending"] | {"type": "interposer.status", "status": "pending_approval", "skill": skill})
    return error


def _progress(call: SkillCall, skill: str) -> OnProgress | None:
    if (write := _stream(call)) is None:
        return None
    context = (
        contextvars.copy_context()
    )  # the connection's thread reports it, and LangGraph looks up whose stream it is

    def tell(seen: Message) -> None:
        told = {key: seen[key] for key in ("message", "progress", "total") if key in seen}
        context.run(write, {"type": "interposer.progress", "skill": skill} | told)

    return tell


def _stream(call: SkillCall) -> Callable[[dict[str, Any]], Any] | None:
    """LangGraph's stream of `custom` events, where the call came through a graph."""
    write = getattr(call.runtime, "stream_writer", None)
    return write if callable(write) else None
