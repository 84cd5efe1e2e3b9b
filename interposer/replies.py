"""What callers are told: refusals that a model can live with, and outcomes as MCP results.

A refused `tools/call` is a result with `isError` and exactly one text block (hosts show models only the first), never
structured content (clients would validate it), with the facts for programs in `_meta`. "Not executed" and "outcome
unknown" are different texts.
"""

from __future__ import annotations

from .canonical import encode
from .carried import Carried
from .errors import (
    BROKER_UNAVAILABLE,
    EXPIRED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    OUTCOME_UNKNOWN,
    UPSTREAM_FAILED,
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
from .model import Answered, Failed, Json, JsonObject
from .wire.mcp import META_DECISION, META_PENDING, OWN_PREFIX

META_APPROVAL = OWN_PREFIX + "approval"
_SHOWN_CHARS = 4096
_RELAYED_CODES = frozenset({INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR})


def is_protocol_error(refusal: Refusal) -> bool:
    """Whether the refusal is a JSON-RPC error rather than a result: malformed, or a skill that does not exist."""
    return isinstance(refusal, BadMessage | UnknownSkill)


def refused(refusal: Refusal, now: float, *, link: str | None = "") -> JsonObject:
    """The result of a call that was not made. `link`: where the question that it waits for can be answered."""
    if isinstance(refusal, ApprovalPending):
        return _ticket(refusal, now, link or "")
    facts: JsonObject = {"effect": "deny", "code": refusal.code, "reason": refusal.name}
    if isinstance(refusal, Denied) and refusal.rule:
        facts["rule"] = refusal.rule
    if isinstance(refusal, ApprovalRefused):
        facts["approval_id"] = refusal.question
    return _error_result(_refusal_text(refusal), {META_DECISION: facts})


def _refusal_text(refusal: Refusal) -> str:
    if isinstance(refusal, Denied):
        rule = f" (rule {refusal.rule})" if refusal.rule else ""
        if refusal.name == "rate_limited":
            return f"Blocked by policy{rule}: {refusal.public} The tool was not run; nothing was executed."
        return (
            f"Blocked by policy{rule}: {refusal.public} The tool was not run; nothing was executed. "
            "Do not retry this call and do not try to reach the same effect another way; ask the user instead."
        )
    if isinstance(refusal, ApprovalRefused):
        return (
            f"Not approved: {refusal.public} The tool was not run; nothing was executed. "
            "Do not retry this call and do not try to reach the same effect another way, unless the user asks for it."
        )
    if isinstance(refusal, InvalidArguments):
        return (
            f"The arguments do not fit the tool's input schema: {refusal.public}. "
            "The tool was not run; nothing was executed. Correct the arguments before calling again."
        )
    if isinstance(refusal, Unavailable):
        return f"{refusal.public} This is not a decision about the call. Tell the user; do not retry in a loop."
    if isinstance(refusal, Unauthenticated) and refusal.why == EXPIRED:
        return refusal.public
    return f"{refusal.public} Do not retry."


def _ticket(refusal: ApprovalPending, now: float, link: str) -> JsonObject:
    pending: JsonObject = {
        "approval_id": refusal.question,
        "expires_at": refusal.expires_at,
        "retry_after_ms": round(refusal.retry_after_s * 1000),
    }
    if refusal.running:
        pending["running"] = True
        text = (
            f"This call was approved (approval {refusal.question}) and is under way; its answer is not there yet. "
            "It is not made a second time: to be given the answer, call the same tool again with identical arguments "
            f"in {max(1, round(refusal.retry_after_s))} s; do not vary them and do not work around."
        )
        return _error_result(text, {META_PENDING: pending})
    left_s = max(0, round(refusal.expires_at - now))
    where = ""
    if link:
        pending["url"] = link
        where = f" at {link}"
    text = (
        f"Not run yet: a human has to approve this call first (approval {refusal.question}{where}, open for another "
        f"{_minutes(left_s)}). Nothing was executed. Tell the user that it waits for approval. After it is approved, "
        "call the same tool again with identical arguments; do not vary them and do not work around."
    )
    return _error_result(text, {META_PENDING: pending})


def _minutes(seconds: int) -> str:
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def upstream_error(carried: Carried) -> JsonObject | None:
    """The JSON-RPC error with which the upstream refused the request, its code mapped where it has no meaning here."""
    error = carried.masked.value
    if carried.outcome is not Failed or not isinstance(error, dict) or carried.withheld:
        return None
    code, message = error.get("code"), error.get("message")
    # Codes from -32000 to -32099 speak about one hop only (MCP 2026-07-28, errors): they are not passed on.
    known = isinstance(code, int) and (code in _RELAYED_CODES or not -32768 <= code <= -32000)
    relayed: JsonObject = {
        "code": code if known else UPSTREAM_FAILED,
        "message": message if isinstance(message, str) else "The upstream refused the request.",
    }
    return {**relayed, "data": error["data"]} if "data" in error else relayed


def result_of(carried: Carried) -> JsonObject:
    """The MCP result of a call that went across. Where approvers changed its arguments, or it was made before this call
    came, the result says so."""
    result = _result_of(carried)
    if carried.amended is None and not carried.kept:
        return result
    approval: JsonObject = {"approval_id": carried.approval}
    content = result.get("content")
    blocks = list(content) if isinstance(content, list) else []
    if carried.kept:
        approval["kept"] = True
    if carried.amended is not None:
        approval |= {"approvers_changed_arguments": True, "arguments": carried.amended.value}
        blocks.append({"type": "text", "text": _changed(carried.amended.value)})
    meta = result.get("_meta")
    return {**result, "content": blocks, "_meta": {**(meta if isinstance(meta, dict) else {}), META_APPROVAL: approval}}


def _changed(arguments: Json) -> str:
    shown = encode(arguments).decode()
    ran = shown if len(shown) <= _SHOWN_CHARS else f'those in _meta["{META_APPROVAL}"]'
    return f"The approver changed the arguments of this call before it was run. It was run with these: {ran}"


def _result_of(carried: Carried) -> JsonObject:
    if carried.outcome is Failed and carried.kept and not carried.withheld:
        return _error_result(
            "This call was approved, and could not be made when its turn came. The tool was not run; nothing was "
            "executed. Tell the user; called again with identical arguments, it is put to a human again.",
            _facts(carried, UPSTREAM_FAILED, "not_made"),
        )
    if carried.outcome is Failed and not carried.withheld:
        return _error_result(
            "The upstream service is not available. The tool was not run; nothing was executed. "
            "Tell the user; do not retry in a loop.",
            _facts(carried, UPSTREAM_FAILED, "upstream_unavailable"),
        )
    if carried.outcome is not Answered:
        return _error_result(
            "The outcome of this call is unknown: it was sent, and no answer came. It may have taken effect. "
            "Do not repeat it; check its effect first, or ask the user.",
            _facts(carried, OUTCOME_UNKNOWN, "outcome_unknown"),
        )
    if carried.withheld:
        return _error_result(
            "The tool was run, but its answer is withheld: it could not be masked or recorded as policy demands. "
            "Do not repeat the call: it took effect. Tell the user.",
            _facts(carried, BROKER_UNAVAILABLE, "withheld"),
        )
    result: JsonObject = carried.masked.value
    return result


def _facts(carried: Carried, code: int, reason: str) -> JsonObject:
    return {META_DECISION: {"effect": "allow", "code": code, "reason": reason, "invocation": carried.invocation}}


def _error_result(text: str, meta: Json) -> JsonObject:
    return {"content": [{"type": "text", "text": text}], "isError": True, "_meta": meta}
