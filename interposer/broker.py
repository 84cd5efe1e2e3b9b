"""The policy enforcement point: the one path from a caller to an upstream, straight down.

Before step 6 nothing has left the broker. After step 6 an outcome is always recorded. No step can be left out: each
needs what the one before it returns, and every fault on the way ends in no.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio

from .ballot import question_digest
from .catalogue import Catalogue, Offer
from .desk import Desk
from .errors import Denied, InterposerError, InvalidArguments, Refusal, Unauthenticated, Unavailable
from .journal import Journal
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
    Skill,
)
from .ports import Authenticator, Masker, PolicyDecisionPoint, PolicyInformationPoint

ATTEND_S = 0.5
"""How often a held call is asked again who makes it."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A call that went across: how it ended, and what of it may be shown."""

    invocation: str
    skill: Skill
    outcome: type[Answered] | type[Failed] | type[InDoubt]
    masked: Masked
    """The result of `Answered`; the error object of `Failed`, or null where the upstream said nothing."""
    withheld: str = ""
    """Why an answer that came may not be shown; then `masked` is null."""


class Broker:
    """The PEP. `invoke` is the only way to an upstream."""

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
        self._nothing = masker.mask(None, frozenset())
        """What is shown of an answer that may not be: made now, for a masker that breaks later makes nothing."""

    async def invoke(self, call: Call) -> Carried:
        """Carry one call across the wall, or refuse it. Raises `Refusal`: then nothing was executed.

        Before (6) nothing has left the broker; after (6) an outcome is always recorded, even if the caller is gone.
        """
        principal: Principal | None = None
        invocation: Invocation | None = None
        decision: Decision | None = None
        shown: Masked | None = None
        try:
            principal = await self._authenticator.authenticate(call.caller)  # (1) who asks
            invocation, offer = await self._catalogue.match(principal, call)  # (2) which skill
            # Looking the skill up may have waited for its service.
            invocation = await self._reauthenticated(call, invocation)
            self._check(invocation, offer)  # (3) before any human is bothered
            decision = self._decide(invocation)  # (4)
            self._admit(invocation, decision)
            self._require_credential(invocation)
            shown = self._masker.mask(call.arguments, decision.obligations.mask)
            _keep_credentials_in(shown)
            permit = await self._permit(call, invocation, decision, shown)  # (5) a human, and the policy of now
        except InterposerError as fault:
            refusal = fault if isinstance(fault, Refusal) else Unavailable(str(fault))
            try:
                await self._journal.refuse(
                    refusal,
                    session=call.session,
                    name=self._claimed(call) if invocation is None else "",
                    principal=principal,
                    invocation=invocation,
                    decision=decision,
                    masked=shown,
                )
            except InterposerError as unrecorded:
                if invocation is not None:
                    self._journal.forget(invocation)
                raise Unavailable(f"{refusal}; not recorded: {unrecorded}") from fault
            if refusal is fault:
                raise
            raise refusal from fault
        self._facts.count(call.session)
        return await self._carry(call, permit, shown, offer)

    def _claimed(self, call: Call) -> str:
        """What the caller called the skill, fit for the record: it may be anything, a secret too."""
        try:
            name = str(self._masker.mask(call.name, frozenset({"pii", "secrets"})).value)
        except InterposerError:
            return ""
        for token in filter(None, (call.caller.token, call.token)):
            name = name.replace(token, "")
        return name

    def _check(self, invocation: Invocation, offer: Offer) -> None:
        """Raises `InvalidArguments`, its words masked: they quote the definition as the upstream gave it."""
        try:
            offer.arguments.check(invocation.arguments)
        except InvalidArguments as invalid:
            profiles = self._policy().obligations(invocation.skill.id).mask
            raise InvalidArguments(str(self._masker.mask(invalid.public, profiles).value)) from None

    async def _carry(self, call: Call, permit: Permit, shown: Masked, offer: Offer) -> Carried:
        try:
            intent = await self._journal.intend(permit, shown)  # (6) durable, or the call does not happen
        except InterposerError as fault:
            self._journal.forget(permit.invocation)
            raise Unavailable(str(fault)) from fault
        except anyio.get_cancelled_exc_class():
            # What was handed to the store is written all the same, so it is said how it ended.
            with anyio.CancelScope(shield=True), suppress(InterposerError):
                await self._journal.abandon(permit)
            raise
        upstream = self._catalogue.upstream(permit.invocation.skill)
        try:
            outcome = await upstream.call(intent, self._progress(call, permit))  # (7) the credential exists only here
        except anyio.get_cancelled_exc_class():
            self._label(permit)
            await self._conclude_cut(intent, InDoubt("cancelled by the caller"))
            raise
        except Exception as fault:
            outcome = InDoubt(f"{type(fault).__name__} in the upstream's connection")
        if not isinstance(outcome, Failed) or outcome.error is not None:
            self._label(permit)
        carried = self._masked(permit, outcome, offer)  # (8) a masker that fails withholds
        try:
            await self._journal.conclude(intent, outcome, carried.masked, withheld=carried.withheld)  # (9)
        except InterposerError:
            self._journal.forget(permit.invocation)
            carried = replace(carried, masked=self._nothing, withheld="the outcome could not be recorded")
        if carried.masked.counts.get("credential"):
            with suppress(InterposerError), anyio.CancelScope(shield=True):
                await self._journal.alarm(permit.invocation, "credential_echoed")
        return carried

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

    def _admit(self, invocation: Invocation, decision: Decision) -> None:
        if decision.effect is Effect.DENY:
            raise _denied(decision)
        wait_s = self._facts.admit(invocation.principal, decision.obligations.rates)
        if wait_s > 0:
            raise Denied(
                f"rate limit, {wait_s:.1f} s until there is room",
                name="rate_limited",
                message=f"Too many calls. There is room again in {max(1, round(wait_s))} s.",
            )

    def _require_credential(self, invocation: Invocation) -> None:
        """Raises `Denied` where the upstream has credentials, and none that is for this principal."""
        if not self._catalogue.upstream(invocation.skill).serves(invocation.principal):
            raise Denied(
                f"no credential of {invocation.skill.upstream} is for this caller",
                name="no_credential",
                message="There is no credential for you at this service.",
            )

    async def _permit(self, call: Call, invocation: Invocation, decision: Decision, shown: Masked) -> Permit:
        if decision.effect is Effect.ALLOW:
            return Permit(invocation, decision, None)
        approval = await self._approved(call, invocation, decision, shown)
        # The yes may be minutes old: who asks, what the skill is and what policy says are established again.
        invocation = await self._reauthenticated(call, invocation)
        if not self._catalogue.current(invocation.skill):
            raise Denied("the skill changed after it was approved", name="skill_changed")
        self._require_credential(invocation)
        latest = self._decide(invocation)
        if latest.effect is Effect.DENY:
            raise _denied(latest)
        if latest.effect is Effect.ASK and question_digest(invocation, latest) != approval.digest:
            raise Denied(
                "the policy or its terms changed after the approval",
                name="policy_changed",
                message="The policy changed after this call was approved; it has to be asked for again.",
            )
        return Permit(invocation, latest, approval)

    async def _approved(self, call: Call, invocation: Invocation, decision: Decision, shown: Masked) -> Approval:
        try:
            await self._journal.asked(invocation, decision, shown)
            return await self._attended(call, invocation, decision)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), suppress(InterposerError):
                await self._journal.withdrawn(invocation, decision)
            raise

    async def _attended(self, call: Call, invocation: Invocation, decision: Decision) -> Approval:
        """Wait for a human for as long as whoever asks may ask: an expired token, a removed key or a revoked subject
        ends the wait within a second."""
        ended: list[InterposerError] = []
        approval: Approval | None = None
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(self._attend, call, invocation, waiting.cancel_scope, ended)
            try:
                approval = await self._desk.obtain(
                    invocation, decision, hold_s=call.hold_s, on_progress=call.on_progress
                )
            except InterposerError as fault:
                ended.append(fault)
            waiting.cancel_scope.cancel()
        if ended:
            raise ended[0]
        if approval is None:
            raise Unavailable("the wait for a human ended without an answer")
        return approval

    async def _attend(
        self, call: Call, invocation: Invocation, wait: anyio.CancelScope, ended: list[InterposerError]
    ) -> None:
        try:
            while True:
                await anyio.sleep(ATTEND_S)
                with anyio.move_on_after(ATTEND_S) as asked:
                    await self._reauthenticated(call, invocation)
                if asked.cancelled_caught:
                    raise Unauthenticated("it cannot be found out who asks", why="no_answer")
        except InterposerError as fault:
            ended.append(fault)
            wait.cancel()

    async def _reauthenticated(self, call: Call, invocation: Invocation) -> Invocation:
        """The invocation with its principal as it is now. Raises `Unauthenticated`, or `Denied` for another one, or
        for a token among the arguments."""
        identity = invocation.principal.identity()
        principal = await self._authenticator.authenticate(call.asking())
        if principal.identity() != identity and call.latest is not None:
            # The connection speaks for somebody else by now; this call still speaks by what it came with.
            principal = await self._authenticator.authenticate(call.caller)
        if principal.identity() != identity:
            raise Denied("the caller is another one than when the call came", name="caller_changed")
        _keep_tokens_in(call, invocation)
        return invocation if principal == invocation.principal else replace(invocation, principal=principal)

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
        withheld = _untrue(masked, offer)
        if withheld:
            masked = self._nothing
        return Carried(invocation.id, invocation.skill, type(outcome), masked, withheld)

    async def _conclude_cut(self, intent: Intent, outcome: InDoubt) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._journal.conclude(intent, outcome, self._nothing)
            except InterposerError:
                self._journal.forget(intent.permit.invocation)

    def _label(self, permit: Permit) -> None:
        """The skill may have spoken: from here on the session is labelled, whoever still listens."""
        if permit.decision.obligations.labels:
            self._facts.label(permit.invocation.session, permit.decision.obligations.labels)


def _keep_tokens_in(call: Call, invocation: Invocation) -> None:
    """Raises `Denied` for arguments that would take a token of the caller's across the wall."""
    for token in {call.caller.token, call.token, call.asking().token}:
        if token and token.encode("utf-8", "surrogatepass") in invocation.canonical:
            raise Denied(
                "the arguments hold a token of the caller's",
                name="token_in_arguments",
                message="The arguments hold your own access token, which never leaves the broker.",
            )


def _keep_credentials_in(shown: Masked) -> None:
    """Raises `Denied` for arguments that hold a secret of the broker's: whoever sends it should not have it."""
    if shown.counts.get("credential"):
        raise Denied(
            "the arguments hold a credential of the broker's",
            name="credential_in_arguments",
            message="The arguments hold a credential that is not yours to send.",
        )


def _untrue(masked: Masked, offer: Offer) -> str:
    """Why a masked result would break the outputSchema that callers were shown, or nothing."""
    if not masked.counts or offer.structured is None or not isinstance(masked.value, dict):
        return ""
    content = masked.value.get("structuredContent")
    if content is None or masked.value.get("isError") is True or offer.structured(content):
        return ""
    return "masking would break the skill's outputSchema"


def _denied(decision: Decision) -> Denied:
    deciding = next((rule for rule in decision.rules if rule.effect is decision.effect), None)
    return Denied(decision.reason, rule=deciding.id if deciding else "", message=decision.message)
