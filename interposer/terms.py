"""The terms of an approval, in words: who may say yes, when, to how much, and how it is asked for.

Policy makes `ApprovalTerms`, people choose a `GrantSpec` within its `GrantCap`; the rules of both are in `ballot.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week, by the clocks of one place."""

    days: frozenset[int]
    """The days on which it opens, 0 for Monday."""
    opens_min: int
    """Minutes after midnight, 0 to 1439."""
    closes_min: int
    """Minutes after midnight, 0 to 1439; at or before `opens_min` it closes on the day after."""
    zone: str
    """An IANA zone, `Europe/Berlin`."""


@dataclass(frozen=True, slots=True)
class GrantCap:
    """The most that an approver may agree to beyond the call in question."""

    for_s: float
    """How long a grant may last, counted from the yes that makes it."""
    uses: int | None = None
    """How many calls one grant may carry, the one in question included; None: any number in its time."""
    session: bool = False
    """Whether a grant may be for the identical call of one session only."""
    matching: bool = False
    """Whether a grant may be for all arguments that match a JSON Schema which the approver states."""


@dataclass(frozen=True, slots=True)
class GrantSpec:
    """What an approver agrees to beyond the call in question: a standing grant. None in its place: this call, once."""

    for_s: float
    """Seconds from the yes that makes it."""
    uses: int | None = None
    """Calls in all, the one in question included; None: any number in its time."""
    session: bool = False
    """Only for calls of the session that asked."""
    schema: bytes = b""
    """Canonical JSON Schema that arguments must match; empty: the identical arguments only."""


@dataclass(frozen=True, slots=True)
class ApprovalTerms:
    """Who may say yes, how many of them, when, to how much, and how long the question lives."""

    groups: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    """Both empty and no minima: any operator of the broker."""
    quorum: int = 1
    """Distinct people."""
    expires_s: float = 1800.0
    minima: tuple[tuple[str, int], ...] = ()
    """(group, the least number of distinct people of it), sorted. Its people may answer as well as those named above;
    nobody fills the places of two groups."""
    windows: tuple[tuple[Window, ...], ...] = ()
    """A yes counts, and is used, only inside of at least one window of each of these."""
    cap: GrantCap | None = None
    """None: one call, once."""
    execute: bool = False
    """The call is made when it is approved, also if its caller has left; the masked result waits for the same call."""
    caller: bool = False
    """The caller's own user may answer through the client: that stops a misled model, not a hostile client."""
    reading_s: float = 0.0
    """How long an approver must have had the call before them."""
