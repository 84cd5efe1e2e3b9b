"""Everything that can go wrong, by whom it is blamed on.

    InterposerError
    ├── Refusal                 the caller's: nothing was executed
    │   ├── BadMessage          not a message we accept; carries the JSON-RPC code
    │   ├── Unauthenticated     no principal
    │   ├── UnknownSkill        no such skill, or none that this principal may see: the same to the caller
    │   ├── InvalidArguments    the arguments do not fit the skill's schema
    │   ├── Denied              policy said no
    │   ├── ApprovalRefused     a human said no, or nobody said yes in time
    │   ├── ApprovalPending     a human has not answered yet: a ticket
    │   └── Unavailable         the broker cannot do its part (record, masker, facts): so it does nothing
    ├── UpstreamFault           the upstream's
    ├── RecordFault             ours: the record cannot be trusted or written
    ├── MaskFault               ours: the message cannot be masked, so it is withheld
    └── ConfigurationError      the operator's: every problem at once, each with its place
        └── Unsafe              what the broker stands on can be changed by others, or cannot be protected from them

`str(error)` is for the operator. `error.public` is a constant text for the caller and never holds arguments, secrets,
paths or SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
UNSUPPORTED_PROTOCOL_VERSION = -32022
DENIED = -31001
APPROVAL_REFUSED = -31002
BROKER_UNAVAILABLE = -31003
UPSTREAM_FAILED = -31004
OUTCOME_UNKNOWN = -31005

EXPIRED = "expired"
UNKNOWN_KEY = "unknown_key"
"""Two of the constants in `Unauthenticated.why`: what a caller can mend, and what fresh keys may mend."""


class InterposerError(Exception):
    """The root of the tree."""

    public = "The broker could not do this."


class Refusal(InterposerError):
    """The call was not made. `code` is the JSON-RPC code, `name` the short constant that the record keeps."""

    code = DENIED
    name = "refused"
    public = "The call was refused. Nothing was executed."


class BadMessage(Refusal):
    """Bytes that are not a message we accept (JSON-RPC 2.0 §4, §5.1)."""

    name = "bad_message"

    def __init__(self, code: int, public: str, *, id: int | str | None = None) -> None:
        super().__init__(public)
        self.code = code
        self.public = public
        self.id = id


class Unauthenticated(Refusal):
    """No principal. `why` is a short constant for the record: `unknown_caller`, or what is wrong with a token."""

    name = "unauthenticated"
    public = "The caller is not known to the broker. Nothing was executed."

    def __init__(self, reason: str, *, why: str = "unknown_caller") -> None:
        super().__init__(reason)
        self.why = why
        if why == EXPIRED:
            self.public = "The access token has expired. Nothing was executed; refresh the token and repeat the call."


class UnknownSkill(Refusal):
    """Raised alike for a skill that does not exist and for one that this principal may not see."""

    code = INVALID_PARAMS
    name = "unknown_skill"

    def __init__(self, exposed: str) -> None:
        super().__init__(f"unknown or invisible skill {exposed!r}")
        self.public = f"Unknown tool: {exposed}"


class InvalidArguments(Refusal):
    """`public` names the path and the rule, never the value."""

    code = INVALID_PARAMS
    name = "invalid_arguments"

    def __init__(self, public: str) -> None:
        super().__init__(public)
        self.public = public


class Denied(Refusal):
    """Policy said no. `rule` is the deciding rule's id."""

    name = "denied"

    def __init__(self, reason: str, *, rule: str = "", message: str = "", name: str = "denied") -> None:
        super().__init__(reason)
        self.rule = rule
        self.name = name
        self.public = message or "Policy does not allow this call."


class ApprovalRefused(Refusal):
    """A human said no (`denied`), or the question ended unanswered (`expired`, `withdrawn`)."""

    code = APPROVAL_REFUSED
    name = "approval_refused"

    def __init__(self, reason: str, *, question: str, public: str) -> None:
        super().__init__(reason)
        self.question = question
        self.public = public


_PENDING_PUBLIC = "A human has to approve this call first."


class ApprovalPending(Refusal):
    """The hold is over and nobody has answered: the caller gets a ticket."""

    code = APPROVAL_REFUSED
    name = "approval_pending"

    def __init__(self, *, question: str, expires_at: float, retry_after_s: float, running: bool = False) -> None:
        """`running`: it was approved and is being carried out; the identical call, repeated, is given the outcome."""
        super().__init__(f"question {question} is {'being carried out' if running else 'open'}")
        self.question = question
        self.expires_at = expires_at
        self.retry_after_s = retry_after_s
        self.running = running
        self.public = "This call was approved and is under way." if running else _PENDING_PUBLIC


class Unavailable(Refusal):
    """The broker cannot keep its promises right now, so it makes no call."""

    code = BROKER_UNAVAILABLE
    name = "unavailable"
    public = "The broker cannot serve this call right now. Nothing was executed."


class UpstreamFault(InterposerError):
    """The upstream broke the protocol or cannot be reached."""

    public = "The upstream service is not available."


class RecordFault(InterposerError):
    """The record could not be written, or is no longer the file it was."""

    public = "The broker cannot serve this call right now. Nothing was executed."


class MaskFault(InterposerError):
    """The message could not be masked within its bounds."""

    public = "The answer was withheld: it could not be masked."


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file: where, what, and what to do."""

    file: str
    line: int
    """1-based; 0 where no line is to blame."""
    column: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}"


class ConfigurationError(InterposerError):
    """Everything wrong with a configuration or policy, all at once."""

    public = "The broker is not configured correctly."
    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class Unsafe(ConfigurationError):
    """The start is refused: a file could be changed by another user, or the process cannot be kept from others."""

    exit_code = 78
    """EX_CONFIG of sysexits.h."""
