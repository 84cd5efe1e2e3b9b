"""Whether the chain bears out what a table says, asked before a yes is used.

The tables can be edited by whoever can write the file; so can the chain, but not without `record verify` seeing it. So
nothing is used, and nothing told, that the chain's own rows do not tell of. It takes a few look-ups by index, for calls
that need a yes.
"""

from __future__ import annotations

import sqlite3

from interposer import ballot, chain
from interposer.grant import Grant, Kept
from interposer.model import Kind, Question

from . import lives
from .lives import says
from .row import pseudonym
from .schema import LINKS, link_of

_FIRST = (
    "SELECT e.at, e.commitment, p.salt, CAST(p.body AS BLOB) FROM events e LEFT JOIN payloads p ON p.seq = e.seq "
    "WHERE e.question = ? AND e.question <> '' AND e.kind = ? ORDER BY e.seq LIMIT 1"
)
_COUNT = "SELECT count(*) FROM events WHERE question = ? AND question <> '' AND kind IN (?, ?, ?)"
_VOTES = (
    "SELECT kind, code, principal FROM events WHERE question = ? AND question <> '' AND kind IN (?, ?) ORDER BY seq"
)
_BEGUN = "SELECT seq, invocation FROM events WHERE question = ? AND question <> '' AND kind = ?"
_OUTCOME = "SELECT seq FROM events WHERE seq > ? AND invocation = ? AND kind IN (?, ?) ORDER BY seq DESC LIMIT 1"
_SENT = (
    "SELECT e.commitment, p.salt, CAST(p.body AS BLOB) FROM events e JOIN payloads p ON p.seq = e.seq "
    "WHERE e.question = ? AND e.question <> '' AND e.kind = ? AND e.invocation = ?"
)
_SLACK_S = 0.001


def bears_out_yes(connection: sqlite3.Connection, question: Question) -> bool:
    """Whether this version of the question was granted, once, and may stand as long as the table says."""
    opened = connection.execute(_FIRST, (question.id, Kind.QUESTION_OPENED)).fetchone()
    yes = connection.execute(_FIRST, (question.id, Kind.GRANTED)).fetchone()
    if opened is None or yes is None or _ended(connection, question.id, _QUESTION_ENDS):
        return False
    if question.expires_at > opened[0] + question.terms.expires_s + _SLACK_S:
        return False
    _, commitment, salt, body = yes
    if not commitment:  # an interposer of version 1 knew only questions as they were asked
        return ballot.version_of(question) == question.digest
    return _said(commitment, salt, body, "version") == ballot.version_of(question)


def bears_out_grant(connection: sqlite3.Connection, grant: Grant) -> bool:
    """Whether this grant was given as it stands, has not ended, and was used no more often than it says."""
    given = connection.execute(_FIRST, (grant.id, Kind.GRANT_GIVEN)).fetchone()
    if given is None or _ended(connection, grant.id, _GRANT_ENDS):
        return False
    _, commitment, salt, body = given
    if _said(commitment, salt, body, "commitment") != lives.commitment(grant):
        return False
    return grant.uses is None or _uses(connection, grant.id) <= grant.used


def outcome_row(connection: sqlite3.Connection, kept: Kept) -> int:
    """Where the chain tells how a call ended, looked for from its end: an outcome is kept at once. 0: nowhere."""
    begun = connection.execute(_BEGUN, (kept.question, Kind.CONSUMED)).fetchone()
    if begun is None:
        return 0
    row = connection.execute(_OUTCOME, (begun[0], kept.invocation, Kind.ANSWERED, Kind.FAILED)).fetchone()
    return 0 if row is None else int(row[0])


def bears_out_outcome(connection: sqlite3.Connection, kept: Kept, row: int) -> bool:
    """Whether this is what became of the call for which the question was consumed."""
    begun = connection.execute(_BEGUN, (kept.question, Kind.CONSUMED)).fetchone()
    if begun is None or begun[1] != kept.invocation or not _was_sent(connection, kept):
        return False
    found = connection.execute(LINKS.format("WHERE e.seq = ?"), (row,)).fetchone()
    if found is None:
        return lives.agrees(kept, None, None)
    link = link_of(found)
    beside = link.payload is None or chain.commit(link.salt or b"", link.payload) == link.row.commitment
    return beside and lives.agrees(kept, link.row, link.payload)


def _was_sent(connection: sqlite3.Connection, kept: Kept) -> bool:
    """Whether arguments that would be told as those of the call are; of what was erased or cut, nothing is known."""
    sent = connection.execute(_SENT, (kept.question, Kind.INTENDED, kept.invocation)).fetchone()
    if sent is None:
        return lives.sent(kept, None)
    commitment, salt, body = sent
    return chain.commit(salt, body) == commitment and lives.sent(kept, body)


_QUESTION_ENDS = (Kind.CONSUMED, Kind.EXPIRED, Kind.QUESTION_WITHDRAWN)
_GRANT_ENDS = (Kind.GRANT_SPENT, Kind.GRANT_EXPIRED, Kind.GRANT_REVOKED)


def _ended(connection: sqlite3.Connection, id: str, by: tuple[Kind, Kind, Kind]) -> bool:
    return bool(connection.execute(_COUNT, (id, *by)).fetchone()[0])


def _uses(connection: sqlite3.Connection, id: str) -> int:
    return int(connection.execute(_COUNT, (id, *(Kind.GRANT_USED,) * 3)).fetchone()[0])


def _said(commitment: bytes, salt: bytes | None, body: bytes | None, name: str) -> object:
    """What a payload says that is the one the row was written with; None for any other, and for one that is gone."""
    if salt is None or body is None or chain.commit(salt, body) != commitment:
        return None
    return says(body, name)


def bears_out_votes(connection: sqlite3.Connection, question: Question) -> bool:
    """Whether the votes of an open question are those that were cast for what is on the table."""
    (key,) = connection.execute("SELECT value FROM meta WHERE name = 'pseudonym_key'").fetchone()
    cast: list[str] = []
    for kind, code, principal in connection.execute(_VOTES, (question.id, Kind.VOTED, Kind.AMENDED)):
        if kind == Kind.AMENDED:
            cast.clear()
        elif code == "yes":
            cast.append(principal)
    return cast == [pseudonym(bytes(key), vote.principal.identity()) for vote in question.votes]
