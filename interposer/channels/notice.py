"""What a channel says of a question to the world outside: which call, whose, how far it is, and where to answer.

Never the arguments, nor anything made of them but their length: whoever reads along in a chat learns no more than that
somebody asks. Nothing in it answers a question; the link leads to where one logs in and looks.

A notice has a delivery id that is made of what it says, so an attempt that is repeated, after a restart too, is known
by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from interposer.ballot import named, version_of
from interposer.canonical import digest
from interposer.model import Json, JsonObject, Question, QuestionState

Link = Callable[[str], str | None]
"""The console's address of a question; None without a console."""

_ENDS = {
    QuestionState.DENIED: "denied",
    QuestionState.EXPIRED: "expired",
    QuestionState.WITHDRAWN: "withdrawn",
    QuestionState.CONSUMED: "consumed",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that is told of a question."""

    delivery: str
    event: str
    question: Question
    """Without its arguments."""
    payload: JsonObject


def notice(question: Question, link: Link) -> Notice:
    """What there is to tell of a question as it stands."""
    event, version = event_of(question), version_of(question)
    votes: list[Json] = [[vote.principal.identity(), vote.yes, float(vote.at)] for vote in question.votes]
    delivery = f"d_{digest([question.id, event, version, votes])[:32]}"
    last = question.votes[-1] if question.votes else None
    payload: JsonObject = {
        "version": 1,
        "delivery": delivery,
        "event": event,
        "question": question.id,
        "state": question.state.value,
        "digest": version,
        "skill": question.skill,
        "destructive": question.destructive,
        "requester": named(question.requester),
        "rules": [rule.id for rule in question.rules],
        "bytes": len(question.amended or question.canonical) or None,
        "amended": bool(question.amended),
        "grant": _grant(question),
        "agreed": sum(vote.yes for vote in question.votes),
        "quorum": question.terms.quorum,
        "by": named(last.principal) if last is not None else None,
        "asked_at": question.asked_at,
        "expires_at": question.expires_at,
        "link": link(question.id),
    }
    return Notice(delivery, event, replace(question, canonical=b"", amended=b""), payload)


def event_of(question: Question) -> str:
    """`opened`, `amended`, `voted`, `granted`, `broke_glass`, `denied`, `expired`, `withdrawn` or `consumed`."""
    if question.state is QuestionState.GRANTED:
        return "broke_glass" if any(vote.broke_glass for vote in question.votes) else "granted"
    if question.state is not QuestionState.OPEN:
        return _ENDS[question.state]
    # Who changes what is on the table votes for it, and is the first who does.
    if version_of(question) != question.digest and len(question.votes) <= 1:
        return "amended"
    return "voted" if question.votes else "opened"


def _grant(question: Question) -> JsonObject | None:
    """How much more than this call is on the table; of the schema only that there is one."""
    spec = question.spec
    if spec is None:
        return None
    return {"for_s": spec.for_s, "uses": spec.uses, "session": spec.session, "matching": bool(spec.schema)}
