"""The policy enforcement point: the one path from a caller to an upstream, straight down.

Before step 6 nothing has left the broker. After step 6 an outcome is always recorded. No step can be left out: each
needs what the one before it returns, and every fault on the way ends in no.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

import anyio

from .asking import Absent, Asker, Present, attended, recalled
from .carried import Carried
from .catalogue import Catalogue, Offer
from .desk import Desk
from .errors import Denied, InterposerError, Refusal, Unavailable
from .grant import Kept
from .journal import REVOKED, Journal
from .judging import Judge, agree, amend, passing, untrue
from .keeping import Crossing, Keeping
from .model import (
    Answered,
    Approval,
    Call,
    Decision,
    Effect,
    Failed,
    InDoubt,
    Intent,
    Invocation,
    Json,
    Masked,
    Outcome,
    Permit,
    Principal,
    Progress,
    Question,
)
from .ports import Authenticator, Masker, PolicyDecisionPoint, PolicyInformationPoint
from .toll import Toll

__all__ = ["Broker", "Carried"]

_UNDER_NO_APPROVAL: AbstractContextManager[anyio.CancelScope | None] = nullcontext()


class Broker:
    """The PEP. `invoke` and `carry_out` are the only ways to an upstream."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        catalogue: Catalogue,
        policy: Callable[[], PolicyDecisionPoint],
        facts: PolicyInformationPoint,
        desk: Desk,
        journal: Journal,
        masker: Masker,
        on_echo: Callable[[str, str], object] = lambda upstream, place: None,
    ) -> None:
        """`on_echo` hears of an upstream whose credential stood in what it said beside its answer."""
        self._on_echo = on_echo
        self._authenticator = authenticator
        self._catalogue = catalogue
        self._policy = policy
        self._facts = facts
        self._desk = desk
        self._journal = journal
        self._masker = masker
        self._judge = Judge(catalogue, policy, facts, masker)
        self._toll = Toll(facts, desk)
        self._keeping = Keeping(desk, journal, masker)
        self._nothing = masker.mask(None, frozenset())
        """What is shown of an answer that may not be: made now, for a masker that breaks later makes nothing."""

    async def invoke(self, call: Call) -> Carried:
        """Carry one call across the wall, or refuse it. Raises `Refusal`: then nothing was executed.

        Before (6) nothing has left the broker; after (6) an outcome is always recorded, even if the caller is gone.
        """
        asker = Present(self._authenticator, call)
        principal: Principal | None = None
        invocation: Invocation | None = None
        decision: Decision | None = None
        shown: Masked | None = None
        try:
            principal = await asker.principal()  # (1) who asks
            invocation, offer = await self._catalogue.match(principal, call)  # (2) which skill
            # Looking the skill up may have waited for its service.
            invocation = await asker.again(invocation)
            self._judge.fits(invocation, offer)  # (3) before any human is bothered
            decision = self._decide(invocation)  # (4)
            self._judge.admit(invocation, decision)
            shown = self._judge.showable(invocation, decision)
            earlier = await self._keeping.earlier(call, asker, invocation)
            if earlier is not None:
                return await self._tell(earlier, call, invocation, decision)
            crossing = Crossing(call, asker, invocation, offer, shown)
            permit, sent = await self._permit(crossing, decision)  # (5) a human, and the policy of now
        except InterposerError as fault:
            refusal = await self._refused(fault, call, principal, invocation, decision, shown)
            if refusal is fault:
                raise
            raise refusal from fault
        self._facts.count(call.session)
        return await self._carry(crossing, permit, sent)

    async def carry_out(self, question: Question, caller: Call | None = None) -> None:
        """Make the call of a granted question that no caller waits for: in the name of whoever asked, who is `caller`
        if one is given and has left otherwise. The outcome is kept for them. It is made once, by whom ever: whoever
        uses up the yes makes it.

        What is refused is on record, and the yes is taken out of the world. Raises `Refusal` where it may be tried
        again: nothing was executed.
        """
        try:
            await self._carried_out(question, caller)
        except InterposerError:
            raise
        except Exception as fault:
            # Nobody waits whom it could be told, and a broker that ended here would end here again at its next start.
            raise Unavailable(f"{type(fault).__name__} while an approved call was to be made") from fault

    async def _carried_out(self, question: Question, caller: Call | None) -> None:
        call = recalled(question, caller)
        asker: Asker = Absent(self._authenticator, question)
        if caller is not None:
            asker = Present(self._authenticator, call, waits=False)
        principal: Principal | None = None
        invocation: Invocation | None = None
        decision: Decision | None = None
        shown: Masked | None = None
        try:
            principal = await asker.principal()
            if principal.identity() != question.requester.identity():
                raise Denied("the caller is not the one who asked", name="caller_changed")
            call = replace(call, name=await self._judge.name_of(question))
            invocation, offer = await self._catalogue.match(principal, call)
            self._judge.unchanged(invocation.skill, question.skill_digest)
            self._judge.fits(invocation, offer)
            decision = self._decide(invocation)
            agree(decision, invocation, question.digest, asks=True)
            shown = self._judge.showable(invocation, decision)
            crossing = Crossing(call, asker, invocation, offer, shown, question)
            permit, sent = await self._permit(crossing, decision)
        except InterposerError as fault:
            refusal = await self._refused(fault, call, principal, invocation, decision, shown)
            if passing(refusal, present=caller is not None):
                raise refusal from (None if refusal is fault else fault)
            await self._keeping.withdraw(question)
            return
        with suppress(Refusal):  # On record, and kept.
            await self._carry(crossing, permit, sent)

    async def recognise(self, call: Call) -> Principal:
        """Who asks, now. Raises `Unauthenticated`."""
        return await self._authenticator.authenticate(call.asking())

    async def told(self, question: str, call: str, *, sent: bool) -> None:
        """Whether an outcome that `Call.on_outcome` heard of was sent to its caller; if not, the identical call is
        told."""
        await self._keeping.told(question, call, sent=sent)

    async def recall(self, question: Question, kept: Kept, call: Call) -> Carried:
        """What became of a question's call, for whoever asked it, who is `call`; withheld from whom policy lets make no
        call of the skill any more. Raises the `Refusal` that was kept in its place, `Unauthenticated`, `RecordFault`.

        The arguments are not kept, so that a policy which denies some of them decides when the call is repeated.
        """
        principal, skill, policy = await self.recognise(call), self._judge.skill_of(question), self._policy()
        obligations = policy.obligations(question.skill)
        if not policy.offers(principal, skill):
            return await self._keeping.withhold(question, kept, call, principal, skill)
        if await self._keeping.recall(question, kept, call):
            self._facts.count(call.session)
        carried = self._keeping.read(kept, skill, obligations.mask)
        self._facts.label(call.session, obligations.labels)
        return carried

    async def review(self, question: Question, amended: bytes) -> None:
        """Whether these arguments, canonical JSON, could be asked for in place of the caller's on the same terms.
        Raises `VoteRefused` named `amendment_refused`, its words for the approver."""
        self._judge.review(question, amended, self._decide)

    async def _tell(self, kept: Kept, call: Call, invocation: Invocation, decision: Decision) -> Carried:
        carried = await self._keeping.tell(kept, call, invocation, decision)
        self._facts.count(invocation.session)
        self._facts.label(invocation.session, decision.obligations.labels)
        return carried

    async def _refused(
        self,
        fault: InterposerError,
        call: Call,
        principal: Principal | None,
        invocation: Invocation | None,
        decision: Decision | None,
        shown: Masked | None,
    ) -> Refusal:
        """What the caller is told, on record. Raises `Unavailable` where it cannot be recorded."""
        refusal = fault if isinstance(fault, Refusal) else Unavailable(str(fault))
        try:
            await self._journal.refuse(
                refusal,
                session=call.session,
                name=self._judge.claimed(call) if invocation is None else "",
                principal=principal,
                invocation=invocation,
                decision=decision,
                masked=shown,
            )
        except InterposerError as unrecorded:
            if invocation is not None:
                self._journal.forget(invocation)
            raise Unavailable(f"{refusal}; not recorded: {unrecorded}") from fault
        return refusal

    async def _carry(self, crossing: Crossing, permit: Permit, sent: Masked) -> Carried:
        """`sent` are the arguments as they go."""
        approval = permit.approval
        intent: Intent | None = None
        outcome: Outcome | None = None
        under_way = False
        try:
            with _UNDER_NO_APPROVAL if approval is None else self._desk.revocable(approval) as scope:
                if not _cut(scope):
                    intent = await self._intend(crossing, permit, sent)  # (6) durable, or the call does not happen
                if intent is not None and not _cut(scope):
                    under_way = True
                    outcome = await self._called(crossing, intent)  # (7) the credential exists only in here
        except anyio.get_cancelled_exc_class():
            await self._conclude_cut(crossing, permit, intent)
            raise
        if intent is None or not under_way:
            raise await self._keeping.revoked(crossing, permit)
        if outcome is None:
            outcome = InDoubt(REVOKED)
        if not isinstance(outcome, Failed) or outcome.error is not None:
            self._label(crossing, permit)
        carried = self._masked(permit, outcome, crossing.offer)  # (8) a masker that fails withholds
        if approval is not None:
            carried = replace(carried, approval=approval.question, amended=sent if approval.amended else None)
        delivered = False
        try:
            await self._journal.conclude(intent, outcome, carried.masked, withheld=carried.withheld)  # (9)
            delivered = crossing.asker.waits
        except InterposerError:
            self._journal.forget(permit.invocation)
            carried = replace(carried, masked=self._nothing, withheld="the outcome could not be recorded")
            delivered = crossing.asker.waits
        finally:
            await self._keeping.keep(crossing, permit, carried, delivered=delivered)
        if carried.masked.counts.get("credential"):
            with suppress(InterposerError), anyio.CancelScope(shield=True):
                await self._journal.alarm(permit.invocation, "credential_echoed")
        return carried

    async def _intend(self, crossing: Crossing, permit: Permit, sent: Masked) -> Intent:
        try:
            return await self._journal.intend(permit, sent)
        except InterposerError as fault:
            self._journal.forget(permit.invocation)
            unavailable = Unavailable(str(fault))
            await self._keeping.spent(crossing, permit.approval, unavailable)
            raise unavailable from fault
        except anyio.get_cancelled_exc_class():
            # What was handed to the store is written all the same, so it is said how it ended.
            with anyio.CancelScope(shield=True), suppress(InterposerError):
                await self._journal.abandon(permit)
            raise

    async def _called(self, crossing: Crossing, intent: Intent) -> Outcome:
        permit = intent.permit
        upstream = self._catalogue.upstream(permit.invocation.skill)
        try:
            return await upstream.call(intent, self._progress(crossing.call, permit))
        except Exception as fault:
            return InDoubt(f"{type(fault).__name__} in the upstream's connection")

    def _decide(self, invocation: Invocation) -> Decision:
        """What the policy of now says. Raises `Denied`; whatever else goes wrong in a decision counts as deny."""
        session = invocation.session
        facts = self._facts.facts(session)
        policy = self._policy()
        try:
            decision = policy.decide(invocation.principal, invocation.skill, invocation.arguments, session, facts)
        except Exception as fault:
            raise Denied(f"the decision failed: {type(fault).__name__}", name="decision_failed") from fault
        return decision

    async def _permit(self, crossing: Crossing, decision: Decision) -> tuple[Permit, Masked]:
        """Also the arguments as they will be sent."""
        if decision.effect is Effect.ALLOW:
            return Permit(crossing.asked, decision, None), crossing.shown
        if crossing.question is None:
            await self._toll.check(crossing.asked, decision, crossing.call.question)
        approval = await self._approved(crossing, decision)
        try:
            return await self._confirmed(crossing, approval)
        except InterposerError as fault:
            await self._keeping.spent(crossing, approval, fault)
            raise
        except anyio.get_cancelled_exc_class():
            await self._keeping.spent(crossing, approval)
            raise

    async def _confirmed(self, crossing: Crossing, approval: Approval) -> tuple[Permit, Masked]:
        """The yes may be minutes old, and to other arguments: who asks, what the skill is, what policy says and what
        may be shown are established again, of the call as it will be sent."""
        made = crossing.asked
        if approval.amended:
            made = amend(made, approval.amended, crossing.offer)
        made = await crossing.asker.again(made)
        self._judge.unchanged(made.skill)
        latest = self._decide(made)
        agree(latest, crossing.asked, approval.digest)
        return Permit(made, latest, approval), self._judge.showable(made, latest)

    async def _approved(self, crossing: Crossing, decision: Decision) -> Approval:
        """A human's yes, waited for as long as whoever asks may ask."""
        had: list[Approval] = []

        async def obtain() -> None:
            had.append(await self._obtain(crossing, decision))

        try:
            await self._journal.asked(crossing.asked, decision, crossing.shown)
            await attended(crossing.asker, crossing.asked, obtain)
        except InterposerError as fault:
            await self._keeping.spent(crossing, had[0] if had else None, fault)
            raise
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), suppress(InterposerError):
                await self._journal.withdrawn(crossing.asked, decision)
            await self._keeping.spent(crossing, had[0] if had else None)
            raise
        if not had:
            raise Unavailable("the wait for a human ended without an answer")
        return had[0]

    async def _obtain(self, crossing: Crossing, decision: Decision) -> Approval:
        if crossing.question is None:
            return await self._toll.obtain(crossing.call, crossing.asked, decision)
        approval = await self._desk.claim(crossing.question.id, crossing.asked)
        if approval is None:
            raise Denied("the yes to it is used up, or its time is over", name="approval_gone")
        return approval

    def _progress(self, call: Call, permit: Permit) -> Callable[[Progress], None] | None:
        """Progress goes back masked; what cannot be masked is dropped."""
        tell = call.on_progress
        if tell is None:
            return None

        def masked(progress: Progress) -> None:
            with suppress(InterposerError):
                shown = self._masker.mask(progress.message, permit.decision.obligations.mask)
                if shown.counts.get("credential"):
                    self._on_echo(permit.invocation.skill.upstream, "progress")
                tell(replace(progress, message=shown.value))

        return masked

    def _masked(self, permit: Permit, outcome: Outcome, offer: Offer) -> Carried:
        invocation = permit.invocation
        profiles = permit.decision.obligations.mask
        shown: Json = None
        if isinstance(outcome, Answered):
            shown = outcome.result
        elif isinstance(outcome, Failed):
            shown = outcome.error
        try:
            masked = self._masker.mask(shown, profiles)
        except InterposerError as fault:
            return Carried(invocation.id, invocation.skill, type(outcome), self._nothing, str(fault))
        withheld = untrue(masked, offer)
        if withheld:
            masked = self._nothing
        return Carried(invocation.id, invocation.skill, type(outcome), masked, withheld)

    async def _conclude_cut(self, crossing: Crossing, permit: Permit, intent: Intent | None) -> None:
        """The caller left; without an intent, nothing was sent."""
        if intent is None:
            await self._keeping.spent(crossing, permit.approval)
            return
        self._label(crossing, permit)
        outcome = InDoubt("cancelled by the caller")
        with anyio.CancelScope(shield=True):
            try:
                await self._journal.conclude(intent, outcome, self._nothing)
            except InterposerError:
                self._journal.forget(permit.invocation)
        carried = self._masked(permit, outcome, crossing.offer)
        await self._keeping.keep(crossing, permit, carried, delivered=False)

    def _label(self, crossing: Crossing, permit: Permit) -> None:
        """The skill may have spoken: from here on the session is labelled, whoever still listens. Whoever hears of it
        later is labelled then."""
        if permit.decision.obligations.labels and crossing.asker.waits:
            self._facts.label(permit.invocation.session, permit.decision.obligations.labels)


def _cut(scope: anyio.CancelScope | None) -> bool:
    return scope is not None and scope.cancel_called
