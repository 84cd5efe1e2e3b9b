"""What the desk makes of people's answers stands in a durable record as `record verify` expects it, at every step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from interposer.ballot import call_digest
from interposer.desk import DeskLimits, Proposal
from interposer.errors import ApprovalPending
from interposer.grant import KeptState, Telling
from interposer.model import Question
from interposer.records.memory import MemoryRecordStore
from interposer.records.reader import RecordReader
from interposer.records.sqlite import SqliteRecordStore
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec
from tests.test_desk import ANNA, BELA, House, SetClock, asks, call, house

PAIR = ApprovalTerms(quorum=2, expires_s=600.0, cap=GrantCap(600.0, matching=True))
ONE = ApprovalTerms(expires_s=600.0, cap=GrantCap(600.0))


class Durable:
    """A desk on a record in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = SetClock()
        self._limits = DeskLimits(may_break_glass=lambda _: True)
        self.start()

    def start(self) -> None:
        self.store = SqliteRecordStore.open(self.path)
        # The desk of the tests asks nothing of its store that the port does not have.
        self.house: House = house(cast(MemoryRecordStore, self.store), self.clock, self._limits)
        self.desk = self.house.desk
        self.desk.review = agreed

    async def restart(self) -> None:
        await self.store.aclose()
        self.start()

    def sound(self) -> None:
        with RecordReader(self.path) as reader:
            found = reader.verify().found
        assert found is None, found.text


async def agreed(question: Question, amended: bytes) -> None:
    """Policy has nothing against these arguments."""


@pytest.fixture
async def d(tmp_path: Path) -> AsyncIterator[Durable]:
    made = Durable(tmp_path / "record.db")
    yield made
    await made.store.aclose()


async def test_a_changed_proposal_is_agreed_to_across_a_restart(d: Durable) -> None:
    """Votes for the version before are dropped; the new one is agreed to by the second person, and used."""
    id = await d.house.ticket(call(), asks(PAIR))
    await d.desk.vote(id, ANNA, True)
    d.sound()
    await d.desk.vote(id, BELA, True, proposal=Proposal(b'{"amount":7}', GrantSpec(300.0, 3)))
    d.sound()
    await d.restart()
    await d.desk.vote(id, ANNA, True)
    d.sound()
    first = await d.desk.obtain(call(), asks(PAIR), hold_s=0.0)
    assert first.amended == b'{"amount":7}'
    d.sound()
    await d.desk.keep(first, call_digest(call()), KeptState.FAILED, b'{"error":null}', "", Telling.TOLD)
    await d.restart()
    second = await d.desk.obtain(call({"amount": 7}), asks(PAIR), hold_s=0.0)
    assert second.grant
    d.sound()


async def test_broken_glass_is_a_yes_to_one_call(d: Durable) -> None:
    """One person's yes where two are needed stands in the chain as what it was, and is used once."""
    id = await d.house.ticket(call(), asks(PAIR))
    await d.desk.vote(id, ANNA, True, proposal=Proposal(spec=GrantSpec(300.0, 3)))
    await d.desk.break_glass(id, BELA, "the till is on fire")
    d.sound()
    assert not (await d.desk.obtain(call(), asks(PAIR), hold_s=0.0)).grant
    d.sound()
    with pytest.raises(ApprovalPending):
        await d.desk.obtain(call(), asks(PAIR), hold_s=0.0)


async def test_what_is_taken_back_or_runs_out_is_told_by_the_chain(d: Durable) -> None:
    """A revoked yes, a revoked grant, an expired grant, a withdrawn question: each agrees with its table."""
    unused = await d.house.ticket(call(), asks(ONE))
    await d.desk.vote(unused, ANNA, True, proposal=Proposal(spec=GrantSpec(300.0, 5)))
    await d.desk.revoke(unused, BELA, "not today")
    d.sound()
    spent = await d.house.ticket(call({"amount": 2}), asks(ONE))
    await d.desk.vote(spent, ANNA, True, proposal=Proposal(spec=GrantSpec(300.0, 2)))
    for _ in range(2):
        await d.desk.obtain(call({"amount": 2}), asks(ONE), hold_s=0.0)
    d.sound()
    expiring = await d.house.ticket(call({"amount": 3}), asks(ONE))
    await d.desk.vote(expiring, ANNA, True, proposal=Proposal(spec=GrantSpec(300.0)))
    withdrawn = await d.house.ticket(call({"amount": 4}), asks(ONE))
    await d.desk.withdraw(withdrawn, call().principal)
    denied = await d.house.ticket(call({"amount": 5}), asks(ONE))
    await d.desk.vote(denied, ANNA, False, "no")
    d.clock.pass_s(700.0)
    await d.desk.sweep()
    d.sound()
    assert await d.desk.grants() == []


async def test_a_wall_clock_that_jumps_forward_stops_no_yes(d: Durable) -> None:
    """Deadlines are monotonic: what has time left is granted and used, whatever the wall clock says (F22)."""
    id = await d.house.ticket(call(), asks(ONE))
    d.clock.wall += 86_400.0
    await d.desk.vote(id, ANNA, True)
    assert (await d.desk.obtain(call(), asks(ONE), hold_s=0.0)).question == id
    d.sound()
