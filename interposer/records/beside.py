"""What stands beside the chain and must agree with it: payloads, names, questions, standing grants, kept outcomes.

Gathered while the chain is read, compared at its end. What the chain does not tell, it cannot contradict: of payloads
that were erased or cut, the rest is compared.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from interposer import ballot, canonical, chain
from interposer.errors import RecordFault
from interposer.grant import Grant, GrantState, Kept
from interposer.model import Json, JsonObject, Kind, Question, QuestionState

from . import grants as granting
from . import keeping
from . import questions as asking
from .lives import agrees, commitment, says, sent
from .row import pseudonym

T = TypeVar("T")

_STATE_AFTER: Mapping[str, str] = {
    Kind.QUESTION_OPENED: QuestionState.OPEN,
    Kind.GRANTED: QuestionState.GRANTED,
    Kind.QUESTION_DENIED: QuestionState.DENIED,
    Kind.EXPIRED: QuestionState.EXPIRED,
    Kind.CONSUMED: QuestionState.CONSUMED,
    Kind.QUESTION_WITHDRAWN: QuestionState.WITHDRAWN,
    Kind.GRANT_GIVEN: GrantState.ACTIVE,
    Kind.GRANT_USED: GrantState.ACTIVE,
    Kind.GRANT_SPENT: GrantState.SPENT,
    Kind.GRANT_EXPIRED: GrantState.EXPIRED,
    Kind.GRANT_REVOKED: GrantState.REVOKED,
}
_GRANTS = frozenset(kind for kind, state in _STATE_AFTER.items() if isinstance(state, GrantState))
_CONTENT: Mapping[str, str] = {Kind.GRANTED: "version", Kind.GRANT_GIVEN: "commitment"}
_YES = "yes"
SLACK_S = 0.001
"""What a sum of floats may be off."""


@dataclass(slots=True)
class Told:
    """What the chain tells of one question or grant."""

    seq: int
    state: str
    since: float
    content: Json = None
    """The version that was agreed to, or the commitment of a grant. Empty: the row says nothing; None: not known."""
    uses: int = 0
    yes: list[str] = field(default_factory=list)
    """Pseudonyms of those who agreed to what is on the table."""
    invocation: str = ""
    """Whose call it was consumed for."""


class Beside:
    """Takes the links that the verifier took; then `found` says what does not agree with them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._questions: dict[str, Told] = {}
        self._grants: dict[str, Told] = {}
        self._kept = {str(invocation) for (invocation,) in connection.execute("SELECT invocation FROM kept")}
        self._outcomes: dict[str, chain.Link] = {}
        self._intents: dict[str, chain.Link] = {}

    def take(self, link: chain.Link) -> None:
        row = link.row
        if row.invocation in self._kept:
            if row.kind in (Kind.ANSWERED, Kind.FAILED):
                self._outcomes[row.invocation] = link
            elif row.kind == Kind.INTENDED:
                self._intents[row.invocation] = link
        if not row.question:
            return
        state = _STATE_AFTER.get(row.kind)
        known = self._grants if row.kind in _GRANTS else self._questions
        told = known.get(row.question)
        if told is None:
            if state is None:
                return
            told = known[row.question] = Told(row.seq, state, row.at)
        if state is not None:
            told.seq, told.state = row.seq, state
        _follow(told, link)

    def found(self) -> chain.Break | None:
        """The first thing beside the chain that is not as the chain tells."""
        query = "SELECT min(seq) FROM payloads WHERE seq NOT IN (SELECT seq FROM events)"
        (stray,) = self._db.execute(query).fetchone()
        if stray is not None:
            return chain.Break(stray, "payload_inserted", f"row {stray}: a payload without a row")
        for breaks in (self._of_questions(), self._of_grants(), self._of_kept()):
            first = next(breaks, None)
            if first is not None:
                return first
        return self._of_names()

    # -- questions

    def _of_questions(self) -> Iterator[chain.Break]:
        missing = dict(self._questions)
        for id, state in self._db.execute("SELECT id, state FROM questions").fetchall():
            told = missing.pop(id, None)
            seq, expected = (0, "never opened") if told is None else (told.seq, told.state)
            if told is None or state != expected:
                text = f"row {seq}: question {id} is {expected} by the chain, and {state} in its table"
                yield chain.Break(seq, "question_edited", text)
            elif why := self._of_question(id, told):
                yield chain.Break(seq, "question_edited", f"row {seq}: question {id} {why}")
        for id, told in missing.items():
            text = f"row {told.seq}: question {id} is {told.state} by the chain, and gone"
            yield chain.Break(told.seq, "question_missing", text)

    def _of_question(self, id: str, told: Told) -> str:
        question = _read(asking.find, self._db, id)
        if question is None or not ballot.intact(question):
            return "is not the one that was asked"
        if question.state not in (QuestionState.OPEN, QuestionState.GRANTED):
            return ""
        if question.expires_at > told.since + question.terms.expires_s + SLACK_S:
            return "lives longer than it was asked for"
        if question.state is QuestionState.OPEN and self._voters(question) != told.yes:
            return "has other votes than were cast"
        if question.state is QuestionState.GRANTED and not _agreed(question, told):
            return "is not the one that was agreed to"
        return ""

    def _voters(self, question: Question) -> list[str]:
        (key,) = self._db.execute("SELECT value FROM meta WHERE name = 'pseudonym_key'").fetchone()
        return [pseudonym(bytes(key), vote.principal.identity()) for vote in question.votes]

    # -- standing grants

    def _of_grants(self) -> Iterator[chain.Break]:
        missing = dict(self._grants)
        for id, state in self._db.execute("SELECT id, state FROM grants").fetchall():
            told = missing.pop(id, None)
            seq, expected = (0, "never given") if told is None else (told.seq, told.state)
            if told is None or state != expected:
                text = f"row {seq}: grant {id} is {expected} by the chain, and {state} in its table"
                yield chain.Break(seq, "grant_edited", text)
            elif not _as_given(_read(granting.find, self._db, id), told):
                yield chain.Break(seq, "grant_edited", f"row {seq}: grant {id} is not the one that was given")
        for id, told in missing.items():
            text = f"row {told.seq}: grant {id} is {told.state} by the chain, and gone"
            yield chain.Break(told.seq, "grant_missing", text)

    # -- kept outcomes

    def _of_kept(self) -> Iterator[chain.Break]:
        for (id,) in self._db.execute("SELECT question FROM kept").fetchall():
            kept = _read(keeping.find, self._db, id)
            told = self._questions.get(id)
            seq = 0 if told is None else told.seq
            if kept is None or told is None or told.invocation != kept.invocation or not self._came_of(kept):
                yield chain.Break(seq, "kept_edited", f"row {seq}: what is kept of {id} is not what came of it")

    def _came_of(self, kept: Kept) -> bool:
        intent, link = self._intents.get(kept.invocation), self._outcomes.get(kept.invocation)
        if intent is not None and not sent(kept, intent.payload):
            return False
        return agrees(kept, None, None) if link is None else agrees(kept, link.row, link.payload)

    # -- names

    def _of_names(self) -> chain.Break | None:
        key = self._db.execute("SELECT value FROM meta WHERE name = 'pseudonym_key'").fetchone()
        for name, text in self._db.execute("SELECT pseudonym, principal FROM subjects").fetchall():
            principal = object_of(text)
            identity = [principal.get("issuer"), principal.get("subject")]
            if key is None or name != pseudonym(bytes(key[0]), identity):
                query = "SELECT min(seq) FROM events WHERE principal = ?"
                seq = self._db.execute(query, (name,)).fetchone()[0] or 0
                return chain.Break(seq, "name_edited", f"row {seq}: the name behind a pseudonym is not the one written")
        (sound,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        return None if sound == "ok" else chain.Break(0, "unreadable", f"row 0: the file is damaged ({sound})")


def _follow(told: Told, link: chain.Link) -> None:
    """What one more row says of it."""
    row = link.row
    if row.kind in _CONTENT:
        told.content = says(link.payload, _CONTENT[row.kind]) if row.commitment else ""
    elif row.kind == Kind.GRANT_USED:
        told.uses += 1
    elif row.kind == Kind.CONSUMED:
        told.invocation = row.invocation
    elif row.kind == Kind.AMENDED:
        told.yes.clear()
    elif row.kind == Kind.VOTED and row.code == _YES:
        told.yes.append(row.principal)


def _agreed(question: Question, told: Told) -> bool:
    """An interposer of version 1 knew only questions as they were asked, and its rows say nothing of versions."""
    return told.content is None or (told.content or question.digest) == ballot.version_of(question)


def _as_given(grant: Grant | None, told: Told) -> bool:
    if grant is None or grant.used != told.uses:
        return False
    return told.content is None or told.content == commitment(grant)


def _read(find: Callable[[sqlite3.Connection, str], T | None], connection: sqlite3.Connection, id: str) -> T | None:
    """The row, where it is one that we could have written."""
    try:
        return find(connection, id)
    except RecordFault:
        return None


def object_of(text: object) -> JsonObject:
    """A JSON object out of a cell; empty for anything else."""
    if not isinstance(text, str):
        return {}
    try:
        found = canonical.parse(text.encode("utf-8", "surrogateescape"))
    except canonical.Malformed:
        return {}
    return found if isinstance(found, dict) else {}
