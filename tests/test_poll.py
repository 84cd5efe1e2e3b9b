"""The poll: proposals, standing grants, break-glass, and taking a yes back."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import anyio
import pytest

from interposer.ballot import ELICITED, VoteRefused, version_of
from interposer.canonical import canonical
from interposer.desk import DeskLimits, Proposal, UnknownQuestion
from interposer.errors import ApprovalPending, ApprovalRefused, Denied
from interposer.grant import GrantState
from interposer.model import Approval, Invocation, Kind, Principal, Question, QuestionState
from interposer.terms import ApprovalTerms, GrantCap, GrantSpec, Window
from tests.test_desk import AGENT, ANNA, BELA, CLEO, PATIENT_S, House, asks, call, house, question_of

CAP = GrantCap(600.0, uses=5, session=True, matching=True)
TERMS = ApprovalTerms(expires_s=600.0, cap=CAP)
THREE = Proposal(spec=GrantSpec(300.0, uses=3))
SMALL = canonical(
    {
        "type": "object",
        "properties": {"amount": {"type": "number", "maximum": 100}},
        "required": ["amount"],
        "additionalProperties": False,
    }
)


async def agreed(question: Question, amended: bytes) -> None:
    """Policy has nothing against these arguments."""


async def obtained(h: House, invocation: Invocation, terms: ApprovalTerms = TERMS) -> Approval:
    return await h.desk.obtain(invocation, asks(terms), hold_s=0.0)


async def pending(h: House, invocation: Invocation, terms: ApprovalTerms = TERMS) -> str:
    with pytest.raises(ApprovalPending) as ticket:
        await obtained(h, invocation, terms)
    return ticket.value.question


def at_once(**arguments: int) -> Invocation:
    return replace(call(arguments), arguments=arguments)


# -- standing grants


async def test_a_grant_for_three_calls_carries_three_and_no_more() -> None:
    """The call in question and two more go ahead without a human; the fourth is asked about anew."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=THREE)
    first, second, third = [await obtained(h, call()) for _ in range(3)]
    assert first.grant == ""
    assert second.grant == third.grant != ""
    assert second.question == id
    assert await pending(h, call()) != id
    (grant,) = await h.desk.grants(active=False)
    assert (grant.state, grant.used) == (GrantState.SPENT, 2)
    assert h.kinds(grant.id) == [Kind.GRANT_GIVEN, Kind.GRANT_USED, Kind.GRANT_USED, Kind.GRANT_SPENT]


async def test_many_calls_at_once_use_a_grant_no_more_often_than_agreed() -> None:
    """A hundred identical calls race for the two uses that are left: two of them go ahead."""
    h = house(limits=DeskLimits(rate=1000))
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=THREE)
    await obtained(h, call())
    got: list[Approval] = []

    async def attempt() -> None:
        with contextlib.suppress(ApprovalPending):
            got.append(await obtained(h, call()))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(attempt)
    assert len(got) == 2


async def test_a_grant_ends_on_time_whatever_the_wall_clock_says() -> None:
    """At its last second it carries a call, then none; the wall clock moves neither end."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=Proposal(spec=GrantSpec(300.0, uses=5)))
    await obtained(h, call())
    h.clock.pass_s(299.0)
    assert (await obtained(h, call())).grant
    h.clock.mono += 1.0
    assert await pending(h, call())
    await h.desk.sweep()
    (grant,) = await h.desk.grants(active=False)
    assert grant.state is GrantState.EXPIRED


async def test_a_grant_survives_a_restart() -> None:
    """What was agreed to is durable, with the uses that are left."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=THREE)
    await obtained(h, call())
    await obtained(h, call())
    again = h.restarted()
    assert (await obtained(again, call())).grant
    assert await pending(again, call()) != id


async def test_a_grant_for_matching_arguments_frees_calls_that_wait() -> None:
    """A held call whose arguments match goes ahead the moment the grant is given for another one."""
    h, got = house(), list[Approval]()
    other = at_once(amount=40)

    async def ask() -> None:
        got.append(await h.desk.obtain(other, asks(TERMS), hold_s=PATIENT_S))

    id = await h.ticket(at_once(amount=90), asks(TERMS))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await question_of(h.desk, 2)
            spec = GrantSpec(300.0, uses=3, schema=SMALL)
            await h.desk.vote(id, ANNA, True, proposal=Proposal(spec=spec))
    assert got[0].grant
    assert [question.id for question in await h.desk.pending()] == []


async def test_more_than_policy_allows_is_refused_and_nothing_is_granted() -> None:
    """A grant over the cap refuses the vote; the question stays open and the attempt is on record."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, ANNA, True, proposal=Proposal(spec=GrantSpec(601.0, uses=2)))
    assert refused.value.name == "grant_refused"
    assert (await h.desk.get(id)).state is QuestionState.OPEN
    assert h.store.records[-1].code == "vote_grant_refused"


async def test_a_quorum_agrees_to_the_same_grant() -> None:
    """Who proposes another grant starts the count anew; a yes to the proposal on the table completes it."""
    h = house()
    two = replace(TERMS, quorum=2)
    id = await h.ticket(call(), asks(two))
    await h.desk.vote(id, ANNA, True)
    proposed = await h.desk.vote(id, BELA, True, proposal=THREE)
    assert [vote.principal for vote in proposed.votes] == [BELA]
    granted = await h.desk.vote(id, ANNA, True, version=version_of(proposed))
    assert granted.state is QuestionState.GRANTED
    assert len(await h.desk.grants()) == 1
    kinds = [Kind.QUESTION_OPENED, Kind.VOTED, Kind.AMENDED, Kind.VOTED, Kind.VOTED, Kind.GRANTED]
    assert h.kinds(id) == kinds


async def test_a_stale_look_cannot_agree_to_a_new_proposal() -> None:
    """Who looked before the proposal was changed is refused, and has to look again."""
    h = house()
    id = await h.ticket(call(), asks(replace(TERMS, quorum=2)))
    seen = version_of(await h.desk.get(id))
    await h.desk.vote(id, BELA, True, proposal=THREE)
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, ANNA, True, version=seen)
    assert refused.value.name == "other_digest"


# -- other arguments


async def test_narrowed_arguments_are_what_is_approved() -> None:
    """The approval carries the approver's arguments; the identical call finds it, and it is good once."""
    h = house()
    h.desk.review = agreed
    id = await h.ticket(call(), asks(TERMS))
    narrow = canonical({"amount": 10})
    await h.desk.vote(id, ANNA, True, proposal=Proposal(narrow))
    approval = await obtained(h, call())
    assert (approval.question, approval.amended) == (id, narrow)
    assert h.kinds(id) == [Kind.QUESTION_OPENED, Kind.AMENDED, Kind.VOTED, Kind.GRANTED, Kind.CONSUMED]
    assert await pending(h, call()) != id


async def test_arguments_that_policy_refuses_are_not_put_on_the_table() -> None:
    """Without anybody to judge them, or where policy says no, other arguments refuse the vote."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, ANNA, True, proposal=Proposal(canonical({"amount": 10})))
    assert refused.value.name == "amendment_refused"
    assert (await h.desk.get(id)).amended == b""


# -- break-glass


async def test_breaking_glass_grants_alone_and_loudly() -> None:
    """One named person, with a reason, overrides a quorum of three; the record and an alarm say so."""
    h = house(limits=DeskLimits(may_break_glass=lambda person: person == CLEO))
    two = replace(TERMS, quorum=3, groups=frozenset({"leads"}))
    id = await h.ticket(call(), asks(two))
    with pytest.raises(VoteRefused):
        await h.desk.break_glass(id, ANNA, "hurry")
    await h.desk.break_glass(id, CLEO, "the site is down")
    assert (await obtained(h, call(), two)).approvers == ("operator:cleo",)
    kinds = [record.kind for record in h.store.records if record.question == id]
    alarms = [record for record in h.store.records if record.code == "broke_glass"]
    assert Kind.BROKE_GLASS in kinds
    assert [alarm.kind for alarm in alarms] == [Kind.ALARM]
    assert alarms[0].principal == CLEO


async def test_breaking_glass_works_outside_of_the_hours() -> None:
    """What is for emergencies works at night; an ordinary yes does not."""
    never = replace(TERMS, windows=((Window(frozenset(), 0, 1, "UTC"),),))
    h = house(limits=DeskLimits(may_break_glass=lambda person: True))
    id = await h.ticket(call(), asks(never))
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, ANNA, True)
    assert refused.value.name == "outside_hours"
    await h.desk.break_glass(id, ANNA, "the site is down")
    assert await obtained(h, call(), never)


async def test_a_yes_is_not_used_outside_of_its_hours() -> None:
    """A window that closes between the yes and the call refuses the call; the yes stands for when it opens again."""
    h = house()
    wall = int(h.clock.wall) // 60 % 1440
    hour = replace(TERMS, windows=((Window(frozenset(range(7)), wall, (wall + 5) % 1440, "UTC"),),))
    id = await h.ticket(call(), asks(hour))
    await h.desk.vote(id, ANNA, True)
    h.clock.pass_s(360.0)
    with pytest.raises(Denied) as refused:
        await obtained(h, call(), hour)
    assert refused.value.name == "outside_hours"
    assert (await h.desk.get(id)).state is QuestionState.GRANTED


# -- taking back


async def test_a_revoked_grant_carries_nothing_more_and_cuts_what_is_under_way() -> None:
    """From the revocation on no call uses it, and the calls that run under it are cancelled at once."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=THREE)
    await obtained(h, call())
    use = await obtained(h, call())
    with anyio.fail_after(5):
        with h.desk.revocable(use) as scope:
            await h.desk.revoke(use.grant, BELA, "leaked")
            await anyio.sleep_forever()
    assert scope.cancel_called
    assert await pending(h, call()) != id
    (grant,) = await h.desk.grants(active=False)
    assert grant.state is GrantState.REVOKED


async def test_what_is_revoked_before_it_runs_never_starts() -> None:
    """The yes is taken back between its use and the call: the scope is cancelled from the start."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=THREE)
    await obtained(h, call())
    use = await obtained(h, call())
    await h.desk.revoke(id, BELA, "leaked")
    with h.desk.revocable(use) as scope:
        assert scope.cancel_called


async def test_an_unused_yes_is_taken_back_by_its_question() -> None:
    """The call that comes for it is asked about anew."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True)
    await h.desk.revoke(id, ANNA, "changed my mind")
    assert (await h.desk.get(id)).state is QuestionState.WITHDRAWN
    assert await pending(h, call()) != id


async def test_taking_back_needs_a_reason_and_somebody_who_may() -> None:
    """Neither a stranger nor a silent approver revokes, and nothing can be revoked twice."""
    h = house()
    leads = replace(TERMS, groups=frozenset({"leads"}))
    id = await h.ticket(call(), asks(leads))
    await h.desk.vote(id, ANNA, True, proposal=THREE)
    (grant,) = await h.desk.grants()

    async def name(by: Principal, reason: str, of: str = grant.id) -> str:
        with pytest.raises(VoteRefused) as refused:
            await h.desk.revoke(of, by, reason)
        return refused.value.name

    assert await name(ANNA, " ") == "reason_required"
    assert await name(Principal("https://idp", "stranger"), "because") == "not_approver"
    await h.desk.revoke(grant.id, BELA, "done")
    assert await name(BELA, "again") == "ended"
    with pytest.raises(UnknownQuestion):
        await h.desk.revoke("g_nothing", BELA, "because")


async def test_the_requester_takes_its_question_back() -> None:
    """Whoever waits is refused and nobody is asked again; others cannot do it."""
    h, refusals = house(), list[ApprovalRefused]()

    async def ask() -> None:
        try:
            await h.desk.obtain(call(), asks(TERMS), hold_s=PATIENT_S)
        except ApprovalRefused as refusal:
            refusals.append(refusal)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            (question,) = await question_of(h.desk)
            with pytest.raises(UnknownQuestion):
                await h.desk.withdraw(question.id, replace(AGENT, subject="other"))
            assert await h.desk.withdraw(question.id, AGENT)
    assert len(refusals) == 1
    assert await h.desk.pending() == []
    assert not await h.desk.withdraw(question.id, AGENT)


async def test_the_last_use_of_a_grant_can_be_cut_too() -> None:
    """A grant that is spent while its last call runs is still taken back, by its own id, and on record."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=Proposal(spec=GrantSpec(300.0, uses=2)))
    await obtained(h, call())
    last = await obtained(h, call())
    with h.desk.revocable(last) as scope:
        await h.desk.revoke(last.grant, BELA, "leaked")
        assert scope.cancel_called
    assert [record.code for record in h.store.records if record.kind is Kind.ALARM] == ["revoked_under_way"]


async def test_a_grant_is_revoked_however_many_were_given_since() -> None:
    """What is listed can be taken back."""
    h = house(limits=DeskLimits(rate=10_000))
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=THREE)
    (first,) = await h.desk.grants()
    for number in range(1_001):
        later = replace(first, id=f"g_later{number}", given_at=first.given_at + 1 + number)
        h.store._grants[later.id] = later
    await h.desk.revoke(first.id, BELA, "done")
    assert first.id not in {grant.id for grant in await h.desk.grants()}


async def test_a_revocation_that_is_refused_leaves_a_later_yes_alone() -> None:
    """An open question is denied, not revoked; the attempt is on record, and no veto."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    with pytest.raises(VoteRefused) as refused:
        await h.desk.revoke(id, BELA, "because")
    assert refused.value.name == "ended"
    assert h.store.records[-1].code == "revoke_ended"
    await h.desk.vote(id, ANNA, True)
    with h.desk.revocable(await obtained(h, call())) as scope:
        assert not scope.cancel_called


async def test_taking_back_a_grant_takes_back_all_that_was_agreed_to_with_it() -> None:
    """The yes to the call in question goes with the grant."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=THREE)
    (grant,) = await h.desk.grants()
    await h.desk.revoke(grant.id, BELA, "leaked")
    assert await pending(h, call()) != id


async def test_an_unused_yes_lasts_no_longer_than_what_was_agreed_to() -> None:
    """Agreed for ten seconds, the call in question too has ten seconds; after a restart as well."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    await h.desk.vote(id, ANNA, True, proposal=Proposal(spec=GrantSpec(10.0, uses=2)))
    h.clock.pass_s(9.0)
    again = h.restarted()
    assert (await again.desk.get(id)).state is QuestionState.GRANTED
    again.clock.pass_s(1.0)
    assert await pending(again, call()) != id


async def test_a_yes_for_one_session_is_used_by_no_other() -> None:
    """The identical call from another conversation is refused; the one that asked goes ahead."""
    h = house()
    id = await h.ticket(call(), asks(TERMS))
    spec = GrantSpec(300.0, uses=2, session=True)
    await h.desk.vote(id, ANNA, True, proposal=Proposal(spec=spec))
    with pytest.raises(Denied) as refused:
        await obtained(h, call(session="s2"))
    assert refused.value.name == "other_session"
    assert (await obtained(h, call())).question == id


async def test_a_call_that_a_grant_carried_is_not_made_again_by_a_later_yes() -> None:
    """Its open question ends when a standing grant carries the call that it is about."""
    h = house()
    executes = replace(TERMS, execute=True)
    first = await pending(h, at_once(amount=40), executes)
    second = await pending(h, at_once(amount=90), executes)
    spec = GrantSpec(300.0, uses=3, schema=SMALL)
    await h.desk.vote(second, ANNA, True, proposal=Proposal(spec=spec))
    assert (await obtained(h, at_once(amount=40), executes)).grant
    assert (await h.desk.get(first)).state is QuestionState.WITHDRAWN
    with pytest.raises(VoteRefused):
        await h.desk.vote(first, ANNA, True)


async def test_calls_that_race_for_two_grants_are_each_carried_or_asked_about() -> None:
    """A grant that another call has just used up is passed over, and the next one is taken."""
    h = house(limits=DeskLimits(rate=10_000))
    ids = [await pending(h, at_once(amount=amount)) for amount in (1, 2)]
    for id, for_s in zip(ids, (200.0, 300.0), strict=True):
        spec = GrantSpec(for_s, uses=3, schema=SMALL)
        await h.desk.vote(id, ANNA, True, proposal=Proposal(spec=spec))
    carried: list[Approval] = []

    async def attempt(amount: int) -> None:
        with contextlib.suppress(ApprovalPending):
            carried.append(await obtained(h, at_once(amount=amount)))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for amount in range(10, 30):
                tasks.start_soon(attempt, amount)
    assert len(carried) == 4


# -- the caller's own user


async def test_the_callers_user_confirms_where_policy_lets_them() -> None:
    """An answer through the client counts under such terms, and is on record as what it is."""
    h = house()
    trusting = replace(TERMS, caller=True)
    id = await h.ticket(call(), asks(trusting))
    await h.desk.confirm(id, AGENT, True)
    assert (await obtained(h, call(), trusting)).approvers == (f"{ELICITED}:agent",)
    with pytest.raises(VoteRefused):
        await h.desk.confirm(await pending(h, at_once(amount=1)), AGENT, True)
    with pytest.raises(UnknownQuestion):
        await h.desk.confirm(id, replace(AGENT, subject="other"), True)


async def test_a_workload_cannot_confirm_its_own_call() -> None:
    """Where policy trusts the caller's own user, there has to be one."""
    h = house()
    robot, trusting = replace(AGENT, machine=True), replace(TERMS, caller=True)
    id = await pending(h, replace(call(), principal=robot), trusting)
    with pytest.raises(VoteRefused) as refused:
        await h.desk.confirm(id, robot, True)
    assert refused.value.name == "machine"


# -- bounds


async def test_arguments_that_nobody_can_read_are_put_to_nobody() -> None:
    """A call of megabytes is refused before it is asked about."""
    h = house()
    large = replace(call(), canonical=b'"' + b"x" * 300_000 + b'"')
    with pytest.raises(Denied) as refused:
        await obtained(h, large)
    assert refused.value.name == "too_large"
    assert await h.desk.pending() == []


async def test_one_caller_cannot_fill_the_desk_through_many_sessions() -> None:
    """What waits for people is bounded for each principal, whatever it opens."""
    h = house(limits=DeskLimits(rate=10_000, pending_per_caller=30))
    for number in range(30):
        await h.ticket(replace(at_once(amount=number), session=f"s{number}"), asks(TERMS))
    with pytest.raises(Denied) as refused:
        await obtained(h, replace(at_once(amount=99), session="s99"))
    assert refused.value.name == "too_many_pending"
    other = replace(at_once(amount=99), principal=replace(AGENT, subject="other"))
    id = await h.ticket(other, asks(TERMS))
    await h.desk.vote(id, ANNA, False, "no")


async def test_one_caller_cannot_flood_its_approvers() -> None:
    """New questions of one principal are limited in time; identical calls share one and are not counted again."""
    h = house(limits=DeskLimits(rate=3, rate_s=60.0))
    for amount in (1, 2, 3):
        await h.ticket(at_once(amount=amount), asks(TERMS))
        await h.ticket(at_once(amount=amount), asks(TERMS))
    with pytest.raises(Denied) as refused:
        await obtained(h, at_once(amount=4))
    assert refused.value.name == "too_many_questions"
    other = replace(at_once(amount=4), principal=replace(AGENT, subject="other"))
    await h.ticket(other, asks(TERMS))
    h.clock.pass_s(61.0)
    await h.ticket(at_once(amount=4), asks(TERMS))


async def test_a_flood_of_a_thousand_questions_shows_twenty() -> None:
    """M18: whatever one session asks, an approver sees at most its twenty."""
    h = house(limits=DeskLimits(rate=10_000))
    denied = 0
    for amount in range(1000):
        try:
            await h.ticket(at_once(amount=amount), asks(TERMS))
        except Denied as refusal:
            denied += refusal.name == "too_many_pending"
    assert len(await h.desk.pending()) == 20
    assert denied == 980
