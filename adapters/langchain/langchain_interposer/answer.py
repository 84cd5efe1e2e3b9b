"""What the broker's answer to a `tools/call` means: content and artifact, or the exception that says why not.

The broker marks its own answers in `_meta`: `interposer/decision` (it speaks, not the skill) and `interposer/pending`
(a ticket). Every artifact has the same keys, so that programs need not ask first.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from langchain_interposer.connection import Message
from langchain_interposer.content import Content, text_of, to_content
from langchain_interposer.errors import ApprovalPending, CallRefused, NotExecuted, NotJson, OutcomeUnknown, SkillFailed

Artifact: TypeAlias = dict[str, Any]

DECISION, PENDING = "interposer/decision", "interposer/pending"
_BROKER_UNAVAILABLE, _UPSTREAM_FAILED, _OUTCOME_UNKNOWN = -31003, -31004, -31005


def read_answer(response: Message, skill: str) -> tuple[Content, Artifact]:
    """Content and artifact of a good answer.

    Raises ApprovalPending, CallRefused or SkillFailed with the broker's text and an artifact; NotExecuted or
    OutcomeUnknown where the broker says that it cannot do its part.
    """
    if isinstance(error := response.get("error"), dict):
        raise _from_error(error, skill)
    result = response["result"]
    blocks = result.get("content") if isinstance(result.get("content"), list) else []
    meta = result["_meta"] if isinstance(result.get("_meta"), dict) else {}
    artifact = _artifact(skill, result, meta)
    if result.get("isError") is not True:
        content, artifact["unshown"] = to_content(blocks, result.get("structuredContent"))
        return content, artifact
    text = text_of(blocks)
    if artifact["pending"] is not None:
        artifact["status"] = "pending_approval"
        raise ApprovalPending(text or _waits(skill, artifact["pending"]), artifact)
    if artifact["decision"] is not None:
        artifact["status"] = _reason(artifact["decision"])
        if artifact["decision"].get("effect") == "allow":
            raise SkillFailed(text or f"{skill} was allowed and gave no usable answer. Do not repeat it.", artifact)
        raise CallRefused(text or _refused(skill), artifact)
    artifact["status"] = "failed"
    raise SkillFailed(text or f"{skill} failed and gave no reason.", artifact)


def _artifact(skill: str, result: Message, meta: Message) -> Artifact:
    decision, pending = meta.get(DECISION), meta.get(PENDING)
    decision = decision if isinstance(decision, dict) else None
    return {
        "invocation_id": decision.get("invocation") if decision else None,
        "status": "ok",
        "skill": skill,
        "structured_content": result.get("structuredContent"),
        "decision": decision,
        "pending": pending if isinstance(pending, dict) else None,
        "unshown": [],
    }


def _from_error(error: Message, skill: str) -> Exception:
    code, words = error.get("code"), str(error.get("message", "")).rstrip(". ")
    if code == _BROKER_UNAVAILABLE:
        return NotExecuted(f"The broker cannot serve this call: {words}. Nothing was executed.", reason=words)
    if code == _OUTCOME_UNKNOWN:
        return OutcomeUnknown(f"The outcome is unknown: {words}. The call was not repeated.", reason=words)
    artifact = _artifact(skill, {}, {}) | {"status": "refused", "code": code}
    if code == _UPSTREAM_FAILED:
        return SkillFailed(f"{skill} failed: {words}.", artifact | {"status": "failed"})
    text = f"{skill} was refused by the broker: {words}. Nothing was executed. Do not repeat the same call."
    return CallRefused(text, artifact)


def _reason(decision: Message) -> str:
    """The broker's short constant, such as `denied`, `approval_refused`, `outcome_unknown`."""
    words = (decision.get("reason"), decision.get("code"))
    return next((word for word in words if isinstance(word, str) and word), "denied")


def _refused(skill: str) -> str:
    return f"{skill} was refused by policy. Nothing was executed. Do not retry this call, and do not work around it."


def _waits(skill: str, pending: Message) -> str:
    url = pending.get("url")
    where = f"{pending.get('approval_id')}, {url}" if isinstance(url, str) and url else pending.get("approval_id")
    return (
        f"{skill} waits for a human's approval ({where}). Nothing was executed. "
        "After the approval, call it again with identical arguments."
    )


def no_json(fault: NotJson, skill: str) -> CallRefused:
    """Arguments that cannot be sent: no broker was asked."""
    artifact = _artifact(skill, {}, {}) | {"status": "invalid_arguments"}
    return CallRefused(f"The arguments of {skill} are not JSON ({fault}). Nothing was executed.", artifact)
