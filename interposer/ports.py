"""The sockets of the wall: what enforcement asks of the world, and what the world must promise.

Every implementation of a port passes that port's suite under `tests/contract/`. Enforcement (floor 3) knows these
classes only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .grant import Grant, Kept, KeptState
from .model import (
    Approval,
    Caller,
    Decision,
    Facts,
    Intent,
    Invocation,
    Json,
    JsonObject,
    Masked,
    Obligations,
    Outcome,
    Principal,
    Progress,
    Question,
    Rate,
    Record,
    Skill,
)


class Secret:
    """A credential on its way from `Secrets` to an `Upstream`; shows nothing of itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not copied or serialised")


class Clock(Protocol):
    def now(self) -> float:
        """Wall clock, seconds since 1970: for display and for the record."""

    def monotonic(self) -> float:
        """Seconds that never go back and count while the machine sleeps: for deadlines."""


class Authenticator(Protocol):
    async def authenticate(self, caller: Caller) -> Principal:
        """The principal behind a caller, judged anew at every call. Raises `Unauthenticated`; never guesses."""

    async def still(self, principal: Principal, session: str) -> Principal:
        """Someone who was authenticated in this session and has left, with the groups of now where those can be known.
        Raises `Unauthenticated` where something speaks against them (the deny list)."""


class PolicyInformationPoint(Protocol):
    """What policy may know beyond the call, and the counters behind `rate`."""

    def facts(self, session: str) -> Facts:
        """The session's labels and counters, and the time."""

    def count(self, session: str) -> None:
        """One more call of this session went ahead."""

    def label(self, session: str, labels: frozenset[str]) -> None:
        """Put labels on a session; they stay until it ends."""

    def admit(self, principal: Principal, rates: Sequence[Rate]) -> float:
        """0.0 and one unit taken from each rate, or the seconds until all of them have room (nothing taken)."""

    def room(self, principal: Principal, rates: Sequence[Rate]) -> float:
        """The seconds until all rates have room; nothing is taken."""

    def forget(self, session: str) -> None:
        """The session is over."""


class PolicyDecisionPoint(Protocol):
    """Total and pure: the same input gives the same decision; any exception counts as deny."""

    @property
    def digest(self) -> str:
        """SHA-256 of the policy in force."""

    def decide(self, principal: Principal, skill: Skill, arguments: JsonObject, session: str, facts: Facts) -> Decision:
        """What the policy says of this call."""

    def offers(self, principal: Principal, skill: Skill) -> bool:
        """Whether any call of this skill by this principal could be allowed or asked for."""

    def obligations(self, skill_id: str) -> Obligations:
        """The obligations on a skill, for what is masked outside of a call (definitions, notifications)."""


class ApprovalChannel(Protocol):
    async def announce(self, question: Question) -> None:
        """Tell humans that a question is open, or how it ended. Holds no state; may fail, and the question stands."""


@dataclass(frozen=True, slots=True)
class Revision:
    """What one transaction makes of a question: put in its place, chained, and a standing grant that comes of it."""

    question: Question
    records: Sequence[Record]
    grant: Grant | None = None
    now: float | None = None
    """The time as the question's own deadline counts it: at or after `expires_at` nothing is granted. None: when the
    newest of the records was made."""


class RecordStore(Protocol):
    """The durable record. One writer per store; a second one is refused at `open`."""

    async def append(self, record: Record) -> int:
        """Chain the record and return its sequence number: only when it is on disk, in the file that is still in
        place. Raises `RecordFault`."""

    async def open_question(self, question: Question, record: Record) -> Question:
        """In one transaction: the open or granted question of the same digest if there is one (nothing is written),
        else store this one and chain the record."""

    async def question(self, id: str) -> Question | None:
        """The question as it stands."""

    async def questions(self, *, unanswered: bool = True, skill: str = "", limit: int = 1_000) -> list[Question]:
        """The open questions, oldest first; or all of them, newest first, at most `limit`. With `skill`, only those
        about that skill."""

    async def standing(self, now: float) -> list[Question]:
        """Every question that is open or granted, and those denied whose time is not over; oldest first."""

    async def revise(self, id: str, revise: Callable[[Question], Revision]) -> Question:
        """In one transaction: read the question, put the one that `revise` returns in its place, store the grant that
        comes of it, chain its records. `revise` runs on the writer's thread, is pure, and may raise: then nothing is
        written and the exception comes back. Raises `KeyError` for an unknown id."""

    async def consume(self, id: str, digest: str, now: float, record: Record) -> bool:
        """In one transaction: granted, unexpired and of this digest becomes consumed, the record is chained, and a
        `Kept` of the record's invocation stands as running. True for exactly one caller, ever."""

    async def close_question(self, id: str, record: Record) -> bool:
        """In one transaction: open or granted becomes what the record's kind says (expired, withdrawn). False when it
        had ended already."""

    async def keep(self, question: str, state: KeptState, body: bytes, withheld: str, *, delivered: bool) -> None:
        """What became of the call of a consumed question; nothing happens where nothing is kept of it."""

    async def kept(self, question: str) -> Kept | None:
        """What is kept of a question's call."""

    async def waiting(self) -> list[Kept]:
        """What is kept and was not delivered, oldest first; of an earlier run too."""

    async def discard(self, now: float) -> None:
        """Kept outcomes whose time is over are deleted."""

    async def grants(self, *, active: bool = True) -> list[Grant]:
        """The active standing grants, oldest first; or all of them, newest first, at most 1,000."""

    async def use_grant(self, id: str, now: float, record: Record) -> bool:
        """In one transaction: one more use of an active, unexpired grant with uses left, and the record is chained;
        the last use spends it, which is chained too. False where there was none left."""

    async def end_grant(self, id: str, record: Record) -> bool:
        """In one transaction: an active grant becomes what the record's kind says (expired, revoked). False when it had
        ended already."""

    async def unfinished(self) -> list[Record]:
        """Intents without an outcome, oldest first."""

    def healthy(self) -> bool:
        """Whether the file written to is still the file in place (device, inode, links)."""

    async def aclose(self) -> None:
        """Everything appended is on disk and the store is released."""


class Secrets(Protocol):
    async def reveal(self, name: str) -> Secret:
        """The credential of an upstream as it is now. Raises `ConfigurationError` when it cannot be had."""

    def stamp(self, name: str) -> Hashable:
        """Equal to what it was: another look at this credential is not worth it. Different: it may have changed, or be
        of no use any more. None: it never changes. Cheap (one os.stat at most); never raises."""


class Pins(Protocol):
    """The definitions that operators agreed to, by upstream. Survives restarts; writes are atomic."""

    def load(self, upstream: str) -> dict[str, JsonObject] | None:
        """Tool name -> pinned definition; None when this upstream was never pinned."""

    def save(self, upstream: str, definitions: dict[str, JsonObject]) -> None:
        """These are the pins from now on."""


class Upstream(Protocol):
    """A service that offers skills. "The tool failed" is an `Outcome`, never an exception."""

    name: str

    def serves(self, principal: Principal) -> bool:
        """Whether there is a credential for this principal's calls (or none is needed): a call of anybody else's is to
        be refused before its intent. Cheap; asked at every call."""

    async def skills(self) -> list[JsonObject]:
        """The tool definitions as the upstream gives them now, all pages. Raises `UpstreamFault`."""

    async def call(self, intent: Intent, on_progress: Callable[[Progress], None] | None) -> Outcome:
        """Make the call, once. Cancelled: the upstream is told, and the outcome is `InDoubt` if bytes were sent.
        Never retries after the first byte."""

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call this when the upstream says that its skills changed, or when it was started anew."""

    async def aclose(self) -> None:
        """No process, connection or task of this upstream is left."""


class Masker(Protocol):
    def mask(self, value: Json, profiles: frozenset[str]) -> Masked:
        """The value with every finding replaced, in strings, keys and numbers. Raises `MaskFault`; never returns
        what it could not read."""

    def guard(self, secret: Secret) -> None:
        """From now on, find this credential in its usual encodings whatever the profiles."""

    def relax(self, schema: JsonObject) -> JsonObject:
        """The schema that masked values of the given schema satisfy."""


class Cancellable(Protocol):
    def cancel(self) -> object:
        """End this piece of work at its next wait."""


class Tasks(Protocol):
    """Where work is started that nobody waits for; it ends with whoever owns this."""

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, object]], *args: Any) -> Cancellable:
        """Start `work(*args)`. An exception that leaves it ends the owner."""


class Receiver(Protocol):
    """A conversation, as its transport sees it. Called on the event loop's thread; never blocks."""

    def received(self, data: bytes) -> None:
        """Bytes, cut anywhere."""

    def ended(self) -> None:
        """The peer will send no more."""

    def drained(self) -> None:
        """The peer reads again: what it was sent has left."""


class Connection(Protocol):
    """One peer, as its conversation sees it."""

    caller: Caller

    def send(self, frame: bytes) -> None:
        """Queue one frame, newline included. Nothing is sent after `close`, and nothing is raised."""

    @property
    def backlog(self) -> int:
        """Bytes queued that the peer has not taken."""

    def pause(self) -> None:
        """Read no more from the peer until `resume`."""

    def resume(self) -> None:
        """Read again."""

    def close(self) -> None:
        """Send what is queued, then hang up."""


class Transport(Protocol):
    async def serve(self, accept: Callable[[Connection], Receiver], ready: Callable[[str], None]) -> None:
        """Accept peers until cancelled (or, on stdio, until the peer has ended). `ready` is given the address."""


Approve = Callable[[Invocation, Decision], Awaitable[Approval]]
