"""The approval desk: a human's yes to exactly this call, given in time, and good for one execution.

A question is bound to one digest (`ballot.question_digest`). Equal calls share one question, so a human is asked
once. What the desk promises:

* Only a grant becomes an `Approval`, and each grant becomes exactly one. Identical calls that arrive together do not
  share a yes: whoever loses the race is a new call and is asked for anew (all losers share one new question).
* A caller that cannot wait longer gets a ticket (`ApprovalPending`); its question stays open until it expires, and
  the identical call, repeated, collects the answer. A caller that leaves without a ticket takes its question with
  it, unless others wait for the same one.
* A no is final until the question would have expired: the same call repeated is refused without a human being
  bothered again. Afterwards it may be asked again.
* Deadlines are monotonic; the wall clock only shows them and carries them over a restart. Question and grant share
  one deadline, counted from the asking.
* Votes that do not count are refused and recorded.

Everything durable is in the `RecordStore`; what is kept here is who waits, and the deadlines of this run.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import anyio

from .ballot import OPERATOR, VoteRefused, asked, cast, intact, judge, named, question_digest, row, rows
from .canonical import canonical
from .docket import DeskLimits, Docket
from .errors import ApprovalPending, ApprovalRefused, Denied, InterposerError, RecordFault
from .model import (
    Approval,
    ApprovalTerms,
    Decision,
    Invocation,
    Kind,
    Principal,
    Progress,
    Question,
    QuestionState,
    Record,
    Vote,
)
from .ports import ApprovalChannel, Clock, Masker, RecordStore

__all__ = ["OPERATOR", "Desk", "DeskLimits", "UnknownQuestion", "VoteRefused", "question_digest"]

_ANNOUNCE_S = 10.0
_SWEEP_S = 1.0
_UNHEARD = 1_000
_RETRY_S = (2.0, 10.0)
_LIVE = (QuestionState.OPEN, QuestionState.GRANTED)

_DENIED_PUBLIC = "A human refused this call."
_EXPIRED_PUBLIC = "Nobody approved this call in time."


class UnknownQuestion(InterposerError):
    """No question has this id."""

    public = "No such question."


@dataclass(slots=True)
class _Waiters:
    """The calls of one digest that wait now."""

    count: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)
    opening: anyio.Lock = field(default_factory=anyio.Lock)


@dataclass(slots=True)
class _Heartbeat:
    """Tells a waiting client that it still waits; the values only grow."""

    on_progress: Callable[[Progress], None] | None
    beats: int = 0

    def beat(self, question: str) -> None:
        if self.on_progress is not None:
            self.beats += 1
            self.on_progress(Progress(message=f"Waiting for approval {question}", progress=self.beats))


class Desk:
    """See the module. `new_id("q")` makes question ids. While `run` is running, channels hear of questions and
    questions expire by themselves; without it they expire when someone looks."""

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
        """With a masker, the reasons of votes go into the record, masked."""
        self._store = store
        self._clock = clock
        self._channels = tuple(channels)
        self._new_id = new_id
        self._limits = limits or DeskLimits()
        self._masker = masker
        self._docket = Docket(clock, self._limits)
        self._waiters: dict[str, _Waiters] = {}
        self._loaded = anyio.Event()
        self._loading = anyio.Lock()
        self._unheard: deque[Question] = deque(maxlen=_UNHEARD)
        self._changed = anyio.Event()
        self.revision = 0
        """Grows with every change of any question."""
        self.repeats = 0
        """Calls refused because a human had refused the identical call."""

    async def obtain(
        self,
        invocation: Invocation,
        decision: Decision,
        *,
        hold_s: float,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Approval:
        """Wait at most `hold_s` seconds for a yes to this call, and use it up.

        Raises `ApprovalPending` (ticket), `ApprovalRefused` (a no, or nobody in time), `Denied` named
        `too_many_pending`, `RecordFault`. Cancelled: see the module.
        """
        if decision.terms is None:
            raise Denied("the decision asks for approval without terms", name="no_terms")
        await self._load()
        bound = question_digest(invocation, decision)
        until = anyio.current_time() + hold_s
        heartbeat = _Heartbeat(on_progress)
        waiters = self._waiters.setdefault(bound, _Waiters())
        waiters.count += 1
        try:
            while True:
                id = await self._ask(invocation, decision, decision.terms, bound, waiters)
                question = await self._answer(id, waiters, until, heartbeat)
                if question.state is QuestionState.GRANTED:
                    approval = await self._consume(question, invocation)
                    if approval is not None:
                        return approval
                elif question.state not in (QuestionState.CONSUMED, QuestionState.WITHDRAWN):
                    raise self._unapproved(question)
        finally:
            waiters.count -= 1
            if waiters.count == 0:
                del self._waiters[bound]
                await self._abandon(bound)

    async def vote(self, id: str, voter: Principal, yes: bool, reason: str = "") -> Question:
        """Count one person's answer; the waiting calls hear of it at once.

        Raises `UnknownQuestion`, `VoteRefused` (recorded, except for a missing reason), `RecordFault`.
        """
        await self._load()
        vote = Vote(principal=voter, yes=yes, reason=reason.strip(), at=self._clock.now())
        if not yes and not vote.reason:
            raise VoteRefused("reason_required", "a no needs a reason")
        question = await self.get(id)
        deadline = self._docket.deadline(question)
        voted = self._voted(question, vote)

        def revise(current: Question) -> tuple[Question, Sequence[Record]]:
            # F18: judged inside of the transaction that would write the grant.
            overdue = self._clock.monotonic() >= deadline
            judge(current, vote, overdue=overdue, same_uid=self._limits.refuse_same_uid)
            revised = cast(current, vote)
            return revised, rows(revised, voted)

        with anyio.CancelScope(shield=True):
            try:
                revised = await self._store.revise(id, revise)
            except VoteRefused as refusal:
                await self._store.append(replace(voted, kind=Kind.ALARM, code=f"vote_{refusal.name}"))
                if refusal.name == "expired":
                    await self._close(id, Kind.EXPIRED)
                raise
            self._settle(revised, deadline)
        return revised

    async def get(self, id: str) -> Question:
        """The question as it stands. Raises `UnknownQuestion`."""
        question = await self._store.question(id)
        if question is None:
            raise UnknownQuestion(f"no question {id!r}")
        if not intact(question):
            raise RecordFault(f"{id} is not as it was asked; run `interposer record verify`")
        return question

    async def pending(self) -> list[Question]:
        """The questions that a human can still answer, oldest first."""
        await self.sweep()
        return await self._store.questions(unanswered=True)

    async def questions(self) -> list[Question]:
        """All questions, newest first, at most 1,000."""
        await self.sweep()
        return await self._store.questions(unanswered=False)

    async def sweep(self) -> int:
        """End every question and every unused grant whose time is over; how many there were."""
        await self._load()
        due = self._docket.due()
        for id in due:
            await self._close(id, Kind.EXPIRED)
        return len(due)

    async def changes(self, since: int, wait_s: float) -> int:
        """The revision, as soon as it is not `since`, or after `wait_s` seconds."""
        with anyio.move_on_after(wait_s):
            while self.revision == since:
                await self._changed.wait()
        return self.revision

    async def run(self) -> None:
        """Announce and expire, until cancelled."""
        await self._load()
        while True:
            changed = self._changed
            await self._announce()
            # Votes and grants look at the deadline themselves; the row is written when the store can again.
            with contextlib.suppress(RecordFault):
                await self.sweep()
            with anyio.move_on_after(_SWEEP_S if self._docket.standing else None):
                await changed.wait()

    async def _load(self) -> None:
        """Once: what an earlier run left behind. Whoever asked then can only come back as with a ticket."""
        if self._loaded.is_set():
            return
        async with self._loading:
            if self._loaded.is_set():
                return
            newest_first = await self._store.questions(unanswered=False)
            for question in (*newest_first[::-1], *await self._store.questions(unanswered=True)):
                if question.state is QuestionState.DENIED:
                    self._docket.refuse(question, self._docket.deadline(question))
                elif question.state in _LIVE:
                    self._docket.enter(question).ticketed = True
            self._loaded.set()

    async def _ask(
        self, invocation: Invocation, decision: Decision, terms: ApprovalTerms, bound: str, waiters: _Waiters
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
                if question.state not in _LIVE:
                    self._docket.drop(known)
                elif self._docket.overdue(question):
                    await self._close(known, Kind.EXPIRED)
                else:
                    return known

    async def _open(self, fresh: Question) -> Question:
        self._docket.reserve(fresh.session)
        try:
            with anyio.CancelScope(shield=True):
                record = row(fresh, Kind.QUESTION_OPENED, at=fresh.asked_at)
                question = await self._store.open_question(fresh, record)
        finally:
            self._docket.release(fresh.session)
        self._docket.enter(question)
        if question.id == fresh.id:
            self._tell(question)
        return question

    def _refuse_repeat(self, bound: str) -> None:
        question = self._docket.refused(bound)
        if question:
            self.repeats += 1
            raise ApprovalRefused(f"{question} was denied", question=question, public=_DENIED_PUBLIC)

    async def _answer(self, id: str, waiters: _Waiters, until: float, heartbeat: _Heartbeat) -> Question:
        """The question once it has ended, or still open when the hold is over."""
        while True:
            # Taken before the question is read: a change between the two is not lost.
            changed = waiters.changed
            question = await self.get(id)
            if question.state is not QuestionState.OPEN:
                return question
            deadline = self._docket.deadline(question)
            while not changed.is_set():
                left = min(until - anyio.current_time(), deadline - self._clock.monotonic())
                if left <= 0:
                    break
                heartbeat.beat(id)
                with anyio.move_on_after(min(left, self._limits.heartbeat_s)):
                    await changed.wait()
            if changed.is_set():
                continue
            if self._clock.monotonic() < deadline:
                return question
            await self._close(id, Kind.EXPIRED)

    def _unapproved(self, question: Question) -> ApprovalPending | ApprovalRefused:
        """What the caller is told of a question that is open, denied or expired."""
        if question.state is QuestionState.OPEN:
            self._docket.enter(question).ticketed = True
            shortest, longest = _RETRY_S
            retry_after_s = max(shortest, min(longest, (self._clock.now() - question.asked_at) / 6))
            return ApprovalPending(question=question.id, expires_at=question.expires_at, retry_after_s=retry_after_s)
        if question.state is QuestionState.EXPIRED:
            return ApprovalRefused(f"{question.id} expired", question=question.id, public=_EXPIRED_PUBLIC)
        reason = next((vote.reason for vote in question.votes if not vote.yes), "")
        return ApprovalRefused(f"{question.id} was denied: {reason}", question=question.id, public=_DENIED_PUBLIC)

    async def _consume(self, question: Question, invocation: Invocation) -> Approval | None:
        """None: the yes is gone, to an identical call or with its time."""
        known = self._docket.standing.get(question.id)
        if known is None:
            return None
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
        return Approval(question=question.id, digest=question.digest, approvers=approvers)

    async def _abandon(self, bound: str) -> None:
        """F17: nobody waits for this question and nobody was told to come back, so no yes may follow."""
        id = self._docket.current.get(bound, "")
        standing = self._docket.standing.get(id)
        if standing is None or standing.ticketed:
            return
        try:
            await self._close(id, Kind.QUESTION_WITHDRAWN, code="client_gone")
        except RecordFault:
            standing.ticketed = True  # It stays, as if with a ticket, until it expires.

    async def _close(self, id: str, kind: Kind, *, code: str = "") -> None:
        """End a question that is open or granted; nothing happens to one that has ended."""
        with anyio.CancelScope(shield=True):
            record = row(await self.get(id), kind, at=self._clock.now(), code=code)
            closed = await self._store.close_question(id, record)
            self._docket.drop(id)
            if closed:
                self._tell(await self.get(id))

    def _settle(self, question: Question, deadline: float) -> None:
        if question.state is QuestionState.GRANTED:
            self._docket.answered(question.id)
        elif question.state is QuestionState.DENIED:
            self._docket.drop(question.id)
            self._docket.refuse(question, deadline)
        self._tell(question)

    def _tell(self, question: Question) -> None:
        """Wake who waits for this question, then everyone who watches."""
        waiters = self._waiters.get(question.digest)
        if waiters is not None:
            waiters.changed.set()
            waiters.changed = anyio.Event()
        if self._channels:
            self._unheard.append(question)
        self.revision += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def _announce(self) -> None:
        while self._unheard:
            question = self._unheard.popleft()
            for channel in self._channels:
                # A channel holds no state: who was not told finds the question in the list.
                with contextlib.suppress(InterposerError, OSError, RuntimeError, ValueError):
                    with anyio.move_on_after(_ANNOUNCE_S):
                        await channel.announce(question)

    def _voted(self, question: Question, vote: Vote) -> Record:
        payload = None
        if vote.reason and self._masker is not None:
            payload = canonical(self._masker.mask({"reason": vote.reason}, frozenset({"pii", "secrets"})).value)
        voted = row(question, Kind.VOTED, at=vote.at, code="yes" if vote.yes else "no")
        return replace(voted, principal=vote.principal, payload=payload, size=len(payload or b""))
