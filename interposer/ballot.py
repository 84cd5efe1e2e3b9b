"""The rules of approval: what a yes is bound to, whose votes count, and what they make of a question.

Pure. An approver must satisfy the question's terms, is never the requester, is a person, and counts once; one no ends
the question; a quorum of distinct people, with so many of each group as the terms say, grants it. Nothing is granted
without a vote. Who changes what would be agreed to (other arguments, a standing grant) makes a new version of the
question, and votes for the one before do not count for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from .canonical import digest, digest_bytes
from .errors import InterposerError
from .model import Decision, Invocation, Json, Kind, Principal, Question, QuestionState, Record, Vote
from .terms import ApprovalTerms, GrantSpec
from .windows import is_open

OPERATOR = "operator"
"""The issuer of identities that the kernel vouches for on the administration socket."""
ELICITED = "elicitation"
"""The issuer of what a client says that its own user answered."""

_KERNEL = "uid:"
"""How those are called whom nobody has given a name: on both sides of a question, at a desk with one user."""


class VoteRefused(InterposerError):
    """The vote does not count. `name`: altered, ended, expired, self_approval, machine, not_approver, already_voted,
    reason_required, other_digest, outside_hours, grant_refused, amendment_refused, unread, no_break_glass."""

    public = "The vote was refused."

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


# -- what a yes is bound to


def question_digest(invocation: Invocation, decision: Decision) -> str:
    """What a yes is bound to. The terms are in it because facts may raise them under one and the same policy."""
    skill = invocation.skill
    terms = decision.terms or ApprovalTerms()
    return _bound(invocation.principal, skill.id, skill.digest, invocation.canonical, decision.policy, terms)


def call_digest(invocation: Invocation) -> str:
    """The call itself, whatever policy says of it: who, which skill as it is defined, which arguments."""
    skill = invocation.skill
    return digest(["call", invocation.principal.identity(), skill.id, skill.digest, invocation.arguments_digest])


def version_of(question: Question) -> str:
    """What is on the table: the question's digest as long as nobody changed what would be agreed to."""
    if not question.amended and question.spec is None:
        return question.digest
    amended = digest_bytes(question.amended) if question.amended else ""
    spec = question.spec
    agreed = None if spec is None else [float(spec.for_s), spec.uses, spec.session, digest_bytes(spec.schema)]
    return digest([question.digest, amended, agreed])


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
    return digest([principal.identity(), skill, skill_digest, canonical.decode(), policy, terms_json(terms)])


_NOBODY: frozenset[str] = frozenset()
_PLAIN = ApprovalTerms(expires_s=0.0)


def terms_json(terms: ApprovalTerms) -> Json:
    """The terms as JSON, the same for equal terms."""
    who_may: list[Json] = [sorted(terms.groups), sorted(terms.subjects), terms.quorum, float(terms.expires_s)]
    # Only where they say more, so that a question which an older broker asked is still what it was.
    if replace(terms, groups=_NOBODY, subjects=_NOBODY, quorum=1, expires_s=0.0) != _PLAIN:
        who_may.append(_more(terms))
    return who_may


def _more(terms: ApprovalTerms) -> Json:
    windows = [
        [[sorted(each.days), each.opens_min, each.closes_min, each.zone] for each in some] for some in terms.windows
    ]
    cap = None if terms.cap is None else asdict(terms.cap) | {"for_s": float(terms.cap.for_s)}
    minima = [list(each) for each in terms.minima]
    return [minima, windows, cap, terms.execute, terms.caller, float(terms.reading_s)]


# -- questions


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
        destructive=_destructive(invocation.skill.annotations),
        call=call_digest(invocation),
    )


def _destructive(annotations: Json) -> bool:
    # MCP 2025-11-25, ToolAnnotations: destructiveHint is true unless it is said otherwise, or the tool is read-only.
    return annotations.get("readOnlyHint") is not True and annotations.get("destructiveHint") is not False


def changed(question: Question, amended: bytes, spec: GrantSpec | None) -> Question:
    """The question with another version on the table: what anyone said of the one before does not count for it."""
    other = replace(question, amended=b"" if amended == question.canonical else amended, spec=spec)
    return other if version_of(other) == version_of(question) else replace(other, votes=())


# -- votes


def may_answer(voter: Principal, terms: ApprovalTerms) -> bool:
    """Whether the terms name this person; without anybody named, any operator."""
    groups = terms.groups | {group for group, _ in terms.minima}
    if not groups and not terms.subjects:
        return voter.issuer == OPERATOR
    return voter.subject in terms.subjects or not groups.isdisjoint(voter.groups)


def judge(question: Question, vote: Vote, *, overdue: bool, same_uid: bool = False) -> None:
    """Whether this vote counts; with `same_uid`, whoever has the requester's uid is the requester. Raises
    `VoteRefused`."""
    _standing(question, vote, overdue=overdue)
    if vote.version and vote.version != version_of(question):
        raise VoteRefused("other_digest", f"{question.id} is not about the call with this digest; look again")
    _stranger(question, vote.principal, same_uid=same_uid)
    # Who says no is heard at any hour.
    if vote.yes and not is_open(question.terms.windows, vote.at):
        raise VoteRefused("outside_hours", f"{question.id} can be answered only in the hours that policy gives")
    if not _named_by(vote.principal, question):
        raise VoteRefused("not_approver", f"{named(vote.principal)} is not among the approvers of {question.id}")
    # A person who said yes may still say no while the question is open, but not yes again.
    if vote.yes and any(_person(earlier.principal) == _person(vote.principal) for earlier in question.votes):
        raise VoteRefused(
            "already_voted", f"{named(vote.principal)} has answered {question.id}: one person counts once"
        )


def judge_break_glass(question: Question, vote: Vote, *, overdue: bool, may: bool, same_uid: bool = False) -> None:
    """Whether one person may override the terms; never the requester, and never without a reason. Raises
    `VoteRefused`."""
    _standing(question, vote, overdue=overdue)
    _stranger(question, vote.principal, same_uid=same_uid)
    if not may:
        raise VoteRefused("no_break_glass", f"{named(vote.principal)} may not break glass (approvals.break_glass)")
    if not vote.reason:
        raise VoteRefused("reason_required", "breaking glass needs a reason")


def _standing(question: Question, vote: Vote, *, overdue: bool) -> None:
    if not intact(question):
        raise VoteRefused("altered", f"{question.id} is not as it was asked; run `interposer record verify`")
    if question.state is not QuestionState.OPEN:
        raise VoteRefused("ended", f"{question.id} is {question.state} already: the vote came too late")
    if overdue:
        raise VoteRefused("expired", f"{question.id} has expired: the vote came too late")


def _stranger(question: Question, voter: Principal, *, same_uid: bool) -> None:
    requester = question.requester
    if voter.issuer != ELICITED and (
        voter.identity() == requester.identity()
        or (_person(voter) == _person(requester) and not voter.subject.startswith(_KERNEL))
        or (same_uid and voter.uid is not None and voter.uid == requester.uid)
    ):
        raise VoteRefused("self_approval", f"{named(voter)} asked for this call and cannot answer for it")
    if voter.machine:
        raise VoteRefused("machine", f"{named(voter)} is a workload: only people answer for calls")


def _person(principal: Principal) -> str:
    """Who it is, whichever way they logged in: two issuers that know somebody by one name know one person."""
    return principal.subject


def _named_by(voter: Principal, question: Question) -> bool:
    terms = question.terms
    if voter.issuer == ELICITED:
        return terms.caller and terms.quorum == 1 and not terms.minima and voter.subject == question.requester.subject
    return may_answer(voter, terms)


def cast(question: Question, vote: Vote) -> Question:
    """The question with a vote that counts."""
    votes = (*question.votes, vote)
    if not vote.yes:
        return replace(question, votes=votes, state=QuestionState.DENIED)
    granted = vote.broke_glass or enough([yes.principal for yes in votes], question.terms)
    return replace(question, votes=votes, state=QuestionState.GRANTED if granted else QuestionState.OPEN)


def enough(agreed: Sequence[Principal], terms: ApprovalTerms) -> bool:
    """Whether these people grant it: a quorum of distinct ones, who fill every group's places with one person each."""
    people: dict[str, frozenset[str]] = {}
    for one in agreed:
        people[_person(one)] = people.get(_person(one), _NOBODY) | frozenset(one.groups)
    places = [group for group, least in terms.minima for _ in range(least)]
    return len(people) >= terms.quorum and _filled(places, people)


def _filled(places: Sequence[str], people: dict[str, frozenset[str]]) -> bool:
    """Whether every place can be given to another person of its group (augmenting paths): who could take several places
    takes the one that nobody else can."""
    holds: dict[str, int] = {}

    def seat(place: int, asked_already: set[str]) -> bool:
        for person, groups in people.items():
            if places[place] in groups and person not in asked_already:
                asked_already.add(person)
                if person not in holds or seat(holds[person], asked_already):
                    holds[person] = place
                    return True
        return False

    return all(seat(place, set()) for place in range(len(places)))


# -- rows


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


def ends_at(question: Question) -> float:
    """When its time is over, by the wall clock: an unused yes to a standing grant lasts no longer than the grant."""
    if question.state is not QuestionState.GRANTED or question.spec is None or not question.votes:
        return question.expires_at
    return min(question.expires_at, question.votes[-1].at + question.spec.for_s)


def rows(revised: Question, voted: Record) -> Sequence[Record]:
    """The vote's own row, and the row of what it made of the question, both in the voter's name."""
    if revised.state is QuestionState.GRANTED:
        return (voted, replace(voted, kind=Kind.GRANTED, code="", payload=None, size=0))
    if revised.state is QuestionState.DENIED:
        return (voted, replace(voted, kind=Kind.QUESTION_DENIED, code="", payload=None, size=0))
    return (voted,)
