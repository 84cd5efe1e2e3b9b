"""Errands: approved calls that are made although nobody waits for them, once, and for nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from interposer.broker import Carried
from interposer.callers.everyone import Everyone
from interposer.callers.local import Callers, KnownCaller
from interposer.desk import UnknownQuestion
from interposer.errors import ApprovalPending, ApprovalRefused, Denied
from interposer.model import Answered, Call, Caller, InDoubt, JsonObject, Kind, Principal, Question, QuestionState
from interposer.records.memory import MemoryRecordStore
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.house import (
    ANN,
    BEN,
    OPERATOR,
    HandClock,
    Indoors,
    TokenBook,
    definition,
    echoing,
    indoors,
    rules,
    said,
)

ASK = rules("ask fake.*")
EXECUTES = "version: 1\nrules: [{id: r0, effect: ask, skills: ['fake.*'], approval: {execute_on_approve: true}}]\n"
ARGUMENTS = {"text": "hi"}
KIM = Principal("https://idp.test", "kim")
ANNS = Call("s_1", ANN, "", {})
"""Ann, who looks after what she asked."""


@asynccontextmanager
async def running(broker: Indoors) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broker.errands.run)
        yield
        tasks.cancel_scope.cancel()


async def granted(broker: Indoors, **more: Any) -> str:
    """A call that was approved after its caller had gone."""
    with pytest.raises(ApprovalPending) as pending:
        await broker.invoke(ARGUMENTS, **more)
    await broker.desk.vote(pending.value.question, OPERATOR, True)
    return pending.value.question


async def seen(broker: Indoors, kind: Kind) -> None:
    """Wait for a row."""
    with anyio.fail_after(5):
        while not broker.rows(kind):
            await anyio.lowlevel.checkpoint()


async def ended(broker: Indoors, question: str) -> None:
    """Wait until it is kept how the call of a question ended."""
    with anyio.fail_after(5):
        while (kept := await broker.desk.kept(question)) is None or kept.state == "running":
            await anyio.lowlevel.checkpoint()


def slow() -> tuple[MemoryUpstream, anyio.Event, anyio.Event]:
    """A skill that says when it began, and ends when it is told to."""
    began, go = anyio.Event(), anyio.Event()

    async def waits(_: JsonObject) -> JsonObject:
        began.set()
        await go.wait()
        return said("done")

    return MemoryUpstream("fake", {"echo": (definition(), waits)}), began, go


async def test_call_is_made_when_approved_and_its_answer_given_to_the_repeated_call_once() -> None:
    """The caller has left: the call is made without it, and whoever repeats it hears the answer instead of a second
    call; the one after that is a new call."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker, running(broker):
        question = await granted(broker)
        await ended(broker, question)
        carried = await broker.invoke(ARGUMENTS)
        with pytest.raises(ApprovalPending):
            await broker.invoke(ARGUMENTS)
    assert (carried.masked.value, carried.kept, carried.approval) == (said("hi"), True, question)
    assert len(fake.called) == 1
    (told,) = broker.rows(Kind.TOLD)
    assert (told.question, told.code) == (question, "answered")


async def test_nobody_else_collects_an_answer() -> None:
    """The identical call of another principal is a call of its own, and so are other arguments."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker, running(broker):
        question = await granted(broker)
        await ended(broker, question)
        others: list[dict[str, Any]] = [
            {"caller": BEN},
            {"caller": BEN, "question": question},
            {"arguments": {"text": "ho"}},
        ]
        for other in others:
            with pytest.raises(ApprovalPending):
                await broker.invoke(**{"arguments": ARGUMENTS, **other})
        with pytest.raises(UnknownQuestion):
            await broker.errands.look(question, Call("s_2", BEN, "", {}))
        with pytest.raises(UnknownQuestion):
            await broker.errands.cancel(question, Call("s_2", BEN, "", {}))
    assert len(fake.called) == 1


async def test_call_is_not_made_where_policy_does_not_say_so() -> None:
    """An ordinary yes waits for the repeated call."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker, running(broker):
        question = await granted(broker)
        await anyio.wait_all_tasks_blocked()
        assert not fake.called
        assert (await broker.desk.get(question)).state is QuestionState.GRANTED


async def test_caller_on_the_deny_list_has_no_call_made() -> None:
    """Whoever may not ask any more when the yes comes is refused, and the yes is taken out of the world."""
    fake, book = echoing(), TokenBook(kims=KIM)
    async with indoors(EXECUTES, [fake], authenticator=book) as broker:
        question = await granted(broker, caller=Caller("unix", token="kims"))
        del book.known["kims"]
        async with running(broker):
            await seen(broker, Kind.QUESTION_WITHDRAWN)
        assert (await broker.desk.get(question)).state is QuestionState.WITHDRAWN
    assert not fake.called
    assert [row.code for row in broker.rows(Kind.REFUSED)] == ["unauthenticated"]


@pytest.mark.parametrize("policy", [rules("deny fake.*"), rules("allow fake.*"), EXECUTES.replace("r0", "r9")])
async def test_policy_that_changed_since_has_no_call_made(policy: str) -> None:
    """A yes under one policy carries nothing under another, stricter or laxer; the repeated call is judged anew."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker:
        await granted(broker)
        broker.decree(policy)
        async with running(broker):
            await seen(broker, Kind.QUESTION_WITHDRAWN)
    assert not fake.called


async def test_skill_that_changed_since_is_not_called() -> None:
    """A yes to one definition is none to another."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker:
        await granted(broker)
        fake.replace({"echo": (definition(description="Deletes it."), broker_echo)})
        broker.clock.time_s += 120
        async with running(broker):
            await seen(broker, Kind.QUESTION_WITHDRAWN)
    assert not fake.called


async def broker_echo(_: JsonObject) -> JsonObject:
    return said("x")


async def test_call_that_an_earlier_run_left_approved_is_made_at_start() -> None:
    """A broker that was started anew makes what was approved before, once."""
    store, clock, fake = MemoryRecordStore(), HandClock(), echoing()
    async with indoors(EXECUTES, [echoing()], store=store, clock=clock) as before:
        question = await granted(before)
    async with indoors(EXECUTES, [fake], store=store, clock=clock) as broker:
        async with running(broker):
            await ended(broker, question)
        assert (await broker.invoke(ARGUMENTS)).masked.value == said("hi")
    assert len(fake.called) == 1


async def test_caller_that_waits_goes_first() -> None:
    """Whoever holds on until the yes comes is given the answer itself, and nothing waits for a repeated call."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker, running(broker), anyio.create_task_group() as calls:
        carried: list[Carried] = []

        async def call() -> None:
            carried.append(await broker.invoke(ARGUMENTS, hold_s=60.0))

        calls.start_soon(call)
        with anyio.fail_after(5):
            while not (open_ := await broker.desk.pending()):
                await anyio.lowlevel.checkpoint()
        await broker.desk.vote(open_[0].id, OPERATOR, True)
        await ended(broker, open_[0].id)
        await anyio.wait_all_tasks_blocked()
        assert [(one.masked.value, one.kept) for one in carried] == [(said("hi"), False)]
        assert not await broker.store.waiting()
    assert len(fake.called) == 1


async def test_identical_call_waits_for_one_that_is_under_way() -> None:
    """A repeated call is told to come back, or held until the answer is there: it is never made beside the other."""
    fake, began, go = slow()
    async with indoors(EXECUTES, [fake]) as broker, running(broker), anyio.create_task_group() as calls:
        await granted(broker)
        with anyio.fail_after(5):
            await began.wait()
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke(ARGUMENTS)
        assert pending.value.running
        carried: list[Carried] = []

        async def call() -> None:
            carried.append(await broker.invoke(ARGUMENTS, hold_s=60.0))

        calls.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert carried[0].masked.value == said("done")
    assert len(fake.called) == 1
    assert [row.code for row in broker.rows(Kind.REFUSED)] == ["under_way"]


async def test_owner_follows_a_question_to_its_answer() -> None:
    """Whoever asked sees the question while it is open, has the call made by looking after it, and may hear the answer
    again."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke(ARGUMENTS)
        id = pending.value.question
        waiting = await broker.errands.look(id, ANNS)
        assert isinstance(waiting, Question)
        assert waiting.state is QuestionState.OPEN
        await broker.desk.vote(id, OPERATOR, True)
        assert isinstance(await broker.errands.look(id, ANNS), Question)
        await ended(broker, id)
        for _ in range(2):
            carried = await broker.errands.look(id, ANNS)
            assert isinstance(carried, Carried)
            assert (carried.masked.value, carried.outcome) == (said("hi"), Answered)
        assert not await broker.store.waiting()
    assert len(fake.called) == 1


async def test_refusals_are_told_to_the_owner() -> None:
    """A no is a refusal; a question that was withdrawn is shown as that."""
    async with indoors(ASK) as broker:
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke(ARGUMENTS)
        await broker.desk.vote(pending.value.question, OPERATOR, False, "no")
        assert isinstance(await broker.errands.look(pending.value.question, ANNS), ApprovalRefused)
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke({"text": "ho"})
        await broker.errands.cancel(pending.value.question, ANNS)
        withdrawn = await broker.errands.look(pending.value.question, ANNS)
        assert isinstance(withdrawn, Question)
        assert withdrawn.state is QuestionState.WITHDRAWN


async def test_call_that_is_cancelled_under_way_is_in_doubt() -> None:
    """Its owner may cut a call that is made without it; that it may have taken effect is told to whoever repeats it,
    once."""
    fake, began, _ = slow()
    async with indoors(EXECUTES, [fake]) as broker, running(broker):
        question = await granted(broker)
        with anyio.fail_after(5):
            await began.wait()
            await broker.errands.cancel(question, ANNS)
        carried = await broker.invoke(ARGUMENTS)
        with pytest.raises(ApprovalPending):
            await broker.invoke(ARGUMENTS)
    assert carried.outcome is InDoubt
    assert len(fake.called) == 1


async def test_broker_that_stops_leaves_no_call_without_an_end() -> None:
    """What is under way when the broker stops is cut after its grace, on record."""
    fake, began, _ = slow()
    async with indoors(EXECUTES, [fake]) as broker, running(broker):
        question = await granted(broker)
        with anyio.fail_after(5):
            await began.wait()
            await broker.errands.aclose(0.0)
        kept = await broker.desk.kept(question)
    assert kept is not None
    assert kept.state == "in_doubt"
    assert not kept.delivered
    assert broker.kinds()[-1] == "in_doubt"


async def test_broker_that_stops_does_not_wait_for_what_has_not_begun() -> None:
    """An errand that only waits to be tried again holds nothing up, and its yes stays for the next run."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker, running(broker):
        question = await granted(broker)
        broker.store.fail = "disk full"
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(2):
            await broker.errands.aclose(60.0)
        broker.store.fail = ""
        assert (await broker.desk.get(question)).state is QuestionState.GRANTED
    assert not fake.called


async def test_record_that_cannot_be_written_for_a_while_delays_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that cannot be put on record is not made, and is tried again."""
    monkeypatch.setattr("interposer.errands.AGAIN_S", (0.01, 0.02))
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker:
        question = await granted(broker)
        broker.store.fail = "disk full"
        async with running(broker):
            await anyio.wait_all_tasks_blocked()
            assert not fake.called
            broker.store.fail = ""
            await ended(broker, question)
    assert len(fake.called) == 1


async def test_two_approvals_of_one_call_are_carried_out_one_after_the_other() -> None:
    """One call, approved under two policies in turn, is two calls, and neither outcome is lost."""
    fake, began, go = slow()
    one, other = EXECUTES, EXECUTES.replace("r0", "r9")
    async with indoors(one, [fake]) as broker, running(broker):
        questions = []
        for policy in (one, other):
            broker.decree(policy)
            with pytest.raises(ApprovalPending) as pending:
                await broker.invoke(ARGUMENTS)
            questions.append(pending.value.question)
        for policy, question in zip((one, other), questions, strict=True):
            broker.decree(policy)
            await broker.desk.vote(question, OPERATOR, True)
            with anyio.fail_after(5):
                await began.wait()
        await anyio.wait_all_tasks_blocked()
        assert len(fake.called) == 1
        go.set()
        for question in questions:
            await ended(broker, question)
        assert [(await broker.invoke(ARGUMENTS)).approval for _ in questions] == questions
    assert len(fake.called) == 2


async def test_fault_that_nobody_expected_makes_no_call_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong before a call is made ends in no, and the call is tried again."""
    monkeypatch.setattr("interposer.errands.AGAIN_S", (0.01, 0.02))

    class Moody(TokenBook):
        asked = 0

        async def still(self, principal: Principal, session: str) -> Principal:
            self.asked += 1
            if self.asked == 1:
                raise ZeroDivisionError
            return principal

    fake, book = echoing(), Moody(kims=KIM)
    async with indoors(EXECUTES, [fake], authenticator=book) as broker, running(broker):
        question = await granted(broker, caller=Caller("unix", token="kims"))
        await ended(broker, question)
    assert book.asked > 1
    assert len(fake.called) == 1


async def test_question_that_was_altered_stops_no_other_errand() -> None:
    """One approved call that cannot be trusted any more does not keep others from being made."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker:
        altered = await granted(broker)
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke({"text": "ho"})
        await broker.desk.vote(pending.value.question, OPERATOR, True)
        broker.store._questions[altered] = replace(broker.store._questions[altered], canonical=b'{"text":"more"}')
        async with running(broker):
            await ended(broker, pending.value.question)
    assert [intent.permit.invocation.arguments for intent in fake.called] == [{"text": "ho"}]


async def test_only_so_many_are_made_at_once() -> None:
    """Errands wait for their turn: a heap of approvals is no stampede."""
    now, most = 0, 0

    async def counts(arguments: JsonObject) -> JsonObject:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.lowlevel.checkpoint()
        now -= 1
        return said(arguments["text"])

    fake = MemoryUpstream("fake", {"echo": (definition(), counts)})
    async with indoors(EXECUTES, [fake]) as broker:
        for number in range(20):
            with pytest.raises(ApprovalPending) as pending:
                await broker.invoke({"text": str(number)}, session=f"s_{number}")
            await broker.desk.vote(pending.value.question, OPERATOR, True)
        async with running(broker):
            with anyio.fail_after(5):
                while len(broker.rows(Kind.ANSWERED)) < 20:
                    await anyio.lowlevel.checkpoint()
    assert len(fake.called) == 20
    assert most <= 4


async def test_slow_calls_of_one_principal_keep_nobody_else_waiting() -> None:
    """However many slow calls somebody has approved, those of others have their turn."""
    go = anyio.Event()

    async def waits(arguments: JsonObject) -> JsonObject:
        if arguments["text"] != "quick":
            await go.wait()
        return said("done")

    fake = MemoryUpstream("fake", {"echo": (definition(), waits)})
    async with indoors(EXECUTES, [fake]) as broker, running(broker):
        for number in range(20):
            with pytest.raises(ApprovalPending) as pending:
                await broker.invoke({"text": f"slow {number}"}, session=f"s_{number}")
            await broker.desk.vote(pending.value.question, OPERATOR, True)
        with anyio.fail_after(5):
            while len(fake.called) < 4:
                await anyio.lowlevel.checkpoint()
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke({"text": "quick"}, caller=BEN)
        await broker.desk.vote(pending.value.question, OPERATOR, True)
        await ended(broker, pending.value.question)
        assert len(fake.called) == 5
        go.set()
        with anyio.fail_after(5):
            while len(broker.rows(Kind.ANSWERED)) < 21 or broker.errands._turns:
                await anyio.lowlevel.checkpoint()


async def test_waiting_for_the_identical_call_takes_no_turn() -> None:
    """One call that was approved under several policies leaves its caller's other turns free."""
    fake, began, go = slow()
    policies = [EXECUTES.replace("r0", f"r{number}") for number in range(5)]
    async with indoors(policies[0], [fake]) as broker, running(broker):
        questions = []
        for policy in policies:
            broker.decree(policy)
            with pytest.raises(ApprovalPending) as pending:
                await broker.invoke(ARGUMENTS)
            questions.append(pending.value.question)
        for policy, question in zip(policies, questions, strict=True):
            broker.decree(policy)
            await broker.desk.vote(question, OPERATOR, True)
            with anyio.fail_after(5):
                await began.wait()
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke({"text": "ho"})
        await broker.desk.vote(pending.value.question, OPERATOR, True)
        with anyio.fail_after(5):
            while len(fake.called) < 2:
                await anyio.lowlevel.checkpoint()
        go.set()


async def test_groups_that_were_taken_away_carry_no_call() -> None:
    """Whoever is not of the group any more when the broker starts anew has no call made, although it was approved."""
    policy = EXECUTES.replace("skills:", "who: {groups: [support]}, skills:")
    store, fake = MemoryRecordStore(), echoing()
    async with indoors(policy, [fake], store=store) as broker:
        await granted(broker)
    demoted = Everyone(Callers((KnownCaller("ann", uid=1000),), unmapped="refuse"))
    async with indoors(policy, [fake], store=store, authenticator=demoted) as broker, running(broker):
        await seen(broker, Kind.QUESTION_WITHDRAWN)
    assert not fake.called


async def test_yes_that_was_taken_back_makes_no_call() -> None:
    """A revocation before the errand begins wins."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker:
        question = await granted(broker)
        await broker.desk.revoke(question, OPERATOR, "a mistake")
        async with running(broker):
            await anyio.wait_all_tasks_blocked()
        with pytest.raises((ApprovalPending, ApprovalRefused, Denied)):
            await broker.invoke(ARGUMENTS)
    assert not fake.called
