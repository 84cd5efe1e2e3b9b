"""What every `RecordStore` promises (ports.py) of rows and questions: one suite, each implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from interposer import chain
from interposer.errors import RecordFault
from interposer.model import Kind, Question, QuestionState, Record, Vote
from interposer.ports import Revision
from interposer.records.memory import MemoryRecordStore
from interposer.records.sqlite import SqliteRecordStore
from interposer.terms import GrantSpec
from tests.contract.records import (
    ALICE,
    BOB,
    D1,
    D2,
    NOW,
    TERMS,
    Store,
    about,
    agreeing,
    granting,
    kinds,
    links,
    opened,
    question,
    record,
)
from tests.contract.records import store as store


async def test_sequence_numbers_follow_each_other_without_a_gap(store: Store) -> None:
    """`append` gives each record the next number."""
    assert [await store.append(record(invocation=f"i{n}")) for n in range(3)] == [1, 2, 3]


async def test_what_was_appended_is_chained_with_its_payload(store: Store) -> None:
    """The chain holds every record as it was given, and verifies."""
    await store.append(record())
    await store.append(record(Kind.ANSWERED, payload=None))
    first, second = await links(store)
    assert (first.row.kind, first.row.skill, first.row.rules, first.payload) == (
        "intended",
        "crm.get",
        '["r1"]',
        b'{"a":1}',
    )
    assert (second.payload, second.row.commitment, second.row.size) == (None, b"", 0)
    assert chain.verify([first, second]) is None


async def test_a_principal_enters_the_chain_as_a_pseudonym(store: Store) -> None:
    """The same person is the same pseudonym, another is another, and the name is not in the row."""
    for who in (ALICE, replace(ALICE, groups=("other",)), BOB, None):
        await store.append(record(principal=who))
    names = [link.row.principal for link in await links(store)]
    assert names[0] == names[1] != names[2]
    assert names[3] == ""
    assert "alice" not in "".join(names)


async def test_a_large_payload_is_cut_and_says_so(store: Store) -> None:
    """Of a payload above 64 KiB, the digest, the size and the beginning are kept."""
    payload = b'{"text":"' + b'\\"' * 100_000 + b'"}'
    await store.append(record(payload=payload))
    (link,) = await links(store)
    assert link.payload is not None
    assert link.row.size == len(payload) > link.row.kept == len(link.payload) <= 64 * 1024
    assert link.payload.startswith(b'{"capped":true,')


async def test_many_at_once_are_all_chained(store: Store) -> None:
    """Whatever waits together, each gets a number of its own."""
    seen: list[int] = []

    async def append(number: int) -> None:
        seen.append(await store.append(record(invocation=f"i{number}")))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(append, number)
    assert sorted(seen) == list(range(1, 201))
    assert chain.verify(await links(store)) is None


async def test_a_record_that_cannot_be_written_fails_alone(store: Store) -> None:
    """A lone surrogate is that record's own fault: its neighbours are written."""
    outcomes: dict[str, object] = {}

    async def append(skill: str) -> None:
        try:
            outcomes[skill] = await store.append(record(skill=skill))
        except RecordFault as fault:
            outcomes[skill] = fault

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for skill in ("a", "\ud800", "b"):
                tasks.start_soon(append, skill)
    assert isinstance(outcomes["\ud800"], RecordFault)
    assert sorted([outcomes["a"], outcomes["b"]]) == [1, 2]  # type: ignore[type-var]


async def test_a_cancelled_append_loses_nothing_and_holds_nobody_up(store: Store) -> None:
    """Who gives up waiting does not take others' rows along."""
    with anyio.move_on_after(0):
        await store.append(record())
    with anyio.fail_after(5):
        assert await store.append(record(invocation="i2")) in (1, 2)
    assert chain.verify(await links(store)) is None


async def test_a_question_comes_back_as_it_was_stored(store: Store) -> None:
    """Every field survives."""
    vote = Vote(BOB, True, "so far", NOW + 0.5, "v" * 64, broke_glass=True)
    spec = GrantSpec(600.0, 3, session=True, schema=b'{"type":"object"}')
    asked = question(terms=TERMS, votes=(vote,), amended=b'{"amount":7}', spec=spec, destructive=True, call="c" * 64)
    assert await opened(store, asked) == asked
    assert await store.question("q1") == asked
    assert await store.question("q2") is None


async def test_the_same_question_is_asked_once(store: Store) -> None:
    """An open question of the same digest is joined, and nothing is written."""
    first = await opened(store, question())
    assert await opened(store, question("q2")) == first
    assert await kinds(store) == ["question_opened"]


async def test_a_granted_question_is_joined(store: Store) -> None:
    """A yes that nobody has used answers the next identical call."""
    await opened(store, question())
    granted = await store.revise("q1", granting)
    assert await opened(store, question("q2")) == granted


async def test_a_question_past_its_expiry_is_not_joined(store: Store) -> None:
    """It is ended in the same transaction, and a new one stands."""
    await opened(store, question())
    later = question("q2", asked_at=NOW + 1800, expires_at=NOW + 3600)
    assert await store.open_question(later, about(Kind.QUESTION_OPENED, later, NOW + 1800)) == later
    ended = await store.question("q1")
    assert ended is not None
    assert ended.state is QuestionState.EXPIRED
    assert await kinds(store) == ["question_opened", "expired", "question_opened"]


async def test_open_questions_are_listed_oldest_first_and_all_newest_first(store: Store) -> None:
    """The queue is in order; the history begins with what was last."""
    for number in (2, 1, 3):
        await opened(store, question(f"q{number}", f"d{number}", asked_at=NOW + number))
    await store.revise("q1", granting)
    assert [each.id for each in await store.questions()] == ["q2", "q3"]
    assert [each.id for each in await store.questions(unanswered=False, limit=2)] == ["q3", "q2"]
    assert [each.id for each in await store.questions(unanswered=False)] == ["q3", "q2", "q1"]


async def test_questions_about_one_skill_are_found(store: Store) -> None:
    """What was asked about a skill before is shown without the rest."""
    for number, skill in enumerate(("crm.refund", "crm.delete", "crm.refund")):
        await opened(store, question(f"q{number}", f"d{number}", asked_at=NOW + number, skill=skill))
    assert [each.id for each in await store.questions(skill="crm.refund")] == ["q0", "q2"]
    assert [each.id for each in await store.questions(unanswered=False, skill="crm.refund", limit=1)] == ["q2"]
    assert await store.questions(skill="crm.other") == []


async def test_a_revision_is_stored_with_its_rows(store: Store) -> None:
    """The question and the rows of a vote are written together."""
    await opened(store, question())
    granted = await store.revise("q1", granting)
    assert (granted.state, granted.votes[0].principal) == (QuestionState.GRANTED, BOB)
    assert await store.question("q1") == granted
    assert await kinds(store) == ["question_opened", "voted", "granted"]


async def test_a_revision_that_raises_writes_nothing(store: Store) -> None:
    """The exception comes back to who asked for the revision."""
    await opened(store, question())

    def refuse(_: Question) -> Revision:
        raise LookupError("not an approver")

    with pytest.raises(LookupError, match="not an approver"):
        await store.revise("q1", refuse)
    assert await store.question("q1") == question()
    assert await kinds(store) == ["question_opened"]


async def test_revising_an_unknown_question_is_a_key_error(store: Store) -> None:
    """There is nothing to revise."""
    with pytest.raises(KeyError):
        await store.revise("q9", granting)


@pytest.mark.parametrize(
    "changes",
    [
        {"canonical": b'{"amount":7000}'},
        {"digest": D2},
        {"call": "c" * 64},
        {"requester": BOB},
        {"terms": TERMS},
        {"expires_at": NOW + 7200},
        {"skill": "crm.delete"},
        {"policy": "q" * 64},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_revision_cannot_change_what_was_asked(store: Store, changes: dict[str, object]) -> None:
    """A yes to one call never becomes a yes to another, nor one that lives longer."""
    await opened(store, question())
    with pytest.raises(RecordFault):
        await store.revise("q1", lambda asked: Revision(replace(asked, **changes), ()))  # type: ignore[arg-type]
    assert await store.question("q1") == question()


async def test_what_is_on_the_table_may_change(store: Store) -> None:
    """Approvers may put other arguments and a standing grant there; what was asked stays beside it."""
    await opened(store, question())
    spec = GrantSpec(600.0, 3)
    tabled = await store.revise(
        "q1",
        lambda asked: Revision(replace(asked, amended=b'{"amount":7}', spec=spec), (about(Kind.AMENDED, asked),)),
    )
    assert (tabled.amended, tabled.spec, tabled.canonical) == (b'{"amount":7}', spec, question().canonical)
    assert await store.question("q1") == tabled
    assert await kinds(store) == ["question_opened", "amended"]


@pytest.mark.parametrize("told", [True, False], ids=["told the time", "by its rows"])
async def test_nothing_is_granted_at_or_after_the_deadline(store: Store, told: bool) -> None:
    """The store refuses it in the transaction that would write it, as late as the very moment (F18)."""
    await opened(store, question())
    over = question().expires_at

    def late(asked: Question) -> Revision:
        revision = granting(asked)
        if told:
            return replace(revision, now=over)
        return replace(revision, records=[replace(record, at=over) for record in revision.records])

    with pytest.raises(RecordFault, match="time is over"):
        await store.revise("q1", late)
    assert await store.question("q1") == question()
    assert await kinds(store) == ["question_opened"]


async def test_a_deadline_outlives_a_wall_clock_that_jumps(store: Store) -> None:
    """Told how much time is left, the store does not look at the times in its rows (F22)."""
    await opened(store, question())

    def jumped(asked: Question) -> Revision:
        revision = granting(asked)
        rows = [replace(record, at=NOW + 86_400) for record in revision.records]
        return replace(revision, records=rows, now=NOW + 1)

    assert (await store.revise("q1", jumped)).state is QuestionState.GRANTED


async def test_a_yes_that_no_row_tells_of_is_not_given(store: Store) -> None:
    """Without a row, and without a time, there is nothing to judge it by."""
    await opened(store, question())
    with pytest.raises(RecordFault):
        await store.revise("q1", lambda asked: replace(granting(asked), records=()))


async def test_what_has_ended_stays_ended(store: Store) -> None:
    """No vote brings a question back."""
    asked = await opened(store, question())
    await store.close_question("q1", about(Kind.EXPIRED, asked))
    with pytest.raises(RecordFault):
        await store.revise("q1", granting)


async def test_a_grant_is_consumed_once(store: Store) -> None:
    """Of many who would use the same yes, exactly one may."""
    asked = await opened(store, question())
    await store.revise("q1", granting)
    won: list[bool] = []

    async def consume() -> None:
        won.append(await store.consume("q1", D1, NOW + 2, about(Kind.CONSUMED, asked)))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(consume)
    assert won.count(True) == 1
    assert (await kinds(store)).count("consumed") == 1


@pytest.mark.parametrize(("digest", "now", "grant"), [(D2, NOW, True), (D1, NOW + 1800, True), (D1, NOW, False)])
async def test_a_yes_to_something_else_too_late_or_not_given_is_not_consumed(
    store: Store, digest: str, now: float, grant: bool
) -> None:
    """Only a granted, unexpired question of this very digest lets a call through."""
    asked = await opened(store, question())
    if grant:
        await store.revise("q1", granting)
    assert await store.consume("q1", digest, now, about(Kind.CONSUMED, asked)) is False
    assert await store.consume("q9", digest, now, about(Kind.CONSUMED, asked)) is False
    assert "consumed" not in await kinds(store)


@pytest.mark.parametrize(
    ("kind", "state"),
    [(Kind.EXPIRED, QuestionState.EXPIRED), (Kind.QUESTION_WITHDRAWN, QuestionState.WITHDRAWN)],
)
async def test_closing_a_question_ends_it_once(store: Store, kind: Kind, state: QuestionState) -> None:
    """The record's kind says how; a second end changes nothing."""
    asked = await opened(store, question())
    assert await store.close_question("q1", about(kind, asked)) is True
    assert await store.close_question("q1", about(Kind.EXPIRED, asked)) is False
    ended = await store.question("q1")
    assert ended is not None
    assert ended.state is state
    assert await kinds(store) == ["question_opened", kind.value]


async def test_a_question_is_closed_only_by_a_row_that_ends_one(store: Store) -> None:
    """A grant does not come about by closing."""
    asked = await opened(store, question())
    with pytest.raises(RecordFault):
        await store.close_question("q1", about(Kind.GRANTED, asked))


@pytest.mark.parametrize("end", ["consumed", "denied", "expired", "joined too late"])
async def test_exact_arguments_are_forgotten_when_their_question_ends(store: Store, end: str) -> None:
    """Unmasked arguments, the caller's and those put in their place, are kept only as long as somebody must be able to
    read them."""
    asked = await opened(store, question(amended=b'{"amount":7}'))
    if end == "consumed":
        await store.revise("q1", granting)
        await store.consume("q1", D1, NOW + 2, about(Kind.CONSUMED, asked))
    elif end == "denied":
        denied = replace(asked, state=QuestionState.DENIED)
        await store.revise("q1", lambda _: Revision(denied, (about(Kind.QUESTION_DENIED, asked),)))
    elif end == "expired":
        await store.close_question("q1", about(Kind.EXPIRED, asked))
    else:
        again = question("q2", asked_at=NOW + 1800, expires_at=NOW + 3600)
        await store.open_question(again, about(Kind.QUESTION_OPENED, again, NOW + 1800))
    ended = await store.question("q1")
    assert ended is not None
    assert (ended.canonical, ended.amended) == (b"", b"")


async def test_a_question_outlives_the_store(tmp_path: Path) -> None:
    """What was asked and half agreed to is there after a restart, and can be granted and used."""
    path = tmp_path / "record.db"
    first = SqliteRecordStore.open(path)
    asked = await opened(first, question(terms=TERMS, destructive=True, call="c" * 64))
    await first.revise("q1", agreeing)
    await first.aclose()
    second = SqliteRecordStore.open(path)
    assert await second.question("q1") == agreeing(asked).question
    await second.revise("q1", granting)
    assert await second.consume("q1", asked.digest, NOW + 2, about(Kind.CONSUMED, asked))
    await second.aclose()


async def test_unfinished_are_the_intents_without_an_outcome(store: Store) -> None:
    """Oldest first, and nothing that has an end."""
    for number in range(4):
        await store.append(record(invocation=f"i{number}"))
    await store.append(record(Kind.ANSWERED, "i1"))
    await store.append(record(Kind.IN_DOUBT, "i2"))
    await store.append(record(Kind.ASKED, "i5"))
    unfinished = await store.unfinished()
    assert [each.invocation for each in unfinished] == ["i0", "i3"]
    assert unfinished[0].principal == ALICE


async def test_what_is_left_open_includes_questions_askers_and_sessions(store: Store) -> None:
    """Recovery finds calls that waited for a human, and sessions without an end."""
    await store.append(Record(Kind.SESSION_OPENED, "s1", NOW))
    await store.append(Record(Kind.SESSION_OPENED, "s2", NOW))
    await store.append(record(Kind.ASKED, "i1"))
    await store.append(record(Kind.ASKED, "i2"))
    await store.append(record(Kind.TICKETED, "i2"))
    await store.append(Record(Kind.SESSION_CLOSED, "s2", NOW))
    left = [(each.kind, each.session, each.invocation) for each in await store.left_open()]
    assert left == [(Kind.SESSION_OPENED, "s1", ""), (Kind.ASKED, "s1", "i1")]


async def test_a_closed_store_takes_nothing(store: Store) -> None:
    """After `aclose` every append is a `RecordFault`, and the store says so before."""
    assert store.healthy()
    await store.aclose()
    await store.aclose()
    assert not store.healthy()
    with pytest.raises(RecordFault):
        await store.append(record())


def test_both_stores_have_the_port() -> None:
    """mypy reads this: a store that lacks a method does not fit."""
    from interposer.recovery import RecoverableStore

    stores: list[Callable[[], RecoverableStore]] = [MemoryRecordStore, lambda: SqliteRecordStore.open("/nowhere")]
    assert len(stores) == 2
