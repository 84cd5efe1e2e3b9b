"""The policy in force: total, pure, strictest wins (deny > ask > allow), and no rule means deny.

`otherwise` speaks only where no rule matched. A condition that cannot be evaluated counts against the caller: an
allow rule does not match, an ask or deny rule does, unless another of its conditions is plainly false.

Combining. Obligations of all entries that name the skill and cover the principal: profiles of `mask` add up, the
least `timeout` and `max_result` win, every `rate` holds, `labels` add up, and `record: none` wins, because what is
not stored cannot leak. Terms of several asks: `combined`, and where nobody could satisfy them all the call is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from interposer.model import Decision, Effect, Facts, JsonObject, Obligations, Principal, Rate, Skill

from .combined import combine_terms
from .conditions import Condition, Evidence, Unevaluable
from .document import parse, starter_text
from .rules import Document, Obligation, Rule

STARTER = "builtin:starter"
MAX_CACHED_SKILLS = 8192
MAX_CACHED_DECISIONS = 1024

_DEFAULTS = Obligations()
_RANK = {Effect.ALLOW: 0, Effect.ASK: 1, Effect.DENY: 2}

Said = tuple[int, ...]
"""Which rules of a list spoke: their places; one that could not be judged as -1 - place."""


@dataclass(slots=True, eq=False)
class _Named:
    """The rules and obligations that name one skill, and the decisions they have already led to."""

    rules: tuple[Rule, ...]
    otherwise: tuple[Rule, ...]
    duties: tuple[Obligation, ...]
    personal: bool
    """Whether some duty asks who."""
    decisions: dict[tuple[Said, Said | None, tuple[int, ...]], Decision] = field(default_factory=dict)


def load(text: str, file: str) -> Policy:
    """Raises `ConfigurationError` with every problem in the text."""
    return Policy(parse(text, file))


def starter() -> Policy:
    """The policy that is built into the package."""
    return load(starter_text(), STARTER)


class Policy:
    """A `PolicyDecisionPoint`. Immutable but for what it remembers of its own answers."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._named: dict[str, _Named] = {}

    @property
    def digest(self) -> str:
        return self.document.digest

    def decide(self, principal: Principal, skill: Skill, arguments: JsonObject, session: str, facts: Facts) -> Decision:
        """What the policy says of this call. Returns for any JSON, and raises nothing."""
        try:
            return self._decide(principal, skill, arguments, session, facts)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        # One of the four. A panic in a native engine is a BaseException, and it ends in deny as well.
        except BaseException as fault:
            reason = f"deny: the policy could not be evaluated ({type(fault).__name__})"
            return Decision(Effect.DENY, (), self.digest, reason)

    def _decide(
        self, principal: Principal, skill: Skill, arguments: JsonObject, session: str, facts: Facts
    ) -> Decision:
        named = self._named.get(skill.id) or self._name(skill.id)
        evidence = Evidence(principal, skill, arguments, session, facts)
        said = _speak(named.rules, evidence)
        fallback = None if said else _speak(named.otherwise, evidence)
        duties = _owed(named.duties, principal) if named.personal else ()
        key = (said, fallback, duties)
        found = named.decisions.get(key)
        if found is None:
            found = self._conclude(named, key)
            if len(named.decisions) >= MAX_CACHED_DECISIONS:
                named.decisions.clear()
            named.decisions[key] = found
        return found

    def _conclude(self, named: _Named, key: tuple[Said, Said | None, tuple[int, ...]]) -> Decision:
        said, fallback, places = key
        spoke = _rules(named.rules, said) if fallback is None else _rules(named.otherwise, fallback)
        duties = [named.duties[place] for place in places] if named.personal else named.duties
        obligations = combine(duties)
        if not spoke:
            return Decision(Effect.DENY, (), self.digest, "deny: no rule matched", obligations=obligations)
        return _strictest(spoke, said if fallback is None else fallback, self.digest, obligations)

    def offers(self, principal: Principal, skill: Skill) -> bool:
        """Whether any call of this skill by this principal could be allowed or asked for.

        A deny without conditions hides the skill; a deny that depends on the call does not.
        """
        named = self._named.get(skill.id) or self._name(skill.id)
        evidence = Evidence(principal, skill, {}, "", Facts())
        rules = [rule for rule in named.rules if _may_speak(rule, evidence)]
        if any(not rule.conditions for rule in rules):
            return _open(rules)
        otherwise = [rule for rule in named.otherwise if _may_speak(rule, evidence)]
        return _open(rules) or _open(otherwise)

    def obligations(self, skill_id: str) -> Obligations:
        """What is owed for a skill whoever asks: every entry that names it counts, those with `who` included."""
        named = self._named.get(skill_id) or self._name(skill_id)
        return combine(named.duties)

    def judge(
        self, principal: Principal, skill: Skill, arguments: JsonObject, session: str, facts: Facts
    ) -> list[Judgement]:
        """What became of every rule that names the skill; `decide` rests on the same tests."""
        named = self._named.get(skill.id) or self._name(skill.id)
        evidence = Evidence(principal, skill, arguments, session, facts)
        consulted = not _speak(named.rules, evidence)
        return [
            *(_judge(rule, evidence, fallback=False, consulted=True) for rule in named.rules),
            *(_judge(rule, evidence, fallback=True, consulted=consulted) for rule in named.otherwise),
        ]

    def _name(self, skill_id: str) -> _Named:
        document = self.document
        duties = tuple(duty for duty in document.obligations if duty.names(skill_id))
        named = _Named(
            rules=tuple(rule for rule in document.rules if rule.names(skill_id)),
            otherwise=tuple(rule for rule in document.otherwise if rule.names(skill_id)),
            duties=duties,
            personal=any(duty.who is not None for duty in duties),
        )
        if len(self._named) >= MAX_CACHED_SKILLS:
            self._named.clear()
        self._named[skill_id] = named
        return named


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one rule on one call."""

    rule: Rule
    fallback: bool
    """It stands under `otherwise`."""
    consulted: bool
    matched: bool
    failed: str = ""
    """Empty, or what did not fit first: who, hints, arguments, match, when."""
    detail: str = ""


def _speak(rules: Sequence[Rule], evidence: Evidence) -> Said:
    said: list[int] = []
    principal = evidence.principal
    for place, rule in enumerate(rules):
        if rule.who is not None and not rule.who.covers(principal):
            continue
        if not rule.hints and not rule.conditions:
            said.append(place)
            continue
        found = _fits(rule, (*rule.hints, *rule.conditions), evidence)
        if found is not False:
            said.append(place if found else -1 - place)
    return tuple(said)


def _fits(rule: Rule, conditions: Iterable[Condition], evidence: Evidence) -> bool | None:
    """True, False, or None: could not be judged, and counts against the caller."""
    doubt = False
    for condition in conditions:
        try:
            if not condition.holds(evidence):
                return False
        except Unevaluable:
            if rule.effect is Effect.ALLOW:
                return False
            doubt = True
    return None if doubt else True


def _may_speak(rule: Rule, evidence: Evidence) -> bool:
    if rule.who is not None and not rule.who.covers(evidence.principal):
        return False
    return _fits(rule, rule.hints, evidence) is not False


def _open(rules: Sequence[Rule]) -> bool:
    if any(rule.effect is Effect.DENY and not rule.conditions for rule in rules):
        return False
    return any(rule.effect is not Effect.DENY for rule in rules)


def _owed(duties: Sequence[Obligation], principal: Principal) -> tuple[int, ...]:
    return tuple(place for place, duty in enumerate(duties) if duty.who is None or duty.who.covers(principal))


def _rules(rules: Sequence[Rule], said: Said) -> list[Rule]:
    return [rules[place if place >= 0 else -1 - place] for place in said]


def _strictest(spoke: list[Rule], said: Said, digest: str, obligations: Obligations) -> Decision:
    effect = max((rule.effect for rule in spoke), key=_RANK.__getitem__)
    deciding = [rule for rule in spoke if rule.effect is effect]
    reason = f"{effect}: " + ", ".join(_placed(rule) for rule in deciding)
    doubted = {rule.id for rule, place in zip(spoke, said, strict=True) if place < 0}
    if doubted:
        reason += f"; could not be evaluated and counts against the caller: {', '.join(sorted(doubted))}"
    terms = None
    if effect is Effect.ASK:
        terms = combine_terms([rule.terms for rule in deciding if rule.terms is not None])
        if terms is None:
            effect = Effect.DENY
            reason = f"deny: no approver could satisfy every rule that asks: {reason}"
    return Decision(
        effect=effect,
        rules=tuple(rule.spoken for rule in spoke),
        policy=digest,
        reason=reason,
        message=next((rule.spoken.message for rule in deciding if rule.spoken.message), ""),
        obligations=obligations,
        terms=terms,
    )


def _placed(rule: Rule) -> str:
    return f"{rule.id} ({rule.spoken.file}:{rule.spoken.line})"


def _judge(rule: Rule, evidence: Evidence, *, fallback: bool, consulted: bool) -> Judgement:
    if rule.who is not None and not rule.who.covers(evidence.principal):
        return Judgement(rule, fallback, consulted, False, "who", "the principal is not one that the rule names")
    doubts: list[str] = []
    for condition in (*rule.hints, *rule.conditions):
        try:
            if not condition.holds(evidence):
                return Judgement(rule, fallback, consulted, False, condition.kind, condition.why_not(evidence))
        except Unevaluable as doubt:
            if rule.effect is Effect.ALLOW:
                return Judgement(rule, fallback, consulted, False, condition.kind, str(doubt))
            doubts.append(f"{doubt}; that counts against the caller")
    return Judgement(rule, fallback, consulted, True, "", "; ".join(doubts))


def combine(duties: Iterable[Obligation]) -> Obligations:
    """The strictest of several obligations; what none of them gives stays at the default."""
    masks: frozenset[str] | None = None
    timeouts: list[float] = []
    limits: list[int] = []
    rates: dict[str, Rate] = {}
    labels: set[str] = set()
    record = _DEFAULTS.record
    for duty in duties:
        if duty.mask is not None:
            masks = duty.mask if masks is None else masks | duty.mask
        if duty.timeout_s is not None:
            timeouts.append(duty.timeout_s)
        if duty.max_result_bytes is not None:
            limits.append(duty.max_result_bytes)
        if duty.rate is not None:
            rates[duty.rate.id] = duty.rate
        labels |= duty.labels
        if duty.record == "none":
            record = "none"
    return Obligations(
        mask=_DEFAULTS.mask if masks is None else masks,
        timeout_s=min(timeouts, default=_DEFAULTS.timeout_s),
        max_result_bytes=min(limits, default=_DEFAULTS.max_result_bytes),
        rates=tuple(sorted(rates.values(), key=lambda rate: rate.id)),
        labels=frozenset(labels),
        record=record,
    )
