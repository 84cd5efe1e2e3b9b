"""Records, questions and grants as the contract of a `RecordStore` is tried with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pytest

from interposer import chain, grants
from interposer.ballot import digest_of
from interposer.grant import KEPT_S, Grant, Kept, KeptState
from interposer.model import Effect, Kind, MatchedRule, Principal, Question, QuestionState, Record, Vote
from interposer.ports import Revision
from interposer.records.memory import MemoryRecordStore
from interposer.records.reader import RecordReader
from interposer.records.sqlite import SqliteRecordStore
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec, Window

Store: TypeAlias = MemoryRecordStore | SqliteRecordStore

ALICE = Principal("local", "alice", ("support",), 1000)
BOB = Principal("local", "bob", ("leads",), 1001, "console")
NOW = 1_800_000_000.0


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryRecordStore() if request.param == "memory" else SqliteRecordStore.open(tmp_path / "record.db")
    yield made
    await made.aclose()


def record(kind: Kind = Kind.INTENDED, invocation: str = "i1", **changes: object) -> Record:
    made = Record(
        kind, "s1", NOW, invocation, "crm.get", ALICE, "allow", ("r1",), "p" * 64, "d" * 64, payload=b'{"a":1}'
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def question(id: str = "q1", whose: str = "d1", /, **changes: object) -> Question:
    """An open question about one of several calls; its digest is what it would be."""
    made = Question(
        id=id,
        digest="",
        state=QuestionState.OPEN,
        session="s1",
        invocation="i1",
        requester=ALICE,
        skill="crm.refund",
        skill_digest="d" * 64,
        policy="p" * 64,
        canonical=f'{{"amount":70,"for":"{whose}"}}'.encode(),
        terms=ApprovalTerms(frozenset({"leads"}), frozenset(), 1, 1800.0),
        rules=(MatchedRule("r1", Effect.ASK, "policy.yaml", 3, "ask a lead"),),
        asked_at=NOW,
        expires_at=NOW + 1800,
    )
    made = replace(made, **changes)  # type: ignore[arg-type]
    return made if "digest" in changes else replace(made, digest=digest_of(made))


TERMS = ApprovalTerms(
    frozenset({"leads"}),
    minima=(("finance", 1), ("leads", 1)),
    quorum=2,
    windows=((Window(frozenset({0, 4}), 540, 1020, "Europe/Berlin"),), (Window(frozenset({6}), 0, 60, "UTC"),)),
    cap=GrantCap(3600.0, 5, session=True, matching=True),
    execute=True,
    caller=True,
    reading_s=1.5,
)
"""Terms of which every field says something."""


D1, D2 = question().digest, question("q1", "d2").digest


def about(kind: Kind, asked: Question, at: float = NOW) -> Record:
    return Record(kind, asked.session, at, asked.invocation, asked.skill, asked.requester, question=asked.id)


async def opened(store: Store, asked: Question) -> Question:
    return await store.open_question(asked, about(Kind.QUESTION_OPENED, asked))


def granting(asked: Question) -> Revision:
    vote = Vote(BOB, True, "fine", NOW + 1)
    granted = replace(asked, state=QuestionState.GRANTED, votes=(*asked.votes, vote))
    return Revision(granted, (voted(asked), about(Kind.GRANTED, asked)))


def agreeing(asked: Question) -> Revision:
    """A yes that is not enough."""
    vote = Vote(BOB, True, "fine", NOW + 1)
    return Revision(replace(asked, votes=(*asked.votes, vote)), (voted(asked),))


def voted(asked: Question) -> Record:
    return replace(about(Kind.VOTED, asked), principal=BOB, code="yes")


async def kinds(store: Store) -> list[str]:
    return [link.row.kind for link in await links(store)]


async def links(store: Store) -> list[chain.Link]:
    if isinstance(store, MemoryRecordStore):
        return store.links
    with RecordReader(store.path) as reader:
        assert reader.verify().found is None
        return list(reader.links())


def granting_for(spec: GrantSpec, id: str = "g1", **changes: object) -> Callable[[Question], Revision]:
    """A yes to more calls than one."""

    def revise(asked: Question) -> Revision:
        granted = replace(asked, spec=spec, state=QuestionState.GRANTED, votes=(Vote(BOB, True, "fine", NOW + 1),))
        grant = replace(grants.given(id, granted, spec, now=NOW + 1), **changes)  # type: ignore[arg-type]
        rows = (voted(asked), about(Kind.GRANTED, asked), given_row(grant))
        return Revision(granted, rows, grant)

    return revise


def given_row(grant: Grant) -> Record:
    payload = grants.stated(grant)
    return replace(grants.row(grant, Kind.GRANT_GIVEN, at=grant.given_at, by=BOB, code=grant.question), payload=payload)


def using(grant: Grant, invocation: str = "i7") -> Record:
    return replace(
        grants.row(grant, Kind.GRANT_USED, at=NOW + 2, code=grant.question), session="s1", invocation=invocation
    )


def kept_for(asked: Question, **changes: object) -> Kept:
    made = Kept(asked.id, asked.call, "i1", KeptState.RUNNING, b"", "", False, asked.expires_at + KEPT_S)
    return replace(made, **changes)  # type: ignore[arg-type]
