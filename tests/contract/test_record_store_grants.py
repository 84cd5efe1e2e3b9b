"""What every `RecordStore` promises (ports.py) of standing grants and kept outcomes: one suite, each implementation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from interposer.errors import RecordFault
from interposer.grant import KEPT_S, Grant, GrantState, Kept, KeptState
from interposer.model import Kind, Question, QuestionState
from interposer.ports import Revision
from interposer.records.sqlite import SqliteRecordStore
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec
from tests.contract.records import (
    BOB,
    NOW,
    TERMS,
    Store,
    about,
    given_row,
    granting,
    granting_for,
    kept_for,
    kinds,
    opened,
    question,
    using,
)
from tests.contract.records import store as store

CALL = "c" * 64
CAPPED = ApprovalTerms(frozenset({"leads"}), cap=GrantCap(3600.0, session=True, matching=True))
THREE = GrantSpec(600.0, 3)


async def granted(store: Store, spec: GrantSpec = THREE, id: str = "g1", **changes: object) -> Grant:
    """A standing grant that came of a question."""
    await opened(store, question(f"q-{id}", f"call-{id}", terms=CAPPED))
    await store.revise(f"q-{id}", granting_for(spec, id, **changes))
    return next(grant for grant in await store.grants() if grant.id == id)


async def together(count: int, work: Callable[[], Awaitable[object]]) -> list[object]:
    """What each of many at once was given."""
    found: list[object] = []

    async def one() -> None:
        found.append(await work())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(one)
    return found


# -- standing grants


@pytest.mark.parametrize(
    "spec",
    [THREE, GrantSpec(600.0), GrantSpec(60.0, 2, session=True), GrantSpec(60.0, 5, schema=b'{"type":"object"}')],
)
async def test_a_grant_comes_back_as_it_was_given(store: Store, spec: GrantSpec) -> None:
    """Every field survives, and its row stands after those of the yes it came of."""
    await opened(store, question(terms=TERMS))
    asked = await store.revise("q1", granting_for(spec))
    revision = granting_for(spec)(question(terms=TERMS))
    assert await store.grants() == [revision.grant]
    assert asked.state is QuestionState.GRANTED
    assert await kinds(store) == ["question_opened", "voted", "granted", "grant_given"]


async def test_of_many_uses_at_once_as_many_succeed_as_there_are(store: Store) -> None:
    """One use is one call, and the last one spends the grant."""
    grant = await granted(store)
    won = await together(20, lambda: store.use_grant(grant.id, NOW + 2, using(grant)))
    assert won.count(True) == grant.uses == 2
    (spent,) = await store.grants(active=False)
    assert (spent.used, spent.state) == (2, GrantState.SPENT)
    assert (await kinds(store))[-3:] == ["grant_used", "grant_used", "grant_spent"]


async def test_a_grant_without_a_count_lasts_until_its_time_is_over(store: Store) -> None:
    """Any number of calls, none of them at or after its end."""
    grant = await granted(store, GrantSpec(600.0))
    assert await together(10, lambda: store.use_grant("g1", grant.expires_at - 0.1, using(grant))) == [True] * 10
    assert await store.use_grant("g1", grant.expires_at, using(grant)) is False
    (still,) = await store.grants()
    assert still.used == 10


async def test_an_unknown_grant_carries_nothing(store: Store) -> None:
    """There is nothing to use and nothing to end."""
    grant = await granted(store)
    assert await store.use_grant("g9", NOW, using(grant)) is False
    assert await store.end_grant("g9", replace(using(grant), kind=Kind.GRANT_REVOKED)) is False


@pytest.mark.parametrize(
    ("kind", "state"), [(Kind.GRANT_REVOKED, GrantState.REVOKED), (Kind.GRANT_EXPIRED, GrantState.EXPIRED)]
)
async def test_a_grant_ends_once_and_carries_nothing_afterwards(store: Store, kind: Kind, state: GrantState) -> None:
    """The record's kind says how; whoever comes second is told that it had ended."""
    grant = await granted(store)
    end = replace(using(grant), kind=kind)
    assert (await together(5, lambda: store.end_grant("g1", end))).count(True) == 1
    assert await store.use_grant("g1", NOW + 2, using(grant)) is False
    assert [each.state for each in await store.grants(active=False)] == [state]
    assert await store.grants() == []
    assert (await kinds(store))[-1] == kind.value


async def test_a_grant_is_ended_and_used_only_by_rows_of_those_kinds(store: Store) -> None:
    """No other row stands for it."""
    grant = await granted(store)
    for wrong in (replace(using(grant), kind=Kind.INTENDED), replace(using(grant), question="g2")):
        with pytest.raises(RecordFault):
            await store.use_grant("g1", NOW + 2, wrong)
    with pytest.raises(RecordFault):
        await store.end_grant("g1", using(grant))
    assert (await store.grants())[0].used == 0


async def test_active_grants_are_listed_oldest_first_and_all_newest_first(store: Store) -> None:
    """What can still carry a call, and what ever could."""
    for number in (2, 1, 3):
        await granted(store, id=f"g{number}", given_at=NOW + number)
    await store.end_grant("g1", replace(using(next(iter(await store.grants()))), kind=Kind.GRANT_REVOKED))
    assert [each.id for each in await store.grants()] == ["g2", "g3"]
    assert [each.id for each in await store.grants(active=False)] == ["g3", "g2", "g1"]


def _without_a_spec(revision: Revision) -> Revision:
    return replace(revision, question=replace(revision.question, spec=None))


def _still_open(revision: Revision) -> Revision:
    return replace(revision, question=replace(revision.question, state=QuestionState.OPEN))


def _without_its_row(revision: Revision) -> Revision:
    return replace(revision, records=revision.records[:2])


def _another(**changes: object) -> Callable[[Revision], Revision]:
    def revise(revision: Revision) -> Revision:
        assert revision.grant is not None
        other = replace(revision.grant, **changes)  # type: ignore[arg-type]
        return replace(revision, grant=other, records=(*revision.records[:2], given_row(other)))

    return revise


def _uncommitted(revision: Revision) -> Revision:
    assert revision.grant is not None
    return replace(revision, grant=replace(revision.grant, uses=99))


@pytest.mark.parametrize(
    "wrong",
    [
        _without_a_spec,
        _still_open,
        _without_its_row,
        _uncommitted,
        _another(requester=BOB),
        _another(skill="crm.delete"),
        _another(policy="q" * 64),
        _another(question="q9"),
        _another(used=-5),
        _another(state=GrantState.SPENT),
        _another(terms=TERMS),
        _another(expires_at=NOW),
    ],
)
async def test_a_grant_is_stored_only_with_the_yes_it_comes_of(
    store: Store, wrong: Callable[[Revision], Revision]
) -> None:
    """It is for what was asked, unused, with an end and with a row that commits to it; else nothing at all is
    written."""
    await opened(store, question(terms=CAPPED))
    with pytest.raises(RecordFault):
        await store.revise("q1", lambda asked: wrong(granting_for(THREE)(asked)))
    assert await store.grants(active=False) == []
    assert await kinds(store) == ["question_opened"]


async def test_a_grant_is_given_once(store: Store) -> None:
    """A second one of the same id would be a way to more uses."""
    await granted(store)
    await opened(store, question("q2", "d2", terms=CAPPED))
    with pytest.raises(RecordFault):
        await store.revise("q2", granting_for(THREE))
    found = await store.question("q2")
    assert found is not None
    assert found.state is QuestionState.OPEN


async def test_a_grant_outlives_the_store_with_the_uses_it_had(tmp_path: Path) -> None:
    """A restart gives nothing back."""
    path = tmp_path / "record.db"
    first = SqliteRecordStore.open(path)
    grant = await granted(first)
    await first.use_grant("g1", NOW + 2, using(grant))
    await first.aclose()
    second = SqliteRecordStore.open(path)
    assert await second.grants() == [replace(grant, used=1)]
    assert await second.use_grant("g1", NOW + 3, using(grant)) is True
    assert await second.use_grant("g1", NOW + 3, using(grant)) is False
    await second.aclose()


# -- kept outcomes


BODY = b'{"result":"done"}'


async def consumed(store: Store, id: str = "q1", call: str = CALL, **changes: object) -> Question:
    """An approved call that is under way."""
    asked = await opened(store, question(id, f"for {id}", call=call, invocation=f"i-{id}", **changes))
    await store.revise(id, granting)
    assert await store.consume(id, asked.digest, NOW + 2, about(Kind.CONSUMED, asked))
    return asked


async def answered(store: Store, asked: Question, *, delivered: bool = False) -> Kept:
    """It ended, and this is what is kept of it."""
    await store.append(replace(about(Kind.ANSWERED, asked), question="", payload=BODY))
    await store.keep(asked.id, KeptState.ANSWERED, BODY, "", delivered=delivered)
    return kept_for(asked, invocation=asked.invocation, state=KeptState.ANSWERED, body=BODY, delivered=delivered)


async def test_consuming_a_yes_keeps_its_call_as_running(store: Store) -> None:
    """In the same transaction: whatever happens next, somebody knows that it was begun."""
    asked = await consumed(store)
    running = kept_for(asked, invocation="i-q1")
    assert await store.kept("q1") == running
    assert await store.waiting() == [running]
    assert await store.kept("q9") is None


async def test_outcomes_that_were_not_delivered_are_listed_oldest_first(store: Store) -> None:
    """Whoever repeats a call is told of the first one first; what was delivered is not among them."""
    for id, call in (("q1", CALL), ("q2", CALL), ("q3", "d" * 64)):
        await answered(store, await consumed(store, id, call))
    await store.keep("q2", KeptState.IN_DOUBT, b"", "", delivered=True)
    assert [each.question for each in await store.waiting()] == ["q1", "q3"]
    kept = await store.kept("q2")
    assert kept is not None
    assert (kept.state, kept.body, kept.delivered) == (KeptState.ANSWERED, BODY, True)


async def test_what_was_delivered_stays_so(store: Store) -> None:
    """The caller has had it, and nothing makes it undelivered again."""
    asked = await consumed(store)
    await answered(store, asked, delivered=True)
    await store.keep("q1", KeptState.ANSWERED, b"", "", delivered=False)
    kept = await store.kept("q1")
    assert kept is not None
    assert (kept.delivered, kept.body) == (True, BODY)


async def test_an_outcome_is_told_once_and_stays(store: Store) -> None:
    """What has ended does not end another way; that it was delivered may be said later."""
    await consumed(store)
    await store.keep("q1", KeptState.IN_DOUBT, b"", "no answer", delivered=False)
    await store.keep("q1", KeptState.ANSWERED, BODY, "", delivered=True)
    kept = await store.kept("q1")
    assert kept is not None
    assert (kept.state, kept.body, kept.withheld, kept.delivered) == (KeptState.IN_DOUBT, b"", "no answer", True)


async def test_nothing_is_kept_of_a_question_that_was_not_consumed(store: Store) -> None:
    """There is no call to keep the outcome of."""
    await opened(store, question(call=CALL))
    await store.keep("q1", KeptState.ANSWERED, BODY, "", delivered=False)
    assert await store.kept("q1") is None


async def test_an_outcome_past_its_time_is_discarded(store: Store) -> None:
    """At its end, and not before, what is kept of it is deleted."""
    asked = await consumed(store)
    await answered(store, asked)
    end = asked.expires_at + KEPT_S
    await store.discard(end - 0.1)
    assert await store.kept("q1") is not None
    await store.discard(end)
    assert await store.kept("q1") is None
    assert await store.waiting() == []


async def test_a_call_under_way_is_not_forgotten(store: Store) -> None:
    """Its outcome would have nowhere to go."""
    asked = await consumed(store)
    await store.discard(asked.expires_at + KEPT_S + 1)
    assert await store.kept("q1") is not None


async def test_an_outcome_outlives_the_store(tmp_path: Path) -> None:
    """A caller that comes back after a restart is told, once."""
    path = tmp_path / "record.db"
    first = SqliteRecordStore.open(path)
    kept = await answered(first, await consumed(first))
    await first.aclose()
    second = SqliteRecordStore.open(path)
    assert await second.waiting() == [kept]
    assert await second.kept("q1") == kept
    await second.aclose()
