"""The last rows of a record, as a start needs them: are they sound, and what has no end yet?

Neither question reads more than the end of the record, so that a start takes as long after a million rows as after ten.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from interposer import canonical, chain
from interposer.errors import RecordFault
from interposer.lifecycle import ENDS
from interposer.model import Kind, Record

from .forms import principal_of
from .schema import LINKS, link_of

_COLUMNS = (
    "e.seq, e.kind, e.at, e.session, e.invocation, e.skill, e.effect, e.rules, e.policy, e.skill_digest, s.principal"
)
_JOIN = "events e LEFT JOIN subjects s ON s.pseudonym = e.principal"
_TAIL = f"SELECT {_COLUMNS} FROM {_JOIN} WHERE e.seq > (SELECT settled FROM head) ORDER BY e.seq"  # noqa: S608  # constants
_SESSIONS = f"SELECT {_COLUMNS} FROM {_JOIN} WHERE e.seq IN (SELECT seq FROM open_sessions)"  # noqa: S608  # constants

_CHECKED_ROWS = 256


def sound_tail(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """The sequence number and hash of the last row. Raises `RecordFault` when the last rows are not a chain that ends
    there: nothing is ever chained to what somebody else wrote."""
    seq, head = connection.execute("SELECT seq, hash FROM head").fetchone()
    first = max(1, seq - _CHECKED_ROWS + 1)
    links = [link_of(row) for row in connection.execute(LINKS.format("WHERE e.seq >= ?"), (first,))]
    verifier = chain.Verifier(after=links[0].previous if links and first > 1 else chain.GENESIS, first=first)
    found = next((found for found in map(verifier.take, links) if found is not None), None)
    found = found or verifier.finish((seq, head))
    if found is not None:
        text = (
            f"its chain is broken, {found.text}; keep the file for `interposer record verify`, and start a new record"
        )
        raise RecordFault(text)
    return seq, head


def left_open(connection: sqlite3.Connection) -> list[tuple[int, Record]]:
    """Calls asked or intended that have no end (their last row), and sessions not closed; each with its sequence
    number, oldest first."""
    found: dict[str, Any] = {}
    for row in connection.execute(_TAIL):
        kind, invocation = row[1], row[4]
        if kind in (Kind.ASKED, Kind.INTENDED):
            found[invocation] = row
        elif kind in ENDS:
            found.pop(invocation, None)
    rows = [*found.values(), *connection.execute(_SESSIONS)]
    return sorted(((row[0], _record(row)) for row in rows), key=lambda each: each[0])


def _record(row: Any) -> Record:
    _, kind, at, session, invocation, skill, effect, rules, policy, skill_digest, principal = row
    return Record(
        kind=Kind(kind),
        session=session,
        at=at,
        invocation=invocation,
        skill=skill,
        principal=None if principal is None else principal_of(canonical.parse(principal.encode())),
        effect=effect,
        rules=tuple(canonical.parse(rules.encode())),
        policy=policy,
        skill_digest=skill_digest,
    )
