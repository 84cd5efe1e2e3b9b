"""What may become of a question, a standing grant and a kept outcome: the rules that every store keeps.

Pure. What was asked never changes, what has ended stays ended, and nothing is given or used at or after its end. The
chained row of a yes says to which version of the question it is, the one of a standing grant what is in it: a table
that was edited does not agree with them any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interposer import ballot, chain
from interposer.canonical import Malformed, canonical, parse
from interposer.errors import RecordFault
from interposer.grant import KEPT_S, Grant, GrantState, Kept, KeptState
from interposer.model import Json, Kind, Question, QuestionState, Record
from interposer.ports import Revision

LIVE = (QuestionState.OPEN, QuestionState.GRANTED)
"""The states in which a question can still lead to a call: one question per digest may be in them."""

CLOSED_BY = {Kind.EXPIRED: QuestionState.EXPIRED, Kind.QUESTION_WITHDRAWN: QuestionState.WITHDRAWN}
ENDED_BY = {Kind.GRANT_EXPIRED: GrantState.EXPIRED, Kind.GRANT_REVOKED: GrantState.REVOKED}


# -- questions


def at_rest(question: Question) -> Question:
    """A question as it is stored: once it has ended, no exact (unmasked) arguments are kept."""
    return question if question.state in LIVE else replace(question, canonical=b"", amended=b"")


def closing_state(record: Record) -> QuestionState:
    state = CLOSED_BY.get(record.kind)
    if state is None:
        raise RecordFault(f"a question is not closed by a row of kind {record.kind.value}")
    return state


def check_revision(standing: Question, revision: Revision) -> None:
    """What was asked cannot be revised, what has ended stays ended, and no yes is given after the time for it. Raises
    `RecordFault`."""
    revised = revision.question
    asked = replace(revised, state=standing.state, votes=standing.votes, amended=standing.amended, spec=standing.spec)
    if asked != standing:
        raise _refused(standing, "a revision may not change what was asked")
    if standing.state not in LIVE and (revised.state, revised.amended) != (standing.state, standing.amended):
        raise _refused(standing, f"it has ended as {standing.state.value}")
    granted = (standing.state, revised.state) == (QuestionState.OPEN, QuestionState.GRANTED)
    if granted and _time_of(revision) >= standing.expires_at:
        raise _refused(standing, "its time is over, and nothing is granted any more")
    if revision.grant is not None:
        _check_grant(revised, revision.grant, revision.records, granted=granted)


def _time_of(revision: Revision) -> float:
    if revision.now is not None:
        return revision.now
    # A yes that no row tells of was given at no time.
    return max((record.at for record in revision.records), default=float("inf"))


def _check_grant(question: Question, grant: Grant, records: Sequence[Record], *, granted: bool) -> None:
    given = [record for record in records if record.kind is Kind.GRANT_GIVEN]
    if not granted or question.spec is None or question.terms.cap is None:
        raise _refused(question, "no standing grant comes of it")
    if [record.question for record in given] != [grant.id]:
        raise _refused(question, "a standing grant is told of by exactly one row")
    if says(given[0].payload, "commitment") != commitment(grant):
        raise _refused(question, "the row of a standing grant commits to what is in it")
    bound = (grant.question, grant.requester, grant.skill, grant.skill_digest, grant.policy, grant.terms)
    if bound != (
        question.id,
        question.requester,
        question.skill,
        question.skill_digest,
        question.policy,
        question.terms,
    ):
        raise _refused(question, "a standing grant is for what was asked")
    if (grant.state, grant.used) != (GrantState.ACTIVE, 0) or grant.expires_at <= grant.given_at:
        raise _refused(question, "a standing grant begins unused and ends later")


def _refused(question: Question, why: str) -> RecordFault:
    return RecordFault(f"question {question.id}: {why}")


# -- standing grants


def commitment(grant: Grant) -> str:
    """`grants.commitment`, imported here: whoever reads a record needs no schema validator."""
    from interposer import grants

    return grants.commitment(grant)


def used(grant: Grant, now: float) -> Grant | None:
    """The grant after one more use; None where it has none left."""
    spent = grant.uses is not None and grant.used >= grant.uses
    if grant.state is not GrantState.ACTIVE or spent or grant.expires_at <= now:
        return None
    last = grant.uses is not None and grant.used + 1 >= grant.uses
    return replace(grant, used=grant.used + 1, state=GrantState.SPENT if last else GrantState.ACTIVE)


def use_rows(grant: Grant, record: Record) -> Sequence[Record]:
    """The rows of the use that made the grant what it is."""
    if record.kind is not Kind.GRANT_USED or record.question != grant.id:
        raise RecordFault(f"grant {grant.id}: a use is told of by a row of its own")
    if grant.state is GrantState.SPENT:
        return (record, replace(record, kind=Kind.GRANT_SPENT, payload=None, size=0))
    return (record,)


def ending_state(record: Record) -> GrantState:
    state = ENDED_BY.get(record.kind)
    if state is None:
        raise RecordFault(f"a standing grant is not ended by a row of kind {record.kind.value}")
    return state


# -- kept outcomes


def running(question: Question, record: Record) -> Kept:
    """What is kept of the call for which a question is consumed, as it begins."""
    return Kept(
        question=question.id,
        call=question.call,
        invocation=record.invocation,
        state=KeptState.RUNNING,
        body=b"",
        withheld="",
        delivered=False,
        expires_at=question.expires_at + KEPT_S,
    )


def ended(standing: Kept, state: KeptState, body: bytes, withheld: str, *, delivered: bool) -> Kept:
    """An outcome is told once, and what was delivered never becomes undelivered."""
    delivered = delivered or standing.delivered
    if standing.state is not KeptState.RUNNING:
        return replace(standing, delivered=delivered)
    return replace(standing, state=state, body=body, withheld=withheld, delivered=delivered)


def discardable(kept: Kept, now: float) -> bool:
    """A call that is under way is never forgotten: its outcome would be lost."""
    return kept.expires_at <= now and kept.state is not KeptState.RUNNING


ALTERED = "what is kept of it is not what the record says; run `interposer record verify`"


def unknown(kept: Kept) -> Kept:
    """What is told of an outcome that somebody edited."""
    return replace(kept, state=KeptState.IN_DOUBT, body=b"", withheld=ALTERED)


def agrees(kept: Kept, row: chain.Row | None, payload: bytes | None) -> bool:
    """Whether what would be shown of an outcome is what its row says. Of a payload that was erased or cut, nothing can
    be said."""
    part = _SHOWN.get(kept.state)
    shown = says(kept.body, part or "result")
    if part is not None and row is not None and (row.kind, row.invocation) != (kept.state.value, kept.invocation):
        return False
    if shown is None:
        return True
    if part is None or kept.withheld or row is None or not row.commitment:
        return False
    return payload is None or says(payload, "capped") is True or _same(shown, says(payload, part))


def sent(kept: Kept, payload: bytes | None) -> bool:
    """Whether the arguments in an outcome, where approvers changed them, are those that the intent's row says."""
    told = says(kept.body, "arguments")
    if told is None or payload is None or says(payload, "capped") is True:
        return True
    return _same(told, says(payload, "arguments"))


_SHOWN = {KeptState.ANSWERED: "result", KeptState.FAILED: "error"}


def _same(one: Json, other: Json) -> bool:
    try:
        return canonical(one) == canonical(other)
    except Malformed:
        return False


# -- rows


def told(standing: Question, revision: Revision) -> Sequence[Record]:
    """The rows of a revision; the one of a yes says to which version, so that nobody can put another in its place."""
    if standing.state is revision.question.state:
        return revision.records
    version = canonical({"version": ballot.version_of(revision.question)})
    return [
        replace(record, payload=version, size=len(version)) if record.kind is Kind.GRANTED else record
        for record in revision.records
    ]


def says(payload: bytes | None, name: str) -> Json:
    """What the payload of a row says under a name; None where it says nothing that can be read."""
    try:
        value = None if payload is None else parse(payload)
    except Malformed:
        return None
    return value.get(name) if isinstance(value, dict) else None
