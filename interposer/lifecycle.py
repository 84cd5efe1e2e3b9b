"""The life of one invocation, of one question, and of one standing grant, as tables: what may follow what.

`journal.py` writes no row that these tables do not have, `chain.py` proves what was written, and the diagram in
ARCHITECTURE.md is drawn from here. `None` is the time before the first row.
"""

from __future__ import annotations

from collections.abc import Mapping

from .model import Kind

INVOCATION: Mapping[Kind | None, frozenset[Kind]] = {
    None: frozenset({Kind.REFUSED, Kind.ASKED, Kind.INTENDED, Kind.TOLD}),
    Kind.ASKED: frozenset({Kind.REFUSED, Kind.TICKETED, Kind.WITHDRAWN, Kind.INTENDED}),
    Kind.INTENDED: frozenset({Kind.ANSWERED, Kind.FAILED, Kind.IN_DOUBT}),
    Kind.IN_DOUBT: frozenset({Kind.LATE}),
    Kind.REFUSED: frozenset(),
    Kind.TICKETED: frozenset(),
    Kind.WITHDRAWN: frozenset(),
    Kind.ANSWERED: frozenset(),
    Kind.FAILED: frozenset(),
    Kind.LATE: frozenset(),
    Kind.TOLD: frozenset(),
}
"""An approved call that is repeated after a ticket is a new invocation: it begins again at the top. One whose earlier
outcome was kept is not made again: it is told."""

_ANSWERS = frozenset({Kind.VOTED, Kind.AMENDED, Kind.BROKE_GLASS})
_ENDS = frozenset({Kind.GRANTED, Kind.QUESTION_DENIED, Kind.EXPIRED, Kind.QUESTION_WITHDRAWN})

QUESTION: Mapping[Kind | None, frozenset[Kind]] = {
    None: frozenset({Kind.QUESTION_OPENED}),
    Kind.QUESTION_OPENED: _ENDS | _ANSWERS,
    Kind.VOTED: _ENDS | _ANSWERS,
    Kind.AMENDED: _ENDS | _ANSWERS,
    Kind.BROKE_GLASS: frozenset({Kind.GRANTED}),
    Kind.GRANTED: frozenset({Kind.CONSUMED, Kind.EXPIRED, Kind.QUESTION_WITHDRAWN}),
    Kind.QUESTION_DENIED: frozenset(),
    Kind.EXPIRED: frozenset(),
    Kind.CONSUMED: frozenset(),
    Kind.QUESTION_WITHDRAWN: frozenset(),
}

_GRANT_ENDS = frozenset({Kind.GRANT_SPENT, Kind.GRANT_EXPIRED, Kind.GRANT_REVOKED})

GRANT: Mapping[Kind | None, frozenset[Kind]] = {
    None: frozenset({Kind.GRANT_GIVEN}),
    Kind.GRANT_GIVEN: _GRANT_ENDS | {Kind.GRANT_USED},
    Kind.GRANT_USED: _GRANT_ENDS | {Kind.GRANT_USED},
    Kind.GRANT_SPENT: frozenset(),
    Kind.GRANT_EXPIRED: frozenset(),
    Kind.GRANT_REVOKED: frozenset(),
}
"""Rows of a standing grant carry the grant's id where others carry the question's."""

_STARTS = INVOCATION[None] | QUESTION[None] | GRANT[None]

TABLE: Mapping[Kind | None, frozenset[Kind]] = {**INVOCATION, **QUESTION, **GRANT, None: _STARTS}
"""All lives in one: no kind is in two, so nothing can cross over."""

ENDS = frozenset(kind for kind, following in INVOCATION.items() if kind is not None and not following) | {Kind.IN_DOUBT}
"""Kinds after which an invocation is over; a late answer to one in doubt is a postscript."""

_NOTHING: frozenset[Kind] = frozenset()


def allowed(previous: Kind | None, next: Kind) -> bool:
    """Whether a row of kind `next` may follow one of kind `previous` in the same life."""
    return next in TABLE.get(previous, _NOTHING)


def mermaid() -> str:
    """The tables as Mermaid state diagrams, one after the other, each in its own fence."""
    return "\n\n".join(_diagram(table) for table in (INVOCATION, QUESTION, GRANT))


def _diagram(table: Mapping[Kind | None, frozenset[Kind]]) -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    for previous, following in table.items():
        start = "[*]" if previous is None else previous.value
        lines += [f"    {start} --> {kind.value}" for kind in Kind if kind in following]
        if not following:
            lines.append(f"    {start} --> [*]")
    return "\n".join([*lines, "```"])
