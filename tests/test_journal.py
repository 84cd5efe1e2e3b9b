"""The journal: durable before you hold it, in the order of the table, and masked."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from interposer.clock import SystemClock
from interposer.errors import ApprovalPending, Denied, RecordFault, UnknownSkill
from interposer.grant import Kept, KeptState
from interposer.journal import REVOKED, Journal
from interposer.model import (
    Answered,
    Approval,
    Caller,
    Decision,
    Effect,
    Failed,
    InDoubt,
    Intent,
    Invocation,
    Kind,
    Masked,
    MatchedRule,
    Obligations,
    Outcome,
    Permit,
    Principal,
    Record,
    Skill,
)
from interposer.records.memory import MemoryRecordStore
from interposer.records.sqlite import SqliteRecordStore

ALICE = Principal("local", "alice")
SKILL = Skill("crm.get", "crm", "get", "crm.get", {}, "d" * 64)
DECISION = Decision(Effect.ALLOW, (MatchedRule("r1", Effect.ALLOW, "p.yaml", 3),), "p" * 64, "because")
NOTHING = Decision(Effect.ALLOW, (), "p" * 64, "because", obligations=Obligations(record="none"))
ARGUMENTS = Masked({"id": "c-1"}, {"email": 1})
RESULT = Masked({"content": []})


@pytest.fixture
def store() -> MemoryRecordStore:
    return MemoryRecordStore()


@pytest.fixture
def journal(store: MemoryRecordStore) -> Journal:
    return Journal(store, SystemClock())


def invocation(id: str = "i1") -> Invocation:
    return Invocation(id, "s1", ALICE, SKILL, {"id": "c-1"}, b'{"id":"c-1"}', "0" * 64)


def permit(id: str = "i1", decision: Decision = DECISION, approval: Approval | None = None) -> Permit:
    return Permit(invocation(id), decision, approval)


def kinds(store: MemoryRecordStore) -> list[str]:
    return [record.kind.value for record in store.records]


def payload(record: Record) -> object:
    return None if record.payload is None else json.loads(record.payload)


async def test_an_intent_is_on_disk_before_it_is_held(tmp_path: Path) -> None:
    """A reader in another process sees the row as soon as `intend` has returned."""
    from interposer.records.reader import RecordReader

    store = SqliteRecordStore.open(tmp_path / "record.db")
    intent = await Journal(store, SystemClock()).intend(permit(), ARGUMENTS)
    with RecordReader(store.path) as reader:
        assert [(link.row.seq, link.row.kind) for link in reader.links()] == [(intent.seq, "intended")]
    await store.aclose()


async def test_a_row_tells_who_what_and_why(journal: Journal, store: MemoryRecordStore) -> None:
    """Principal, skill, decision, digests, approval and the masked arguments."""
    await journal.intend(permit(approval=Approval("q1", "d", ("operator:root",))), ARGUMENTS)
    (row,) = store.records
    assert (row.principal, row.skill, row.skill_digest) == (ALICE, "crm.get", "d" * 64)
    assert (row.effect, row.rules, row.policy, row.question) == ("allow", ("r1",), "p" * 64, "q1")
    assert payload(row) == {"arguments": {"id": "c-1"}, "masked": {"email": 1}}


@pytest.mark.parametrize("trouble", ["unhealthy", "unwritable"])
async def test_no_intent_without_a_record(journal: Journal, store: MemoryRecordStore, trouble: str) -> None:
    """A record that is not in place, or cannot be written, means that the call is not made."""
    if trouble == "unhealthy":
        store.in_place = False
    else:
        store.fail = "broken"
    with pytest.raises(RecordFault):
        await journal.intend(permit(), ARGUMENTS)
    assert store.records == []
    store.in_place, store.fail = True, ""
    await journal.intend(permit(), ARGUMENTS)


@pytest.mark.parametrize(
    ("outcome", "masked", "withheld", "kind", "code", "kept"),
    [
        (Answered({}), RESULT, "", "answered", "", {"result": {"content": []}}),
        (Answered({}), Masked({"isError": True}), "", "answered", "tool_error", {"result": {"isError": True}}),
        (Answered({}), Masked(None), "too odd", "answered", "withheld", None),
        (Failed("gone"), Masked({"code": 1}), "", "failed", "upstream_failed", {"error": {"code": 1}}),
        (InDoubt("cut"), Masked(None), "", "in_doubt", "outcome_unknown", None),
    ],
)
async def test_every_outcome_is_recorded_as_what_it_was(
    journal: Journal,
    store: MemoryRecordStore,
    outcome: Outcome,
    masked: Masked,
    withheld: str,
    kind: str,
    code: str,
    kept: object,
) -> None:
    """The kind, a short code, and what the caller was given."""
    await journal.conclude(await journal.intend(permit(), ARGUMENTS), outcome, masked, withheld=withheld)
    row = store.records[-1]
    assert (row.kind.value, row.code, payload(row)) == (kind, code, kept)


async def test_a_second_outcome_is_refused(journal: Journal, store: MemoryRecordStore) -> None:
    """One call, one outcome, even when two come at the same time."""
    intent = await journal.intend(permit(), ARGUMENTS)
    faults: list[RecordFault] = []

    async def conclude() -> None:
        try:
            await journal.conclude(intent, Answered({}), RESULT)
        except RecordFault as fault:
            faults.append(fault)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conclude)
            tasks.start_soon(conclude)
    assert len(faults) == 1
    assert kinds(store) == ["intended", "answered"]


async def test_the_same_call_is_not_intended_twice(journal: Journal, store: MemoryRecordStore) -> None:
    """A transition that the table does not have writes nothing."""
    await journal.intend(permit(), ARGUMENTS)
    with pytest.raises(RecordFault, match="cannot be intended next"):
        await journal.intend(permit(), ARGUMENTS)
    assert kinds(store) == ["intended"]


async def test_an_outcome_without_an_intent_is_refused(journal: Journal, store: MemoryRecordStore) -> None:
    """Nothing can be concluded that was not intended here."""
    with pytest.raises(RecordFault):
        await journal.conclude(Intent(permit("i9"), 1), Answered({}), RESULT)
    assert store.records == []


async def test_only_a_call_in_doubt_can_be_answered_late(journal: Journal, store: MemoryRecordStore) -> None:
    """Late after in doubt, once."""
    intent = await journal.intend(permit(), ARGUMENTS)
    with pytest.raises(RecordFault):
        await journal.late(intent, RESULT)
    await journal.conclude(intent, InDoubt("cut"), Masked(None))
    await journal.late(intent, RESULT)
    with pytest.raises(RecordFault):
        await journal.late(intent, RESULT)
    assert kinds(store) == ["intended", "in_doubt", "late"]


async def test_an_outcome_that_could_not_be_written_can_be_written_again(
    journal: Journal, store: MemoryRecordStore
) -> None:
    """A fault in the store is no step in the call's life."""
    intent = await journal.intend(permit(), ARGUMENTS)
    store.fail = "broken"
    with pytest.raises(RecordFault):
        await journal.conclude(intent, Answered({}), RESULT)
    store.fail = ""
    await journal.conclude(intent, Answered({}), RESULT)
    assert kinds(store) == ["intended", "answered"]


async def test_an_asked_call_ends_in_a_ticket_a_no_a_yes_or_silence(journal: Journal, store: MemoryRecordStore) -> None:
    """The four ways out of asking."""
    for id in ("i1", "i2", "i3", "i4"):
        await journal.asked(invocation(id), DECISION, ARGUMENTS)
    pending = ApprovalPending(question="q1", expires_at=1.0, retry_after_s=1.0)
    await journal.refuse(pending, session="s1", invocation=invocation("i1"), decision=DECISION)
    await journal.refuse(Denied("no", message="Ask a lead."), session="s1", invocation=invocation("i2"))
    await journal.intend(permit("i3"), ARGUMENTS)
    await journal.withdrawn(invocation("i4"), DECISION)
    assert kinds(store)[4:] == ["ticketed", "refused", "intended", "withdrawn"]
    assert store.records[4].question == "q1"
    assert payload(store.records[5]) == {"said": "Ask a lead."}


async def test_record_none_keeps_the_skeleton_only(journal: Journal, store: MemoryRecordStore) -> None:
    """The rows are there, and no payload."""
    intent = await journal.intend(permit(decision=NOTHING), ARGUMENTS)
    await journal.conclude(intent, Answered({}), RESULT)
    await journal.refuse(Denied("no"), session="s1", invocation=invocation("i2"), decision=NOTHING)
    assert kinds(store) == ["intended", "answered", "refused"]
    assert [row.payload for row in store.records] == [None, None, None]


async def test_a_claimed_name_is_escaped_and_cut(journal: Journal, store: MemoryRecordStore) -> None:
    """What a caller calls a skill cannot move a cursor, reorder text, or fill the record."""
    name = "crm\x1b[2J\u202e\n\ud800" + "x" * 10_000
    await journal.refuse(UnknownSkill(name), session="s1", name=name, principal=ALICE)
    (row,) = store.records
    assert row.skill.startswith("crm\\x1b[2J\\u202e\\x0a\\ud800xxx")
    assert len(row.skill) <= 256
    assert row.payload is not None
    assert b"xxx" not in row.payload


async def test_a_cancelled_question_is_still_recorded(journal: Journal, store: MemoryRecordStore) -> None:
    """Who asked and gave up at once can be withdrawn."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await journal.asked(invocation(), DECISION, ARGUMENTS)
    await journal.withdrawn(invocation())
    assert kinds(store) == ["asked", "withdrawn"]


async def test_a_session_has_a_beginning_a_name_and_an_end(journal: Journal, store: MemoryRecordStore) -> None:
    """The transport, what the client calls itself, and the end."""
    await journal.session_opened("s1", Caller("unix", 1000))
    await journal.introduced("s1", Masked({"name": "agent", "version": "1"}))
    await journal.session_closed("s1")
    assert [(row.kind.value, row.code) for row in store.records] == [
        ("session_opened", "unix"),
        ("session_opened", "introduced"),
        ("session_closed", ""),
    ]


async def test_a_note_is_no_way_around_the_table(journal: Journal, store: MemoryRecordStore) -> None:
    """Rows about calls and questions cannot be written as notes."""
    for kind in set(Kind) - {
        *(Kind.BROKER_STARTED, Kind.BROKER_STOPPED, Kind.POLICY_LOADED, Kind.SKILLS_PINNED, Kind.ALARM),
    }:
        with pytest.raises(RecordFault):
            await journal.note(kind)
    assert store.records == []
    await journal.note(Kind.POLICY_LOADED, policy="p" * 64)
    await journal.alarm(invocation(), "credential_echoed")
    assert kinds(store) == ["policy_loaded", "alarm"]


async def test_changed_arguments_are_marked_where_they_were_sent(journal: Journal, store: MemoryRecordStore) -> None:
    """The row of the intent says that approvers changed the call, and which question it was."""
    approval = Approval("q_1", "d", ("operator:kim",), amended=b'{"id":"c-2"}')
    await journal.asked(invocation(), DECISION, ARGUMENTS)
    await journal.intend(permit(approval=approval), Masked({"id": "c-2"}))
    asked, intended = store.records
    assert (intended.code, intended.question) == ("amended", "q_1")
    assert (payload(asked), payload(intended)) == (
        {"arguments": {"id": "c-1"}, "masked": {"email": 1}},
        {"arguments": {"id": "c-2"}},
    )


async def test_a_told_call_is_over(journal: Journal, store: MemoryRecordStore) -> None:
    """What is told in place of being made is one row, and nothing follows."""
    kept = Kept("q_1", "c", "i0", KeptState.ANSWERED, b"", "", True, 0.0)
    await journal.told(invocation(), DECISION, kept)
    (told,) = store.records
    assert (told.kind, told.code, told.question, told.payload) == (Kind.TOLD, "answered", "q_1", None)
    assert not journal.under_way(invocation())


async def test_a_call_that_is_made_already_is_refused_and_not_ticketed(
    journal: Journal, store: MemoryRecordStore
) -> None:
    """Nobody was asked about a call that only has to wait for the identical one."""
    pending = ApprovalPending(question="q_1", expires_at=0.0, retry_after_s=2.0, running=True)
    await journal.refuse(pending, session="s1", invocation=invocation(), decision=DECISION)
    (row,) = store.records
    assert (row.kind, row.code, row.question) == (Kind.REFUSED, "under_way", "q_1")


async def test_a_revoked_call_is_in_doubt_for_that_reason(journal: Journal, store: MemoryRecordStore) -> None:
    """The record tells a call that was cut with its approval from one whose answer got lost."""
    intent = await journal.intend(permit(), ARGUMENTS)
    await journal.conclude(intent, InDoubt(REVOKED), Masked(None))
    assert store.records[-1].code == "revoked"
