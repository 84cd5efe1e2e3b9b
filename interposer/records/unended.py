"""What a crash left without an end, found in the last rows of the record and nowhere else."""

from __future__ import annotations

import sqlite3
from typing import Any

from interposer import canonical
from interposer.lifecycle import ENDS
from interposer.model import Kind, Record

from .questions import principal_of

_COLUMNS = (
    "e.seq, e.kind, e.at, e.session, e.invocation, e.skill, e.effect, e.rules, e.policy, e.skill_digest, s.principal"
)
_JOIN = "events e LEFT JOIN subjects s ON s.pseudonym = e.principal"
_TAIL = f"SELECT {_COLUMNS} FROM {_JOIN} WHERE e.seq > (SELECT settled FROM head) ORDER BY e.seq"  # noqa: S608  # constants
_SESSIONS = f"SELECT {_COLUMNS} FROM {_JOIN} WHERE e.seq IN (SELECT seq FROM open_sessions)"  # noqa: S608  # constants


def left_open(connection: sqlite3.Connection) -> list[tuple[int, Record]]:
    """Calls asked or intended that have no end (their last row), and sessions not closed; each with its sequence
    number, oldest first."""
    found: dict[str, tuple[int, Record]] = {}
    for row in connection.execute(_TAIL):
        seq, kind, invocation = row[0], row[1], row[4]
        if kind in (Kind.ASKED, Kind.INTENDED):
            found[invocation] = (seq, _record(row))
        elif kind in ENDS:
            found.pop(invocation, None)
    sessions = [(row[0], _record(row)) for row in connection.execute(_SESSIONS)]
    return sorted([*found.values(), *sessions], key=lambda each: each[0])


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
