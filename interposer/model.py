"""The nouns of the house: what each step of the pipeline hands to the next.

`Call` (off the wire, unchecked) -> `Invocation` (known principal, known skill) -> `Decision` -> `Approval` ->
`Permit` -> `Intent` (durable) -> `Outcome` -> `Masked`. Each is made in one place, and the next step asks for it by
type: no `Intent`, no upstream call; no `Masked`, no reply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from .terms import ApprovalTerms, GrantSpec

Json: TypeAlias = Any
"""None, bool, int, float, Decimal (a fraction that a float would change), str, list, dict with str keys."""
JsonObject: TypeAlias = dict[str, Any]


class Effect(StrEnum):
    """What policy says of a call; strictest wins."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


class Era(StrEnum):
    """Which of MCP's two protocol families a peer speaks."""

    LEGACY = "legacy"
    MODERN = "modern"


@dataclass(frozen=True, slots=True)
class Caller:
    """What a transport knows of its peer before anyone has been authenticated."""

    transport: str
    """`stdio`, `unix` or `tcp`."""
    uid: int | None = None
    gid: int | None = None
    pid: int | None = None
    """Kernel identity of the peer at the time it connected."""
    label: str | None = None
    """Whose static token was shown at the gate; the token itself is not kept."""
    token: str | None = field(default=None, repr=False)
    """The bearer token that speaks for this request. Where there is one, it alone decides: empty or bad is nobody."""
    session: str = ""
    """The conversation that it belongs to."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. Two principals are the same when `identity()` is."""

    issuer: str
    """`local` for kernel identities, `token` for static tokens, else the token's issuer."""
    subject: str
    groups: tuple[str, ...] = ()
    uid: int | None = None
    client_id: str = ""
    machine: bool = False
    """A workload, not a person: it never approves."""

    def identity(self) -> list[Json]:
        """The JSON that digests and pseudonyms are made of; groups are no part of who someone is."""
        return [self.issuer, self.subject]


@dataclass(frozen=True, slots=True)
class Skill:
    """One tool of one upstream, as it was pinned."""

    id: str
    """`<upstream>.<name>`: what policy and the record call it."""
    upstream: str
    name: str
    """The upstream's own name for it."""
    exposed: str
    """The name callers use; differs from `name` only where upstreams collide."""
    definition: JsonObject = field(repr=False)
    """As the upstream gave it, every field kept."""
    digest: str
    """SHA-256 over name, title, description, schemas and annotations."""

    @property
    def annotations(self) -> JsonObject:
        found = self.definition.get("annotations")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call is, for a caller that gave a progress token."""

    message: str | None = None
    progress: float | int | None = None
    total: float | int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One `tools/call` off the wire: nothing in it has been checked but its JSON."""

    session: str
    caller: Caller
    name: str
    arguments: JsonObject = field(repr=False)
    hold_s: float = 4.0
    """How long this client can wait for a human before it is given a ticket."""
    on_progress: Callable[[Progress], None] | None = field(default=None, repr=False)
    latest: Callable[[], Caller] | None = field(default=None, repr=False)
    """The caller as it is now, on a connection whose token is refreshed while the call is held."""
    token: str | None = field(default=None, repr=False)
    """The connection's token, where the request had one of its own: arguments may hold neither."""
    question: str = ""
    """The question that the caller's own sealed state names: its outcome may be told again."""
    on_outcome: Callable[[str, str], None] | None = field(default=None, repr=False)
    """Told of an outcome that is kept (its question, `ballot.call_digest`) and given to this caller: whoever sends it
    says `Broker.told` when that is done. None: it counts as told when it is returned."""
    on_question: Callable[[Question], float | None] | None = field(default=None, repr=False)
    """Told of the question that the call waits for, as soon as it does, and of another one in its place; may say how
    many seconds to hold the call for it, instead of `hold_s`."""

    def asking(self) -> Caller:
        """Who is asked about whenever it matters who asks."""
        return self.caller if self.latest is None else self.latest()


@dataclass(frozen=True, slots=True)
class Invocation:
    """A call by a known principal to a known skill."""

    id: str
    session: str
    principal: Principal
    skill: Skill
    arguments: JsonObject = field(repr=False)
    canonical: bytes = field(repr=False)
    """The arguments' canonical JSON: what is decided on, shown, digested and sent."""
    arguments_digest: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What policy may know beyond the call itself."""

    labels: frozenset[str] = frozenset()
    """Labels that earlier answers put on the session."""
    calls: int = 0
    """Calls of this session that went ahead so far."""
    now: float = 0.0
    """Wall clock, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` calls in any `per_s` seconds, for one principal and skill pattern."""

    id: str
    count: int
    per_s: float


@dataclass(frozen=True, slots=True)
class Obligations:
    """What must be done when the call goes ahead; several rules' obligations combine to the strictest."""

    mask: frozenset[str] = frozenset({"pii", "secrets"})
    timeout_s: float = 60.0
    max_result_bytes: int = 4 * 1024 * 1024
    rates: tuple[Rate, ...] = ()
    labels: frozenset[str] = frozenset()
    record: str = "masked"
    """`masked` (payloads kept, masked) or `none` (skeleton only)."""


@dataclass(frozen=True, slots=True)
class MatchedRule:
    """A rule that spoke on a call, and where it stands."""

    id: str
    effect: Effect
    file: str
    line: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What policy said of one invocation."""

    effect: Effect
    rules: tuple[MatchedRule, ...]
    policy: str
    """Digest of the policy that decided."""
    reason: str
    """For operators."""
    message: str = ""
    """For the caller: the deciding rule's `message`, or empty."""
    obligations: Obligations = Obligations()
    terms: ApprovalTerms | None = None
    """Present exactly when the effect is ask."""


class QuestionState(StrEnum):
    """The life of a question to a human."""

    OPEN = "open"
    GRANTED = "granted"
    CONSUMED = "consumed"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's answer."""

    principal: Principal
    yes: bool
    reason: str
    at: float
    version: str = ""
    """The version of the question (`ballot.version_of`) that it answers."""
    broke_glass: bool = False
    """A single person overrode the terms, loudly."""


@dataclass(frozen=True, slots=True)
class Question:
    """A durable question to a human about exactly one call."""

    id: str
    digest: str
    """SHA-256 over principal, skill definition, canonical arguments and policy: what a yes is bound to."""
    state: QuestionState
    session: str
    invocation: str
    requester: Principal
    skill: str
    skill_digest: str
    policy: str
    canonical: bytes = field(repr=False)
    """The exact call that would be sent, as canonical JSON of its arguments."""
    terms: ApprovalTerms
    rules: tuple[MatchedRule, ...]
    asked_at: float
    expires_at: float
    """Wall clock, for display and for restarts; within one run the monotonic deadline rules."""
    votes: tuple[Vote, ...] = ()
    """Of the version that is on the table; a change of it drops the votes for the one before."""
    amended: bytes = field(default=b"", repr=False)
    """The arguments that approvers put in place of the caller's, as canonical JSON; empty: as asked."""
    spec: GrantSpec | None = None
    """The standing grant that approvers want to give; None: this call, once."""
    destructive: bool = False
    """The skill does not say that it changes nothing, or that what it changes can be changed back."""
    call: str = ""
    """`ballot.call_digest`: the call whatever the policy, for its kept outcome."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A named human's yes to one digest, already used up: it can be had once."""

    question: str
    digest: str
    approvers: tuple[str, ...]
    amended: bytes = field(default=b"", repr=False)
    """What is to be sent in place of the caller's arguments; empty: the caller's."""
    grant: str = ""
    """The standing grant that it is a use of."""


@dataclass(frozen=True, slots=True)
class Permit:
    """The call may be made: only `broker.py` makes these."""

    invocation: Invocation
    decision: Decision
    approval: Approval | None


@dataclass(frozen=True, slots=True)
class Intent:
    """The call is on disk as about to be made: only `journal.py` makes these, and only when that is durable."""

    permit: Permit
    seq: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The upstream answered, `isError` results included."""

    result: JsonObject = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The skill was not run: the upstream refused the request, or could not be reached before the first byte."""

    reason: str
    """For operators."""
    error: JsonObject | None = field(default=None, repr=False)
    """The upstream's JSON-RPC error object (`code`, `message`, `data`), when it sent one."""


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Bytes went out and no answer came: the effect may have happened."""

    reason: str


Outcome: TypeAlias = Answered | Failed | InDoubt


@dataclass(frozen=True, slots=True)
class Masked:
    """JSON that may leave the broker or enter the record: only `masking/engine.py` makes these."""

    value: Json = field(repr=False)
    counts: Mapping[str, int] = field(default_factory=dict)
    """Detector name -> how many were replaced. `credential` means that one of the broker's own secrets was in it."""


class Kind(StrEnum):
    """What a row of the record tells."""

    BROKER_STARTED = "broker_started"
    BROKER_STOPPED = "broker_stopped"
    SESSION_OPENED = "session_opened"
    SESSION_CLOSED = "session_closed"
    POLICY_LOADED = "policy_loaded"
    SKILLS_PINNED = "skills_pinned"
    REFUSED = "refused"
    ASKED = "asked"
    TICKETED = "ticketed"
    WITHDRAWN = "withdrawn"
    INTENDED = "intended"
    ANSWERED = "answered"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    LATE = "late"
    TOLD = "told"
    QUESTION_OPENED = "question_opened"
    VOTED = "voted"
    GRANTED = "granted"
    QUESTION_DENIED = "question_denied"
    EXPIRED = "expired"
    CONSUMED = "consumed"
    QUESTION_WITHDRAWN = "question_withdrawn"
    AMENDED = "amended"
    BROKE_GLASS = "broke_glass"
    GRANT_GIVEN = "grant_given"
    GRANT_USED = "grant_used"
    GRANT_SPENT = "grant_spent"
    GRANT_EXPIRED = "grant_expired"
    GRANT_REVOKED = "grant_revoked"
    NOTIFIED = "notified"
    ALARM = "alarm"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Record:
    """One event, ready for the chain. The payload is masked before it gets here."""

    kind: Kind
    session: str
    at: float
    """Wall clock, seconds since 1970."""
    invocation: str = ""
    skill: str = ""
    principal: Principal | None = None
    effect: str = ""
    rules: tuple[str, ...] = ()
    policy: str = ""
    skill_digest: str = ""
    code: str = ""
    """A short constant: why it was refused, how it failed."""
    question: str = ""
    size: int = 0
    """Bytes of the payload before it was capped."""
    payload: bytes | None = field(default=None, repr=False)
    """Masked JSON; stored beside the chain, committed to inside it."""
