"""The outbox: an outcome is told to one caller, and counts as told when it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from interposer.errors import ApprovalPending, RecordFault
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


class Jumpy(HandClock):
    """A clock whose wall can be set."""

    set_by = 0.0

    def now(self) -> float:
        return super().now() + self.set_by


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
async def test_a_wall_clock_that_is_set_neither_shortens_nor_prolongs_what_is_kept(store: Store, jump_s: float) -> None:
    """An outcome has its time in this run, whatever the clock on the wall says."""
    clock = Jumpy()
    clock.time_s += NOW - clock.now()
    outbox = Outbox(store, clock)
    asked = await ended(store, outbox, Telling.WAITING)
    await ended(store, outbox, Telling.WAITING, "q2", "d" * 64)
    clock.set_by = jump_s
    await outbox.discard()
    assert await outbox.collect(CALL, hold_s=0.0) is not None
    clock.time_s += asked.expires_at + 601.0 - NOW
    assert await outbox.collect("d" * 64, hold_s=0.0) is None


async def test_an_outcome_that_came_late_has_its_time_as_well(store: Store) -> None:
    """A call that took longer than its question had can still be told for a while."""
    clock = _clock()
    outbox = Outbox(store, clock)
    asked = await consumed(store, "q1", CALL)
    clock.time_s += asked.expires_at + 3600.0 - NOW
    await store.append(replace(about(Kind.ANSWERED, asked), question="", payload=BODY))
    await outbox.keep("q1", CALL, KeptState.ANSWERED, BODY, "", Telling.WAITING)
    await outbox.discard()
    clock.time_s += 599.0
    await outbox.discard()
    assert await outbox.collect(CALL, hold_s=0.0) is not None


async def test_what_is_over_is_deleted(store: Store) -> None:
    """Nothing is kept for ever."""
    clock = _clock()
    outbox = Outbox(store, clock)
    asked = await ended(store, outbox, Telling.TOLD)
    for _ in range(2):
        clock.time_s += asked.expires_at + 601.0 - NOW
        await outbox.discard()
    assert await store.kept("q1") is None
    assert not outbox._deadlines


class Full(MemoryRecordStore):
    """A store that cannot keep an outcome, as a full disk could not."""

    full = True

    async def keep(self, question: str, state: KeptState, body: bytes, withheld: str, *, delivered: bool) -> None:
        if self.full:
            raise RecordFault("no space left")
        await super().keep(question, state, body, withheld, delivered=delivered)


@pytest.mark.parametrize("by", ["sweep", "caller"])
async def test_an_outcome_that_could_not_be_kept_is_kept_later(by: str) -> None:
    """Until then its call counts as under way; then it is told like any other, once."""
    store = Full()
    outbox = Outbox(store, _clock())
    with pytest.raises(RecordFault):
        await ended(store, outbox, Telling.WAITING)
    assert outbox
    with pytest.raises(ApprovalPending) as pending:
        await outbox.collect(CALL, hold_s=0.0)
    assert (pending.value.running, pending.value.question) == (True, "q1")
    assert await outbox.discard() == 0
    store.full = False
    if by == "sweep":
        assert await outbox.discard() == 1
    kept = await outbox.collect(CALL, hold_s=0.0)
    assert kept is not None
    assert (kept.state, kept.body) == (KeptState.ANSWERED, BODY)
    assert await outbox.collect(CALL, hold_s=0.0) is None
    assert not outbox


@pytest.mark.parametrize("sent", [True, False])
async def test_an_outcome_that_is_kept_late_is_told_to_whom_it_was_not_sent(sent: bool) -> None:
    """What its caller was sent meanwhile is told to nobody else; what could not be sent is."""
    store = Full()
    outbox = Outbox(store, _clock())
    with pytest.raises(RecordFault):
        await ended(store, outbox, Telling.IN_HAND)
    if sent:
        with pytest.raises(RecordFault):
            await outbox.told("q1")
    else:
        outbox.untold("q1", CALL)
    store.full = False
    await outbox.discard()
    kept = await store.kept("q1")
    assert kept is not None
    assert (kept.state, kept.body, kept.delivered) == (KeptState.ANSWERED, BODY, sent)
    assert (await outbox.collect(CALL, hold_s=0.0) is None) == sent
