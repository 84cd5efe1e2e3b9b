"""What outlives a yes: standing grants, and outcomes that are kept for callers who come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from .model import Principal
from .terms import ApprovalTerms


class GrantState(StrEnum):
    """The life of a standing grant."""

    ACTIVE = "active"
    SPENT = "spent"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Grant:
    """A durable yes to more calls than one: of one principal, to one skill as it is defined, under one policy and its
    terms."""

    id: str
    question: str
    """The question in whose place it was given."""
    state: GrantState
    requester: Principal
    skill: str
    skill_digest: str
    policy: str
    terms: ApprovalTerms
    arguments_digest: str
    """Of the identical arguments that it is for; empty where `schema` says."""
    schema: bytes
    """Canonical JSON Schema that arguments must match; empty where `arguments_digest` says."""
    session: str
    """The only session whose calls it carries; empty: any."""
    uses: int | None
    """How many calls it may carry; None: any number in its time."""
    used: int
    approvers: tuple[str, ...]
    given_at: float
    expires_at: float
    """Wall clock, seconds since 1970."""


KEPT_S = 600.0
"""How much longer than its question the outcome of a call is kept."""


class KeptState(StrEnum):
    """How far an approved call has come whose outcome is kept for its caller."""

    RUNNING = "running"
    ANSWERED = "answered"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"


class Telling(StrEnum):
    """Whether its caller knows how a call ended."""

    WAITING = "waiting"
    """It has left; the identical call is told."""
    IN_HAND = "in_hand"
    """It is about to be told: until that is done it counts as not told, for a broker that dies in between."""
    TOLD = "told"


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of an approved call, kept for a caller that comes back: until its question would have expired, and
    `KEPT_S` longer."""

    question: str
    call: str
    """`ballot.call_digest`."""
    invocation: str
    state: KeptState
    body: bytes = field(repr=False)
    """Canonical JSON of the masked answer; empty while it runs, and where policy records nothing."""
    withheld: str
    delivered: bool
    """The caller has had it; it is given again only to whoever shows this question's own state."""
    expires_at: float
