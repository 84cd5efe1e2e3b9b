"""The desk: one yes, one call, in time, from somebody else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio
import pytest

from interposer import chain
from interposer.canonical import canonical, digest_bytes
from interposer.channels.memory import MemoryChannel
from interposer.desk import Desk, DeskLimits, UnknownQuestion, VoteRefused, question_digest
from interposer.errors import ApprovalPending, ApprovalRefused, Denied, RecordFault
from interposer.lifecycle import allowed
from interposer.model import (
    Approval,
    Decision,
    Effect,
    Invocation,
    JsonObject,
    Kind,
    Principal,
    Progress,
    Question,
    QuestionState,
    Record,
    Skill,
)
from interposer.records.memory import MemoryRecordStore
from interposer.terms import ApprovalTerms

AGENT = Principal("local", "agent", uid=1000)
ANNA = Principal("operator", "anna", ("leads",), uid=2000)
BELA = Principal("operator", "bela", ("leads", "audit"), uid=2001)
CLEO = Principal("operator", "cleo", uid=2002)
REFUND = Skill("payments.refund", "payments", "refund", "refund", {}, "skill-1")
TERMS = ApprovalTerms(expires_s=600.0)
PATIENT_S = 4.0


@dataclass
class SetClock:
    """A clock that stands where it is put."""

    wall: float = 1_000_000.0
    mono: float = 50.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def pass_s(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


@dataclass
class House:
    """A desk, and everything that it talks to."""

    desk: Desk
    store: MemoryRecordStore
    clock: SetClock

    def kinds(self, question: str) -> list[Kind]:
        return [record.kind for record in self.store.records if record.question == question]

    async def ticket(self, call: Invocation, decision: Decision) -> str:
        """Ask without waiting, and give the question's id."""
        with pytest.raises(ApprovalPending) as refused:
            await self.desk.obtain(call, decision, hold_s=0.0)
        return refused.value.question

    def restarted(self) -> House:
        return house(self.store, replace(self.clock, mono=7.0))


def house(
    store: MemoryRecordStore | None = None, clock: SetClock | None = None, limits: DeskLimits | None = None
) -> House:
    store, clock = store or MemoryRecordStore(), clock or SetClock()
    return House(Desk(store, clock, [], ids(), limits), store, clock)


_ids = itertools.count(1)


def ids() -> Callable[[str], str]:
    return lambda kind: f"{kind}_{next(_ids)}"


def call(arguments: JsonObject | None = None, *, session: str = "s1", by: Principal = AGENT) -> Invocation:
    exact = canonical(arguments or {"amount": 90})
    return Invocation(f"i_{next(_ids)}", session, by, REFUND, arguments or {}, exact, digest_bytes(exact))


def asks(terms: ApprovalTerms = TERMS, *, policy: str = "policy-1") -> Decision:
    return Decision(Effect.ASK, (), policy, "a human decides", terms=terms)


async def question_of(desk: Desk, count: int = 1) -> list[Question]:
    """The open questions, once there are so many."""
    while len(found := await desk.pending()) < count:
        await anyio.sleep(0)
    return found


async def test_yes_while_the_call_waits_lets_it_through() -> None:
    """A held call gets its approval the moment the vote is in, with the approver's name."""
    h, got = house(), list[Approval]()

    async def ask() -> None:
        got.append(await h.desk.obtain(call(), asks(), hold_s=PATIENT_S))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            (question,) = await question_of(h.desk)
            await h.desk.vote(question.id, ANNA, True)
    assert got == [Approval(question.id, question.digest, ("operator:anna",))]
    assert h.kinds(question.id) == [Kind.QUESTION_OPENED, Kind.VOTED, Kind.GRANTED, Kind.CONSUMED]


async def test_no_while_the_call_waits_refuses_it() -> None:
    """A held call is refused as soon as one human says no, and the caller is not told the reason."""
    h = house()

    async def ask() -> None:
        with pytest.raises(ApprovalRefused) as refused:
            await h.desk.obtain(call(), asks(), hold_s=PATIENT_S)
        assert "card 4711" in str(refused.value)
        assert "4711" not in refused.value.public

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            (question,) = await question_of(h.desk)
            await h.desk.vote(question.id, ANNA, False, "card 4711 is stolen")
    assert (await h.desk.get(question.id)).state is QuestionState.DENIED


async def test_hold_that_ends_gives_a_ticket() -> None:
    """When nobody answers during the hold, the caller is given the question, its end, and when to come back."""
    h = house()
    with pytest.raises(ApprovalPending) as refused:
        await h.desk.obtain(call(), asks(), hold_s=0.01)
    assert refused.value.expires_at == h.clock.wall + 600.0
    assert 1.0 <= refused.value.retry_after_s <= 10.0
    assert [question.id for question in await h.desk.pending()] == [refused.value.question]


async def test_repeated_call_joins_its_question() -> None:
    """The same call asked again, from whatever session, is the same question to the human."""
    h = house()
    first = await h.ticket(call(), asks())
    assert await h.ticket(call(session="s2"), asks()) == first
    assert h.kinds(first) == [Kind.QUESTION_OPENED]


@pytest.mark.parametrize(
    ("other", "decision"),
    [
        (call({"amount": 91}), asks()),
        (call(by=Principal("local", "other")), asks()),
        (replace(call(), skill=replace(REFUND, digest="skill-2")), asks()),
        (replace(call(), skill=replace(REFUND, id="payments.refund_all")), asks()),
        (call(), asks(policy="policy-2")),
        (call(), asks(replace(TERMS, quorum=2))),
        (call(), asks(replace(TERMS, groups=frozenset({"leads"})))),
    ],
    ids=["arguments", "caller", "definition", "skill", "policy", "quorum", "approvers"],
)
async def test_grant_is_no_use_to_any_other_call(other: Invocation, decision: Decision) -> None:
    """A yes is bound to caller, skill, definition, arguments, policy and terms: change one and it is asked anew."""
    h = house()
    granted = await h.ticket(call(), asks())
    await h.desk.vote(granted, ANNA, True)
    assert await h.ticket(other, decision) != granted
    assert (await h.desk.obtain(call(), asks(), hold_s=0.0)).question == granted


def test_digest_does_not_know_groups_or_sessions() -> None:
    """Groups and sessions may change between asking and coming back; identity and arguments may not."""
    first = question_digest(call(), asks())
    assert question_digest(call(session="s9", by=replace(AGENT, groups=("new",))), asks()) == first


async def test_thousand_retries_of_a_granted_call_get_one_approval() -> None:
    """1,000 identical calls at once use a grant exactly once, and all the others share one new question."""
    h = house()
    granted = await h.ticket(call(), asks())
    await h.desk.vote(granted, ANNA, True)
    approvals, tickets = list[Approval](), list[str]()

    async def retry() -> None:
        try:
            approvals.append(await h.desk.obtain(call(), asks(), hold_s=0.0))
        except ApprovalPending as pending:
            tickets.append(pending.question)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(1_000):
                tasks.start_soon(retry)
    assert [approval.question for approval in approvals] == [granted]
    assert len(tickets) == 999
    assert len(set(tickets)) == 1
    assert granted not in tickets
    assert len(await h.desk.pending()) == 1


async def test_grant_for_many_that_wait_goes_to_one() -> None:
    """Several identical calls that wait for one question do not share its yes: each execution has its own."""
    h, got, pending = house(), list[str](), list[str]()

    async def ask() -> None:
        try:
            got.append((await h.desk.obtain(call(), asks(), hold_s=0.3)).question)
        except ApprovalPending as ticket:
            pending.append(ticket.question)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
            (first,) = await question_of(h.desk)
            await h.desk.vote(first.id, ANNA, True)
    assert got == [first.id]
    assert len(pending) == 4
    assert len(set(pending)) == 1


async def test_grant_replayed_a_hundred_times_is_no_grant() -> None:
    """A consumed grant opens nothing, however often the call is repeated."""
    h = house()
    granted = await h.ticket(call(), asks())
    await h.desk.vote(granted, ANNA, True)
    await h.desk.obtain(call(), asks(), hold_s=0.0)
    assert granted not in {await h.ticket(call(), asks()) for _ in range(100)}
    assert h.kinds(granted).count(Kind.CONSUMED) == 1


async def test_denied_call_repeated_bothers_nobody() -> None:
    """After a no, the identical call is refused at once until the question would have expired; then it is asked."""
    h = house()
    denied = await h.ticket(call(), asks())
    await h.desk.vote(denied, ANNA, False, "no")
    for _ in range(3):
        with pytest.raises(ApprovalRefused) as refused:
            await h.desk.obtain(call(), asks(), hold_s=0.0)
        assert refused.value.question == denied
    assert h.desk.repeats == 3
    assert await h.desk.pending() == []
    h.clock.pass_s(600.0)
    assert await h.ticket(call(), asks()) != denied


async def test_no_outlives_a_restart() -> None:
    """A restart does not make a denied call askable again."""
    h = house()
    denied = await h.ticket(call(), asks())
    await h.desk.vote(denied, ANNA, False, "no")
    with pytest.raises(ApprovalRefused):
        await h.restarted().desk.obtain(call(), asks(), hold_s=0.0)


async def test_question_and_grant_survive_a_restart() -> None:
    """A question opened by one run is answered in the next, and its grant is used in the one after that."""
    h = house()
    id = await h.ticket(call(), asks())
    second = h.restarted()
    assert await second.ticket(call(), asks()) == id
    await second.desk.vote(id, ANNA, True)
    third = second.restarted()
    assert (await third.desk.obtain(call(), asks(), hold_s=0.0)).question == id


async def test_restart_does_not_lengthen_a_question() -> None:
    """What is left of a question after a restart is what the wall clock says, and never more than its terms."""
    h = house()
    id = await h.ticket(call(), asks())
    h.clock.wall += 601.0
    assert await h.restarted().desk.pending() == []
    assert (await h.desk.get(id)).state is QuestionState.EXPIRED
    other = house()
    await other.ticket(call(), asks())
    other.clock.wall -= 1_000_000.0
    later = other.restarted()
    await later.desk.pending()
    later.clock.mono += 600.0
    assert await later.desk.pending() == []


async def test_question_expires_under_its_waiters() -> None:
    """Time that jumps past the expiry ends the wait with a refusal, not with a ticket."""
    h = house()

    async def ask() -> None:
        with pytest.raises(ApprovalRefused) as refused:
            await h.desk.obtain(call(), asks(), hold_s=PATIENT_S)
        assert "expired" in str(refused.value)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            (question,) = await question_of(h.desk)
            h.clock.pass_s(600.0)
            assert await h.desk.sweep() == 1
    assert h.kinds(question.id) == [Kind.QUESTION_OPENED, Kind.EXPIRED]


async def test_background_loop_expires_by_itself() -> None:
    """While `run` is running, nobody has to look for a question to expire."""
    h = house(limits=DeskLimits(heartbeat_s=0.01))
    id = await h.ticket(call(), asks())
    h.clock.pass_s(601.0)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(h.desk.run)
            while (await h.desk.get(id)).state is not QuestionState.EXPIRED:
                await anyio.sleep(0)
            tasks.cancel_scope.cancel()


async def test_grant_dies_with_its_question_time() -> None:
    """A yes in the last minute is good for that minute only; afterwards the call is asked anew."""
    h = house()
    id = await h.ticket(call(), asks())
    h.clock.pass_s(599.0)
    await h.desk.vote(id, ANNA, True)
    h.clock.pass_s(1.0)
    assert await h.ticket(call(), asks()) != id
    assert h.kinds(id)[-1] is Kind.EXPIRED


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
async def test_wall_clock_jumps_do_not_move_deadlines(jump_s: float) -> None:
    """A wall clock that jumps neither kills a fresh grant nor revives a question that is over (F22)."""
    h = house()
    id = await h.ticket(call(), asks())
    h.clock.wall += jump_s
    assert await h.ticket(call(), asks()) == id
    await h.desk.vote(id, ANNA, True)
    assert (await h.desk.obtain(call(), asks(), hold_s=0.0)).question == id
    over = await h.ticket(call(), asks())
    h.clock.mono += 600.0
    with pytest.raises(VoteRefused, match="expired"):
        await h.desk.vote(over, ANNA, True)


async def test_vote_after_the_expiry_is_refused_and_recorded() -> None:
    """A yes that comes too late grants nothing, even if nobody swept in between (F18)."""
    h = house()
    id = await h.ticket(call(), asks())
    h.clock.pass_s(600.0)
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, ANNA, True)
    assert refused.value.name == "expired"
    assert (await h.desk.get(id)).state is QuestionState.EXPIRED
    alarms = [(record.code, record.principal) for record in h.store.records if record.kind is Kind.ALARM]
    assert alarms == [("vote_expired", ANNA)]


async def test_second_answer_is_late_and_recorded() -> None:
    """Of two approvers who race, one decides; the other is told so, and both are on record (F19)."""
    h = house()
    id = await h.ticket(call(), asks())
    await h.desk.vote(id, ANNA, False, "not this one")
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, BELA, True)
    assert refused.value.name == "ended"
    assert (await h.desk.get(id)).state is QuestionState.DENIED
    assert [record.code for record in h.store.records if record.principal == BELA] == ["vote_ended"]


async def test_quorum_is_of_distinct_people() -> None:
    """Two people are two people: one who votes twice, or is in two groups, counts once, and wedges nothing."""
    terms = replace(TERMS, groups=frozenset({"leads", "audit"}), quorum=2)
    h = house()
    id = await h.ticket(call(), asks(terms))
    assert (await h.desk.vote(id, BELA, True)).state is QuestionState.OPEN
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, replace(BELA, groups=("audit",)), True)
    assert refused.value.name == "already_voted"
    assert (await h.desk.vote(id, ANNA, True)).state is QuestionState.GRANTED
    approval = await h.desk.obtain(call(), asks(terms), hold_s=0.0)
    assert approval.approvers == ("operator:bela", "operator:anna")


async def test_two_approvers_at_once_both_count() -> None:
    """Concurrent votes are both counted."""
    h = house()
    terms = replace(TERMS, quorum=2)
    id = await h.ticket(call(), asks(terms))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(h.desk.vote, id, ANNA, True)
        tasks.start_soon(h.desk.vote, id, BELA, True)
    assert (await h.desk.get(id)).state is QuestionState.GRANTED


async def test_one_no_ends_a_quorum() -> None:
    """One no is enough, also from somebody who said yes before."""
    h = house()
    terms = replace(TERMS, quorum=2)
    id = await h.ticket(call(), asks(terms))
    await h.desk.vote(id, ANNA, True)
    assert (await h.desk.vote(id, ANNA, False, "on second thought")).state is QuestionState.DENIED
    with pytest.raises(VoteRefused):
        await h.desk.vote(id, BELA, True)


async def test_requester_cannot_answer() -> None:
    """Whoever asked is never an approver, whatever their groups (F21)."""
    h = house()
    by = Principal("operator", "anna", ("support",))
    id = await h.ticket(call(by=by), asks())
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, ANNA, True)
    assert refused.value.name == "self_approval"
    assert (await h.desk.get(id)).votes == ()


async def test_same_uid_is_the_same_person_where_uids_tell_people_apart() -> None:
    """With `refuse_same_uid`, the agent's uid cannot approve under an operator's name (M19)."""
    h = house(limits=DeskLimits(refuse_same_uid=True))
    id = await h.ticket(call(), asks())
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, replace(ANNA, uid=AGENT.uid), True)
    assert refused.value.name == "self_approval"
    assert (await h.desk.vote(id, ANNA, True)).state is QuestionState.GRANTED


async def test_workload_cannot_answer() -> None:
    """A machine identity is never an approver, whatever its groups."""
    h = house()
    id = await h.ticket(call(), asks())
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, replace(ANNA, machine=True), True)
    assert refused.value.name == "machine"


@pytest.mark.parametrize(
    ("terms", "voter", "counts"),
    [
        (TERMS, CLEO, True),
        (TERMS, Principal("token", "cleo", ("leads",)), False),
        (replace(TERMS, groups=frozenset({"leads"})), ANNA, True),
        (replace(TERMS, groups=frozenset({"leads"})), CLEO, False),
        (replace(TERMS, subjects=frozenset({"cleo"})), CLEO, True),
        (replace(TERMS, subjects=frozenset({"cleo"})), ANNA, False),
        (replace(TERMS, groups=frozenset({"leads"}), subjects=frozenset({"cleo"})), CLEO, True),
        (replace(TERMS, groups=frozenset({"leads"}), subjects=frozenset({"cleo"})), ANNA, True),
    ],
)
async def test_approver_must_satisfy_the_terms(terms: ApprovalTerms, voter: Principal, counts: bool) -> None:
    """Named groups or subjects may answer; where none are named, operators of the broker and nobody else."""
    h = house()
    id = await h.ticket(call(), asks(terms))
    if counts:
        assert (await h.desk.vote(id, voter, True)).state is QuestionState.GRANTED
        return
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, voter, True)
    assert refused.value.name == "not_approver"


@pytest.mark.parametrize("reason", ["", "  \n"])
async def test_no_needs_a_reason(reason: str) -> None:
    """A no without a reason is not taken."""
    h = house()
    id = await h.ticket(call(), asks())
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(id, ANNA, False, reason)
    assert refused.value.name == "reason_required"
    assert (await h.desk.get(id)).state is QuestionState.OPEN


async def test_vote_on_nothing_is_refused() -> None:
    """An unknown id is said to be unknown."""
    with pytest.raises(UnknownQuestion):
        await house().desk.vote("q_none", ANNA, True)


async def leave(h: House, hold_s: float = PATIENT_S) -> None:
    """One caller asks, and is gone while it waits."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: h.desk.obtain(call(), asks(), hold_s=hold_s))
        await question_of(h.desk)
        tasks.cancel_scope.cancel()


async def test_caller_that_leaves_takes_its_question_along() -> None:
    """Nobody waits and nobody has a ticket: the question is withdrawn, and the approver's click is too late (F17)."""
    h = house()
    with anyio.fail_after(5):
        await leave(h)
    (question,) = await h.desk.questions()
    assert question.state is QuestionState.WITHDRAWN
    assert [record.code for record in h.store.records][-1] == "client_gone"
    with pytest.raises(VoteRefused) as refused:
        await h.desk.vote(question.id, ANNA, True)
    assert refused.value.name == "ended"


async def test_caller_with_a_ticket_may_leave() -> None:
    """Once a ticket was given, a later caller that leaves does not end the question."""
    h = house()
    id = await h.ticket(call(), asks())
    with anyio.fail_after(5):
        await leave(h)
    assert (await h.desk.get(id)).state is QuestionState.OPEN


async def test_question_stays_while_another_waits() -> None:
    """One of two callers leaves; the other still gets the answer."""
    h, got = house(), list[Approval]()

    async def stay() -> None:
        got.append(await h.desk.obtain(call(), asks(), hold_s=PATIENT_S))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stay)
            await question_of(h.desk)
            await leave(h)
            (question,) = await h.desk.pending()
            await h.desk.vote(question.id, ANNA, True)
    assert [approval.question for approval in got] == [question.id]


async def test_yes_that_finds_the_caller_gone_is_not_kept() -> None:
    """A caller cancelled in the moment of the grant leaves no grant behind."""
    h = house()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: h.desk.obtain(call(), asks(), hold_s=PATIENT_S))
            (question,) = await question_of(h.desk)
            await h.desk.vote(question.id, ANNA, True)
            tasks.cancel_scope.cancel()
    assert (await h.desk.get(question.id)).state in (QuestionState.WITHDRAWN, QuestionState.CONSUMED)
    assert await h.ticket(call(), asks()) != question.id


async def test_withdrawn_question_can_be_asked_again() -> None:
    """A caller that left and comes back is asked for anew."""
    h = house()
    with anyio.fail_after(5):
        await leave(h)
    await h.ticket(call(), asks())
    assert len(await h.desk.pending()) == 1


async def test_session_has_at_most_twenty_open_questions() -> None:
    """The 21st question of a session is refused at once; answers make room, and other sessions are not affected."""
    h = house()
    open_ids = [await h.ticket(call({"n": n}), asks()) for n in range(20)]
    with pytest.raises(Denied) as refused:
        await h.desk.obtain(call({"n": 20}), asks(), hold_s=PATIENT_S)
    assert refused.value.name == "too_many_pending"
    assert await h.ticket(call({"n": 3}), asks()) == open_ids[3]
    await h.ticket(call({"n": 20}, session="s2"), asks())
    await h.desk.vote(open_ids[0], ANNA, True)
    await h.ticket(call({"n": 21}), asks())
    with pytest.raises(Denied):
        await h.desk.obtain(call({"n": 22}), asks(), hold_s=0.0)


async def test_broker_has_a_bounded_number_of_open_questions() -> None:
    """The global bound holds over all sessions, and over a restart (F27)."""
    limits = DeskLimits(pending=5)
    h = house(limits=limits)
    for n in range(5):
        await h.ticket(call({"n": n}, session=f"s{n}"), asks())
    again = house(h.store, h.clock, limits)
    for desk in (h.desk, again.desk):
        with pytest.raises(Denied) as refused:
            await desk.obtain(call({"n": 9}, session="s9"), asks(), hold_s=PATIENT_S)
        assert refused.value.name == "too_many_pending"


async def test_flood_of_different_calls_stops_at_the_bound() -> None:
    """1,000 different calls of one session at once: the approver sees twenty."""
    h = house()

    async def ask(n: int) -> None:
        with pytest.raises((Denied, ApprovalPending)):
            await h.desk.obtain(call({"n": n}), asks(), hold_s=0.0)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for n in range(1_000):
                tasks.start_soon(ask, n)
    assert len(await h.desk.pending()) == 20


async def test_waiting_client_hears_growing_progress() -> None:
    """While it waits, the client is told so again and again, with values that only grow."""
    h, heard = house(limits=DeskLimits(heartbeat_s=0.01)), list[Progress]()
    with pytest.raises(ApprovalPending) as refused:
        await h.desk.obtain(call(), asks(), hold_s=0.1, on_progress=heard.append)
    values = [progress.progress for progress in heard if progress.progress is not None]
    assert len(values) == len(heard) >= 3
    assert values == sorted(set(values))
    assert {progress.message for progress in heard} == {f"Waiting for approval {refused.value.question}"}


async def test_decision_without_terms_is_no_question() -> None:
    """A decision that asks and does not say whom is refused."""
    with pytest.raises(Denied):
        await house().desk.obtain(call(), replace(asks(), terms=None), hold_s=0.0)


async def test_terms_that_are_over_at_once_are_never_granted() -> None:
    """A question without time is refused, not asked for ever."""
    with anyio.fail_after(5), pytest.raises(ApprovalRefused):
        await house().desk.obtain(call(), asks(ApprovalTerms(expires_s=0.0)), hold_s=0.0)


async def test_record_that_cannot_be_written_asks_nobody() -> None:
    """Where the question cannot be made durable there is no approval."""
    h = house()
    h.store.fail = "disk full"
    with pytest.raises(RecordFault):
        await h.desk.obtain(call(), asks(), hold_s=0.0)


async def test_grant_that_cannot_be_consumed_is_no_approval() -> None:
    """Where the use of a grant cannot be made durable, the call is not made."""
    h = house()
    id = await h.ticket(call(), asks())
    await h.desk.vote(id, ANNA, True)
    h.store.fail = "disk full"
    with pytest.raises(RecordFault):
        await h.desk.obtain(call(), asks(), hold_s=0.0)


async def test_channels_hear_of_everything_and_may_fail() -> None:
    """A channel that raises delays nobody, and the next one still hears how a question began and ended."""
    broken, sound, store = MemoryChannel(OSError("no route")), MemoryChannel(), MemoryRecordStore()
    desk = Desk(store, SetClock(), [broken, sound], ids())
    h = House(desk, store, SetClock())
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.run)
            id = await h.ticket(call(), asks())
            await desk.vote(id, ANNA, True)
            await desk.obtain(call(), asks(), hold_s=0.0)
            while len(sound.told) < 3:
                await anyio.sleep(0)
            tasks.cancel_scope.cancel()
    assert [question.state.value for question in sound.told] == ["open", "granted", "consumed"]
    assert len(broken.told) == 3


async def test_watcher_hears_of_a_change_at_once() -> None:
    """`changes` returns as soon as a question was opened, and after its wait when nothing happened."""
    h, seen = house(), list[int]()

    async def watch() -> None:
        seen.append(await h.desk.changes(h.desk.revision, PATIENT_S))

    with anyio.fail_after(2):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await anyio.sleep(0)
            await h.ticket(call(), asks())
    assert seen == [1]
    assert await h.desk.changes(1, 0.01) == 1


async def test_record_of_questions_is_whole() -> None:
    """Whatever happened to questions, the chain verifies and every question's rows follow the table."""
    h = house()
    for n in range(3):
        id = await h.ticket(call({"n": n}), asks())
        await h.desk.vote(id, ANNA, n != 1, "checked")
        with pytest.raises(VoteRefused):
            await h.desk.vote(id, BELA, True)
    await h.desk.obtain(call({"n": 0}), asks(), hold_s=0.0)
    h.clock.pass_s(601.0)
    await h.desk.sweep()
    last: dict[str, Kind] = {}
    for record in h.store.records:
        if record.kind is not Kind.ALARM:
            assert allowed(last.get(record.question), record.kind), record
            last[record.question] = record.kind
    assert list(last.values()) == [Kind.CONSUMED, Kind.QUESTION_DENIED, Kind.EXPIRED]
    assert chain_is_whole(h.store.links)


def chain_is_whole(links: list[chain.Link]) -> bool:
    return [link.previous for link in links[1:]] == [link.hash for link in links[:-1]]


async def test_vote_is_recorded_in_the_voter_s_name() -> None:
    """The rows of a vote name who voted, and the row of its use names the call that used it."""
    h = house()
    id = await h.ticket(call(), asks())
    await h.desk.vote(id, ANNA, True)
    used = call(session="s7")
    await h.desk.obtain(used, asks(), hold_s=0.0)
    rows: dict[Kind, Record] = {record.kind: record for record in h.store.records}
    assert rows[Kind.VOTED].principal == rows[Kind.GRANTED].principal == ANNA
    assert (rows[Kind.CONSUMED].session, rows[Kind.CONSUMED].invocation) == ("s7", used.id)


async def test_a_call_that_is_made_on_approval_outlives_its_caller() -> None:
    """Whoever leaves while it waits leaves a question behind that can still be answered."""
    h = house()
    executes = replace(TERMS, execute=True)
    with anyio.move_on_after(0.05):
        await h.desk.obtain(call(), asks(executes), hold_s=PATIENT_S)
    (question,) = await h.desk.pending()
    await h.desk.vote(question.id, ANNA, True)
    assert await h.desk.granted() == [question.id]


async def test_a_restart_forgets_no_yes_and_no_refusal_however_many_questions_there_were() -> None:
    """An unused yes and a no hold, though thousands were asked since."""
    h = house(limits=DeskLimits(rate=10_000))
    yes = await h.ticket(call({"amount": 1}), asks())
    await h.desk.vote(yes, ANNA, True)
    no = await h.ticket(call({"amount": 2}), asks())
    await h.desk.vote(no, ANNA, False, "no")
    ended = replace(await h.desk.get(no), state=QuestionState.CONSUMED)
    for number in range(1_001):
        later = replace(ended, id=f"q_later{number}", digest=f"d{number}", asked_at=ended.asked_at + 1)
        h.store._questions[later.id] = later
    again = h.restarted()
    with pytest.raises(ApprovalRefused):
        await again.desk.obtain(call({"amount": 2}), asks(), hold_s=0.0)
    assert (await again.desk.obtain(call({"amount": 1}), asks(), hold_s=0.0)).question == yes
