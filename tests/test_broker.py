"""The enforcement point: the order of its steps, seen from the record and from the upstream."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import anyio
import pytest

from interposer.ballot import VoteRefused
from interposer.errors import EXPIRED, ApprovalPending, Denied, InvalidArguments, Unauthenticated, UnknownSkill
from interposer.masking.engine import Engine
from interposer.model import Answered, Caller, Failed, InDoubt, JsonObject, Kind, Principal, Progress
from interposer.ports import Secret
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.house import BEN, OPERATOR, SlowStore, TokenBook, definition, echo, echoing, indoors, rules, said

CARD = "4111 1111 1111 " + "1111"
ASK = rules("ask fake.*")


def serving(skill: Any, **more: Any) -> MemoryUpstream:
    return MemoryUpstream("fake", {"echo": (definition(**more), skill)})


async def test_allowed_call_is_intended_and_answered() -> None:
    """An allowed call is on record before and after it was made."""
    fake = echoing()
    async with indoors(upstreams=[fake]) as broker:
        carried = await broker.invoke({"text": "hi"})
    assert carried.masked.value == said("hi")
    assert carried.outcome is Answered
    assert broker.kinds() == ["intended", "answered"]
    assert fake.called[0].permit.invocation.canonical == b'{"text":"hi"}'


async def test_denied_call_is_recorded_with_its_rule() -> None:
    """A denied call is not made; the record names the rule and the policy, the caller the rule's message."""
    fake = echoing()
    policy = "version: 1\nrules: [{id: never, effect: deny, skills: [fake.echo], message: Ask Kim.}]\n"
    listed = policy.replace("rules: [", "rules: [{id: a, effect: allow, skills: [fake.echo]}, ").replace(
        "skills: [fake.echo], message", "skills: [fake.echo], arguments: {required: [text]}, message"
    )
    async with indoors(listed, [fake]) as broker:
        with pytest.raises(Denied) as denied:
            await broker.invoke({"text": "hi"})
        policy_digest = broker.standing[-1].digest
    assert (denied.value.rule, denied.value.public) == ("never", "Ask Kim.")
    (row,) = broker.rows(Kind.REFUSED)
    assert "never" in row.rules
    assert row.policy == policy_digest
    assert not fake.called


async def test_unknown_caller_gets_nothing() -> None:
    """A peer without a principal is refused before anything is looked up."""
    fake = echoing()
    async with indoors(upstreams=[fake]) as broker:
        with pytest.raises(Unauthenticated):
            await broker.invoke(caller=Caller("unix", uid=4711))
    assert broker.rows(Kind.REFUSED)[0].code == "unauthenticated"
    assert not fake.called


async def test_arguments_are_checked_before_any_human_is_bothered() -> None:
    """Arguments that do not fit open no question."""
    async with indoors(ASK) as broker:
        with pytest.raises(InvalidArguments):
            await broker.invoke({"text": 5})
        assert not await broker.desk.pending()
    assert broker.kinds() == ["refused"]


async def test_card_number_is_masked_on_the_way_back_and_in_the_record() -> None:
    """Personal data in arguments and results reaches neither the caller nor the record."""
    async with indoors() as broker:
        carried = await broker.invoke({"text": f"card {CARD}"})
    assert CARD not in str(carried.masked.value)
    assert all(CARD.encode() not in (record.payload or b"") for record in broker.store.records)


async def test_failed_call_says_that_nothing_ran() -> None:
    """An upstream that refused the request is an outcome of its own."""

    async def fails(_: JsonObject) -> Failed:
        return Failed("no", {"code": -32602, "message": "bad"})

    async with indoors(upstreams=[serving(fails)]) as broker:
        carried = await broker.invoke()
    assert carried.outcome is Failed
    assert broker.kinds() == ["intended", "failed"]


async def test_cancelled_call_is_recorded_in_doubt() -> None:
    """A call that its caller gives up after it was sent is in doubt on record."""
    began = anyio.Event()

    async def never(_: JsonObject) -> JsonObject:
        began.set()
        await anyio.sleep_forever()
        return {}

    async with indoors(upstreams=[serving(never)]) as broker, anyio.create_task_group() as tasks:
        tasks.start_soon(broker.invoke)
        with anyio.fail_after(5):
            await began.wait()
        tasks.cancel_scope.cancel()
    assert broker.kinds() == ["intended", "in_doubt"]


@pytest.mark.parametrize("slow", [Kind.INTENDED, Kind.ANSWERED])
async def test_caller_that_leaves_while_a_row_is_written_loses_no_outcome(slow: Kind) -> None:
    """Whenever a caller leaves, the call has exactly one end on record, and the journal forgets it."""
    store = SlowStore(slow)
    async with indoors(store=store) as broker, anyio.create_task_group() as tasks:
        tasks.start_soon(broker.invoke)
        with anyio.fail_after(5):
            await store.reached.wait()
            tasks.cancel_scope.cancel()
            store.go.set()
    ends = [kind for kind in broker.kinds() if kind != "intended"]
    assert ends in (["in_doubt"], ["answered"])
    assert not broker.house.journal._reached


async def test_progress_comes_back_masked() -> None:
    """What an upstream says on the way is masked like its answer."""
    told: list[Progress] = []

    class Talking(MemoryUpstream):
        async def call(self, intent: Any, on_progress: Any) -> Any:
            on_progress(Progress(f"charging {CARD}", 1, 2))
            return await super().call(intent, None)

    async with indoors(upstreams=[Talking("fake", {"echo": (definition(), echo)})]) as broker:
        await broker.invoke(on_progress=told.append)
    (progress,) = told
    assert (progress.progress, progress.total) == (1, 2)
    assert CARD not in (progress.message or "")
    assert "charging" in (progress.message or "")


async def test_masked_result_that_breaks_its_schema_is_withheld() -> None:
    """A structured result that masking would make untrue to its advertised schema is withheld, not bent."""

    async def card(_: JsonObject) -> JsonObject:
        return {"content": [], "structuredContent": {"pan": int(CARD.replace(" ", ""))}}

    schema = {"type": "object", "properties": {"pan": {"const": 5}}, "required": ["pan"]}
    async with indoors(upstreams=[serving(card, outputSchema=schema)]) as broker:
        carried = await broker.invoke()
        shown = broker.catalogue.offers()[0].shown["outputSchema"]
    assert carried.withheld or shown != schema
    assert CARD.replace(" ", "") not in str(carried.masked.value)


async def test_labels_are_put_on_the_session_by_answers_and_in_doubt() -> None:
    """Untrusted text taints the session, also when the answer may or may not have come; a failed call does not."""
    for outcome, tainted in [(said("x"), True), (InDoubt("gone"), True), (Failed("no"), False)]:

        async def answers(_: JsonObject, outcome: Any = outcome) -> Any:
            return outcome

        policy = rules("allow fake.*") + "obligations: [{skills: [fake.echo], labels: [untrusted]}]\n"
        async with indoors(policy, [serving(answers)]) as broker:
            await broker.invoke()
            assert broker.facts.facts("s_1").labels == (frozenset({"untrusted"}) if tainted else frozenset())


async def test_rate_limit_refuses_without_a_lecture() -> None:
    """Beyond its rate a call is refused and may be repeated later."""
    policy = rules("allow fake.*") + "obligations: [{skills: [fake.echo], rate: 2/min}]\n"
    async with indoors(policy) as broker:
        await broker.invoke()
        await broker.invoke()
        with pytest.raises(Denied, match="rate limit") as denied:
            await broker.invoke()
        assert denied.value.name == "rate_limited"
        broker.clock.time_s += 61
        await broker.invoke()


async def test_approved_call_is_judged_again() -> None:
    """A yes does not outlive a policy that now says no, nor a skill that changed, nor a caller that is another."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        with pytest.raises(ApprovalPending) as pending:
            await broker.invoke()
        await broker.desk.vote(pending.value.question, OPERATOR, True)
        broker.decree(rules("allow fake.other"))
        with pytest.raises(UnknownSkill):
            await broker.invoke()
        broker.decree(ASK)
        with pytest.raises(ApprovalPending):
            await broker.invoke(caller=BEN)
    assert not fake.called


KIM = Principal("https://idp.test", "kim", ("support",))


async def test_token_that_ends_while_a_human_thinks_ends_the_wait() -> None:
    """Whoever may not ask any more is told so within a second, nothing is executed, and no yes can follow."""
    fake, book = echoing(), TokenBook(kims=KIM)
    async with indoors(ASK, [fake], authenticator=book) as broker:
        async with anyio.create_task_group() as calls:

            async def call() -> None:
                with pytest.raises(Unauthenticated) as refused:
                    await broker.invoke({"text": "hi"}, caller=Caller("unix", token="kims"), hold_s=60.0)
                assert refused.value.why == EXPIRED

            calls.start_soon(call)
            with anyio.fail_after(10):
                while not (open_ := await broker.desk.pending()):
                    await anyio.lowlevel.checkpoint()
                del book.known["kims"]
        with pytest.raises(VoteRefused):
            await broker.desk.vote(open_[0].id, OPERATOR, True)
    assert not fake.called
    assert broker.kinds() == ["asked", "question_opened", "question_withdrawn", "refused", "alarm"]


async def test_refreshed_token_carries_a_held_call() -> None:
    """A connection whose token was replaced during the wait is judged by the new one, groups included."""
    fake, book = echoing(), TokenBook(first=KIM)
    token = ["first"]
    policy = ASK.replace("skills: ['fake.*']", "skills: ['fake.*'], who: {groups: [support, leads]}")
    async with indoors(policy, [fake], authenticator=book) as broker, anyio.create_task_group() as calls:

        async def call() -> None:
            def latest() -> Caller:
                return Caller("unix", token=token[0])

            await broker.invoke({"text": "hi"}, caller=latest(), latest=latest, hold_s=60.0)

        calls.start_soon(call)
        with anyio.fail_after(10):
            while not (open_ := await broker.desk.pending()):
                await anyio.lowlevel.checkpoint()
            book.known = {"second": replace(KIM, groups=("leads",))}
            token[0] = "second"
            await broker.desk.vote(open_[0].id, OPERATOR, True)
    assert fake.called[0].permit.invocation.principal.groups == ("leads",)


@pytest.mark.parametrize("stays", [True, False])
async def test_token_that_becomes_another_ones_is_not_theirs_to_use(stays: bool) -> None:
    """A call goes on speaking by what it came with: it is carried out for whom it was approved, or for nobody."""
    fake, book = echoing(), TokenBook(first=KIM, second=replace(KIM, subject="lee"))
    token = ["first"]
    async with indoors(ASK, [fake], authenticator=book) as broker, anyio.create_task_group() as calls:

        async def call() -> None:
            def latest() -> Caller:
                return Caller("unix", token=token[0])

            with contextlib.nullcontext() if stays else pytest.raises(Unauthenticated):
                await broker.invoke({"text": "hi"}, caller=latest(), latest=latest, hold_s=60.0)

        calls.start_soon(call)
        with anyio.fail_after(10):
            while not (open_ := await broker.desk.pending()):
                await anyio.lowlevel.checkpoint()
            token[0] = "second"
            if not stays:
                del book.known["first"]
            await broker.desk.vote(open_[0].id, OPERATOR, True)
    assert [intent.permit.invocation.principal for intent in fake.called] == ([KIM] if stays else [])


async def test_callers_own_token_does_not_cross_as_an_argument() -> None:
    """An agent that puts its token into a call is refused, and the token is not on record."""
    fake, book = echoing(), TokenBook(**{"kims-secret-token": KIM})
    async with indoors(upstreams=[fake], authenticator=book) as broker:
        arguments = {"text": "use kims-secret-token there"}
        with pytest.raises(Denied) as denied:
            await broker.invoke(arguments, caller=Caller("unix", token="kims-secret-token"))
    assert denied.value.name == "token_in_arguments"
    assert not fake.called
    assert all(b"kims-secret" not in (record.payload or b"") for record in broker.store.records)


async def test_token_that_ends_while_the_skill_is_looked_up_executes_nothing() -> None:
    """Looking up a skill can wait for its service; who may ask when it is over is asked again."""
    fake, book = echoing(), TokenBook(kims=KIM)

    class Forgetful(MemoryUpstream):
        async def skills(self) -> list[JsonObject]:
            book.known.clear()
            return await fake.skills()

        async def call(self, *anything: Any) -> Any:
            raise AssertionError

    async with indoors(upstreams=[Forgetful("fake", {})], authenticator=book) as broker:
        with pytest.raises(Unauthenticated):
            await broker.invoke({"text": "hi"}, caller=Caller("unix", token="kims"))
    assert broker.kinds() == ["refused"]


async def test_connections_token_does_not_cross_in_a_request_with_its_own() -> None:
    """Neither of two tokens may be an argument."""
    fake, book = echoing(), TokenBook(**{"one-long-token": KIM})
    async with indoors(upstreams=[fake], authenticator=book) as broker:
        caller = Caller("unix", token="one-long-token")
        with pytest.raises(Denied) as denied:
            await broker.invoke({"text": "other-long-token"}, caller=caller, token="other-long-token")
    assert denied.value.name == "token_in_arguments"
    assert not fake.called


async def test_brokers_own_credential_does_not_cross_as_an_argument() -> None:
    """Whoever sends a secret that the broker guards is refused: it should be in nobody else's hands."""
    fake, masker, secret = echoing(), Engine(), "guarded-" + "5f2kd93ks0"
    masker.guard(Secret(secret))
    async with indoors(upstreams=[fake], masker=masker) as broker:
        with pytest.raises(Denied) as denied:
            await broker.invoke({"text": f"use {secret}"})
    assert denied.value.name == "credential_in_arguments"
    assert not fake.called
    assert all(secret.encode() not in (record.payload or b"") for record in broker.store.records)


async def test_secret_in_the_place_of_a_name_is_not_on_record() -> None:
    """What an agent calls a skill that does not exist is masked like everything else."""
    book = TokenBook(**{"one-long-token": KIM})
    async with indoors(authenticator=book) as broker:
        for name in (f"card {CARD}", "one-long-token"):
            with pytest.raises(UnknownSkill):
                await broker.invoke(name=name, caller=Caller("unix", token="one-long-token"))
    assert all(CARD not in record.skill and "one-long" not in record.skill for record in broker.store.records)


async def test_why_a_token_was_refused_is_on_record() -> None:
    """Operators read a short reason; the caller is told what it can mend."""
    async with indoors(authenticator=TokenBook()) as broker:
        with pytest.raises(Unauthenticated, match="book") as refused:
            await broker.invoke(caller=Caller("unix", token="old"))
    assert b'"why":"expired"' in (broker.rows(Kind.REFUSED)[0].payload or b"")
    assert "expired" in refused.value.public


async def test_caller_that_leaves_while_a_human_thinks_is_withdrawn() -> None:
    """A call that is given up before the answer is withdrawn, and so is its question."""
    async with indoors(ASK) as broker, anyio.create_task_group() as tasks:

        async def asks() -> None:
            await broker.invoke(hold_s=60.0)

        tasks.start_soon(asks)
        with anyio.fail_after(5):
            while not await broker.desk.pending():
                await broker.desk.changes(broker.desk.revision, 1.0)
        tasks.cancel_scope.cancel()
    assert broker.kinds()[-1] in ("withdrawn", "question_withdrawn")
    assert {"asked", "question_opened", "withdrawn", "question_withdrawn"} == set(broker.kinds())
