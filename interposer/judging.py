"""What has to hold before a call may be made: checked at once, before anybody is asked, and again after every yes.

Everything here refuses by raising; nothing waits for people, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .ballot import VoteRefused, question_digest
from .canonical import Malformed, canonical, digest_bytes, parse
from .catalogue import Catalogue, Offer
from .errors import Denied, InterposerError, InvalidArguments, Refusal, Unauthenticated, Unavailable
from .model import Call, Decision, Effect, Invocation, Masked, Question, Skill
from .ports import Masker, PolicyDecisionPoint, PolicyInformationPoint


class Judge:
    """The checks that need to know the house."""

    def __init__(
        self,
        catalogue: Catalogue,
        policy: Callable[[], PolicyDecisionPoint],
        facts: PolicyInformationPoint,
        masker: Masker,
    ) -> None:
        self._catalogue = catalogue
        self._policy = policy
        self._facts = facts
        self._masker = masker

    def claimed(self, call: Call) -> str:
        """What the caller called the skill, fit for the record: it may be anything, a secret too."""
        try:
            name = str(self._masker.mask(call.name, frozenset({"pii", "secrets"})).value)
        except InterposerError:
            return ""
        for token in filter(None, (call.caller.token, call.token)):
            name = name.replace(token, "")
        return name

    def fits(self, invocation: Invocation, offer: Offer) -> None:
        """Raises `InvalidArguments`, its words masked: they quote the definition as the upstream gave it."""
        try:
            offer.arguments.check(invocation.arguments)
        except InvalidArguments as invalid:
            profiles = self._policy().obligations(invocation.skill.id).mask
            raise InvalidArguments(str(self._masker.mask(invalid.public, profiles).value)) from None

    def admit(self, invocation: Invocation, decision: Decision) -> None:
        """Raises `Denied` where policy says so, or says: not so many. What a call costs that is asked for first, is
        the `toll`'s."""
        if decision.effect is Effect.DENY:
            raise denied(decision)
        if decision.effect is Effect.ALLOW:
            wait_s = self._facts.admit(invocation.principal, decision.obligations.rates)
            if wait_s > 0:
                raise limited(wait_s)

    def showable(self, invocation: Invocation, decision: Decision) -> Masked:
        """The arguments, masked. Raises `Denied` where there is no credential for the caller, or one of the broker's
        among the arguments."""
        self.require_credential(invocation)
        shown = self._masker.mask(invocation.arguments, decision.obligations.mask)
        if shown.counts.get("credential"):
            # Whoever sends it should not have it.
            raise Denied(
                "the arguments hold a credential of the broker's",
                name="credential_in_arguments",
                message="The arguments hold a credential that is not yours to send.",
            )
        return shown

    def require_credential(self, invocation: Invocation) -> None:
        """Raises `Denied` where the upstream has credentials, and none that is for this principal."""
        if not self._catalogue.upstream(invocation.skill).serves(invocation.principal):
            raise Denied(
                f"no credential of {invocation.skill.upstream} is for this caller",
                name="no_credential",
                message="There is no credential for you at this service.",
            )

    def unchanged(self, skill: Skill, digest: str = "") -> None:
        """Raises `Denied` for a skill that does not stand as it was, or is not the one with this digest."""
        if (digest and skill.digest != digest) or not self._catalogue.current(skill):
            raise Denied("the skill changed after it was approved", name="skill_changed")

    def offered(self, question: Question) -> Offer | None:
        """What a question is about, if it still stands as it was."""
        for offer in self._catalogue.offers():
            if (offer.skill.id, offer.skill.digest) == (question.skill, question.skill_digest):
                return offer
        return None

    def skill_of(self, question: Question) -> Skill:
        """The skill of a question; of one that is no longer there, only what it was called."""
        offer = self.offered(question)
        if offer is not None:
            return offer.skill
        upstream, _, name = question.skill.partition(".")
        return Skill(question.skill, upstream, name, name, {}, question.skill_digest)

    async def name_of(self, question: Question) -> str:
        """What callers call the skill of a question. Raises `Denied` for one that changed, and `Unavailable` while
        nothing is known of its service."""
        if self.offered(question) is None:
            await self._catalogue.refresh()
        offer = self.offered(question)
        if offer is not None:
            return offer.skill.exposed
        upstream, _, _ = question.skill.partition(".")
        if (upstream, "") in {(silent, name) for silent, name, _ in self._catalogue.withheld()}:
            raise Unavailable(f"{question.skill}: its service cannot be listed")
        raise Denied("the skill changed after it was approved", name="skill_changed")

    def review(self, question: Question, arguments: bytes, decide: Callable[[Invocation], Decision]) -> None:
        """Whether these arguments could be asked for in place of the caller's, on the same terms. Raises `VoteRefused`
        named `amendment_refused`, its words for the approver."""
        offer = self.offered(question)
        if offer is None:
            raise VoteRefused("amendment_refused", f"{question.skill} is not as it was when the call was asked for")
        asked = Invocation(
            question.invocation, question.session, question.requester, offer.skill, {}, question.canonical, ""
        )
        try:
            made = amend(asked, arguments, offer)
            decision = decide(made)
            agree(decision, asked, question.digest)
            self.showable(made, decision)
        except InterposerError as refused:
            raise VoteRefused("amendment_refused", f"these arguments would be refused: {refused}") from refused


def amend(asked: Invocation, arguments: bytes, offer: Offer) -> Invocation:
    """The call with the arguments that approvers put in place of its caller's. Raises `Denied`."""
    try:
        chosen = parse(arguments)
        if not isinstance(chosen, dict) or canonical(chosen) != arguments:
            raise Malformed("not the canonical JSON of an object")
        offer.arguments.check(chosen)
    except (Malformed, InvalidArguments) as fault:
        raise Denied(
            f"the arguments that approvers chose cannot be sent: {fault}",
            name="amendment_refused",
            message="The arguments that an approver chose cannot be sent.",
        ) from None
    return replace(asked, arguments=chosen, canonical=arguments, arguments_digest=digest_bytes(arguments))


def agree(decision: Decision, asked: Invocation, digest: str, *, asks: bool = False) -> None:
    """Raises `Denied` unless policy would have the call made, or asked for on the terms on which `asked` was approved;
    with `asks`, on those alone."""
    if decision.effect is Effect.DENY:
        raise denied(decision)
    if decision.effect is Effect.ALLOW and not asks:
        return
    if question_digest(asked, decision) != digest:
        raise Denied(
            "the policy or its terms changed after the approval",
            name="policy_changed",
            message="The policy changed after this call was approved; it has to be asked for again.",
        )


def denied(decision: Decision) -> Denied:
    """What policy said no with."""
    deciding = next((rule for rule in decision.rules if rule.effect is decision.effect), None)
    return Denied(decision.reason, rule=deciding.id if deciding else "", message=decision.message)


def limited(wait_s: float) -> Denied:
    """What policy's `rate` says no with."""
    return Denied(
        f"rate limit, {wait_s:.1f} s until there is room",
        name="rate_limited",
        message=f"Too many calls. There is room again in {max(1, round(wait_s))} s.",
    )


def passing(refusal: Refusal, *, present: bool) -> bool:
    """Whether a refusal says nothing about an approved call, so that it may be tried again while it is approved."""
    if isinstance(refusal, Unavailable) or refusal.name == "outside_hours":
        return True
    # Who looked is not who asked, or not any more; whoever asked may still come.
    return present and (isinstance(refusal, Unauthenticated) or refusal.name == "caller_changed")


def untrue(masked: Masked, offer: Offer) -> str:
    """Why a masked result would break the outputSchema that callers were shown, or nothing."""
    if not masked.counts or offer.structured is None or not isinstance(masked.value, dict):
        return ""
    content = masked.value.get("structuredContent")
    if content is None or masked.value.get("isError") is True or offer.structured(content):
        return ""
    return "masking would break the skill's outputSchema"
