"""The rules of approval: what a yes is bound to, whose votes count, and what they make of a question.

Pure. An approver must satisfy the question's terms, is never the requester, and counts once; one no ends the
question; a quorum of distinct people grants it. Nothing is granted without a vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .canonical import digest
from .errors import InterposerError
from .model import (
    ApprovalTerms,
    Decision,
    Invocation,
    Kind,
    Principal,
    Question,
    QuestionState,
    Record,
    Vote,
)

OPERATOR = "operator"
"""The issuer of identities that the kernel vouches for on the administration socket."""


class VoteRefused(InterposerError):
    """The vote does not count. `name`: ended, expired, self_approval, not_approver, already_voted, reason_required,
    other_digest."""

    public = "The vote was refused."

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


def question_digest(invocation: Invocation, decision: Decision) -> str:
    """What a yes is bound to. The terms are in it because facts may raise them under one and the same policy."""
    skill = invocation.skill
    terms = decision.terms or ApprovalTerms()
    return _bound(invocation.principal, skill.id, skill.digest, invocation.canonical, decision.policy, terms)


def intact(question: Question) -> bool:
    """Whether what a human is shown of a live question is what its digest was made of."""
    if question.state not in (QuestionState.OPEN, QuestionState.GRANTED):
        return True  # what was asked is not kept any longer than it is needed
    try:
        return digest_of(question) == question.digest
    except ValueError:
        return False


def digest_of(question: Question) -> str:
    """The digest of what stands in a question."""
    return _bound(
        question.requester, question.skill, question.skill_digest, question.canonical, question.policy, question.terms
    )


def _bound(
    principal: Principal, skill: str, skill_digest: str, canonical: bytes, policy: str, terms: ApprovalTerms
) -> str:
    who_may = [sorted(terms.groups), sorted(terms.subjects), terms.quorum, float(terms.expires_s)]
    return digest([principal.identity(), skill, skill_digest, canonical.decode(), policy, who_may])


def named(principal: Principal) -> str:
    """A person, as approvals and messages name one."""
    return f"{principal.issuer}:{principal.subject}"


def asked(id: str, invocation: Invocation, decision: Decision, terms: ApprovalTerms, *, now: float) -> Question:
    """The question about one invocation, as it is opened. `now` is the wall clock."""
    return Question(
        id=id,
        digest=question_digest(invocation, decision),
        state=QuestionState.OPEN,
        session=invocation.session,
        invocation=invocation.id,
        requester=invocation.principal,
        skill=invocation.skill.id,
        skill_digest=invocation.skill.digest,
        policy=decision.policy,
        canonical=invocation.canonical,
        terms=terms,
        rules=decision.rules,
        asked_at=now,
        expires_at=now + terms.expires_s,
    )


def judge(question: Question, vote: Vote, *, overdue: bool, same_uid: bool = False) -> None:
    """Whether this vote counts; with `same_uid`, whoever has the requester's uid is the requester. Raises
    `VoteRefused`."""
    voter, requester = vote.principal, question.requester
    if not intact(question):
        raise VoteRefused("altered", f"{question.id} is not as it was asked; run `interposer record verify`")
    if question.state is not QuestionState.OPEN:
        raise VoteRefused("ended", f"{question.id} is {question.state} already: the vote came too late")
    if overdue:
        raise VoteRefused("expired", f"{question.id} has expired: the vote came too late")
    if voter.identity() == requester.identity() or (same_uid and voter.uid is not None and voter.uid == requester.uid):
        raise VoteRefused("self_approval", f"{named(voter)} asked for this call and cannot answer for it")
    if voter.machine:
        raise VoteRefused("machine", f"{named(voter)} is a workload: only people answer for calls")
    if not _may_answer(voter, question.terms):
        raise VoteRefused("not_approver", f"{named(voter)} is not among the approvers of {question.id}")
    # A person who said yes may still say no while the question is open, but not yes again.
    if vote.yes and any(earlier.principal.identity() == voter.identity() for earlier in question.votes):
        raise VoteRefused("already_voted", f"{named(voter)} has answered {question.id}: one person counts once")


def _may_answer(voter: Principal, terms: ApprovalTerms) -> bool:
    if not terms.groups and not terms.subjects:
        return voter.issuer == OPERATOR
    return voter.subject in terms.subjects or not terms.groups.isdisjoint(voter.groups)


def cast(question: Question, vote: Vote) -> Question:
    """The question with a vote that counts."""
    votes = (*question.votes, vote)
    if not vote.yes:
        return replace(question, votes=votes, state=QuestionState.DENIED)
    people = {(yes.principal.issuer, yes.principal.subject) for yes in votes}
    granted = len(people) >= question.terms.quorum
    return replace(question, votes=votes, state=QuestionState.GRANTED if granted else QuestionState.OPEN)


def row(question: Question, kind: Kind, *, at: float, code: str = "") -> Record:
    """A row about a question, in the requester's name."""
    return Record(
        kind=kind,
        session=question.session,
        at=at,
        invocation=question.invocation,
        skill=question.skill,
        principal=question.requester,
        rules=tuple(rule.id for rule in question.rules),
        policy=question.policy,
        skill_digest=question.skill_digest,
        code=code,
        question=question.id,
    )


def rows(revised: Question, voted: Record) -> Sequence[Record]:
    """The vote's own row, and the row of what it made of the question, both in the voter's name."""
    if revised.state is QuestionState.GRANTED:
        return (voted, replace(voted, kind=Kind.GRANTED, code="", payload=None, size=0))
    if revised.state is QuestionState.DENIED:
        return (voted, replace(voted, kind=Kind.QUESTION_DENIED, code="", payload=None, size=0))
    return (voted,)
