"""Administration: operators ask, agents cannot, and identity never comes from the message."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interposer.admin import Administration, AdminSession
from interposer.ballot import version_of
from interposer.canonical import canonical, digest_bytes
from interposer.desk import Desk, DeskLimits
from interposer.errors import ApprovalPending, ConfigurationError, Problem
from interposer.model import (
    Decision,
    Effect,
    Invocation,
    JsonObject,
    MatchedRule,
    Principal,
    Question,
    Skill,
)
from interposer.records.memory import MemoryRecordStore
from interposer.terms import ApprovalTerms, GrantCap, Window
from interposer.transports.memory import MemoryClient, connect

AGENT = Principal("local", "agent", uid=1000)
ANNA = Principal("operator", "anna", uid=2000)
BEN = Principal("operator", "ben", uid=2001)
CAP = GrantCap(for_s=3600.0, uses=10, session=True, matching=True)
RULE = MatchedRule("refunds-need-a-lead", Effect.ASK, "policy.yaml", 7, "")
EXACT = canonical({"amount": 90, "note": "\u202eevil\x7f"})


@dataclass
class StillClock:
    at: float = 10.0

    def now(self) -> float:
        return 990.0 + self.at

    def monotonic(self) -> float:
        return self.at


@dataclass
class Office:
    """A desk with its administration, and one operator who is connected to it."""

    desk: Desk
    store: MemoryRecordStore
    client: MemoryClient
    connect: Callable[[Principal], MemoryClient]
    clock: StillClock
    pinned: list[JsonObject] = field(default_factory=list)
    _last: int = 0

    async def post(self, method: str, params: JsonObject | None = None) -> int:
        self._last += 1
        message = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params or {}}
        await self.client.send(json.dumps(message).encode() + b"\n")
        return self._last

    async def read(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self.client.receive_line())
        return answer

    async def ask(self, method: str, params: JsonObject | None = None) -> dict[str, Any]:
        """One request and its answer."""
        with anyio.fail_after(5):
            id = await self.post(method, params)
            answer = await self.read()
        assert answer["id"] == id
        return answer

    async def result(self, method: str, params: JsonObject | None = None) -> dict[str, Any]:
        answer = await self.ask(method, params)
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def question(
        self,
        n: int = 0,
        *,
        quorum: int = 1,
        terms: ApprovalTerms | None = None,
        exact: bytes = b"",
        destructive: bool = False,
    ) -> str:
        """Open a question, as an agent's call does, and leave with a ticket."""
        exact = exact or (canonical({"n": n}) if n else EXACT)
        hints: JsonObject = {"annotations": {"destructiveHint": destructive}}
        skill = Skill("payments.refund", "payments", "refund", "refund", hints, "skill-1")
        call = Invocation(f"i_{n}", f"s{n // 10}", AGENT, skill, {}, exact, digest_bytes(exact))
        terms = terms or ApprovalTerms(quorum=quorum)
        decision = Decision(Effect.ASK, (RULE,), "policy-1", "a human decides", terms=terms)
        with pytest.raises(ApprovalPending) as ticket:
            await self.desk.obtain(call, decision, hold_s=0.0)
        return ticket.value.question


@asynccontextmanager
async def office() -> AsyncIterator[Office]:
    store, clock = MemoryRecordStore(), StillClock()
    made = iter(range(10_000))
    limits = DeskLimits(rate=10_000, may_break_glass=lambda principal: principal == ANNA)
    desk = Desk(store, clock, [], lambda kind: f"{kind}_{next(made):05d}x", limits)

    async def review(question: Question, amended: bytes) -> None:
        """Policy has nothing against other arguments."""

    desk.review = review
    pinned = list[JsonObject]()

    async def reload() -> JsonObject:
        raise ConfigurationError([Problem("policy.yaml", 3, 5, "unknown key 'efect'")])

    async def skills() -> JsonObject:
        return {"skills": ["payments.refund"]}

    async def pin(params: JsonObject) -> JsonObject:
        pinned.append(params)
        return {"pinned": 1}

    async def login(operator: Principal, id: str) -> JsonObject:
        return {"url": f"http://127.0.0.1:1/login/{operator.subject}/{id}"}

    administration = Administration(
        desk,
        clock,
        reload=reload,
        skills=skills,
        pin=pin,
        login=login,
        link=lambda id: f"http://127.0.0.1:1/q/{id}",
    )
    async with anyio.create_task_group() as tasks:

        def join(operator: Principal) -> MemoryClient:
            return connect(lambda connection: AdminSession(connection, operator, administration, tasks.start_soon))

        yield Office(desk, store, join(ANNA), join, clock, pinned)
        tasks.cancel_scope.cancel()


async def test_list_shows_what_waits() -> None:
    """The list has the open questions with their skill, their requester and the beginning of their arguments."""
    async with office() as o:
        id = await o.question()
        listed = await o.result("approvals/list")
    assert listed["total"] == 1
    (question,) = listed["questions"]
    assert (question["id"], question["state"], question["skill"]) == (id, "open", "payments.refund")
    assert question["requester"] == {"issuer": "local", "subject": "agent", "groups": []}
    assert question["left_s"] == 1800.0


async def test_list_is_paged_and_found_by_prefix() -> None:
    """Never more than a page at once; a prefix, with or without the `q_`, finds its question."""
    async with office() as o:
        ids = [await o.question(n) for n in range(1, 6)]
        page = await o.result("approvals/list", {"offset": 1, "limit": 2})
        assert ([question["id"] for question in page["questions"]], page["total"]) == (ids[1:3], 5)
        for prefix in (ids[3], ids[3][2:], ids[3][:-1]):
            found = await o.result("approvals/list", {"prefix": prefix})
            assert [question["id"] for question in found["questions"]] == [ids[3]]


async def test_show_gives_the_exact_call() -> None:
    """What is shown is the canonical text, its SHA-256, and the rules with their places."""
    async with office() as o:
        question = (await o.result("approvals/show", {"id": await o.question()}))["question"]
    assert question["canonical"].encode() == EXACT
    assert question["arguments_sha256"] == digest_bytes(EXACT)
    assert question["rules"] == [
        {"id": "refunds-need-a-lead", "effect": "ask", "file": "policy.yaml", "line": 7, "message": ""}
    ]


async def test_long_arguments_are_cut_in_lists_only() -> None:
    """A list stays small whatever the arguments; `bytes` says how long they are."""
    async with office() as o:
        exact = canonical({"note": "ü" * 100_000})
        skill = Skill("mail.send", "mail", "send", "send", {}, "d")
        call = Invocation("i", "s", AGENT, skill, {}, exact, digest_bytes(exact))
        decision = Decision(Effect.ASK, (RULE,), "p", "r", terms=ApprovalTerms())
        with pytest.raises(ApprovalPending):
            await o.desk.obtain(call, decision, hold_s=0.0)
        (question,) = (await o.result("approvals/list"))["questions"]
    assert len(question["preview"].encode()) <= 200
    assert question["bytes"] == len(exact)


async def test_approve_counts_for_the_connected_operator() -> None:
    """The vote is the operator's whom the kernel named, whatever the parameters say."""
    async with office() as o:
        id = await o.question()
        forged = {"id": id, "operator": "root", "principal": {"issuer": "operator", "subject": "root"}}
        question = (await o.result("approvals/approve", forged))["question"]
        assert question["state"] == "granted"
        assert question["votes"][0]["by"]["subject"] == "anna"


async def test_deny_needs_a_reason() -> None:
    """A no without a reason is refused with a name; with one it ends the question."""
    async with office() as o:
        id = await o.question()
        refused = await o.ask("approvals/deny", {"id": id})
        assert (refused["error"]["code"], refused["error"]["data"]["name"]) == (-31001, "reason_required")
        assert (await o.result("approvals/deny", {"id": id, "reason": "no"}))["question"]["state"] == "denied"


async def test_digest_of_another_call_refuses_the_vote() -> None:
    """An approver who looked at one call cannot by mistake approve another."""
    async with office() as o:
        id = await o.question()
        refused = await o.ask("approvals/approve", {"id": id, "digest": "0" * 64})
        assert refused["error"]["data"]["name"] == "other_digest"
        right = (await o.desk.get(id)).digest
        assert (await o.result("approvals/approve", {"id": id, "digest": right}))["question"]["state"] == "granted"


async def test_show_says_everything_that_is_agreed_to() -> None:
    """Terms, the version on the table, and where to look, beside the call itself."""
    hours = Window(frozenset({0, 4}), 8 * 60, 17 * 60 + 30, "Europe/Berlin")
    terms = ApprovalTerms(
        groups=frozenset({"leads"}), quorum=2, minima=(("legal", 1),), windows=((hours,),), cap=CAP, reading_s=1.5
    )
    async with office() as o:
        id = await o.question(terms=terms, destructive=True)
        question = (await o.result("approvals/show", {"id": id}))["question"]
        assert question["version"] == question["digest"] == version_of(await o.desk.get(id))
    terms_shown = question["approval"]
    assert terms_shown["at_least"] == {"legal": 1}
    window = {"days": ["mon", "fri"], "from": "08:00", "to": "17:30", "zone": "Europe/Berlin"}
    assert terms_shown["hours"] == [[window]]
    assert terms_shown["grant"] == {"for_s": 3600.0, "uses": 10, "session": True, "matching": True}
    assert (terms_shown["read_for_s"], question["destructive"], question["kept"]) == (1.5, True, None)
    assert question["link"] == f"http://127.0.0.1:1/q/{id}"


async def test_approve_for_more_than_once_gives_a_grant() -> None:
    """Uses and time become a standing grant, which is listed until it is revoked; without a time it is policy's."""
    async with office() as o:
        id = await o.question(terms=ApprovalTerms(cap=CAP))
        question = (await o.result("approvals/approve", {"id": id, "uses": 3, "reason": "all day"}))["question"]
        assert question["spec"] == {"for_s": 3600.0, "uses": 3, "session": False, "matching": False}
        listed = await o.result("grants/list")
        (grant,) = listed["grants"]
        # The question carries the call in question itself, once.
        assert (grant["question"], grant["uses"], grant["approvers"]) == (id, 2, ["operator:anna"])
        assert listed["total"] == 1
        found = await o.result("grants/list", {"prefix": grant["id"][2:-1]})
        assert [each["id"] for each in found["grants"]] == [grant["id"]]
        refused = await o.ask("approvals/revoke", {"id": grant["id"]})
        assert refused["error"]["data"]["name"] == "reason_required"
        assert await o.result("approvals/revoke", {"id": grant["id"], "reason": "over"}) == {"revoked": grant["id"]}
        assert (await o.result("grants/list"))["grants"] == []
        (ended,) = (await o.result("grants/list", {"all": True}))["grants"]
        assert (ended["state"], ended["left_s"]) == ("revoked", 0.0)


async def test_more_than_policy_allows_is_refused_by_name() -> None:
    """Without a cap there is no standing grant, and none goes beyond it."""
    async with office() as o:
        once, capped = await o.question(1), await o.question(2, terms=ApprovalTerms(cap=CAP))
        for params in ({"id": once, "uses": 2}, {"id": capped, "uses": 11}, {"id": capped, "for_s": 3600.5, "uses": 2}):
            assert (await o.ask("approvals/approve", params))["error"]["data"]["name"] == "grant_refused"
        assert (await o.result("approvals/list"))["total"] == 2


async def test_other_arguments_are_another_version() -> None:
    """Changed arguments are shown beside those asked for, drop earlier votes, and are what later votes are about."""
    async with office() as o:
        id = await o.question(terms=ApprovalTerms(quorum=2, cap=CAP))
        before = (await o.result("approvals/approve", {"id": id, "uses": 5}))["question"]
        ben = o.connect(BEN)
        o.client, anna = ben, o.client
        after = (await o.result("approvals/approve", {"id": id, "arguments": {"amount": 20}}))["question"]
        assert (after["amended"], after["preview"], after["spec"]["uses"]) == (True, '{"amount":20}', 5)
        assert [vote["by"]["subject"] for vote in after["votes"]] == ["ben"]
        shown = (await o.result("approvals/show", {"id": id}))["question"]
        assert (shown["canonical"].encode(), shown["amended_canonical"]) == (EXACT, '{"amount":20}')
        assert shown["amended_sha256"] == digest_bytes(b'{"amount":20}')
        o.client = anna
        stale = await o.ask("approvals/approve", {"id": id, "digest": before["version"]})
        assert stale["error"]["data"]["name"] == "other_digest"
        done = (await o.result("approvals/approve", {"id": id, "digest": after["version"]}))["question"]
        assert done["state"] == "granted"


async def test_once_takes_a_grant_off_the_table() -> None:
    """Whoever does not want a standing grant that others proposed says yes to the call alone."""
    async with office() as o:
        id = await o.question(terms=ApprovalTerms(quorum=2, cap=CAP))
        await o.result("approvals/approve", {"id": id, "uses": 5})
        o.client = o.connect(BEN)
        question = (await o.result("approvals/approve", {"id": id, "once": True}))["question"]
        assert (question["spec"], question["state"], len(question["votes"])) == (None, "open", 1)


async def test_long_arguments_have_to_be_looked_at_first() -> None:
    """What does not fit a list is not approved by whoever has only seen the list; another's look does not count."""
    async with office() as o:
        id = await o.question(exact=canonical({"note": "x" * 5_000}))
        assert (await o.ask("approvals/approve", {"id": id}))["error"]["data"]["name"] == "unread"
        o.client, anna = o.connect(BEN), o.client
        await o.result("approvals/show", {"id": id})
        o.client = anna
        assert (await o.ask("approvals/approve", {"id": id}))["error"]["data"]["name"] == "unread"
        await o.result("approvals/show", {"id": id})
        assert (await o.result("approvals/approve", {"id": id}))["question"]["state"] == "granted"


async def test_reading_time_counts_from_the_first_look() -> None:
    """Where policy wants a call to be read, a yes that comes too soon is refused, and looking again costs nothing."""
    async with office() as o:
        id = await o.question(terms=ApprovalTerms(reading_s=2.0))
        await o.result("approvals/show", {"id": id})
        o.clock.at += 1.5
        await o.result("approvals/show", {"id": id})
        refused = await o.ask("approvals/approve", {"id": id})
        assert (refused["error"]["data"]["name"], "0.5 s" in refused["error"]["message"]) == ("unread", True)
        o.clock.at += 0.5
        assert (await o.result("approvals/approve", {"id": id}))["question"]["state"] == "granted"


async def test_to_know_the_digest_is_no_look() -> None:
    """Lists have it too: what policy wants read has to have been shown."""
    async with office() as o:
        id = await o.question(terms=ApprovalTerms(reading_s=1.5))
        (listed,) = (await o.result("approvals/list"))["questions"]
        for params in ({"id": id}, {"id": id, "digest": listed["version"]}):
            refused = (await o.ask("approvals/approve", params))["error"]
            assert (refused["data"]["name"], f"approvals show {id}" in refused["message"]) == ("unread", True)


async def test_a_short_call_is_approved_in_one_word() -> None:
    """Who has the operators' socket is believed to know what they do; the browser's reading time is the browser's."""
    async with office() as o:
        id = await o.question(destructive=True)
        assert (await o.result("approvals/approve", {"id": id}))["question"]["state"] == "granted"


@pytest.mark.parametrize(
    ("exact", "reading_s"), [(canonical({"n": 1}), 30.0), (canonical({"note": "x" * 50_000}), 0.0)]
)
async def test_glass_is_broken_for_nothing_unseen(exact: bytes, reading_s: float) -> None:
    """Whoever breaks glass has looked at what has to be read, and need not wait."""
    async with office() as o:
        id = await o.question(exact=exact, terms=ApprovalTerms(reading_s=reading_s))
        params = {"id": id, "reason": "urgent"}
        assert (await o.ask("approvals/break_glass", params))["error"]["data"]["name"] == "unread"
        await o.result("approvals/show", {"id": id})
        assert (await o.result("approvals/break_glass", params))["question"]["state"] == "granted"


async def test_glass_is_broken_by_those_who_may() -> None:
    """One person overrides the quorum, with a reason and if the configuration lets them; it is marked as what it is."""
    async with office() as o:
        id = await o.question(quorum=3)
        anna, o.client = o.client, o.connect(BEN)
        refused = await o.ask("approvals/break_glass", {"id": id, "reason": "urgent"})
        assert refused["error"]["data"]["name"] == "no_break_glass"
        o.client = anna
        assert (await o.ask("approvals/break_glass", {"id": id}))["error"]["data"]["name"] == "reason_required"
        question = (await o.result("approvals/break_glass", {"id": id, "reason": "urgent"}))["question"]
        assert (question["state"], question["votes"][-1]["broke_glass"]) == ("granted", True)


async def test_figures_are_of_the_days_that_are_asked_for() -> None:
    """Questions that were asked earlier are not in them."""
    async with office() as o:
        await o.result("approvals/approve", {"id": await o.question(1)})
        o.clock.at += 2 * 86_400.0
        await o.question(2)
        one, week = [await o.result("approvals/figures", {"days": days}) for days in (1, 7)]
    assert (one["overall"]["asked"], one["overall"]["granted"]) == (1, 0)
    assert (week["overall"]["asked"], week["overall"]["granted"], week["last_days"]) == (2, 1, 7)
    assert week["complete"] is True


async def test_login_is_for_the_connected_operator() -> None:
    """The address is made for the operator whom the kernel named."""
    async with office() as o:
        login = await o.result("console/login", {"id": "q_1", "operator": "root"})
    assert login == {"url": "http://127.0.0.1:1/login/anna/q_1"}


async def test_requester_is_refused_by_name() -> None:
    """The requester's own vote is refused, and told so."""
    async with office() as o:
        id = await o.question()
        o.client = o.connect(AGENT)
        refused = await o.ask("approvals/approve", {"id": id})
        assert refused["error"]["data"]["name"] == "self_approval"


async def test_watch_waits_for_a_change() -> None:
    """A watch is answered when a question comes, not before."""
    async with office() as o:
        revision = (await o.result("approvals/list"))["revision"]
        with anyio.fail_after(5):
            await o.post("approvals/watch", {"since": revision})
            await anyio.wait_all_tasks_blocked()
            assert o.client.waiting == 0
            id = await o.question()
            heard = (await o.read())["result"]
        assert [question["id"] for question in heard["questions"]] == [id]
        assert heard["revision"] > revision


async def test_watch_does_not_hold_up_other_requests() -> None:
    """A waiting watch and a list on one connection are answered independently."""
    async with office() as o:
        with anyio.fail_after(5):
            watch = await o.post("approvals/watch", {"since": 0})
            listing = await o.post("approvals/list")
            assert (await o.read())["id"] == listing
            await o.question()
            assert (await o.read())["id"] == watch


async def test_hanging_up_ends_what_waits() -> None:
    """An operator who leaves leaves no task behind."""
    async with office() as o:
        await o.post("approvals/watch", {"since": 0})
        await anyio.wait_all_tasks_blocked()
        o.client.vanish()
        with anyio.fail_after(5):
            await anyio.wait_all_tasks_blocked()


async def test_vote_counts_though_the_operator_hangs_up() -> None:
    """A yes that was given is not lost because the approver's terminal closed right after it."""
    async with office() as o:
        id = await o.question()
        await o.post("approvals/approve", {"id": id})
        o.client.end()
        with anyio.fail_after(5):
            while (await o.desk.get(id)).state == "open":
                await anyio.sleep(0)


async def test_reload_that_finds_mistakes_names_them() -> None:
    """Every problem of a policy comes back with its place."""
    async with office() as o:
        refused = await o.ask("policy/reload")
        assert refused["error"]["data"]["problems"] == ["policy.yaml:3:5: unknown key 'efect'"]


async def test_other_methods_go_to_what_the_broker_gave() -> None:
    """Skills, pins and status are answered by the callables of the assembly."""
    async with office() as o:
        assert await o.result("skills/list") == {"skills": ["payments.refund"]}
        assert await o.result("skills/pin", {"upstream": "payments"}) == {"pinned": 1}
        assert o.pinned == [{"upstream": "payments"}]
        status = await o.result("broker/status")
        assert status["approvals"] == {"pending": 0, "repeats": 0}
        assert status["operator"]["subject"] == "anna"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("approvals/all", {}, -32601),
        ("approvals/show", {"id": "q_none"}, -32602),
        ("approvals/show", {"id": 7}, -32602),
        ("approvals/approve", {"id": ["q_1"]}, -32602),
        ("approvals/list", {"offset": -1}, -32602),
        ("approvals/list", {"limit": True}, -32602),
        ("approvals/watch", {"wait_s": "long"}, -32602),
        ("approvals/watch", {"since": 1.5}, -32602),
        ("approvals/approve", {"id": "q_00000x", "uses": 10**30}, -32602),
        ("approvals/approve", {"id": "q_00000x", "uses": "all"}, -32602),
        ("approvals/approve", {"id": "q_00000x", "for_s": 10**400}, -32602),
        ("approvals/approve", {"id": "q_00000x", "for_s": "1h"}, -32602),
        ("approvals/approve", {"id": "q_00000x", "for_s": -1}, -32602),
        ("approvals/approve", {"id": "q_00000x", "schema": "{}"}, -32602),
        ("approvals/approve", {"id": "q_00000x", "arguments": [1]}, -32602),
        ("approvals/revoke", {"id": "g_none", "reason": "x"}, -32602),
        ("approvals/break_glass", {"id": "q_none", "reason": "x"}, -32602),
        ("approvals/figures", {"days": 1.5}, -32602),
        ("grants/list", {"prefix": 1}, -32602),
        ("console/login", {"id": 1}, -32602),
    ],
)
async def test_wrong_requests_are_refused(method: str, params: JsonObject, code: int) -> None:
    """What is not a known method with the right parameters is an error, and the connection lives on."""
    async with office() as o:
        id = await o.question(terms=ApprovalTerms(cap=CAP))
        assert id == "q_00000x"
        assert (await o.ask(method, params))["error"]["code"] == code
        assert len((await o.result("approvals/list"))["questions"]) == 1


async def test_record_that_cannot_be_written_takes_no_vote() -> None:
    """A vote that cannot be made durable is answered with an error, and does not count."""
    async with office() as o:
        id = await o.question()
        o.store.fail = "disk full"
        assert (await o.ask("approvals/approve", {"id": id}))["error"]["code"] == -31003
        assert (await o.desk.get(id)).state == "open"


async def test_requests_at_once_are_bounded() -> None:
    """A connection that piles up watches is told that there are too many."""
    async with office() as o:
        for _ in range(33):
            await o.post("approvals/watch", {"since": 0})
        with anyio.fail_after(5):
            assert (await o.read())["error"]["code"] == -31003


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_garbage_does_not_end_the_administration(pieces: list[bytes]) -> None:
    """Whatever bytes an operator's connection brings, the next operator is served."""

    async def feed() -> None:
        async with office() as o:
            for piece in pieces:
                await o.client.send(piece)
            o.client = o.connect(ANNA)
            await o.result("approvals/list")

    anyio.run(feed)
