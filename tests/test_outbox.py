"""The outbox: an outcome is told to one caller, and counts as told when it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from interposer.errors import ApprovalPending
from interposer.grant import KeptState, Telling
from interposer.model import Kind, Question
from interposer.outbox import Outbox
from interposer.records.memory import MemoryRecordStore
from interposer.records.sqlite import SqliteRecordStore
from tests.contract.records import NOW, Store, about
from tests.contract.test_record_store_grants import BODY, CALL, consumed
from tests.fakes.house import HandClock


def _clock() -> HandClock:
    clock = HandClock()
    clock.time_s += NOW - clock.now()
    return clock


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = MemoryRecordStore() if request.param == "memory" else SqliteRecordStore.open(tmp_path / "record.db")
    yield opened
    await opened.aclose()


async def ended(store: Store, outbox: Outbox, telling: Telling, id: str = "q1", call: str = CALL) -> Question:
    asked = await consumed(store, id, call)
    await store.append(replace(about(Kind.ANSWERED, asked), question="", payload=BODY))
    await outbox.keep(id, call, KeptState.ANSWERED, BODY, "", telling)
    return asked


async def test_an_outcome_is_collected_by_exactly_one_caller(store: Store) -> None:
    """Of twenty who repeat the call at once, one is told."""
    outbox = Outbox(store, _clock())
    await ended(store, outbox, Telling.WAITING)
    found = []

    async def collect() -> None:
        found.append(await outbox.collect(CALL, hold_s=0.0))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(collect)
    assert [kept.question for kept in found if kept is not None] == ["q1"]


async def test_outcomes_of_one_call_are_collected_oldest_first(store: Store) -> None:
    """Two approved identical calls have two outcomes, each told once; those of other calls are not."""
    outbox = Outbox(store, _clock())
    for id, call in (("q1", CALL), ("q2", CALL), ("q3", "d" * 64)):
        await ended(store, outbox, Telling.WAITING, id, call)
    found = [await outbox.collect(CALL, hold_s=0.0) for _ in range(3)]
    assert [None if kept is None else kept.question for kept in found] == ["q1", "q2", None]


@pytest.mark.parametrize("telling", [Telling.IN_HAND, Telling.WAITING])
async def test_what_was_not_sent_when_the_broker_died_is_told_after_its_start(store: Store, telling: Telling) -> None:
    """In hand is not told: the identical call hears of it, instead of being made a second time."""
    outbox = Outbox(store, _clock())
    await ended(store, outbox, telling)
    if telling is Telling.WAITING:
        assert await outbox.collect(CALL, hold_s=0.0) is not None
    assert await outbox.collect(CALL, hold_s=0.0) is None
    again = Outbox(store, _clock())
    await again.load()
    kept = await again.collect(CALL, hold_s=0.0)
    assert kept is not None
    assert kept.body == BODY


async def test_what_was_sent_is_told_once(store: Store) -> None:
    """After that, the same call is a new one, in this run and the next."""
    outbox = Outbox(store, _clock())
    await ended(store, outbox, Telling.IN_HAND)
    await outbox.told("q1")
    again = Outbox(store, _clock())
    await again.load()
    assert await again.collect(CALL, hold_s=0.0) is None
    kept = await store.kept("q1")
    assert kept is not None
    assert (kept.state, kept.delivered) == (KeptState.ANSWERED, True)


async def test_what_could_not_be_sent_waits_for_the_identical_call(store: Store) -> None:
    """Its caller had left: whoever repeats the call has it."""
    outbox = Outbox(store, _clock())
    await ended(store, outbox, Telling.IN_HAND)
    outbox.untold("q1", CALL)
    assert (await outbox.collect(CALL, hold_s=0.0)) is not None


async def test_an_outcome_past_its_time_is_not_told(store: Store) -> None:
    """What nobody came for in time is nobody's."""
    clock = _clock()
    outbox = Outbox(store, clock)
    asked = await ended(store, outbox, Telling.WAITING)
    clock.time_s += asked.expires_at + 600.0 - clock.now()
    assert await outbox.collect(CALL, hold_s=0.0) is None


async def test_a_call_that_is_under_way_is_waited_for(store: Store) -> None:
    """The same call, repeated, waits for the one that is being made without its caller, as long as it can."""
    outbox = Outbox(store, _clock())
    asked = await consumed(store, "q1", CALL)
    with outbox.errand(asked), pytest.raises(ApprovalPending) as pending:
        await outbox.collect(CALL, hold_s=0.0)
    assert pending.value.running
