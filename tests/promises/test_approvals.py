"""A yes covers exactly the call that was shown, once, under the policy and the skill of then and now."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from interposer.broker import Carried
from interposer.errors import ApprovalPending, ApprovalRefused, Refusal
from interposer.model import Kind
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.house import BEN, OPERATOR, Indoors, definition, echo, indoors, rules

ASK = rules("ask fake.*")
OTHER_ASK = ASK.replace("r0", "another-rule")
ATTEMPTS = 500


def upstream() -> MemoryUpstream:
    return MemoryUpstream("fake", {"echo": (definition(), echo), "other": (definition(), echo)})


async def ticket(broker: Indoors, arguments: dict[str, Any]) -> str:
    """Ask, and leave with a ticket."""
    with pytest.raises(ApprovalPending) as pending:
        await broker.invoke(arguments)
    return pending.value.question


def other_arguments(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    text = dice.choice(["pay 10 ", "pay 100", "PAY 10", "pay 1\u200b0", "рay 10", "", "pay 10\n"])
    return {"arguments": {"text": text}}


def other_skill(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    return {"name": "other"}


def other_definition(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    changes: list[dict[str, Any]] = [
        {"description": "Pays."},
        {"title": "Pay"},
        {"annotations": {"readOnlyHint": True}},
    ]
    fake.replace({"echo": (definition(**dice.choice(changes)), echo), "other": (definition(), echo)})
    return {}


def other_policy(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    broker.decree(dice.choice([OTHER_ASK, rules("deny fake.*"), ASK + "otherwise: []\n"]))
    return {}


def other_principal(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    return {"caller": BEN}


CHANGES: list[Callable[[Indoors, MemoryUpstream, random.Random], dict[str, Any]]] = [
    other_arguments,
    other_skill,
    other_definition,
    other_policy,
    other_principal,
]


async def test_approval_covers_exactly_one_call() -> None:
    """Of 500 attempts to change arguments, skill, definition, policy or principal between the question and the
    execution, none executes."""
    dice = random.Random(11)
    for attempt in range(ATTEMPTS):
        fake = upstream()
        async with indoors(ASK, [fake]) as broker:
            question = await ticket(broker, {"text": "pay 10"})
            await broker.desk.vote(question, OPERATOR, True)
            changed: dict[str, Any] = CHANGES[attempt % len(CHANGES)](broker, fake, dice)
            arguments: dict[str, Any] = changed.pop("arguments", {"text": "pay 10"})
            with pytest.raises(Refusal):
                await broker.invoke(arguments, **changed)
        assert not fake.called


async def test_unchanged_call_is_executed_once() -> None:
    """The control: the identical call, repeated after the yes, is executed, and the next one asks anew."""
    fake = upstream()
    async with indoors(ASK, [fake]) as broker:
        question = await ticket(broker, {"text": "pay 10"})
        await broker.desk.vote(question, OPERATOR, True)
        assert isinstance(await broker.invoke({"text": "pay 10"}), Carried)
        again = await ticket(broker, {"text": "pay 10"})
    assert again != question
    assert len(fake.called) == 1
    assert len(broker.rows(Kind.CONSUMED)) == 1


async def test_expired_grant_is_worth_nothing() -> None:
    """A yes that came in time but is collected too late executes nothing."""
    fake = upstream()
    async with indoors(ASK, [fake]) as broker:
        question = await ticket(broker, {"text": "pay 10"})
        await broker.desk.vote(question, OPERATOR, True)
        broker.clock.time_s += 3_600
        assert await ticket(broker, {"text": "pay 10"}) != question
    assert not fake.called


async def test_denied_call_is_not_executed_by_repeating_it() -> None:
    """After a human's no, the identical call is refused without asking again."""
    fake = upstream()
    async with indoors(ASK, [fake]) as broker:
        question = await ticket(broker, {"text": "pay 10"})
        await broker.desk.vote(question, OPERATOR, False, "no")
        for _ in range(3):
            with pytest.raises(ApprovalRefused):
                await broker.invoke({"text": "pay 10"})
    assert not fake.called


async def test_requester_cannot_approve() -> None:
    """An agent cannot say yes to its own call: its voice is refused and recorded."""
    fake = upstream()
    async with indoors(ASK, [fake]) as broker:
        question = await ticket(broker, {"text": "pay 10"})
        (asked,) = await broker.desk.pending()
        with pytest.raises(Exception, match=r"."):
            await broker.desk.vote(question, asked.requester, True)
        again = await ticket(broker, {"text": "pay 10"})
    assert again == question
    assert not fake.called
    assert broker.rows(Kind.ALARM)


async def test_executed_arguments_are_the_approved_bytes() -> None:
    """What the upstream gets is the canonical form that was shown and digested, however the agent wrote it."""
    fake = upstream()
    async with indoors(ASK, [fake]) as broker:
        question = await ticket(broker, {"text": "é\u2028 10"})
        (shown,) = await broker.desk.pending()
        await broker.desk.vote(question, OPERATOR, True)
        await broker.invoke({"text": "é\u2028 10"})
    (intent,) = fake.called
    assert intent.permit.invocation.canonical == shown.canonical
