"""What becomes of approved calls: kept when they end, and told to the caller that comes back instead of a second call.

An answer that got lost is no reason to make a call twice. What is kept is given to whoever repeats the identical call
first, and again only to whoever shows the sealed state of the very question.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio

from .asking import Asker, attended
from .ballot import call_digest
from .canonical import Malformed
from .carried import Carried, body_of, body_of_refusal, retold
from .catalogue import Offer
from .desk import Desk
from .errors import ApprovalPending, Denied, InterposerError, Refusal, Unavailable
from .grant import Kept, KeptState, Telling
from .journal import Journal
from .model import Approval, Call, Decision, Invocation, Masked, Permit, Principal, Question, QuestionState, Skill
from .ports import Masker

_REMEMBERED = 10_000
_RETRY_AFTER_S = 2.0
_LOOK_S = 2.0
"""How often an outcome is looked for that is kept late: nobody is told of that."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A call that may cross, as it was asked for."""

    call: Call
    asker: Asker
    asked: Invocation
    offer: Offer
    shown: Masked
    """Its arguments."""
    question: Question | None = None
    """The one whose yes carries it; None: whatever the desk says."""


class Keeping:
    """See the module."""

    def __init__(self, desk: Desk, journal: Journal, masker: Masker) -> None:
        self._desk = desk
        self._journal = journal
        self._masker = masker
        self._nothing = masker.mask(None, frozenset())
        self._recalled: dict[tuple[str, bool], None] = {}
        """Questions whose outcome was asked for without a call, and whether it was withheld: on record in this run."""

    # -- keeping

    async def keep(self, crossing: Crossing, permit: Permit, carried: Carried, *, delivered: bool) -> None:
        """How an approved call ended. Nothing stops it; what cannot be written stays under way, and is in doubt after
        the next start. `delivered`: its caller is here, and is given it."""
        if permit.approval is None or permit.approval.grant:
            return
        recorded = permit.decision.obligations.record != "none"
        try:
            body, withheld = body_of(carried, recorded=recorded), carried.withheld
        except Malformed:
            body, withheld = b"", carried.withheld or "it cannot be kept"
        call, tell = call_digest(crossing.asked), crossing.call.on_outcome
        telling = Telling.WAITING if not delivered else Telling.TOLD if tell is None else Telling.IN_HAND
        await self._keep(permit.approval, call, carried.state, body, withheld, telling)
        if delivered and tell is not None:
            tell(permit.approval.question, call)

    async def spent(self, crossing: Crossing, approval: Approval | None, fault: InterposerError | None = None) -> None:
        """A yes is used up, and its call was not made after all; nothing stops this either. Without a fault its caller
        left, and there is nothing to tell: the identical call is asked for anew."""
        if approval is None or approval.grant:
            return
        refusal = fault if isinstance(fault, Refusal) else Unavailable("it was approved, and could not be made")
        # Nothing was sent: a caller that misses this repeats the call, and it is asked for anew.
        telling = Telling.TOLD if fault is None or crossing.asker.waits else Telling.WAITING
        call, body = call_digest(crossing.asked), body_of_refusal(refusal)
        await self._keep(approval, call, KeptState.FAILED, body, "", telling)

    async def revoked(self, crossing: Crossing, permit: Permit) -> Denied:
        """The yes was taken back before anything was sent: so it is on record, however far the call had come."""
        refusal = Denied(
            "the approval was revoked",
            name="revoked",
            message="The approval of this call was taken back before it was made.",
        )
        with anyio.CancelScope(shield=True), suppress(InterposerError):
            await self._journal.abandon(permit)
            if self._journal.under_way(permit.invocation):
                await self._journal.refuse(
                    refusal, session=crossing.call.session, invocation=permit.invocation, decision=permit.decision
                )
        self._journal.forget(permit.invocation)
        await self.spent(crossing, permit.approval, refusal)
        return refusal

    async def withdraw(self, question: Question) -> None:
        """Take a yes back that cannot be used; one that is used up stays so. Raises `RecordFault`."""
        if (await self._desk.get(question.id)).state is QuestionState.GRANTED:
            await self._desk.withdraw(question.id, question.requester, code="refused")

    async def _keep(
        self, approval: Approval, call: str, state: KeptState, body: bytes, withheld: str, telling: Telling
    ) -> None:
        with anyio.CancelScope(shield=True), suppress(InterposerError):
            await self._desk.keep(approval, call, state, body, withheld, telling)

    # -- telling

    async def earlier(self, call: Call, asker: Asker, invocation: Invocation) -> Kept | None:
        """What became of this very call when it was approved before, if its caller has not heard of it yet or shows
        that it was its own. Costs next to nothing where nothing is kept. Raises `ApprovalPending` while it is being
        made and `hold_s` is over, and what `asker.again` raises."""
        if call.question:
            own = await self._own(call, asker, invocation)
            if own is not None:
                return own
        try:
            return await self._desk.collect(invocation, hold_s=0.0)
        except ApprovalPending:
            if call.hold_s <= 0:
                raise

        async def collect() -> Kept | None:
            return await self._desk.collect(invocation, hold_s=call.hold_s)

        return await self._awaited(asker, invocation, collect)

    async def _own(self, call: Call, asker: Asker, invocation: Invocation) -> Kept | None:
        kept = await self._desk.kept(call.question)
        if kept is None or kept.call != call_digest(invocation):
            return None
        if kept.state is KeptState.RUNNING:
            pending = ApprovalPending(
                question=kept.question, expires_at=kept.expires_at, retry_after_s=_RETRY_AFTER_S, running=True
            )
            kept = await self._awaited(asker, invocation, lambda: self._ended(call, pending))
        return kept

    async def _ended(self, call: Call, pending: ApprovalPending) -> Kept | None:
        with anyio.move_on_after(call.hold_s):
            while True:
                revision = self._desk.revision
                kept = await self._desk.kept(call.question)
                if kept is None or kept.state is not KeptState.RUNNING:
                    return kept
                await self._desk.changes(revision, _LOOK_S)
        raise pending

    async def _awaited(
        self, asker: Asker, invocation: Invocation, look: Callable[[], Awaitable[Kept | None]]
    ) -> Kept | None:
        found: list[Kept | None] = []

        async def work() -> None:
            found.append(await look())

        await attended(asker, invocation, work)
        return found[0]

    async def tell(self, kept: Kept, call: Call, invocation: Invocation, decision: Decision) -> Carried:
        """Tell how it ended in place of making the call. Raises the `Refusal` that was kept in its place."""
        try:
            carried = self.read(kept, invocation.skill, decision.obligations.mask)
        except Refusal:
            await self.deliver(kept, None)
            raise
        if not await self._record(kept, call, invocation, decision):
            withheld = "that it was told could not be recorded"
            carried = replace(carried, masked=self._nothing, amended=None, withheld=withheld)
        return carried

    def read(self, kept: Kept, skill: Skill, profiles: frozenset[str]) -> Carried:
        """How it ended, masked anew. Raises the `Refusal` that was kept in its place."""
        return retold(kept, skill, lambda value: self._masker.mask(value, profiles), self._nothing)

    async def _record(self, kept: Kept, call: Call, invocation: Invocation, decision: Decision) -> bool:
        """The call is not made, for it was: on record before it is told, whoever leaves meanwhile. False when that
        could not be written."""
        with anyio.CancelScope(shield=True):
            try:
                await self._journal.told(invocation, decision, kept)
            except InterposerError:
                self._journal.forget(invocation)
                return False
            finally:
                await self.deliver(kept, call)
        return True

    async def recall(self, question: Question, kept: Kept, call: Call) -> bool:
        """Whoever asked comes for the outcome: on record when they first do, for a client may look every second. False
        after that. Raises `RecordFault`."""
        first = (question.id, False) not in self._recalled
        if first:
            await self._journal.told_again(question, call.session, kept)
            self._note_recalled(question.id, False)
        await self.deliver(kept, call)
        return first

    async def withhold(self, question: Question, kept: Kept, call: Call, principal: Principal, skill: Skill) -> Carried:
        """That it was made, and no more: policy has changed. Raises as `recall` does, and the `Refusal` that was
        kept."""
        if (question.id, True) not in self._recalled:
            refusal = Denied("policy lets its caller make no call of the skill any more", name="outcome_withheld")
            await self._journal.refuse(refusal, session=call.session, name=question.skill, principal=principal)
            self._note_recalled(question.id, True)
        carried = self.read(kept, skill, frozenset())
        return replace(carried, masked=self._nothing, amended=None, withheld="policy withholds it by now")

    def _note_recalled(self, question: str, withheld: bool) -> None:
        self._recalled[question, withheld] = None
        if len(self._recalled) > _REMEMBERED:
            del self._recalled[next(iter(self._recalled))]

    async def deliver(self, kept: Kept, call: Call | None) -> None:
        """Its caller is given it; where `call` hears of outcomes, it counts as told when that was sent."""
        if kept.delivered:
            return
        if call is not None and call.on_outcome is not None:
            call.on_outcome(kept.question, kept.call)
            return
        with anyio.CancelScope(shield=True), suppress(InterposerError):
            await self._desk.told(kept.question)

    async def told(self, question: str, call: str, *, sent: bool) -> None:
        """Whether an outcome that `on_outcome` heard of was sent to its caller."""
        if not sent:
            self._desk.untold(question, call)
            return
        with anyio.CancelScope(shield=True), suppress(InterposerError):
            await self._desk.told(question)
