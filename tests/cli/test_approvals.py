"""`interposer approvals` as people and scripts use it: a real process, a real socket, a real desk."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from interposer.canonical import canonical, digest_bytes
from interposer.cli.approvals import approvals
from interposer.errors import ApprovalPending
from interposer.model import (
    Decision,
    Effect,
    Invocation,
    MatchedRule,
    Principal,
    Skill,
)
from interposer.terms import ApprovalTerms, Window

from .desks import AGENT, BEN, CAP, HOSTILE, Broker, here, run, running


async def test_no_broker_is_said_with_its_own_code(tmp_path: Path) -> None:
    """Where no broker runs, the command says where it looked and exits with 5."""
    said = await run(tmp_path, "list")
    assert (said.code, said.out) == (5, "")
    assert "no broker is running" in said.err


async def test_stale_socket_is_no_broker(tmp_path: Path) -> None:
    """A socket that a dead broker left behind does not hang the command."""
    async with running(broker := Broker(tmp_path)):
        os.link(broker.address, tmp_path / "kept")
    os.rename(tmp_path / "kept", tmp_path / "admin.sock")
    assert (await run(tmp_path, "list")).code == 5


async def test_list_is_text_or_json(tmp_path: Path) -> None:
    """The list is one line per question, or a JSON array; an empty one is no failure."""
    async with running(broker := Broker(tmp_path)):
        empty = await run(tmp_path, "list", "--json")
        id = await broker.question()
        text, listed = await run(tmp_path, "list"), await run(tmp_path, "list", "--json")
    assert (empty.code, empty.json) == (0, [])
    assert text.code == 0
    assert text.out.startswith(f"{id}  30m left  local:agent  payments.refund  ")
    assert [question["id"] for question in listed.json] == [id]


@pytest.mark.parametrize("words", [("list",), ("list", "--json"), ("show", "q_001"), ("show", "q_001", "--json")])
async def test_arguments_cannot_write_to_the_terminal(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Escape codes, direction marks and line ends of a call reach no terminal (M13, M15)."""
    async with running(broker := Broker(tmp_path)):
        await broker.question()
        said = await run(tmp_path, *words)
    assert said.code == 0
    assert said.out.isascii()
    assert all(line.isprintable() for line in said.out.splitlines())
    assert not any(line.startswith("Approved") for line in said.out.splitlines())


async def test_show_prints_the_exact_call_and_its_digest(tmp_path: Path) -> None:
    """The last line is the canonical call, escaped: it parses to the call, and its SHA-256 is above it."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
        said = await run(tmp_path, "show", id)
        digest = (await broker.desk.get(id)).digest
    assert json.loads(said.out.splitlines()[-1]) == HOSTILE
    assert digest_bytes(canonical(HOSTILE)) in said.out
    assert digest in said.out
    assert "refunds-need-a-lead (ask)  policy.yaml:7" in said.out
    assert "local:agent" in said.out


async def test_what_was_not_read_is_printed_and_not_approved(tmp_path: Path) -> None:
    """Whoever says yes unseen to what has to be read is given the call instead, and how to go on."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question(terms=ApprovalTerms(reading_s=1.0))
        long = await broker.question({"note": "x" * 5_000})
        said = await here(tmp_path, "approve", id)
        digest = (await broker.desk.get(id)).digest
        assert (said.code, said.out) == (3, "")
        assert '{"amount":90,' in said.err
        assert f"--digest {digest}" in said.err.splitlines()[-1]
        glass = await here(tmp_path, "break-glass", id, "--reason", "INC-1")
        assert (glass.code, (await broker.desk.get(id)).state) == (0, "granted"), glass.err
        unseen = await here(tmp_path, "break-glass", long, "--reason", "INC-1")
        assert (unseen.code, "x" * 5_000 in unseen.err) == (3, True)
        assert (await here(tmp_path, "approve", long)).code == 0


async def test_show_says_under_which_terms(tmp_path: Path) -> None:
    """How much may be agreed to, by whom, when, and where to look."""
    hours = Window(frozenset({0, 1}), 540, 1020, "Europe/Berlin")
    terms = ApprovalTerms(quorum=2, minima=(("legal", 1),), windows=((hours,),), cap=CAP, execute=True, reading_s=1.5)
    async with running(broker := Broker(tmp_path)):
        said = await here(tmp_path, "show", await broker.question(terms=terms, destructive=True))
    for fact in (
        "approvers  group legal",
        "quorum     2, at least 1 of group legal",
        "hours      mon tue 09:00-17:00 Europe/Berlin",
        "at most    10 calls within 2h 00m, of this session, with arguments that match a schema",
        "reading    1.5s at least",
        "carry out  when approved, also if the caller has left",
        "on table   this call, once",
        "skill      payments.refund  (destructive)",
        "link       https://console.example/q/q_001",
    ):
        assert fact in said.out.splitlines()


CONTROL = "".join(map(chr, range(256))) + "\u202e\u2066\u200b\ufeff\U000e0041\u2028\ud7ff"


@pytest.mark.parametrize("format", [(), ("--json",)])
async def test_nothing_that_is_shown_can_write_to_the_terminal(tmp_path: Path, format: tuple[str, ...]) -> None:
    """256 control bytes, direction marks and invisible characters in every field come out as printable text (M13)."""
    caller = Principal(f"local{CONTROL}", f"agent{CONTROL}", (f"g{CONTROL}",))
    boss = Principal("operator", f"anna{CONTROL}", ("leads",))
    rule = MatchedRule(f"r{CONTROL}", Effect.ASK, f"p{CONTROL}.yaml", 7, f"why{CONTROL}")
    terms = ApprovalTerms(
        groups=frozenset({"leads", f"g{CONTROL}"}), subjects=frozenset({f"s{CONTROL}"}), minima=(("leads", 1),), cap=CAP
    )
    exact = canonical({CONTROL: CONTROL})
    mild = {"annotations": {"destructiveHint": False}}
    skill = Skill(f"payments.{CONTROL}", "payments", "refund", "refund", dict(mild), f"d{CONTROL}")
    call = Invocation("i_1", f"s{CONTROL}", caller, skill, {}, exact, digest_bytes(exact))
    schema = json.dumps({"type": "object", "properties": {CONTROL: {"type": "string"}}, "additionalProperties": False})
    async with running(broker := Broker(tmp_path, operator=boss)):
        with pytest.raises(ApprovalPending) as ticket:
            await broker.desk.obtain(call, Decision(Effect.ASK, (rule,), f"p{CONTROL}", "r", terms=terms), hold_s=0.0)
        id = ticket.value.question
        words = [("list",), ("show", id), ("approve", id, "--uses", "3", "--reason", CONTROL[1:], "--matching", schema)]
        words += [("grants",), ("show", id), ("list", "--all"), ("figures",)]
        said = [await here(tmp_path, *each, *format) for each in words]
        refused = await here(tmp_path, "deny", id, "--reason", CONTROL[1:])
    assert [each.code for each in said] == [0] * len(words)
    assert refused.code == 3
    for text in (*(each.out for each in said), refused.err):
        assert text
        assert all(line.isprintable() for line in text.splitlines())
        assert not {"\u202e", "\x1b", "\u200b", "\U000e0041"} & set(text)
        assert text.count("\n") == len(text.splitlines())


async def test_approve_grants_and_takes_a_short_id(tmp_path: Path) -> None:
    """An unambiguous beginning of an id is enough, and the call is approved."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
        said = await run(tmp_path, "approve", id[:4], "--reason", "customer called")
        question = await broker.desk.get(id)
    assert (said.code, said.out) == (0, f"{id}: approved\n")
    assert question.state == "granted"
    assert question.votes[0].reason == "customer called"


async def test_approve_with_the_wrong_digest_is_refused(tmp_path: Path) -> None:
    """With `--digest`, only the call that was looked at is approved."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
        wrong = await run(tmp_path, "approve", id, "--digest", "0" * 64)
        assert (await broker.desk.get(id)).state == "open"
        right = await run(tmp_path, "approve", id, "--digest", (await broker.desk.get(id)).digest)
    assert (wrong.code, right.code) == (3, 0)
    assert "digest" in wrong.err


async def test_approve_short_of_the_quorum_waits(tmp_path: Path) -> None:
    """A yes that needs company is counted and exits with 4; the same person again is refused with 3."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question(quorum=2)
        first, again = await run(tmp_path, "approve", id), await run(tmp_path, "approve", id)
    assert (first.code, first.out) == (4, f"{id}: 1 of 2 have approved\n")
    assert again.code == 3


async def test_own_call_cannot_be_approved(tmp_path: Path) -> None:
    """Whoever asked is refused with 3."""
    async with running(broker := Broker(tmp_path, operator=AGENT)):
        said = await run(tmp_path, "approve", await broker.question())
    assert said.code == 3
    assert "cannot answer for it" in said.err


async def test_approve_for_more_than_once_gives_a_grant_that_can_be_revoked(tmp_path: Path) -> None:
    """Uses, time, session and schema become a standing grant; it is listed, and revoked by its or its question's id."""
    schema = tmp_path / "schema.json"
    stated = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    schema.write_text(json.dumps(stated))
    async with running(broker := Broker(tmp_path)):
        first, second = [await broker.question({"n": n}, terms=ApprovalTerms(cap=CAP)) for n in (1, 2)]
        approved = await here(tmp_path, "approve", first, "--uses", "4", "--for", "1h", "--session")
        matching = await here(tmp_path, "approve", second, "--uses", "2", "--matching", os.fspath(schema))
        listed = await here(tmp_path, "grants")
        one, two = (await here(tmp_path, "grants", "--json")).json
        empty_reason = await here(tmp_path, "revoke", one["id"], "--reason", " ")
        ended = await here(tmp_path, "revoke", one["id"][:5], "--reason", "over")
        again = await here(tmp_path, "revoke", one["id"], "--reason", "over")
        whole = await here(tmp_path, "revoke", second, "--reason", "over", "--json")
        unknown = await here(tmp_path, "revoke", "g_zzz", "--reason", "over")
        left, before = await here(tmp_path, "grants", "--json"), await here(tmp_path, "grants", "--all")
    assert approved.out == f"{first}: approved, for 4 calls within 1h 00m, of this session\n"
    assert matching.out == f"{second}: approved, for 2 calls within 2h 00m, with arguments that match a schema\n"
    assert (one["question"], one["session"], two["question"]) == (first, "s_1", second)
    assert f"{one['id']}  1h 00m left  0 of 3 used  local:agent  payments.refund" in listed.out
    assert [each.code for each in (empty_reason, ended, again, whole, unknown)] == [2, 0, 3, 0, 1]
    assert (ended.out, whole.json, left.json) == (f"{one['id']}: revoked\n", {"revoked": second}, [])
    assert before.out.count("  revoked  ") == 2


async def test_approve_with_other_arguments_shows_both(tmp_path: Path) -> None:
    """Changed arguments are said loudly in list and page; the last line of the page is what would be sent."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question({"amount": 90}, quorum=2)
        said = await here(tmp_path, "approve", id, "--arguments", '{"amount": 20.5}')
        page, listed = await here(tmp_path, "show", id), await here(tmp_path, "list")
        asked = (await broker.desk.get(id)).digest
        stale = await here(tmp_path, "approve", id, "--digest", asked)
    assert said.code == 4
    assert page.out.splitlines()[-5:] == [
        "asked for:",
        '{"amount":90}',
        "",
        "CHANGED by approvers to:",
        '{"amount":20.5}',
    ]
    assert f"asked for  {asked}" in page.out
    assert f"digest     {asked}" not in page.out
    assert '[1 of 2 have approved, arguments CHANGED]  {"amount":20.5}' in listed.out
    assert stale.code == 3


@pytest.mark.parametrize(
    "words",
    [
        ("--for", "soon"),
        ("--until", "tomorrow"),
        ("--until", "2001-01-01T00:00"),
        ("--for", "1h", "--until", "2999-01-01"),
        ("--uses", "0"),
        ("--once", "--uses", "2"),
        ("--matching", "nowhere.json"),
        ("--matching", "{"),
        ("--arguments", '{"a": 1, "a": 2}'),
        ("--arguments", '{"a": 0.1234567890123456789}'),
        ("--arguments", '{"a": NaN}'),
    ],
)
async def test_what_cannot_be_meant_is_wrong_usage(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Times, schemas and arguments that cannot be read, or not be sent exactly, never reach the broker."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question(terms=ApprovalTerms(cap=CAP))
        said = await here(tmp_path, "approve", id, *words)
        assert (await broker.desk.get(id)).votes == ()
    assert (said.code, said.out) == (2, "")


async def test_until_is_counted_from_now(tmp_path: Path) -> None:
    """A time with a zone is that moment, whatever this machine's zone."""
    until = (datetime.now(UTC) + timedelta(hours=1)).astimezone(timezone(timedelta(hours=9)))
    async with running(broker := Broker(tmp_path)):
        id = await broker.question(terms=ApprovalTerms(cap=CAP))
        assert (await here(tmp_path, "approve", id, "--uses", "2", "--until", until.isoformat())).code == 0
        spec = (await broker.desk.get(id)).spec
    assert spec is not None
    assert 3500 < spec.for_s <= 3600


async def test_broken_glass_is_loud(tmp_path: Path) -> None:
    """One person's override says so, with name and reason, and is refused to everybody else."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question(quorum=3)
        silent = await here(tmp_path, "break-glass", id, "--reason", " ")
        said = await here(tmp_path, "break-glass", id, "--reason", "INC-1")
        page = await here(tmp_path, "show", id)
    async with running(other := Broker(tmp_path / "b", operator=BEN)):
        refused = await here(tmp_path / "b", "break-glass", await other.question(), "--reason", "INC-1")
    assert (silent.code, refused.code) == (2, 3)
    assert (said.code, said.out) == (0, f"{id}: GLASS BROKEN by operator:anna, alone: INC-1\n")
    assert "BROKE THE GLASS, yes by operator:anna" in page.out


async def test_figures_are_text_or_json(tmp_path: Path) -> None:
    """How many, how they ended, how long it took: in all, and by skill and person."""
    async with running(broker := Broker(tmp_path)):
        nothing = await here(tmp_path, "figures")
        await here(tmp_path, "approve", await broker.question({"n": 1}))
        await here(tmp_path, "deny", await broker.question({"n": 2}), "--reason", "no")
        await broker.question({"n": 3})
        text, found = await here(tmp_path, "figures"), await here(tmp_path, "figures", "--days", "7", "--json")
    assert nothing.out == "last 24 hours: nothing was asked\n"
    times = "half of them within 0.0s, 95 of 100 within 0.0s"
    tally = f"3 asked, 1 granted, 1 denied, 1 open; 50% of those decided were granted, {times}"
    assert text.out.splitlines() == [
        f"last 24 hours: {tally}",
        "by skill",
        f"  payments.refund: {tally}",
        "by person",
        f"  operator:anna: 1 yes, 1 no; {times}",
    ]
    (each,) = found.json
    assert (each["last_days"], each["overall"]["asked"], each["complete"]) == (7, 3, True)


async def test_deny_needs_its_reason(tmp_path: Path) -> None:
    """Without a reason it is wrong usage; with one the question ends, and a later yes comes too late."""
    async with running(broker := Broker(tmp_path)):
        id = await broker.question()
        codes = [(await run(tmp_path, "deny", id, *rest)).code for rest in ((), ("--reason", " "))]
        denied = await run(tmp_path, "deny", id, "--reason", "not without a ticket", "--json")
        late = await run(tmp_path, "approve", id)
    assert codes == [2, 2]
    assert (denied.code, denied.json["state"]) == (0, "denied")
    assert late.code == 3


async def test_unknown_and_ambiguous_ids_are_told_apart(tmp_path: Path) -> None:
    """No such question is 1; an id that means several is wrong usage."""
    async with running(broker := Broker(tmp_path)):
        await broker.question({"n": 1})
        await broker.question({"n": 2})
        unknown, ambiguous = await run(tmp_path, "show", "q_zzz"), await run(tmp_path, "approve", "q_")
    assert (unknown.code, ambiguous.code) == (1, 2)
    assert "q_001" in ambiguous.err


async def test_every_broker_of_the_home_is_asked(tmp_path: Path) -> None:
    """Questions of further brokers are listed with the first one's, and answered where they were asked."""
    main, other = Broker(tmp_path), Broker(tmp_path, slot="b")
    async with running(main, other):
        here, there = await main.question(), await other.question()
        listed = await run(tmp_path, "list", "--json")
        assert (await run(tmp_path, "approve", there)).code == 0
        assert (await other.desk.get(there)).state == "granted"
        assert (await main.desk.get(here)).state == "open"
    assert [question["id"] for question in listed.json] == [here, there]


@pytest.mark.parametrize("words", [(), *((name,) for name in approvals.commands)])
async def test_help_ends_with_an_example(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Every `--help` ends with an example that can be copied."""
    said = await here(tmp_path, *words, "--help")
    assert said.code == 0
    assert said.out.rstrip().splitlines()[-1].startswith("    interposer approvals ") or said.out.rstrip().splitlines()[
        -1
    ].startswith("  interposer approvals ")
