"""What gated calls cost of a rate: one unit each, however often they come back, and nothing is asked without room."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from interposer.canonical import canonical
from interposer.desk import Proposal
from interposer.errors import ApprovalPending, Denied, Refusal
from interposer.model import Kind, QuestionState
from interposer.terms import GrantSpec
from tests.fakes.house import BEN, OPERATOR, Indoors, RestlessStore, echoing, indoors
from tests.test_pending import BOTH, Modern, page

ANY = canonical({"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False})


def asks(count: int, terms: str = "") -> str:
    """A policy that asks for everything, at most so often an hour."""
    rule = f"{{id: r0, effect: ask, skills: ['fake.*']{terms and f', approval: {{{terms}}}'}}}"
    return f"version: 1\nrules: [{rule}]\nobligations: [{{skills: ['*'], rate: {count}/h}}]\n"


async def ticket(broker: Indoors, text: str = "hi", **more: Any) -> str:
    with pytest.raises(ApprovalPending) as pending:
        await broker.invoke({"text": text}, **more)
    return pending.value.question


async def limited(broker: Indoors, text: str, **more: Any) -> None:
    with pytest.raises(Denied) as denied:
        await broker.invoke({"text": text}, **more)
    assert denied.value.name == "rate_limited"


async def test_call_that_comes_back_for_its_answer_costs_one_unit() -> None:
    """However often a ticket is brought back, the call is made when it is approved; the next call finds no room."""
    fake = echoing()
    async with indoors(asks(1), [fake]) as broker:
        for _ in range(5):
            question = await ticket(broker)
        await broker.desk.vote(question, OPERATOR, True)
        await broker.invoke({"text": "hi"})
        await limited(broker, "hi")
        await ticket(broker, caller=BEN)
    assert len(fake.called) == 1


async def test_rounds_of_patience_cost_nothing_more() -> None:
    """A client that is asked to wait in rounds pays for one call, and so does its user."""
    fake = echoing()
    async with indoors(asks(1), [fake], link=page) as broker:
        client = Modern(broker.join(), BOTH)
        result = (await client.call())["result"]
        while result.get("resultType") == "input_required":
            result = (await client.call(requestState=result["requestState"]))["result"]
        (question,) = await broker.desk.pending()
        await broker.desk.vote(question.id, OPERATOR, True)
        answer = await client.call()
    assert answer["result"]["content"][0]["text"] == "pay"
    assert len(fake.called) == 1


async def test_no_human_is_bothered_where_there_is_no_room() -> None:
    """Beyond the rate a call opens no question and is refused on record; with room again it is put to a human."""
    async with indoors(asks(1)) as broker:
        await ticket(broker)
        for _ in range(3):
            await limited(broker, "ho")
        assert len(broker.rows(Kind.QUESTION_OPENED)) == 1
        assert [row.code for row in broker.rows(Kind.REFUSED)] == ["rate_limited"] * 3
        broker.clock.time_s += 3601
        await ticket(broker, "ho")


async def test_question_that_ended_is_paid_for_again() -> None:
    """What was taken back stands no longer: asking for it anew is another unit."""
    async with indoors(asks(1)) as broker:
        question = await broker.desk.get(await ticket(broker))
        await broker.desk.withdraw(question.id, question.requester)
        await limited(broker, "hi")


async def test_every_use_of_a_standing_grant_costs_a_unit() -> None:
    """A yes to many calls is not a way round the rate."""
    fake = echoing()
    async with indoors(asks(3, "grant: {for: 1h, matching: true}"), [fake]) as broker:
        question = await ticket(broker, "a")
        await broker.desk.vote(question, OPERATOR, True, proposal=Proposal(spec=GrantSpec(600.0, schema=ANY)))
        for text in "abc":
            await broker.invoke({"text": text})
        await limited(broker, "d")
    assert len(fake.called) == 3


async def test_call_that_was_made_without_its_caller_costs_nothing_more() -> None:
    """Its asking has paid for it: it is made, and told, also where there is no room."""
    fake = echoing()
    async with indoors(asks(1, "execute_on_approve: true"), [fake]) as broker:
        question = await ticket(broker)
        await broker.desk.vote(question, OPERATOR, True)
        await broker.broker.carry_out(await broker.desk.get(question))
        assert (await broker.invoke({"text": "hi"})).kept
        for _ in range(2):
            assert (await broker.invoke({"text": "hi"}, question=question)).kept
        await limited(broker, "hi")
    assert len(fake.called) == 1


async def test_identical_calls_that_lose_a_yes_pay_for_the_next_question() -> None:
    """Of many that wait for one yes, one has it: the others are new calls, and there is room for one more."""
    fake, ends = echoing(), []
    async with indoors(asks(2), [fake], store=RestlessStore()) as broker, anyio.create_task_group() as calls:

        async def call() -> None:
            try:
                await broker.invoke({"text": "hi"}, hold_s=60.0)
                ends.append("made")
            except Refusal as refusal:
                ends.append(refusal.name)

        for _ in range(6):
            calls.start_soon(call)
        with anyio.fail_after(5):
            while len(ends) < 6:
                for question in await broker.desk.pending():
                    await broker.desk.vote(question.id, OPERATOR, True)
                await anyio.lowlevel.checkpoint()
    assert sorted(ends) == ["made"] * 2 + ["rate_limited"] * 4
    assert len(fake.called) == 2


async def test_calls_that_race_for_the_last_unit_leave_one_question() -> None:
    """Whoever finds that the unit is gone takes its question along."""
    async with indoors(asks(1), store=RestlessStore()) as broker:
        ends: list[str] = []

        async def call(text: str) -> None:
            with pytest.raises(Refusal) as refused:
                await broker.invoke({"text": text})
            ends.append(refused.value.name)

        async with anyio.create_task_group() as calls:
            for text in "abcd":
                calls.start_soon(call, text)
        states = [question.state for question in await broker.desk.questions()]
        assert states.count(QuestionState.OPEN) == 1
        assert ends.count("approval_pending") == 1
        assert ends.count("rate_limited") == 3
