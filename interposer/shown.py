"""What operators are shown of questions and standing grants, as JSON; and what has to have been before somebody's eyes
before they agree to it, over whichever surface. Pure; nothing in it is escaped for anywhere."""

from __future__ import annotations

import hashlib

from .ballot import version_of
from .grant import Grant, Kept
from .model import Json, JsonObject, Principal, Question, QuestionState, Vote
from .policy.wording import as_json
from .terms import GrantSpec

WHOLE_BYTES = 4 * 1024
"""Arguments beyond it are not shown in passing: they are opened before they can be approved."""
DESTRUCTIVE_S = 1.5
"""M18: what a skill says it may destroy is before people for so long at least."""
_PREVIEW_BYTES = 200
_SCHEMA_PREVIEW_BYTES = 2_000


def summary(question: Question, now: float, link: str | None = None) -> JsonObject:
    """A question as lists show it: at most `_PREVIEW_BYTES` of the arguments, as text. `version` is the digest of what
    is on the table, which a vote may name; `digest` is what the call is found by."""
    exact = question.amended or question.canonical
    return {
        "id": question.id,
        "state": question.state.value,
        "skill": question.skill,
        "destructive": question.destructive,
        "requester": person(question.requester),
        "session": question.session,
        "digest": question.digest,
        "version": version_of(question),
        "amended": bool(question.amended),
        "spec": _spec(question.spec),
        "preview": exact[:_PREVIEW_BYTES].decode("utf-8", "ignore"),
        "bytes": len(exact),
        "asked_at": question.asked_at,
        "expires_at": question.expires_at,
        "left_s": _left(question, now),
        "quorum": question.terms.quorum,
        "votes": [_vote(vote) for vote in question.votes],
        "link": link,
    }


def full(question: Question, now: float, link: str | None = None, kept: Kept | None = None) -> JsonObject:
    """A question with everything that a human answers for. `canonical` is the exact text that was asked for, and
    `amended_canonical` what approvers put in its place; both are empty once the question has ended."""
    return {
        **summary(question, now, link),
        "canonical": question.canonical.decode(),
        "arguments_sha256": _sha256(question.canonical),
        "amended_canonical": question.amended.decode(),
        "amended_sha256": _sha256(question.amended),
        "schema": question.spec.schema.decode() if question.spec is not None else "",
        "invocation": question.invocation,
        "skill_digest": question.skill_digest,
        "policy": question.policy,
        "approval": as_json(question.terms),
        "kept": None if kept is None else _kept(kept),
        "rules": [
            {"id": rule.id, "effect": rule.effect.value, "file": rule.file, "line": rule.line, "message": rule.message}
            for rule in question.rules
        ],
    }


def reading_s(question: Question) -> float:
    """How long the call must have been before somebody's eyes."""
    return max(DESTRUCTIVE_S if question.destructive else 0.0, question.terms.reading_s)


def long(question: Question) -> bool:
    """Whether all of the arguments are only seen by whoever opens them."""
    return max(len(question.canonical), len(question.amended)) > WHOLE_BYTES


def grant(grant: Grant, now: float) -> JsonObject:
    """A standing grant: whose, for what, how much is left of it, and of which question it came."""
    active = grant.state.value == "active"
    return {
        "id": grant.id,
        "question": grant.question,
        "state": grant.state.value,
        "requester": person(grant.requester),
        "skill": grant.skill,
        "arguments_digest": grant.arguments_digest,
        "schema": grant.schema[:_SCHEMA_PREVIEW_BYTES].decode("utf-8", "ignore"),
        "schema_bytes": len(grant.schema),
        "session": grant.session,
        "uses": grant.uses,
        "used": grant.used,
        "approvers": list(grant.approvers),
        "given_at": grant.given_at,
        "expires_at": grant.expires_at,
        "left_s": max(0.0, round(grant.expires_at - now, 3)) if active else 0.0,
    }


def person(principal: Principal) -> JsonObject:
    return {"issuer": principal.issuer, "subject": principal.subject, "groups": list(principal.groups)}


def _spec(spec: GrantSpec | None) -> Json:
    if spec is None:
        return None
    return {"for_s": spec.for_s, "uses": spec.uses, "session": spec.session, "matching": bool(spec.schema)}


def _kept(kept: Kept) -> JsonObject:
    return {"state": kept.state.value, "withheld": kept.withheld, "delivered": kept.delivered}


def _vote(vote: Vote) -> JsonObject:
    return {
        "by": person(vote.principal),
        "yes": vote.yes,
        "reason": vote.reason,
        "at": vote.at,
        "broke_glass": vote.broke_glass,
    }


def _left(question: Question, now: float) -> float:
    standing = question.state in (QuestionState.OPEN, QuestionState.GRANTED)
    return max(0.0, round(question.expires_at - now, 3)) if standing else 0.0


def _sha256(exact: bytes) -> str:
    return hashlib.sha256(exact).hexdigest() if exact else ""
