"""The approval desk: a human's yes to exactly this call, given in time, and good for one execution.

A question is bound to one digest (`ballot.question_digest`). Equal calls share one question, so a human is asked
once. What the desk promises:

* Only a grant becomes an `Approval`, and each grant becomes exactly one. Identical calls that arrive together do not
  share a yes: whoever loses the race is a new call and is asked for anew (all losers share one new question).
* A yes to more than this call is a standing grant (`grants.py`): listed, bounded, revocable. A yes to other arguments
  than the caller's is a yes to those alone.
* A caller that cannot wait longer gets a ticket (`ApprovalPending`); its question stays open until it expires, and
  the identical call, repeated, collects the answer. A caller that leaves without a ticket takes its question with
  it, unless others wait for the same one.
* What became of an approved call whose caller had left is told to the identical call, once.
* A no is final until the question would have expired: the same call repeated is refused without a human being
  bothered again. Afterwards it may be asked again.
* Deadlines are monotonic; question and unused yes share one, counted from the asking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import anyio

from .ballot import OPERATOR, VoteRefused, asked, call_digest, named, question_digest, row
from .docket import DeskLimits
from .errors import ApprovalPending, ApprovalRefused, Denied, RecordFault
from .grant import Kept, KeptState, Telling
from .model import Approval, Decision, Invocation, Kind, Progress, Question, QuestionState
from .poll import Poll, Proposal
from .ports import ApprovalChannel, Clock, Masker, RecordStore
from .questions import LIVE, UnknownQuestion, Waiters
from .terms import ApprovalTerms
from .windows import is_open

__all__ = ["OPERATOR", "Desk", "DeskLimits", "Proposal", "UnknownQuestion", "VoteRefused", "question_digest"]

_RETRY_S = (2.0, 10.0)

_DENIED_PUBLIC = "A human refused this call."
_EXPIRED_PUBLIC = "Nobody approved this call in time."
_TAKEN_BACK_PUBLIC = "The question was taken back before this call was made."
_SESSION_PUBLIC = "This call was approved, but for another session only."
_HOURS_PUBLIC = "This call was approved, but policy lets it be made only in certain hours."


@dataclass(slots=True)
class _Waiting:
    """One call that waits: until when, and who is told of it."""

    until: float
    on_progress: Callable[[Progress], None] | None
    on_question: Callable[[Question], float | None] | None
    beats: int = 0
    told: str = ""

    def beat(self, question: str) -> None:
        """The client hears that it still waits; the values only grow."""
        if self.on_progress is not None:
            self.beats += 1
            self.on_progress(Progress(message=f"Waiting for approval {question}", progress=self.beats))

    def tell(self, question: Question) -> None:
        if self.on_question is not None and question.id != self.told:
            self.told = question.id
            hold_s = self.on_question(question)
            if hold_s is not None:
                self.until = anyio.current_time() + hold_s


class Desk(Poll):
    """See the module, and `questions.Questions` for how it is made and run."""

    def __init__(
        self,
        store: RecordStore,
        clock: Clock,
        channels: Sequence[ApprovalChannel],
        new_id: Callable[[str], str],
        limits: DeskLimits | None = None,
        *,
        masker: Masker | None = None,
    ) -> None:
        super().__init__(store, clock, channels, new_id, limits, masker=masker)
        self.repeats = 0
        """Calls refused because a human had refused the identical call."""

    async def obtain(
        self,
        invocation: Invocation,
        decision: Decision,
        *,
        hold_s: float,
        on_progress: Callable[[Progress], None] | None = None,
        on_question: Callable[[Question], float | None] | None = None,
    ) -> Approval:
        """Wait at most `hold_s` seconds for a yes to this call, and use it up. `on_question` hears what it waits for,
        and may say how long to hold for it.

        Raises `ApprovalPending` (ticket), `ApprovalRefused` (a no, nobody in time, or taken back), `Denied` named
        `too_many_pending`, `too_many_questions` or `outside_hours`, `RecordFault`. Cancelled: see the module.
        """
        if decision.terms is None:
            raise Denied("the decision asks for approval without terms", name="no_terms")
        await self._load()
        bound = question_digest(invocation, decision)
        waiting = _Waiting(anyio.current_time() + hold_s, on_progress, on_question)
        waiters = self._waiters.setdefault(bound, Waiters())
        waiters.count += 1
        try:
            while True:
                standing = await self._use(bound, invocation, decision)
                if standing is not None:
                    return standing
                id = await self._ask(invocation, decision, decision.terms, bound, waiters)
                question = await self._answer(id, invocation, decision, waiters, waiting)
                if question is None:
                    continue
                if question.state is QuestionState.GRANTED:
                    approval = await self._consume(question, invocation)
                    if approval is not None:
                        return approval
                elif question.id in self._taken_back or question.state not in (
                    QuestionState.CONSUMED,
                    QuestionState.WITHDRAWN,
                ):
                    raise self._unapproved(question)
        finally:
            waiters.count -= 1
            if waiters.count == 0:
                del self._waiters[bound]
                await self._abandon(bound)

    async def claim(self, id: str, invocation: Invocation) -> Approval | None:
        """Use up the yes to this question, for a call that is carried out without its caller; None when it is gone.
        Raises `Denied` named `outside_hours`, `UnknownQuestion`, `RecordFault`."""
        await self._load()
        question = await self.get(id)
        if question.state is not QuestionState.GRANTED or question.call != call_digest(invocation):
            return None
        return await self._consume(question, invocation)

    def in_hours(self, question: Question) -> bool:
        """Whether policy lets a yes to it be used now."""
        broke_glass = any(vote.broke_glass for vote in question.votes)
        return broke_glass or is_open(question.terms.windows, self._clock.now())

    def awaited(self, question: Question) -> bool:
        """Whether a call waits for this question now."""
        return question.digest in self._waiters

    async def granted(self) -> list[str]:
        """The questions whose yes waits to be used, oldest first; of earlier runs too."""
        await self._load()
        return [id for id, standing in self._docket.standing.items() if not standing.open]

    def revocable(self, approval: Approval | None) -> AbstractContextManager[anyio.CancelScope]:
        """A scope that is cancelled within a moment when the yes behind it is taken back."""
        return self._register.revocable(approval)

    # -- outcomes that are kept

    async def collect(self, invocation: Invocation, *, hold_s: float) -> Kept | None:
        """What became of an identical approved call that nobody was told, for the first who asks; see
        `outbox.Outbox.collect`. Costs nothing where nothing is kept."""
        await self._load()
        return await self._outbox.collect(call_digest(invocation), hold_s=hold_s) if self._outbox else None

    async def kept(self, question: str) -> Kept | None:
        """What is kept of a question's call, delivered or not."""
        return await self._store.kept(question)

    async def keep(
        self, approval: Approval, call: str, state: KeptState, body: bytes, withheld: str, telling: Telling
    ) -> None:
        """What became of an approved call (`ballot.call_digest` of what was asked); nothing for a use of a standing
        grant. Raises `RecordFault`."""
        if not approval.grant:
            await self._outbox.keep(approval.question, call, state, body, withheld, telling)
            self._stir()

    async def told(self, question: str) -> None:
        """Whoever asked has had the outcome. Raises `RecordFault`."""
        await self._outbox.told(question)

    def untold(self, question: str, call: str) -> None:
        """Whoever was to have it has left: it waits for the identical call."""
        self._outbox.untold(question, call)

    def errand(self, question: Question) -> AbstractContextManager[None]:
        """While a question's call is carried out without its caller."""
        return self._outbox.errand(question)

    # -- asking

    async def _use(self, bound: str, invocation: Invocation, decision: Decision) -> Approval | None:
        """A use of a standing grant, unless a yes to this very call waits to be used."""
        if not self._register.standing or self._docket.granted(bound):
            return None
        approval = await self._register.use(invocation, decision)
        if approval is None:
            return None
        asked = self._docket.current.get(bound)
        if asked is not None:
            # The call that it was about is made by now: a yes to it would be one to a second call.
            await self._close(asked, Kind.QUESTION_WITHDRAWN, code="covered")
        self._stir()
        return approval

    async def _ask(
        self, invocation: Invocation, decision: Decision, terms: ApprovalTerms, bound: str, waiters: Waiters
    ) -> str:
        """Open a question, or join the one of this digest that is open or granted and not overdue."""
        async with waiters.opening:
            while True:
                self._refuse_repeat(bound)
                known = self._docket.current.get(bound)
                if known is None:
                    fresh = asked(self._new_id("q"), invocation, decision, terms, now=self._clock.now())
                    question = await self._open(fresh)
                    if question.id == fresh.id:
                        # Again: a no to the last one may have come while the store was at it.
                        self._refuse_repeat(bound)
                        return fresh.id
                    continue
                question = await self.get(known)
                if question.state not in LIVE:
                    self._docket.drop(known)
                elif self._docket.overdue(question):
                    await self._close(known, Kind.EXPIRED)
                else:
                    return known

    async def _open(self, fresh: Question) -> Question:
        self._docket.reserve(fresh)
        try:
            with anyio.CancelScope(shield=True):
                record = row(fresh, Kind.QUESTION_OPENED, at=fresh.asked_at)
                question = await self._store.open_question(fresh, record)
        finally:
            self._docket.release(fresh)
        self._docket.enter(question)
        if question.id == fresh.id:
            self._tell(question)
        return question

    def _refuse_repeat(self, bound: str) -> None:
        question = self._docket.refused(bound)
        if question:
            self.repeats += 1
            raise ApprovalRefused(f"{question} was denied", question=question, public=_DENIED_PUBLIC)

    async def _answer(
        self, id: str, invocation: Invocation, decision: Decision, waiters: Waiters, waiting: _Waiting
    ) -> Question | None:
        """The question once it has ended, or still open when the hold is over; None when a standing grant covers the
        call by now."""
        while True:
            # Taken before the question is read: a change between the two is not lost.
            changed = waiters.changed
            question = await self.get(id)
            if question.state is not QuestionState.OPEN:
                return question
            if self._register.carries(invocation, decision):
                return None
            waiting.tell(question)
            deadline = self._docket.deadline(question)
            while not changed.is_set():
                left = min(waiting.until - anyio.current_time(), deadline - self._clock.monotonic())
                if left <= 0:
                    break
                waiting.beat(id)
                with anyio.move_on_after(min(left, self._limits.heartbeat_s)):
                    await changed.wait()
            if changed.is_set():
                continue
            if self._clock.monotonic() < deadline:
                return question
            await self._close(id, Kind.EXPIRED)

    def _unapproved(self, question: Question) -> ApprovalPending | ApprovalRefused:
        """What the caller is told of a question that is open, denied, expired or taken back."""
        if question.state is QuestionState.OPEN:
            self._docket.enter(question).ticketed = True
            shortest, longest = _RETRY_S
            retry_after_s = max(shortest, min(longest, (self._clock.now() - question.asked_at) / 6))
            return ApprovalPending(question=question.id, expires_at=question.expires_at, retry_after_s=retry_after_s)
        if question.state is QuestionState.EXPIRED:
            return ApprovalRefused(f"{question.id} expired", question=question.id, public=_EXPIRED_PUBLIC)
        if question.state is QuestionState.WITHDRAWN:
            return ApprovalRefused(f"{question.id} was taken back", question=question.id, public=_TAKEN_BACK_PUBLIC)
        reason = next((vote.reason for vote in question.votes if not vote.yes), "")
        return ApprovalRefused(f"{question.id} was denied: {reason}", question=question.id, public=_DENIED_PUBLIC)

    async def _consume(self, question: Question, invocation: Invocation) -> Approval | None:
        """None: the yes is gone, to an identical call or with its time."""
        known = self._docket.standing.get(question.id)
        if known is None:
            return None
        if not self.in_hours(question):
            known.ticketed = True
            raise Denied("approved, and outside of its hours now", name="outside_hours", message=_HOURS_PUBLIC)
        if question.spec is not None and question.spec.session and question.session != invocation.session:
            known.ticketed = True
            raise Denied("approved for another session", name="other_session", message=_SESSION_PUBLIC)
        record = replace(
            row(question, Kind.CONSUMED, at=self._clock.now()), session=invocation.session, invocation=invocation.id
        )
        # The store compares with `expires_at`; told the time this way, it judges by the monotonic deadline.
        now = question.expires_at - (known.deadline - self._clock.monotonic())
        with anyio.CancelScope(shield=True):
            won = await self._store.consume(question.id, question.digest, now, record)
            if not won:
                # Ends it if it was the deadline; if an identical call was faster, it has ended already.
                await self._close(question.id, Kind.EXPIRED)
                return None
        self._docket.drop(question.id)
        self._tell(replace(question, state=QuestionState.CONSUMED))
        approvers = tuple(named(vote.principal) for vote in question.votes if vote.yes)
        return Approval(question.id, question.digest, approvers, amended=question.amended)

    async def _abandon(self, bound: str) -> None:
        """F17: nobody waits for this question and nobody was told to come back, so no yes may follow."""
        id = self._docket.current.get(bound, "")
        standing = self._docket.standing.get(id)
        if standing is None or standing.ticketed:
            return
        if standing.executes:
            standing.ticketed = True
            return
        try:
            await self._close(id, Kind.QUESTION_WITHDRAWN, code="client_gone")
        except RecordFault:
            standing.ticketed = True  # It stays, as if with a ticket, until it expires.
