"""One skill as a LangChain tool: what the model and the program get for each kind of answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_interposer import ApprovalPending, CallRefused, InterposerClient, InterposerTool, InterposerToolkit
from langchain_interposer.answer import read_answer

ARTIFACT_KEYS = {"invocation_id", "status", "skill", "structured_content", "decision", "pending", "unshown"}


def tool_call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": "call-1", "name": name, "args": arguments}


@pytest.fixture
def tools(toolkit: InterposerToolkit) -> dict[str, BaseTool]:
    return {tool.name: tool for tool in toolkit.get_tools()}


async def both_ways(tool: BaseTool, call: dict[str, Any]) -> ToolMessage:
    """The sync and the async path agree; their message."""
    awaited = await tool.ainvoke(call)
    blocking = await asyncio.to_thread(tool.invoke, call)
    assert isinstance(awaited, ToolMessage)
    assert isinstance(blocking, ToolMessage)
    assert (awaited.content, awaited.artifact, awaited.status) == (blocking.content, blocking.artifact, blocking.status)
    return awaited


async def test_allowed_call_answers_with_text_and_artifact(tools: dict[str, BaseTool]) -> None:
    """The model gets the masked text, the program the structured result and the invocation's id."""
    answer = await both_ways(tools["crm_get_customer"], tool_call("crm_get_customer", customer="c1"))
    assert answer.status == "success"
    assert json.loads(str(answer.content)) == {"customer": "c1", "card": "[REDACTED:credit_card]"}
    assert answer.artifact.keys() == ARTIFACT_KEYS
    assert answer.artifact["status"] == "ok"
    assert answer.artifact["invocation_id"] == "inv-1"
    assert answer.artifact["structured_content"]["card"] == "[REDACTED:credit_card]"


async def test_plain_arguments_answer_with_the_content(tools: dict[str, BaseTool]) -> None:
    """Without a tool call to answer, the content itself comes back."""
    assert json.loads(await tools["echo"].ainvoke({"a": {"b": [1, 2**70]}})) == {"a": {"b": [1, 2**70]}}
    assert json.loads(tools["echo"].invoke({})) == {}


async def test_denial_is_an_error_message_with_the_brokers_words(tools: dict[str, BaseTool]) -> None:
    """A model reads that nothing was executed and not to retry; a program reads which rule it was."""
    answer = await both_ways(tools["db_query"], tool_call("db_query"))
    assert answer.status == "error"
    assert answer.name == "db_query"
    assert answer.content == "Blocked by policy rule 'no-sql'. Nothing was executed. Do not retry."
    assert answer.artifact["status"] == "denied"
    assert answer.artifact["decision"]["rule"] == "no-sql"
    assert answer.artifact.keys() == ARTIFACT_KEYS


def test_ticket_is_an_error_message_with_the_approvals_id(tools: dict[str, BaseTool]) -> None:
    """Without patience, the ticket goes to the model at once; the identical call repeated is executed once granted."""
    call = tool_call("payments_refund", amount=70)
    for _ in range(2):
        answer = tools["payments_refund"].invoke(call)
        assert answer.status == "error"
        assert "identical arguments" in answer.content
        assert answer.artifact["status"] == "pending_approval"
        assert answer.artifact["pending"]["approval_id"] == "ap-7"
    assert tools["payments_refund"].invoke(call).content == "refunded"


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_patient_call_waits_for_the_approval(way: str, command: list[str], log: Callable[[], list[str]]) -> None:
    """With patience, the identical call is repeated at the broker's pace until it is decided."""
    async with InterposerToolkit.from_command(command, wait_for_approval_s=5) as toolkit:
        tool = {tool.name: tool for tool in await toolkit.aget_tools()}["payments_refund"]
        invoke = tool.ainvoke({"amount": 70}) if way == "async" else asyncio.to_thread(tool.invoke, {"amount": 70})
        assert await invoke == "refunded"
    assert log().count("call payments.refund") == 3


def test_patience_ends_with_the_ticket(client: InterposerClient) -> None:
    """When the time is over the ticket goes to the model as if there had been no patience."""
    tool = InterposerTool.from_definition(
        {"name": "payments.refund"}, client, wait_for_approval_s=0.01, raise_refusals=True
    )
    with pytest.raises(ApprovalPending) as ticket:
        tool.invoke({"amount": 70})
    assert ticket.value.approval_id == "ap-7"
    assert ticket.value.url == "https://console.example/q/ap-7"
    assert ticket.value.retry_after_s == 0.001


@pytest.mark.parametrize(
    ("url", "shown"), [({"url": "https://c.example/q/1"}, "(q_1, https://c.example/q/1)"), ({}, "(q_1)")]
)
def test_ticket_without_words_says_where_to_answer(url: dict[str, str], shown: str) -> None:
    """Where the broker gives facts alone, the message has the approval's id, and its address if there is one."""
    meta = {"interposer/pending": {"approval_id": "q_1", "expires_at": 1, "retry_after_ms": 1, **url}}
    with pytest.raises(ApprovalPending) as ticket:
        read_answer({"result": {"content": [], "isError": True, "_meta": meta}}, "payments.refund")
    assert shown in str(ticket.value)
    assert ticket.value.url == url.get("url", "")


async def test_failed_skill_is_an_error_message(tools: dict[str, BaseTool]) -> None:
    """The skill's own error reaches the model as the skill said it."""
    answer = await both_ways(tools["fails"], tool_call("fails"))
    assert (answer.status, answer.content) == ("error", "the ledger is closed")
    assert answer.artifact["status"] == "failed"
    assert answer.artifact["decision"] is None


async def test_allowed_call_without_a_known_outcome_is_no_refusal(tools: dict[str, BaseTool]) -> None:
    """Where the broker does not know the outcome, the model is not told that nothing was executed."""
    answer = await both_ways(tools["lost"], tool_call("lost"))
    assert (answer.status, answer.content) == ("error", "The outcome is unknown.")
    assert answer.artifact["status"] == "outcome_unknown"
    assert answer.artifact["invocation_id"] == "inv-2"


async def test_unknown_skill_is_an_error_message(client: InterposerClient) -> None:
    """A skill that is gone, or was never there for us, is said to be refused, and that nothing was executed."""
    answer = await both_ways(InterposerTool.from_definition({"name": "gone"}, client), tool_call("gone"))
    assert answer.status == "error"
    assert "Unknown tool: gone" in answer.content
    assert "Nothing was executed" in answer.content


def test_refusals_can_be_raised_instead(client: InterposerClient) -> None:
    """A program without a model gets an exception that it can tell from an answer."""
    tool = InterposerTool.from_definition({"name": "db.query"}, client, raise_refusals=True)
    with pytest.raises(CallRefused, match="no-sql") as refusal:
        tool.invoke({})
    assert refusal.value.artifact["status"] == "denied"


def test_arguments_without_json_form_are_refused_unsent(
    tools: dict[str, BaseTool], log: Callable[[], list[str]]
) -> None:
    """NaN, a lone surrogate and foreign objects end here: the broker is not asked."""
    for odd in (float("nan"), "\ud800", object()):
        answer = tools["echo"].invoke(tool_call("echo", odd=odd))
        assert answer.status == "error"
        assert "not JSON" in answer.content
        assert answer.artifact["status"] == "invalid_arguments"
    assert "call echo" not in log()


async def test_media_become_blocks_or_notes(tools: dict[str, BaseTool]) -> None:
    """Images are LangChain blocks; what a tool message cannot hold is a note, and the block is in the artifact."""
    answer = await both_ways(tools["picture"], tool_call("picture"))
    assert answer.content == [
        {"type": "text", "text": "here"},
        {"type": "image", "base64": "aGk=", "mime_type": "image/png"},
        {"type": "text", "text": "[audio content, audio/wav: not shown, see the artifact]"},
    ]
    assert answer.artifact["unshown"] == [{"type": "audio", "data": "aGk=", "mimeType": "audio/wav"}]


def test_empty_answer_is_not_an_empty_message(tools: dict[str, BaseTool]) -> None:
    """Model APIs refuse empty tool messages."""
    assert tools["offers_nothing"].invoke(tool_call("offers_nothing")).content == "(no content)"


def test_big_result_arrives_whole(tools: dict[str, BaseTool]) -> None:
    """Four megabytes of text are one answer."""
    assert len(tools["big"].invoke({"size": 4_000_000})) == 4_000_000


async def test_forged_runtime_and_config_are_stripped(tools: dict[str, BaseTool]) -> None:
    """A model cannot pose as the agent runtime."""
    answer = await both_ways(tools["echo"], tool_call("echo", runtime={"tool_call_id": "x"}, config={"a": 1}, real=1))
    assert json.loads(str(answer.content)) == {"real": 1}


async def test_skills_own_odd_argument_names_arrive(tools: dict[str, BaseTool]) -> None:
    """A skill may call its arguments what LangChain calls its own: nothing is lost on the way to the broker."""
    arguments = {"config": "c", "runtime": "r", "self": "s", "run_manager": "m"}
    answer = await both_ways(tools["odd_names"], tool_call("odd_names", **arguments))
    assert json.loads(str(answer.content)) == arguments


def test_functions_take_arguments_by_keyword(tools: dict[str, BaseTool]) -> None:
    """Frameworks that take the function out of a LangChain tool can call it."""
    content, artifact = getattr(tools["echo"], "func")(a=1)  # noqa: B009 - BaseTool does not declare it
    assert json.loads(content) == {"a": 1}
    assert artifact["status"] == "ok"


def test_progress_and_tickets_reach_the_graphs_stream(tools: dict[str, BaseTool]) -> None:
    """In a LangGraph graph the runtime's `custom` stream shows how far a call is.

    LangGraph finds the stream through a context variable, and progress is reported from another thread.
    """
    seen: list[dict[str, Any]] = []
    stream: ContextVar[list[dict[str, Any]]] = ContextVar("stream")
    stream.set(seen)
    runtime = SimpleNamespace(stream_writer=lambda event: stream.get().append(event))
    tools["release"].invoke({})
    tools["gate"].invoke({"runtime": runtime})
    tools["payments_refund"].invoke({"runtime": runtime})
    assert seen[0] == {"type": "interposer.progress", "skill": "gate", "progress": 1}
    assert seen[1]["type"] == "interposer.status"
    assert seen[1]["approval_id"] == "ap-7"


def test_tool_is_what_model_apis_accept(tools: dict[str, BaseTool]) -> None:
    """Name, description and schema convert to a function definition; tags and metadata say where the call goes."""
    tool = tools["crm_get_customer"]
    function = convert_to_openai_tool(tool)["function"]
    assert function["name"] == "crm_get_customer"
    assert function["parameters"]["required"] == ["customer"]
    assert convert_to_openai_tool(tools["echo"])["function"]["parameters"]["properties"] == {}
    assert tool.tags == ["interposer"]
    assert tool.metadata == {"interposer": {"skill": "crm.get_customer", "broker": "stdio", "read_only": True}}
