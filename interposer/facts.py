"""What policy may know beyond the call: session labels and counters, rates, and the time. Lost with the process.

Rates are exact: at most `count` calls in any window of `per_s` seconds, kept as the times of the last `count` calls.
Memory is bounded: sessions and windows beyond `limit` push out those unused for longest; a window that could still
refuse a call is never pushed out, and where no window can go the call waits.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from interposer.model import Facts, Principal, Rate
from interposer.ports import Clock

MAX_SESSIONS = 10_000
MAX_WINDOWS = 50_000
_LOOKED_AT = 32
"""Windows examined for one that is over, before a call is made to wait."""
_CROWDED_S = 1.0


@dataclass(slots=True)
class _Session:
    labels: frozenset[str] = frozenset()
    calls: int = 0


@dataclass(slots=True)
class _Window:
    per_s: float
    times: deque[float] = field(default_factory=deque)
    """Monotonic times of the calls in the window, oldest first."""

    def over(self, now: float) -> bool:
        return not self.times or now - self.times[-1] >= self.per_s


class MemoryFacts:
    """A `PolicyInformationPoint` in memory. Used from one thread."""

    def __init__(self, clock: Clock, *, max_sessions: int = MAX_SESSIONS, max_windows: int = MAX_WINDOWS) -> None:
        self._clock = clock
        self._max_sessions = max_sessions
        self._max_windows = max_windows
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._windows: OrderedDict[tuple[str, str, str], _Window] = OrderedDict()

    def facts(self, session: str) -> Facts:
        """The session's labels and counters, and the time; an unknown session has neither."""
        known = self._sessions.get(session)
        now = self._clock.now()
        return Facts(now=now) if known is None else Facts(known.labels, known.calls, now)

    def count(self, session: str) -> None:
        """One more call of this session."""
        self._session(session).calls += 1

    def label(self, session: str, labels: frozenset[str]) -> None:
        """Put labels on a session; they stay until it ends."""
        if labels:
            known = self._session(session)
            known.labels |= labels

    def forget(self, session: str) -> None:
        """The session is over. Rates belong to principals and stay."""
        self._sessions.pop(session, None)

    def admit(self, principal: Principal, rates: Sequence[Rate]) -> float:
        """0.0 and one unit taken from each rate, or the seconds until all of them have room (nothing taken)."""
        if not rates:
            return 0.0
        now = self._clock.monotonic()
        keys = _keys(principal, rates)
        wait = max(self._wait(key, rate, now) for key, rate in zip(keys, rates, strict=True))
        if wait > 0.0 or not self._room(keys, now):
            return wait or _CROWDED_S
        for key, rate in zip(keys, rates, strict=True):
            self._take(key, rate, now)
        return 0.0

    def room(self, principal: Principal, rates: Sequence[Rate]) -> float:
        """As `admit`, and nothing is taken."""
        now = self._clock.monotonic()
        return max((self._wait(*each, now) for each in zip(_keys(principal, rates), rates, strict=True)), default=0.0)

    def _session(self, id: str) -> _Session:
        known = self._sessions.get(id)
        if known is None:
            # The oldest session without labels goes first: forgetting a label would loosen policy.
            while len(self._sessions) >= self._max_sessions:
                self._sessions.pop(self._expendable())
            known = self._sessions[id] = _Session()
        else:
            self._sessions.move_to_end(id)
        return known

    def _expendable(self) -> str:
        oldest = next(iter(self._sessions))
        near = islice(self._sessions.items(), _LOOKED_AT)
        return next((id for id, session in near if not session.labels), oldest)

    def _wait(self, key: tuple[str, str, str], rate: Rate, now: float) -> float:
        if rate.count < 1:
            return rate.per_s
        window = self._windows.get(key)
        if window is None:
            return 0.0
        times = window.times
        while times and now - times[0] >= rate.per_s:
            times.popleft()
        if len(times) < rate.count:
            return 0.0
        # Rounding must not make "now + wait" fall just inside of the window.
        return max(times[len(times) - rate.count] + rate.per_s - now, 1e-6)

    def _room(self, keys: Iterable[tuple[str, str, str]], now: float) -> bool:
        wanted = set(keys)
        looks = _LOOKED_AT
        while len(self._windows) + len(wanted - self._windows.keys()) > self._max_windows:
            if not looks:
                return False
            looks -= 1
            key, window = next(iter(self._windows.items()))
            if key not in wanted and window.over(now):
                del self._windows[key]
            else:
                self._windows.move_to_end(key)
        return True

    def _take(self, key: tuple[str, str, str], rate: Rate, now: float) -> None:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(rate.per_s)
        else:
            self._windows.move_to_end(key)
        window.times.append(now)


def _keys(principal: Principal, rates: Iterable[Rate]) -> list[tuple[str, str, str]]:
    return [(principal.issuer, principal.subject, rate.id) for rate in rates]
