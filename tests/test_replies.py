"""What callers are told: models can live with it, clients can parse it, and nobody learns too much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from interposer import replies
from interposer.broker import Carried
from interposer.errors import (
    ApprovalPending,
    ApprovalRefused,
    BadMessage,
    Denied,
    InvalidArguments,
    Refusal,
    Unauthenticated,
    Unavailable,
    UnknownSkill,
)
from interposer.masking.engine import Engine
from interposer.model import Answered, Failed, InDoubt, Json, JsonObject, Skill

SKILL = Skill("fake.echo", "fake", "echo", "echo", {}, "d")
INSIDE = "/srv/secret.db: SQL error near 'x'"
REFUSALS: list[tuple[Refusal, int, str]] = [
    (Denied(INSIDE, rule="r1", message="Ask Kim."), -31001, "denied"),
    (Denied(INSIDE), -31001, "denied"),
    (Denied(INSIDE, name="rate_limited", message="Too many calls."), -31001, "rate_limited"),
    (ApprovalRefused(INSIDE, question="q_1", public="A human refused this call."), -31002, "approval_refused"),
    (InvalidArguments("at /amount: maximum: 5"), -32602, "invalid_arguments"),
    (Unavailable(INSIDE), -31003, "unavailable"),
    (Unauthenticated(INSIDE), -31001, "unauthenticated"),
]


def carried(outcome: Any, value: Json, withheld: str = "") -> Carried:
    return Carried("i_1", SKILL, outcome, Engine().mask(value, frozenset()), withheld)


def only_text(result: JsonObject) -> str:
    assert result["isError"] is True
    assert "structuredContent" not in result
    (block,) = result["content"]
    assert block["type"] == "text"
    text: str = block["text"]
    return text


@pytest.mark.parametrize(("refusal", "code", "name"), REFUSALS)
def test_refusal_is_an_error_result_with_one_text(refusal: Refusal, code: int, name: str) -> None:
    """One text block, no structured content, the facts in `_meta`, and nothing of the inside."""
    result = replies.refused(refusal, 0.0)
    text = only_text(result)
    assert "othing was executed" in text
    facts = result["_meta"]["interposer/decision"]
    assert (facts["effect"], facts["code"], facts["reason"]) == ("deny", code, name)
    assert INSIDE not in str(result)


def test_denial_says_not_to_try_around() -> None:
    """A model that is told no is also told not to look for another way; a rate limit may be retried."""
    denial = only_text(replies.refused(Denied("x", rule="r1", message="Ask Kim."), 0.0))
    assert "(rule r1): Ask Kim." in denial
    assert "Do not retry" in denial
    assert "Do not retry" not in only_text(replies.refused(Denied("x", name="rate_limited", message="Later."), 0.0))


def test_ticket_says_what_waits_and_for_how_long() -> None:
    """The ticket names the question and its end, and asks for the identical call."""
    refusal = ApprovalPending(question="q_1", expires_at=1_900.0, retry_after_s=2.5)
    result = replies.refused(refusal, 100.0)
    assert "q_1" in only_text(result)
    assert "30 min" in only_text(result)
    assert "identical arguments" in only_text(result)
    pending = {"approval_id": "q_1", "expires_at": 1_900.0, "retry_after_ms": 2_500}
    assert result["_meta"] == {"interposer/pending": pending}


@pytest.mark.parametrize(("refusal", "expected"), [(BadMessage(-32600, "x"), True), (UnknownSkill("x"), True)])
def test_malformed_and_unknown_are_protocol_errors(refusal: Refusal, expected: bool) -> None:
    """A skill that does not exist is a JSON-RPC error (2025-11-25, tools: error handling)."""
    assert replies.is_protocol_error(refusal) is expected
    assert not replies.is_protocol_error(Denied("x"))


def test_answer_is_given_as_it_was_masked() -> None:
    """Unknown fields stay."""
    value = {"content": [], "odd": [1], "isError": True, "_meta": {"vendor/x": 1}}
    assert replies.result_of(carried(Answered, value)) == value


@pytest.mark.parametrize(
    ("outcome", "withheld", "code", "words"),
    [
        (Answered, "could not be masked", -31003, "took effect"),
        (Failed, "", -31004, "nothing was executed"),
        (InDoubt, "", -31005, "may have taken effect"),
    ],
)
def test_each_outcome_has_words_of_its_own(outcome: Any, withheld: str, code: int, words: str) -> None:
    """ "Not executed", "unknown" and "withheld" are never confused."""
    result = replies.result_of(carried(outcome, None, withheld))
    assert words in only_text(result)
    assert result["_meta"]["interposer/decision"]["code"] == code
    assert result["_meta"]["interposer/decision"]["invocation"] == "i_1"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (-32602, -32602),
        (-32603, -32603),
        (5, 5),
        (-31999, -31999),
        (-32000, -31004),
        (-32042, -31004),
        (-32020, -31004),
    ],
)
def test_codes_of_one_hop_are_not_passed_on(code: int, told: int) -> None:
    """-32000 to -32099 speak about the hop they were made for (2026-07-28, errors)."""
    error = replies.upstream_error(carried(Failed, {"code": code, "message": "m", "data": {"d": 1}}))
    assert error == {"code": told, "message": "m", "data": {"d": 1}}


@pytest.mark.parametrize("shown", [None, "text", []])
def test_upstream_that_was_not_reached_has_no_error_of_its_own(shown: Json) -> None:
    """Then the result says so."""
    assert replies.upstream_error(carried(Failed, shown)) is None
    assert replies.upstream_error(carried(Answered, {"code": 1, "message": "not an error"})) is None


def test_error_without_its_members_is_still_one() -> None:
    """A masked error may have lost its number or its text."""
    error = replies.upstream_error(carried(Failed, {"code": "[REDACTED]", "message": 5}))
    assert error == {"code": -31004, "message": "The upstream refused the request."}


def test_ticket_names_the_place_where_it_can_be_answered() -> None:
    """A human finds the question by the link, a program by `_meta`; without a console there is neither."""
    pending = ApprovalPending(question="q_1", expires_at=90.0, retry_after_s=2.0)
    result = replies.refused(pending, 0.0, link="https://desk.test/q/q_1")
    assert "https://desk.test/q/q_1" in only_text(result)
    assert result["_meta"]["interposer/pending"]["url"] == "https://desk.test/q/q_1"
    assert "url" not in replies.refused(pending, 0.0)["_meta"]["interposer/pending"]


def test_call_that_is_under_way_is_no_reason_to_make_another() -> None:
    """An approved call that is being made without its caller is not said to be unexecuted."""
    pending = ApprovalPending(question="q_1", expires_at=90.0, retry_after_s=2.0, running=True)
    result = replies.refused(pending, 0.0)
    text = only_text(result)
    assert "othing was executed" not in text
    assert "identical arguments" in text
    assert result["_meta"]["interposer/pending"]["running"] is True


def test_changed_arguments_are_told_beside_the_answer() -> None:
    """Model and program hear what was run in place of what they asked for; the answer itself stays what it was."""
    value: JsonObject = {
        "content": [{"type": "text", "text": "done"}],
        "structuredContent": {"a": 1},
        "_meta": {"vendor/x": 1},
    }
    arguments = Engine().mask({"amount": 5}, frozenset())
    result = replies.result_of(replace(carried(Answered, value), approval="q_1", amended=arguments))
    first, second = result["content"]
    assert (first, result["structuredContent"]) == (value["content"][0], {"a": 1})
    assert '{"amount":5}' in second["text"]
    assert result["_meta"] == {
        "vendor/x": 1,
        "interposer/approval": {
            "approval_id": "q_1",
            "approvers_changed_arguments": True,
            "arguments": {"amount": 5},
        },
    }
    assert "interposer/approval" not in value["_meta"]


def test_arguments_too_long_to_read_are_pointed_to() -> None:
    """A model is not flooded with what an approver wrote."""
    arguments = Engine().mask({"text": "x" * 10_000}, frozenset())
    result = replies.result_of(replace(carried(Answered, {"content": []}), approval="q_1", amended=arguments))
    assert len(result["content"][0]["text"]) < 500
    assert result["_meta"]["interposer/approval"]["arguments"] == {"text": "x" * 10_000}


def test_approved_call_that_was_not_made_has_words_of_its_own() -> None:
    """A caller that comes back after a crash hears that nothing was executed, and that it has to be asked again."""
    result = replies.result_of(replace(carried(Failed, None), approval="q_1", kept=True))
    assert "nothing was executed" in only_text(result)
    assert "put to a human again" in only_text(result)


@pytest.mark.parametrize("outcome", [Answered, InDoubt])
def test_outcome_of_an_earlier_call_says_so(outcome: Any) -> None:
    """Programs can tell that the call was not made now."""
    value: Json = {"content": []} if outcome is Answered else None
    result = replies.result_of(replace(carried(outcome, value), approval="q_1", kept=True))
    assert result["_meta"]["interposer/approval"] == {"approval_id": "q_1", "kept": True}
