"""Approvals that change what is sent, are taken back, or carry more calls than one: judged as every call is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from interposer.broker import Carried
from interposer.canonical import canonical
from interposer.desk import Proposal, VoteRefused
from interposer.errors import ApprovalPending, Denied, Refusal
from interposer.masking.engine import Engine
from interposer.model import Answered, Call, Caller, InDoubt, JsonObject, Kind, Question, QuestionState
from interposer.ports import Secret
from interposer.terms import GrantSpec
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.house import (
    ANN,
    OPERATOR,
    Indoors,
    RestlessStore,
    TokenBook,
    definition,
    echoing,
    indoors,
    rules,
    said,
)

ASK = rules("ask fake.*")
GRANTS = "version: 1\nrules: [{id: r0, effect: ask, skills: ['fake.*'], approval: {grant: {for: 1h, uses: 9}}}]\n"
NARROWS = """
version: 1
rules:
  - {id: asks, effect: ask, skills: ['fake.*']}
  - id: never
    effect: deny
    skills: ['fake.*']
    arguments: {required: [text], properties: {text: {const: forbidden}}}
  - id: dear
    effect: ask
    skills: ['fake.*']
    arguments: {required: [text], properties: {text: {const: dear}}}
    approval: {quorum: 2}
"""
ARGUMENTS = {"text": "all of it"}
KIM_TOKEN = "kims-" + "0123456789abcdef"


async def ticket(broker: Indoors, arguments: JsonObject | None = None, **more: Any) -> str:
    with pytest.raises(ApprovalPending) as pending:
        await broker.invoke(arguments or ARGUMENTS, **more)
    return pending.value.question


async def amend(broker: Indoors, question: str, arguments: Any) -> None:
    await broker.desk.vote(question, OPERATOR, True, proposal=Proposal(canonical(arguments)))


def slow() -> tuple[MemoryUpstream, anyio.Event]:
    """A skill that says when it began, and never ends by itself."""
    began = anyio.Event()

    async def never(_: JsonObject) -> JsonObject:
        began.set()
        await anyio.sleep_forever()
        return {}

    return MemoryUpstream("fake", {"echo": (definition(), never)}), began


# -- other arguments


async def test_what_an_approver_narrowed_is_what_is_sent() -> None:
    """The upstream gets the approver's arguments; what was asked and what was sent are both on record, and the caller
    is told."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        question = await ticket(broker)
        await amend(broker, question, {"text": "a part"})
        carried = await broker.invoke(ARGUMENTS)
    assert [intent.permit.invocation.canonical for intent in fake.called] == [b'{"text":"a part"}']
    assert carried.amended is not None
    assert (carried.masked.value, carried.amended.value) == (said("a part"), {"text": "a part"})
    assert b"all of it" in (broker.rows(Kind.ASKED)[-1].payload or b"")
    (intended,) = broker.rows(Kind.INTENDED)
    assert (intended.code, b"a part" in (intended.payload or b"")) == ("amended", True)


async def test_narrowed_call_is_collected_as_what_it_was() -> None:
    """A caller that comes back for the answer hears that its arguments were changed, too."""
    policy = ASK.replace("skills: ['fake.*']", "skills: ['fake.*'], approval: {execute_on_approve: true}")
    async with indoors(policy) as broker:
        question = await ticket(broker)
        await amend(broker, question, {"text": "a part"})
        await broker.broker.carry_out(await broker.desk.get(question))
        carried = await broker.invoke(ARGUMENTS)
    assert carried.kept
    assert carried.amended is not None
    assert carried.amended.value == {"text": "a part"}


@pytest.mark.parametrize(
    "arguments",
    [{"text": "forbidden"}, {"text": "dear"}, {"text": 5}, {"other": "x"}, ["text"], "text"],
    ids=["denied", "other terms", "wrong type", "unknown", "list", "text"],
)
async def test_arguments_that_policy_or_schema_would_refuse_cannot_be_approved(arguments: Any) -> None:
    """An approver cannot put a call in place of another that could not have been asked for on the same terms."""
    fake = echoing()
    async with indoors(NARROWS, [fake]) as broker:
        question = await ticket(broker)
        with pytest.raises(VoteRefused) as refused:
            await amend(broker, question, arguments)
        assert (await broker.desk.get(question)).state is QuestionState.OPEN
    assert refused.value.name == "amendment_refused"
    assert not fake.called


async def test_credential_cannot_be_put_into_a_call_by_an_approver() -> None:
    """Nor can somebody who approves send a secret of the broker's across the wall."""
    masker, secret = Engine(), "cred-" + "0123456789abcdef"
    masker.guard(Secret(secret))
    async with indoors(ASK, masker=masker) as broker:
        question = await ticket(broker)
        with pytest.raises(VoteRefused) as refused:
            await amend(broker, question, {"text": secret})
    assert refused.value.name == "amendment_refused"
    assert secret not in str(refused.value)


async def test_narrowed_call_that_policy_denies_by_now_is_not_made() -> None:
    """The policy of now judges the call that would be sent."""
    fake = echoing()
    async with indoors(NARROWS, [fake]) as broker:
        question = await ticket(broker)
        await amend(broker, question, {"text": "a part"})
        broker.decree(NARROWS.replace("forbidden", "a part"))
        with pytest.raises(Refusal):
            await broker.invoke(ARGUMENTS)
    assert not fake.called


async def test_callers_token_does_not_cross_in_an_approvers_arguments() -> None:
    """An approver who pastes the caller's token into a call sends nothing."""
    fake, book = (
        echoing(),
        TokenBook(**{KIM_TOKEN: replace(OPERATOR, issuer="https://idp.test", subject="kim", uid=None)}),
    )
    async with indoors(ASK, [fake], authenticator=book) as broker:
        caller = Caller("unix", token=KIM_TOKEN)
        question = await ticket(broker, caller=caller)
        await amend(broker, question, {"text": f"with {KIM_TOKEN}"})
        with pytest.raises(Denied) as denied:
            await broker.invoke(ARGUMENTS, caller=caller)
    assert denied.value.name == "token_in_arguments"
    assert not fake.called


@pytest.mark.parametrize("change", ["principal", "arguments", "skill", "policy"])
async def test_yes_does_not_carry_anything_but_what_it_was_given_to(change: str) -> None:
    """Five hundred attempts to use a yes for another principal, other arguments, another definition or under another
    policy: none of them executes."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        await broker.desk.vote(await ticket(broker), OPERATOR, True)
        if change == "skill":
            fake.replace({"echo": (definition(description="Deletes it."), _other)})
            broker.clock.time_s += 120
        if change == "policy":
            broker.decree(ASK.replace("r0", "r1"))
        for number in range(125):
            more: dict[str, Any] = {}
            if change == "principal":
                more["caller"] = Caller("unix", uid=1001)
            if change == "arguments":
                more["arguments"] = {"text": f"all of it{' ' * number}."}
            with pytest.raises(Refusal):
                await broker.invoke(**{"arguments": ARGUMENTS, **more}, session=f"s_{number}")
    assert not fake.called


@pytest.mark.parametrize("amended", [False, True], ids=["as asked", "amended"])
@pytest.mark.parametrize("change", ["denied", "other policy", "skill"])
async def test_held_call_is_judged_again_when_the_yes_comes(change: str, amended: bool) -> None:
    """What changed while a human was thinking counts: the yes is used up, and nothing is sent."""
    fake = echoing()
    async with indoors(NARROWS, [fake]) as broker, anyio.create_task_group() as calls:
        ends: list[str] = []

        async def call() -> None:
            try:
                ends.append((await broker.invoke(ARGUMENTS, hold_s=60.0)).outcome.__name__)
            except Refusal as refusal:
                ends.append(refusal.name)

        calls.start_soon(call)
        with anyio.fail_after(5):
            while not (open_ := await broker.desk.pending()):
                await anyio.lowlevel.checkpoint()
        proposal = Proposal(b'{"text":"a part"}') if amended else None
        question = open_[0]
        await broker.desk.review(question, b'{"text":"a part"}')
        if change == "skill":
            broker.desk.review = _unreviewed
            fake.replace({"echo": (definition(description="Deletes it."), _other)})
            broker.clock.time_s += 120
            await broker.catalogue.refresh()
        else:
            broker.desk.review = _unreviewed
            sent = "a part" if amended else "all of it"
            broker.decree(NARROWS.replace("forbidden", sent) if change == "denied" else NARROWS.replace("asks", "a"))
        await broker.desk.vote(question.id, OPERATOR, True, proposal=proposal)
        with anyio.fail_after(5):
            while not ends:
                await anyio.lowlevel.checkpoint()
    assert ends == [{"denied": "denied", "other policy": "policy_changed", "skill": "skill_changed"}[change]]
    assert not fake.called


async def _unreviewed(question: Question, amended: bytes) -> None:
    """Whoever voted did so a moment before the change."""


async def _other(_: JsonObject) -> JsonObject:
    return said("deleted")


async def test_credential_that_became_known_while_a_human_thought_does_not_cross() -> None:
    """What may be sent is judged when it is sent: a credential of the broker's is refused, and so it is on record."""
    masker, fake, token = Engine(), echoing(), "s3cr3t-" + "0123456789abcdef"
    async with indoors(ASK, [fake], masker=masker) as broker, anyio.create_task_group() as calls:
        refused: list[str] = []

        async def call() -> None:
            with pytest.raises(Denied) as denied:
                await broker.invoke({"text": token}, hold_s=60.0)
            refused.append(denied.value.name)

        calls.start_soon(call)
        with anyio.fail_after(5):
            while not (open_ := await broker.desk.pending()):
                await anyio.lowlevel.checkpoint()
            masker.guard(Secret(token))
            await broker.desk.vote(open_[0].id, OPERATOR, True)
            while not refused:
                await anyio.lowlevel.checkpoint()
    assert refused == ["credential_in_arguments"]
    assert not fake.called
    assert not broker.rows(Kind.INTENDED)


# -- a yes that is taken back


@pytest.mark.parametrize("standing", [False, True], ids=["once", "grant"])
async def test_revoked_yes_cuts_its_call_within_a_second(standing: bool) -> None:
    """A call that is under way when its approval is taken back is cut: its caller is told that the outcome is unknown,
    and so is the record."""
    fake, began = slow()
    async with indoors(GRANTS, [fake]) as broker, anyio.create_task_group() as calls:
        question = await ticket(broker)
        proposal = Proposal(spec=GrantSpec(600.0, 9)) if standing else None
        await broker.desk.vote(question, OPERATOR, True, proposal=proposal)
        carried: list[Carried] = []

        async def call() -> None:
            carried.append(await broker.invoke(ARGUMENTS))

        calls.start_soon(call)
        with anyio.fail_after(5):
            await began.wait()
        await broker.desk.revoke(question, OPERATOR, "a mistake")
        with anyio.fail_after(1):
            while not carried:
                await anyio.lowlevel.checkpoint()
    assert carried[0].outcome is InDoubt
    assert [row.code for row in broker.rows(Kind.IN_DOUBT)] == ["revoked"]
    assert not broker.house.journal._reached


@pytest.mark.parametrize("steps", range(14))
async def test_revocation_that_races_a_call_leaves_no_call_without_a_word(steps: int) -> None:
    """Whenever a yes is taken back, the call was made, was cut, or was never sent, and the record says which; once the
    revocation has returned nothing is sent any more."""
    fake = echoing()
    async with indoors(ASK, [fake], store=RestlessStore()) as broker, anyio.create_task_group() as calls:
        question = await ticket(broker)
        await broker.desk.vote(question, OPERATOR, True)
        ends: list[str] = []

        async def call() -> None:
            try:
                ends.append((await broker.invoke(ARGUMENTS)).outcome.__name__)
            except Refusal as refusal:
                ends.append(refusal.name)

        calls.start_soon(call)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        try:
            await broker.desk.revoke(question, OPERATOR, "a mistake")
            sent = len(fake.called)
        except VoteRefused:
            sent = 1
        with anyio.fail_after(5):
            while not ends:
                await anyio.lowlevel.checkpoint()
    assert len(fake.called) <= sent
    assert (ends[0] == "Answered") == (len(broker.rows(Kind.ANSWERED)) == 1)
    assert len(broker.rows(Kind.INTENDED)) == len(broker.rows(Kind.ANSWERED)) + len(broker.rows(Kind.IN_DOUBT))
    assert ends[0] in ("Answered", "InDoubt", "revoked", "approval_refused", "approval_pending")
    assert not broker.house.journal._reached


async def test_revoked_before_it_was_sent_says_that_nothing_was_executed() -> None:
    """A yes that is taken back between its use and the intent sends nothing."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        await broker.desk.vote(await ticket(broker), OPERATOR, True)
        broker.desk._register.cut((await broker.desk.granted())[0])
        with pytest.raises(Denied) as denied:
            await broker.invoke(ARGUMENTS)
    assert denied.value.name == "revoked"
    assert not fake.called
    assert broker.rows(Kind.REFUSED)[-1].code == "revoked"


# -- a yes to more than one call


async def test_standing_grant_carries_so_many_calls_and_is_judged_at_each() -> None:
    """A grant of three uses carries three calls, each decided on anew, and asks for the fourth."""
    fake = echoing()
    async with indoors(GRANTS, [fake]) as broker:
        question = await ticket(broker)
        await broker.desk.vote(question, OPERATOR, True, proposal=Proposal(spec=GrantSpec(600.0, 3)))
        outcomes = [(await broker.invoke(ARGUMENTS)).outcome for _ in range(3)]
        await ticket(broker)
    assert outcomes == [Answered] * 3
    assert len(fake.called) == 3
    assert all(row.question == question for row in broker.rows(Kind.INTENDED))


async def test_grant_dies_with_the_policy() -> None:
    """Under another policy a standing grant carries nothing."""
    fake = echoing()
    async with indoors(GRANTS, [fake]) as broker:
        question = await ticket(broker)
        await broker.desk.vote(question, OPERATOR, True, proposal=Proposal(spec=GrantSpec(600.0, 3)))
        await broker.invoke(ARGUMENTS)
        broker.decree(GRANTS.replace("r0", "r1"))
        await ticket(broker)
    assert len(fake.called) == 1


async def test_whoever_looks_is_recognised_as_they_are_now() -> None:
    """Who asks about a question is established by the connection as it is now."""
    async with indoors(ASK) as broker:
        latest: Callable[[], Caller] = lambda: Caller("unix", uid=1001)  # noqa: E731
        principal = await broker.broker.recognise(Call("s_1", ANN, "", {}, latest=latest))
    assert principal.subject == "ben"
