"""The docket: what this run knows of its questions without asking the store: deadlines, counts, recent refusals.

The store stays the truth of a question's state. The docket is the truth of its deadline: the wall clock says only what
is left of a question that an earlier run opened.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from .ballot import ends_at
from .errors import Denied
from .model import Principal, Question, QuestionState
from .ports import Clock

_TOO_MANY_PUBLIC = "Too many calls are waiting for approval already."
_TOO_FAST_PUBLIC = "Too many calls were put to a human in a short time. Wait before asking for more."
_TOO_LARGE_PUBLIC = "The arguments are too large to be put to a human."
_KNOWN_ASKERS = 10_000


@dataclass(frozen=True, slots=True)
class DeskLimits:
    """How much may wait, and what else the desk is strict about."""

    pending_per_session: int = 20
    pending: int = 10_000
    pending_per_caller: int = 100
    """Of one principal, in all its sessions."""
    arguments_bytes: int = 256 * 1024
    """Longer arguments are put to no human: nobody reads them, and every look at the list carries them."""
    heartbeat_s: float = 1.0
    refuse_same_uid: bool = False
    """Whoever has the requester's uid is the requester, whatever the name: for agents that have a uid of their own."""
    rate: int = 60
    """New questions of one principal in `rate_s` seconds."""
    rate_s: float = 60.0
    may_break_glass: Callable[[Principal], bool] = lambda principal: False
    """Whether this person may override what a rule demands, alone."""


@dataclass(slots=True)
class Standing:
    """An open or granted question, as this run knows it."""

    digest: str
    session: str
    deadline: float
    open: bool
    asker: tuple[str, str] = ("", "")
    executes: bool = False
    """Its call is made when it is approved, whoever waits."""
    ticketed: bool = False


class Docket:
    """Questions that stand (open, or granted and unused), by id, and the one that stands for each digest."""

    def __init__(self, clock: Clock, limits: DeskLimits) -> None:
        self._clock = clock
        self._limits = limits
        self.standing: dict[str, Standing] = {}
        self.current: dict[str, str] = {}
        self._pending: Counter[str] = Counter()
        self._pending_by: Counter[tuple[str, str]] = Counter()
        self._refused: dict[str, tuple[str, float]] = {}
        self._asked: dict[tuple[str, str], deque[float]] = {}

    def deadline(self, question: Question) -> float:
        """Monotonic. For a question of an earlier run, what the wall clock says is left of it."""
        known = self.standing.get(question.id)
        if known is not None:
            return known.deadline
        left = min(ends_at(question) - self._clock.now(), question.terms.expires_s)
        return self._clock.monotonic() + max(0.0, left)

    def overdue(self, question: Question) -> bool:
        return self.deadline(question) <= self._clock.monotonic()

    def enter(self, question: Question) -> Standing:
        """From now on it stands; the first deadline it was given stays."""
        known = self.standing.get(question.id)
        if known is None:
            is_open = question.state is QuestionState.OPEN
            asker = (question.requester.issuer, question.requester.subject)
            known = Standing(
                question.digest, question.session, self.deadline(question), is_open, asker, question.terms.execute
            )
            self.standing[question.id] = known
            self.current[question.digest] = question.id
            if is_open:
                self._pending[question.session] += 1
                self._pending_by[asker] += 1
        return known

    def granted(self, bound: str) -> bool:
        """Whether a yes to this digest waits to be used."""
        known = self.standing.get(self.current.get(bound, ""))
        return known is not None and not known.open

    def answered(self, question: Question) -> None:
        """It waits for no human any more, and makes room for another. A yes to a standing grant ends with the grant."""
        known = self.standing.get(question.id)
        if known is not None:
            self._closed(known)
            left = ends_at(question) - self._clock.now()
            if question.spec is not None:
                known.deadline = min(known.deadline, self._clock.monotonic() + max(0.0, left))

    def drop(self, id: str) -> None:
        """It stands no longer."""
        gone = self.standing.pop(id, None)
        if gone is None:
            return
        self._closed(gone)
        if self.current.get(gone.digest) == id:
            del self.current[gone.digest]

    def reserve(self, fresh: Question) -> None:
        """Room for one more open question. Raises `Denied` named `too_large`, `too_many_pending` or
        `too_many_questions`."""
        limits, asker = self._limits, (fresh.requester.issuer, fresh.requester.subject)
        if len(fresh.canonical) > limits.arguments_bytes:
            raise Denied("too large for a human", message=_TOO_LARGE_PUBLIC, name="too_large")
        full = self._pending[fresh.session] >= limits.pending_per_session
        full = full or self._pending_by[asker] >= limits.pending_per_caller
        if full or self._pending.total() >= limits.pending:
            raise Denied("too many questions are open", message=_TOO_MANY_PUBLIC, name="too_many_pending")
        self._note_asker(fresh.requester)
        self._pending[fresh.session] += 1
        self._pending_by[asker] += 1

    def _note_asker(self, asker: Principal) -> None:
        now, who = self._clock.monotonic(), (asker.issuer, asker.subject)
        times = self._asked.get(who)
        if times is None:
            if len(self._asked) >= _KNOWN_ASKERS:
                self._asked = {key: past for key, past in self._asked.items() if past[-1] > now - self._limits.rate_s}
            times = self._asked[who] = deque(maxlen=self._limits.rate)
        if len(times) == self._limits.rate and times[0] > now - self._limits.rate_s:
            reason = f"{self._limits.rate} questions in {self._limits.rate_s:g} s"
            raise Denied(reason, message=_TOO_FAST_PUBLIC, name="too_many_questions")
        times.append(now)

    def release(self, fresh: Question) -> None:
        """What was reserved for it is free, or has been taken by `enter`."""
        self._less(fresh.session, (fresh.requester.issuer, fresh.requester.subject))

    def _closed(self, known: Standing) -> None:
        if known.open:
            known.open = False
            self._less(known.session, known.asker)

    def _less(self, session: str, asker: tuple[str, str]) -> None:
        self._pending[session] -= 1
        if self._pending[session] <= 0:
            del self._pending[session]
        self._pending_by[asker] -= 1
        if self._pending_by[asker] <= 0:
            del self._pending_by[asker]

    def refuse(self, question: Question, deadline: float) -> None:
        """A human said no, and that holds until `deadline`."""
        self._refused[question.digest] = (question.id, deadline)

    def refused(self, bound: str) -> str:
        """The question in which a human refused this call not long ago, or nothing."""
        id, until = self._refused.get(bound, ("", 0.0))
        return id if self._clock.monotonic() < until else ""

    def due(self) -> list[str]:
        """The questions whose time is over; refusals whose time is over are forgotten."""
        now = self._clock.monotonic()
        for bound in [bound for bound, (_, until) in self._refused.items() if until <= now]:
            del self._refused[bound]
        return [id for id, standing in self.standing.items() if standing.deadline <= now]
