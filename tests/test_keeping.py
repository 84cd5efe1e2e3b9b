"""What becomes of approved calls: told to the caller that comes back, once, and never a reason to call twice."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

from interposer.broker import Carried
from interposer.errors import ApprovalPending, Denied, InterposerError, RecordFault
from interposer.grant import Kept
from interposer.masking.engine import Engine
from interposer.model import Call, Failed, InDoubt, JsonObject, Kind
from interposer.ports import Secret
from interposer.records.memory import MemoryRecordStore
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.house import (
    ANN,
    BEN,
    OPERATOR,
    Indoors,
    RestlessStore,
    SlowStore,
    definition,
    echoing,
    indoors,
    rules,
    said,
)

ASK = rules("ask fake.*")
EXECUTES = "version: 1\nrules: [{id: r0, effect: ask, skills: ['fake.*'], approval: {execute_on_approve: true}}]\n"
ARGUMENTS = {"text": "hi"}


async def granted(broker: Indoors, arguments: JsonObject | None = None) -> str:
    """A question with a yes, and no caller."""
    with pytest.raises(ApprovalPending) as pending:
        await broker.invoke(arguments or ARGUMENTS)
    await broker.desk.vote(pending.value.question, OPERATOR, True)
    return pending.value.question


async def carried_out(broker: Indoors, arguments: JsonObject | None = None) -> str:
    """A question whose call was made without its caller."""
    id = await granted(broker, arguments)
    await broker.broker.carry_out(await broker.desk.get(id))
    return id


def answering(skill: Any) -> MemoryUpstream:
    return MemoryUpstream("fake", {"echo": (definition(), skill)})


async def test_a_thousand_identical_retries_of_a_granted_call_make_it_once() -> None:
    """However many repeat an approved call at the same time, with its caller's own state or without, one of them makes
    it; nobody makes it again."""
    fake = echoing()
    ends: list[str] = []
    async with indoors(ASK, [fake], store=RestlessStore()) as broker:
        question = await granted(broker)

        async def retry(number: int) -> None:
            try:
                carried = await broker.invoke(ARGUMENTS, question=question if number % 2 else "")
                ends.append("told" if carried.kept else "made")
            except ApprovalPending:
                ends.append("pending")

        async with anyio.create_task_group() as retries:
            for number in range(1_000):
                retries.start_soon(retry, number)
        assert len(await broker.desk.pending()) <= 1
    assert len(fake.called) == 1
    assert (ends.count("made"), len(ends)) == (1, 1_000)
    assert len(broker.rows(Kind.CONSUMED)) == 1


@pytest.mark.parametrize("first", ["errand", "caller"])
async def test_errand_and_caller_race_for_one_call(first: str) -> None:
    """Whoever uses up the yes makes the call; the other one does not."""
    fake = echoing()
    async with indoors(EXECUTES, [fake], store=RestlessStore()) as broker:
        question = await broker.desk.get(await granted(broker))

        async def retry() -> None:
            with suppress(ApprovalPending):
                await broker.invoke(ARGUMENTS)

        runners: list[Any] = [lambda: broker.broker.carry_out(question), retry]
        async with anyio.create_task_group() as race:
            for run in runners if first == "errand" else runners[::-1]:
                race.start_soon(run)
    assert len(fake.called) == 1


async def test_caller_that_leaves_under_way_is_told_once_that_the_outcome_is_unknown() -> None:
    """A call that was cut is not made again by repeating it: first its caller hears that it may have taken effect."""
    began = anyio.Event()

    async def never(_: JsonObject) -> JsonObject:
        began.set()
        await anyio.sleep_forever()
        return {}

    fake = answering(never)
    async with indoors(ASK, [fake]) as broker:
        await granted(broker)
        async with anyio.create_task_group() as calls:
            calls.start_soon(broker.invoke, ARGUMENTS)
            with anyio.fail_after(5):
                await began.wait()
            calls.cancel_scope.cancel()
        carried = await broker.invoke(ARGUMENTS)
        with pytest.raises(ApprovalPending):
            await broker.invoke(ARGUMENTS)
    assert (carried.outcome, carried.kept) == (InDoubt, True)
    assert len(fake.called) == 1


async def test_outcome_that_its_own_state_was_told_is_not_told_to_another_call() -> None:
    """Once the caller has heard of it, the identical call without its state is a new one."""
    async with indoors(EXECUTES) as broker:
        question = await carried_out(broker)
        assert (await broker.invoke(ARGUMENTS, question=question)).kept
        with pytest.raises(ApprovalPending):
            await broker.invoke(ARGUMENTS)


async def test_call_is_not_carried_out_in_the_name_of_somebody_else() -> None:
    """Whoever looks after another one's question has nothing made, and takes nothing away."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        question = await granted(broker)
        with pytest.raises(Denied) as denied:
            await broker.broker.carry_out(await broker.desk.get(question), Call("s_2", BEN, "echo", ARGUMENTS))
        assert denied.value.name == "caller_changed"
        assert not fake.called
        await broker.invoke(ARGUMENTS)
    assert len(fake.called) == 1


async def test_answer_that_its_caller_missed_is_told_to_the_repeated_call() -> None:
    """A caller that leaves while the answer is put on record is given it when it comes back."""
    store, fake = SlowStore(Kind.ANSWERED), echoing()
    async with indoors(ASK, [fake], store=store) as broker:
        await granted(broker)
        async with anyio.create_task_group() as calls:
            calls.start_soon(broker.invoke, ARGUMENTS)
            with anyio.fail_after(5):
                await store.reached.wait()
            calls.cancel_scope.cancel()
            store.go.set()
        carried = await broker.invoke(ARGUMENTS)
    assert carried.kept
    assert carried.masked.value == said("hi")
    assert len(fake.called) == 1


async def test_own_state_is_told_again_and_again_and_anybody_elses_never() -> None:
    """Who shows the state of the question hears its outcome as often as it asks; with other arguments, or as another
    principal, it is a call like any other."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        question = await granted(broker)
        await broker.invoke(ARGUMENTS)
        for _ in range(2):
            assert (await broker.invoke(ARGUMENTS, question=question)).masked.value == said("hi")
        others: list[dict[str, Any]] = [{"arguments": {"text": "ho"}}, {"caller": BEN}]
        for other in others:
            with pytest.raises(ApprovalPending):
                await broker.invoke(**{"arguments": ARGUMENTS, "question": question, **other})
        with pytest.raises(ApprovalPending):
            await broker.invoke(ARGUMENTS)
    assert len(fake.called) == 1


async def test_answer_that_policy_does_not_keep_is_withheld() -> None:
    """Where nothing is recorded nothing is kept: who comes back hears that it was run, and not what came of it."""
    policy = EXECUTES + "obligations: [{skills: ['fake.*'], record: none}]\n"
    async with indoors(policy) as broker:
        id = await carried_out(broker)
        kept = await broker.desk.kept(id)
        carried = await broker.invoke(ARGUMENTS)
    assert kept is not None
    assert kept.body == b""
    assert carried.withheld
    assert carried.masked.value is None


async def test_credential_that_is_known_by_now_is_not_told() -> None:
    """What is kept is masked again before it is told."""
    masker, token = Engine(), "s3cr3t-" + "0123456789abcdef"

    async def leaks(_: JsonObject) -> JsonObject:
        return said(f"it is {token}")

    async with indoors(EXECUTES, [answering(leaks)], masker=masker) as broker:
        await carried_out(broker)
        masker.guard(Secret(token))
        carried = await broker.invoke(ARGUMENTS)
    assert token not in str(carried.masked.value)
    assert "it is" in str(carried.masked.value)


async def test_failed_call_is_told_as_one() -> None:
    """That the service refused an approved call is kept like an answer."""

    async def fails(_: JsonObject) -> Failed:
        return Failed("no", {"code": -32602, "message": "bad"})

    async with indoors(EXECUTES, [answering(fails)]) as broker:
        await carried_out(broker)
        carried = await broker.invoke(ARGUMENTS)
    assert (carried.outcome, carried.masked.value) == (Failed, {"code": -32602, "message": "bad"})


async def test_refusal_after_the_yes_was_used_up_is_told() -> None:
    """An approved call that was refused when it was to be made says why to whoever repeats it; then it is a new one."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker:
        question = await broker.desk.get(await granted(broker))
        decide, decisions = broker.broker._decide, 0

        def strict_later(invocation: Any) -> Any:
            nonlocal decisions
            decisions += 1
            if decisions > 1:
                raise Denied("not any more", rule="r7", message="Ask Kim.")
            return decide(invocation)

        broker.broker._decide = strict_later  # type: ignore[method-assign]
        await broker.broker.carry_out(question)
        broker.broker._decide = decide  # type: ignore[method-assign]
        with pytest.raises(Denied) as told:
            await broker.invoke(ARGUMENTS)
        with pytest.raises(ApprovalPending):
            await broker.invoke(ARGUMENTS)
    assert (told.value.rule, told.value.public) == ("r7", "Ask Kim.")
    assert not fake.called


async def test_allowed_call_costs_the_store_nothing_more() -> None:
    """A call that needs no approval makes no trip to the store beside its two rows."""

    class Counting(MemoryRecordStore):
        trips = 0

        async def kept(self, question: str) -> Kept | None:
            self.trips += 1
            return await super().kept(question)

    store = Counting()
    async with indoors(store=store) as broker:
        await broker.invoke()
    assert store.trips == 0
    assert broker.kinds() == ["intended", "answered"]


async def test_what_is_told_labels_the_session_that_hears_it() -> None:
    """Untrusted text taints the conversation in which it is told, not the one that has ended."""
    policy = EXECUTES + "obligations: [{skills: ['fake.*'], labels: [untrusted]}]\n"
    async with indoors(policy) as broker:
        await carried_out(broker)
        assert not broker.facts.facts("s_1").labels
        await broker.invoke(ARGUMENTS, session="s_2")
        assert broker.facts.facts("s_2").labels == {"untrusted"}


async def test_outcome_that_cannot_be_put_on_record_again_is_withheld() -> None:
    """What is told is on record before it is told."""

    class Forgetful(MemoryRecordStore):
        async def append(self, record: Any) -> int:
            if record.kind is Kind.TOLD:
                self.fail = "disk full"
            return await super().append(record)

    async with indoors(EXECUTES, store=Forgetful()) as broker:
        await carried_out(broker)
        carried: Carried = await broker.invoke(ARGUMENTS)
        with pytest.raises(InterposerError):
            await broker.invoke(ARGUMENTS)
    assert carried.withheld
    assert carried.masked.value is None


async def test_outcome_that_could_not_be_kept_at_once_is_told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that takes nothing for a moment is no reason to ask anew, nor to say for ever that it is under way."""
    fake = echoing()
    async with indoors(EXECUTES, [fake]) as broker:
        keep = broker.store.keep

        async def full(*_: Any, **__: Any) -> None:
            raise RecordFault("no space left")

        monkeypatch.setattr(broker.store, "keep", full)
        question = await carried_out(broker)
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke(ARGUMENTS)
        assert (pending.value.running, pending.value.question) == (True, question)
        monkeypatch.setattr(broker.store, "keep", keep)
        carried = await broker.invoke(ARGUMENTS)
    assert (carried.kept, carried.masked.value) == (True, said("hi"))
    assert len(fake.called) == 1


# -- whoever looks after what became of it


ANNS = Call("s_7", ANN, "", {})


async def looked(broker: Indoors, question: str) -> Carried:
    carried = await broker.errands.look(question, ANNS)
    assert isinstance(carried, Carried)
    return carried


async def test_looking_again_and_again_is_one_row() -> None:
    """A client that looks every second is told every time, and fills no record."""
    async with indoors(EXECUTES) as broker:
        question = await carried_out(broker)
        told = [(await looked(broker, question)).masked.value for _ in range(5)]
        calls = broker.facts.facts("s_7").calls
    assert told == [said("hi")] * 5
    assert [row.question for row in broker.rows(Kind.TOLD)] == [question]
    assert calls == 1


@pytest.mark.parametrize("told_before", [False, True])
@pytest.mark.parametrize("policy", [rules("deny fake.*"), rules("ask other.*")], ids=["denied", "hidden"])
async def test_outcome_is_withheld_where_policy_denies_the_skill_by_now(policy: str, told_before: bool) -> None:
    """Whoever may not make the call any more hears that it was made, and not what came of it: on record, once."""
    async with indoors(EXECUTES) as broker:
        question = await carried_out(broker)
        if told_before:
            await looked(broker, question)
        broker.decree(policy)
        for _ in range(3):
            carried = await looked(broker, question)
            assert carried.withheld
            assert carried.masked.value is None
        assert [row.code for row in broker.rows(Kind.REFUSED)] == ["outcome_withheld"]
        broker.decree(EXECUTES)
        assert (await looked(broker, question)).masked.value == said("hi")
