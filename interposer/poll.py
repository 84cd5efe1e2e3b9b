"""The poll: people's answers, counted in the transaction that writes what comes of them.

Votes that do not count are refused and recorded. A yes may put something else on the table (narrower arguments, a
standing grant), and then is a yes to that: what others agreed to before does not count for it. What was agreed to can
be taken back, with effect on calls that are under way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import anyio

from . import grants
from .ballot import (
    ELICITED,
    OPERATOR,
    VoteRefused,
    cast,
    changed,
    judge,
    judge_break_glass,
    may_answer,
    row,
    rows,
    version_of,
)
from .canonical import parse
from .errors import Denied, InterposerError
from .grant import Grant, KeptState
from .model import Kind, Principal, Question, QuestionState, Record, Vote
from .ports import Revision
from .questions import Questions, UnknownQuestion
from .terms import GrantSpec

_TAKEN_BACK = 1_000


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an approver puts on the table."""

    amended: bytes = b""
    """Canonical JSON of the arguments; empty: as asked."""
    spec: GrantSpec | None = None
    """The standing grant; None: this call, once."""


async def _unreviewed(question: Question, amended: bytes) -> None:
    raise VoteRefused("amendment_refused", "this broker cannot judge other arguments")


class Poll(Questions):
    """See the module."""

    review: Callable[[Question, bytes], Awaitable[None]] = staticmethod(_unreviewed)
    """Whether policy would let these arguments be asked for on the same terms. Raises `VoteRefused`."""

    async def vote(
        self,
        id: str,
        voter: Principal,
        yes: bool,
        reason: str = "",
        *,
        version: str = "",
        proposal: Proposal | None = None,
    ) -> Question:
        """Count one person's answer; the waiting calls hear of it at once. With `version` (`ballot.version_of`), only
        if that is what is on the table. A proposal goes with a yes.

        Raises `UnknownQuestion`, `VoteRefused` (recorded, except for a missing reason), `RecordFault`.
        """
        vote = Vote(principal=voter, yes=yes, reason=reason.strip(), at=self._clock.now(), version=version)
        if not yes and not vote.reason:
            raise VoteRefused("reason_required", "a no needs a reason")
        await self._load()
        question = await self.get(id)
        if yes and proposal is not None and proposal.amended:
            await self._reviewed(question, vote, proposal.amended)

        def answered(current: Question, overdue: bool) -> _Answered:
            if version and version != version_of(current):
                raise VoteRefused("other_digest", f"{id} is not about the call with this digest; look again")
            tabled = changed(current, proposal.amended, proposal.spec) if yes and proposal else current
            judge(tabled, replace(vote, version=""), overdue=overdue, same_uid=self._limits.refuse_same_uid)
            if tabled.spec is not None:
                grants.fits_cap(tabled.spec, tabled)
            before = () if version_of(tabled) == version_of(current) else (self._amended(tabled, vote),)
            return _Answered(cast(tabled, replace(vote, version=version_of(tabled))), before)

        return await self._answered(question, vote, Kind.VOTED, answered)

    async def confirm(
        self, id: str, requester: Principal, yes: bool, reason: str = "", *, version: str = ""
    ) -> Question:
        """What the caller's client says that its own user answered; counts only where policy lets the caller confirm.
        Raises as `vote` does; `UnknownQuestion` for somebody else's question."""
        question = await self.get(id)
        if question.requester.identity() != requester.identity():
            raise UnknownQuestion(f"no question {id!r} of this caller's")
        person = Principal(ELICITED, requester.subject, client_id=requester.issuer, machine=requester.machine)
        reason = reason or ("" if yes else "declined by the caller's own user")
        return await self.vote(id, person, yes, reason, version=version)

    async def break_glass(self, id: str, voter: Principal, reason: str, *, version: str = "") -> Question:
        """One person overrides the terms for this call, once, with a reason: recorded, and an alarm. Raises as `vote`
        does."""
        vote = Vote(voter, True, reason.strip(), self._clock.now(), version, broke_glass=True)
        await self._load()
        question = await self.get(id)

        def answered(current: Question, overdue: bool) -> _Answered:
            if version and version != version_of(current):
                raise VoteRefused("other_digest", f"{id} is not about the call with this digest; look again")
            once = changed(current, current.amended, None)
            may, same_uid = self._limits.may_break_glass(voter), self._limits.refuse_same_uid
            judge_break_glass(once, vote, overdue=overdue, may=may, same_uid=same_uid)
            return _Answered(cast(once, replace(vote, version=version_of(once))))

        revised = await self._answered(question, vote, Kind.BROKE_GLASS, answered)
        alarm = replace(row(revised, Kind.ALARM, at=vote.at, code="broke_glass"), principal=voter)
        with anyio.CancelScope(shield=True):
            await self._store.append(alarm)
        return revised

    async def revoke(self, id: str, by: Principal, reason: str) -> None:
        """Take back all that was agreed to with a question, by its id or that of the grant which came of it: its unused
        yes, the grant, and what is under way under either. Raises `UnknownQuestion`, `VoteRefused` (recorded, except
        for a missing reason), `RecordFault`."""
        if not reason.strip():
            raise VoteRefused("reason_required", "taking a yes back needs a reason")
        await self._load()
        question = await self.get(await self._question_of(id))
        try:
            if not (by.issuer == OPERATOR or may_answer(by, question.terms)) or by.machine:
                raise VoteRefused("not_approver", f"{by.issuer}:{by.subject} is not among the approvers of {id}")
            if not await self._revoked(question, by, self._masked({"reason": reason.strip()})):
                raise VoteRefused("ended", f"nothing of {id} is left to take back; an open question is denied instead")
        except VoteRefused as refusal:
            alarm = row(question, Kind.ALARM, at=self._clock.now(), code=f"revoke_{refusal.name}")
            await self._store.append(replace(alarm, principal=by))
            raise
        self._stir()

    async def _question_of(self, id: str) -> str:
        """A question's id, or that of the question that a grant came of."""
        for active in (True, False):
            for grant in await self._store.grants(active=active):
                if grant.id == id:
                    return grant.question
        return id

    async def withdraw(self, id: str, requester: Principal, *, code: str = "requester") -> bool:
        """The requester takes its question back; False when it had ended. Raises `UnknownQuestion` for others. `code`:
        a short constant for the record, where it was done in the requester's place."""
        await self._load()
        question = await self.get(id)
        if question.requester.identity() != requester.identity():
            raise UnknownQuestion(f"no question {id!r} of this caller's")
        self._note_taken_back(id)
        return await self._close(id, Kind.QUESTION_WITHDRAWN, code=code)

    async def _reviewed(self, question: Question, vote: Vote, amended: bytes) -> None:
        try:
            await self.review(question, amended)
        except VoteRefused as refusal:
            await self._refused(question, vote, refusal)
            raise
        except (Denied, InterposerError) as refusal:
            raise VoteRefused("amendment_refused", f"these arguments are refused: {refusal}") from refusal

    async def _answered(
        self, question: Question, vote: Vote, kind: Kind, answer: Callable[[Question, bool], _Answered]
    ) -> Question:
        deadline = self._docket.deadline(question)
        given: list[Grant] = []
        said = {"reason": vote.reason, **({"digest": vote.version} if vote.version else {})}
        payload = self._masked(said) if vote.reason else None

        def revise(current: Question) -> Revision:
            # F18: judged inside of the transaction that would write the grant.
            left = deadline - self._clock.monotonic()
            revised, before = answer(current, left <= 0)
            code = "" if kind is Kind.BROKE_GLASS else "yes" if vote.yes else "no"
            voted = replace(row(revised, kind, at=vote.at, code=code), principal=vote.principal)
            voted = replace(voted, payload=payload, size=len(payload or b""))
            records = [*before, *rows(revised, voted)]
            grant = None
            if revised.state is QuestionState.GRANTED and revised.spec is not None and revised.spec.uses != 1:
                grant = grants.given(self._new_id("g"), revised, revised.spec, now=vote.at)
                records.append(self._given(grant, vote.principal))
                given.append(grant)
            # The store compares with `expires_at`; told the time this way, it judges by the monotonic deadline.
            return Revision(revised, records, grant, now=current.expires_at - left)

        with anyio.CancelScope(shield=True):
            try:
                revised = await self._store.revise(question.id, revise)
            except VoteRefused as refusal:
                await self._refused(question, vote, refusal)
                if refusal.name == "expired":
                    await self._close(question.id, Kind.EXPIRED)
                raise
            self._settle(revised, deadline, given)
        return revised

    async def _refused(self, question: Question, vote: Vote, refusal: VoteRefused) -> None:
        alarm = row(question, Kind.ALARM, at=vote.at, code=f"vote_{refusal.name}")
        await self._store.append(replace(alarm, principal=vote.principal))

    def _settle(self, question: Question, deadline: float, given: list[Grant]) -> None:
        if question.state is QuestionState.GRANTED:
            self._docket.answered(question)
        elif question.state is QuestionState.DENIED:
            self._docket.drop(question.id)
            self._docket.refuse(question, deadline)
        for grant in given:
            self._register.enter(grant)
        if given:
            # Whoever waits for another question may be covered by it.
            for waiters in tuple(self._waiters.values()):
                waiters.wake()
        self._tell(question)

    def _amended(self, tabled: Question, vote: Vote) -> Record:
        payload = self._masked(
            {
                "digest": version_of(tabled),
                "arguments": parse(tabled.amended) if tabled.amended else None,
                "grant": grants.spec_json(tabled.spec),
            }
        )
        amended = replace(row(tabled, Kind.AMENDED, at=vote.at), principal=vote.principal)
        return replace(amended, payload=payload, size=len(payload or b""))

    def _given(self, grant: Grant, by: Principal) -> Record:
        payload = grants.stated(grant)
        given = grants.row(grant, Kind.GRANT_GIVEN, at=grant.given_at, by=by, code=grant.question)
        return replace(given, payload=payload, size=len(payload))

    async def _revoked(self, question: Question, by: Principal, payload: bytes | None) -> bool:
        """Take back all that was agreed to with a question; False where nothing was left of it."""
        if question.state is QuestionState.OPEN:
            return False
        with anyio.CancelScope(shield=True):
            cut = self._register.cut(question.id)
            ended = [await self._register.end(grant, by, payload) for grant in self._register.of(question.id)]
            if question.state is QuestionState.GRANTED:
                self._note_taken_back(question.id)
                record = row(question, Kind.QUESTION_WITHDRAWN, at=self._clock.now(), code="revoked")
                record = replace(record, principal=by, payload=payload, size=len(payload or b""))
                ended.append(await self._store.close_question(question.id, record))
                self._docket.drop(question.id)
                self._tell(await self.get(question.id))
            kept = await self._store.kept(question.id)
            if cut or (kept is not None and kept.state is KeptState.RUNNING):
                alarm = row(question, Kind.ALARM, at=self._clock.now(), code="revoked_under_way")
                await self._store.append(replace(alarm, principal=by, payload=payload, size=len(payload or b"")))
                ended.append(True)
        return any(ended)

    def _note_taken_back(self, id: str) -> None:
        self._taken_back[id] = None
        if len(self._taken_back) > _TAKEN_BACK:
            del self._taken_back[next(iter(self._taken_back))]


class _Answered(NamedTuple):
    """The question with a vote that counts, and the rows of what was put on the table before it."""

    question: Question
    before: tuple[Record, ...] = ()
