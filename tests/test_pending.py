"""Calls that wait for a human: every client gets an answer that it understands, and one yes is one execution."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from interposer.model import Kind, QuestionState
from interposer.reach import DIALOG_S, RETENTION_S, ROUNDS, Profile
from interposer.records.memory import MemoryRecordStore
from interposer.session import Limits
from tests.fakes.agent import META, Agent, Object, is_tool_error, text_of
from tests.fakes.house import BEN, OPERATOR, HandClock, Indoors, echoing, indoors, rules

ASK = rules("ask fake.*")
CONFIRM = "version: 1\nrules: [{id: r, effect: ask, skills: ['fake.*'], approval: {confirm: caller}}]\n"
TASKS = "io.modelcontextprotocol/tasks"
KEY = "interposer.approval"
FORM: Object = {"elicitation": {"form": {}}}
BOTH: Object = {"elicitation": {"form": {}, "url": {}}}
TASKED: Object = {"extensions": {TASKS: {}}}
PAY: Object = {"name": "echo", "arguments": {"text": "pay"}}
ACCEPT: Object = {"action": "accept"}
YES: Object = {"action": "accept", "content": {"approve": True}}


def page(id: str) -> str:
    return f"https://console.test/approvals/{id}"


class Modern:
    """A modern client with capabilities of its own."""

    def __init__(self, agent: Agent, capabilities: Object, client: str = "agent") -> None:
        self.agent = agent
        agent.modern = True
        self._meta = {META + "clientCapabilities": capabilities, META + "clientInfo": {"name": client, "version": "1"}}

    async def request(self, method: str, params: Object | None = None) -> Object:
        return await self.agent.request(method, {**(params or {}), "_meta": self._meta})

    async def call(self, **more: Any) -> Object:
        """The answer to the call, or to a round of it."""
        return await self.request("tools/call", {**PAY, **more})

    async def task(self, method: str, id: str, **more: Any) -> Object:
        return await self.request(f"tasks/{method}", {"taskId": id, **more})


async def legacy(broker: Indoors, capabilities: Object, version: str = "2025-11-25") -> Agent:
    agent = broker.join()
    params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "agent"}}
    await agent.request("initialize", params)
    return agent


async def only(broker: Indoors) -> str:
    (question,) = await broker.desk.pending()
    return question.id


def code(answer: Object) -> int:
    found: int = answer["error"]["code"]
    return found


def waits(answer: Object) -> Object:
    """The InputRequiredResult."""
    result: Object = answer["result"]
    assert result["resultType"] == "input_required"
    assert result["_meta"][META + "serverInfo"]["name"] == "interposer"
    assert "content" not in result
    return result


def accepted(result: Object, answer: Object = ACCEPT) -> Object:
    return {"requestState": result["requestState"], "inputResponses": {KEY: answer}}


# -- the same yes, whatever the way


async def by_ticket(broker: Indoors) -> Object:
    client = Modern(broker.join(), {})
    ticket = await client.call()
    assert is_tool_error(ticket)
    await broker.desk.vote(ticket["result"]["_meta"]["interposer/pending"]["approval_id"], OPERATOR, True)
    return await client.call()


async def by_legacy_ticket(broker: Indoors) -> Object:
    agent = await legacy(broker, BOTH)
    assert is_tool_error(await agent.request("tools/call", PAY))
    assert not agent.notifications("elicitation/create")
    await broker.desk.vote(await only(broker), OPERATOR, True)
    return await agent.request("tools/call", PAY)


async def by_link(broker: Indoors) -> Object:
    client = Modern(broker.join(), BOTH)
    first = waits(await client.call())
    await broker.desk.vote(await only(broker), OPERATOR, True)
    return await client.call(**accepted(first))


async def by_link_again(broker: Indoors) -> Object:
    """A client that makes its first call anew instead of coming back."""
    client = Modern(broker.join(), BOTH)
    waits(await client.call())
    waits(await client.call())
    await broker.desk.vote(await only(broker), OPERATOR, True)
    return await client.call()


async def by_task(broker: Indoors) -> Object:
    client = Modern(broker.join(), {**BOTH, **TASKED})
    task = (await client.call())["result"]
    await broker.desk.vote(await only(broker), OPERATOR, True)
    with anyio.fail_after(5):
        while (found := (await client.task("get", task["taskId"]))["result"])["status"] == "working":
            await anyio.lowlevel.checkpoint()
    assert found["status"] == "completed"
    return {"result": found["result"]}


@pytest.mark.parametrize("way", [by_ticket, by_legacy_ticket, by_link, by_link_again, by_task])
async def test_each_way_leads_to_the_same_single_execution(way: Any) -> None:
    """However the wait is shown, the yes carries one call, and its result is the tool's own."""
    fake = echoing()
    async with indoors(ASK, [fake], link=page) as broker:
        done = await way(broker)
        assert text_of(done) == "pay"
        assert not is_tool_error(done)
    assert [intent.permit.invocation.arguments for intent in fake.called] == [{"text": "pay"}]


@pytest.mark.parametrize("capabilities", [{}, FORM, {"elicitation": {}}, {"sampling": {}}])
async def test_who_declared_nothing_is_asked_for_nothing(capabilities: Object) -> None:
    """Clients that did not declare elicitation by URL raise on `input_required`: theirs is the ticket."""
    async with indoors(ASK, link=page) as broker:
        answer = await Modern(broker.join(), capabilities).call()
        assert answer["result"]["resultType"] == "complete"
        assert "interposer/pending" in answer["result"]["_meta"]


# -- a link, and rounds


async def test_first_round_shows_the_link_at_once() -> None:
    """Whatever the hold: the page of this question, a fixed text, and a state that only we can read."""
    async with indoors(ASK, link=page, limits=Limits(hold_s=3600.0, grace_s=0.0)) as broker:
        with anyio.fail_after(5):
            found = waits(await Modern(broker.join(), BOTH).call())
        id = await only(broker)
        request = found["inputRequests"]
        assert request.keys() == {KEY}
        assert request[KEY]["method"] == "elicitation/create"
        assert request[KEY]["params"] == {
            "mode": "url",
            "url": page(id),
            "message": f"A human has to approve a call of fake.echo first (approval {id}). "
            "This page shows the call; who may approve it can do so there.",
        }
        assert "pay" not in json.dumps(request)


async def test_later_rounds_ask_for_patience_only_and_end_with_a_ticket() -> None:
    """Clients give up after ten rounds: there are eight, of which one shows the link, and then the ticket."""
    fake = echoing()
    async with indoors(ASK, [fake], link=page) as broker:
        client, answer, links = Modern(broker.join(), BOTH), Object(), 0
        answer = await client.call()
        for _ in range(ROUNDS):
            links += "inputRequests" in waits(answer)
            answer = await client.call(requestState=answer["result"]["requestState"])
        assert links == 1
        assert "interposer/pending" in answer["result"]["_meta"]
        assert len(await broker.desk.questions()) == 1
        await broker.desk.vote(await only(broker), OPERATOR, True)
        assert text_of(await client.call()) == "pay"
    assert len(fake.called) == 1


async def test_round_that_comes_back_is_held() -> None:
    """A yes within the hold answers the round itself."""
    async with indoors(ASK, link=page, limits=Limits(hold_s=60.0)) as broker:
        client = Modern(broker.join(), BOTH)
        first = waits(await client.call())
        id = await client.agent.post("tools/call", {**PAY, **accepted(first), "_meta": client._meta})
        await broker.sessions[0]._house.desk.changes(0, 0.0)
        await broker.desk.vote(await only(broker), OPERATOR, True)
        assert text_of(await client.agent.answer(id)) == "pay"


async def test_profile_repeats_the_link_or_leaves_rounds_out() -> None:
    """`ask_again` shows it in every round, for clients that cannot come back without one; `never` is a ticket."""
    profiles = {"again": Profile(0.0, "ask_again"), "never": Profile(0.0, "never")}
    async with indoors(ASK, link=page, profiles=profiles) as broker:
        again = Modern(broker.join(), BOTH, "again")
        answer = await again.call()
        for _ in range(3):
            assert KEY in waits(answer)["inputRequests"]
            answer = await again.call(**accepted(answer["result"]))
        assert "interposer/pending" in (await Modern(broker.join(), BOTH, "never").call())["result"]["_meta"]


async def test_client_that_starts_over_is_shown_the_link_in_every_round() -> None:
    """LangChain's adapter makes the call anew after its user was shown the link, and cannot bear a round without."""
    async with indoors(ASK, link=page, limits=Limits(hold_s=0.0)) as broker:
        client = Modern(broker.join(), BOTH)
        first = waits(await client.call())
        assert KEY in first["inputRequests"]
        broker.clock.time_s += 60.0
        answer = await client.call()
        for _ in range(3):
            assert KEY in waits(answer)["inputRequests"]
            answer = await client.call(**accepted(answer["result"]))
        assert "inputRequests" not in waits(await client.call(**accepted(first)))


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_user_who_gives_up_takes_the_question_along(action: str) -> None:
    """Nothing was run, and no yes can follow."""
    fake = echoing()
    async with indoors(ASK, [fake], link=page) as broker:
        client = Modern(broker.join(), BOTH)
        first, id = waits(await client.call()), await only(broker)
        given_up = await client.call(**accepted(first, {"action": action}))
        assert is_tool_error(given_up)
        assert "nothing was executed" in text_of(given_up)
        assert (await broker.desk.get(id)).state is QuestionState.WITHDRAWN
        assert await broker.desk.pending() == []
        assert broker.rows(Kind.REFUSED)[-1].code == "approval_refused"
    assert not fake.called


async def test_another_question_in_the_place_of_the_one_before_is_shown_with_its_own_link() -> None:
    """The state names the old one; the user is not left to look at its page."""
    async with indoors(ASK, link=page) as broker:
        client, other = Modern(broker.join(), BOTH), Modern(broker.join(), TASKED)
        first, old = waits(await client.call()), await only(broker)
        await other.task("cancel", (await other.call())["result"]["taskId"])
        second = waits(await client.call(**accepted(first)))
        assert await only(broker) != old
        assert second["inputRequests"][KEY]["params"]["url"] == page(await only(broker))


async def test_question_denied_while_the_client_was_away() -> None:
    """The round that comes back is told no, in the era's own words."""
    async with indoors(ASK, link=page) as broker:
        client = Modern(broker.join(), BOTH)
        first = waits(await client.call())
        await broker.desk.vote(await only(broker), OPERATOR, False, "not today")
        denied = await client.call(**accepted(first))
        assert is_tool_error(denied)
        assert "A human refused this call" in text_of(denied)


async def test_answer_that_was_lost_is_told_again_and_not_made_again() -> None:
    """A round that is repeated with its own state gets the same outcome without a second execution."""
    fake = echoing()
    async with indoors(ASK, [fake], link=page) as broker:
        client = Modern(broker.join(), BOTH)
        first = waits(await client.call())
        await broker.desk.vote(await only(broker), OPERATOR, True)
        for _ in range(3):
            assert text_of(await client.call(**accepted(first))) == "pay"
    assert len(fake.called) == 1


# -- states


def edits(state: str) -> Iterator[str]:
    """Other texts than this state: cut, grown, flipped bit by bit, re-encoded, with its body changed."""
    raw = base64.urlsafe_b64decode(state + "=" * (-len(state) % 4))
    yield from ("", "x", state[:-1], state + "A", state + "=", state + "\n", " " + state, state.upper(), state * 2)
    for place in range(0, len(state), 4):
        yield state[:place] + ("A" if state[place] != "A" else "B") + state[place + 1 :]
    for place in range(0, len(raw), 2):
        flipped = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        yield base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()
    mac, body = raw[:32], json.loads(raw[32:])
    for index, other in enumerate(["q_9999", 0, "form", "0" * 64, 9e9, "nonce"]):
        forged = json.dumps([*body[:index], other, *body[index + 1 :]], separators=(",", ":")).encode()
        yield base64.urlsafe_b64encode(mac + forged).rstrip(b"=").decode()


async def test_no_edited_state_executes_anything() -> None:
    """A granted call waits to be collected; none of the states that an attacker could make of its own collects it."""
    fake = echoing()
    async with indoors(ASK, [fake], link=page) as broker:
        client = Modern(broker.join(), BOTH)
        state = waits(await client.call())["requestState"]
        await broker.desk.vote(await only(broker), OPERATOR, True)
        tried = sorted(set(edits(state)) - {state})
        assert len(tried) >= 100
        for edited in tried:
            assert code(await client.call(requestState=edited)) == -32602, edited
        assert not fake.called
        refused = await client.call(requestState=tried[0])
        assert "make the call again without it" in refused["error"]["message"]
        assert {row.code for row in broker.rows(Kind.REFUSED)} == {"foreign_state"}
        assert text_of(await client.call(requestState=state)) == "pay"


@pytest.mark.parametrize(
    "other",
    [
        {"arguments": {"text": "pay more"}},
        {"arguments": {}},
        {"name": "other"},
        {"requestState": 5},
        {"requestState": {"id": "q_1"}},
        {"inputResponses": 5},
        {"inputResponses": {KEY: 12345}},
    ],
)
async def test_state_is_good_for_its_own_call_only(other: Object) -> None:
    """Other arguments, another tool, or a malformed answer with a good state: -32602, and nothing runs."""
    fake = echoing("fake", "other")
    async with indoors(ASK, [fake], link=page) as broker:
        client = Modern(broker.join(), BOTH)
        first = waits(await client.call())
        await broker.desk.vote(await only(broker), OPERATOR, True)
        assert code(await client.call(**{**accepted(first), **other})) == -32602
        assert not fake.called
        assert text_of(await client.call(**accepted(first))) == "pay"


async def test_state_of_another_principal_is_refused() -> None:
    """Who brings it is asked, not whose it was."""
    fake = echoing()
    async with indoors(ASK, [fake], link=page) as broker:
        first = waits(await Modern(broker.join(), BOTH).call())
        await broker.desk.vote(await only(broker), OPERATOR, True)
        assert code(await Modern(broker.join(BEN), BOTH).call(**accepted(first))) == -32602
    assert not fake.called


async def test_state_ends_with_its_question() -> None:
    """An expired state is refused; the call without it is a fresh one."""
    async with indoors(ASK, link=page) as broker:
        client = Modern(broker.join(), BOTH)
        first, id = waits(await client.call()), await only(broker)
        broker.clock.time_s += 1800.0
        assert code(await client.call(**accepted(first))) == -32602
        waits(await client.call())
        assert await only(broker) != id


async def test_state_of_a_question_that_is_unknown_here_is_a_fresh_call() -> None:
    """After a restart on another record the client is asked anew, at once."""
    async with indoors(ASK, link=page) as before:
        sealed = waits(await Modern(before.join(), BOTH).call())
    async with indoors(rules("deny fake.nothing", "ask fake.*"), link=page) as broker:
        broker.clock.time_s += 1.0
        again = waits(await Modern(broker.join(), BOTH).call(**accepted(sealed)))
        assert KEY in again["inputRequests"]


async def test_state_and_task_outlive_a_restart_on_the_same_record() -> None:
    """The broker may die between the question and the answer: what clients hold stays good, and runs the call once."""
    fake, store, clock = echoing(), MemoryRecordStore(), HandClock()
    async with indoors(ASK, [fake], link=page, store=store, clock=clock) as broker:
        state = waits(await Modern(broker.join(), BOTH).call())["requestState"]
        task = (await Modern(broker.join(), TASKED).call())["result"]["taskId"]
        id = await only(broker)
    async with indoors(ASK, [fake], link=page, store=store, clock=clock) as broker:
        client = Modern(broker.join(), {**BOTH, **TASKED})
        assert (await client.task("get", task))["result"]["status"] == "working"
        await broker.desk.vote(id, OPERATOR, True)
        assert text_of(await client.call(requestState=state)) == "pay"
        found = (await client.task("get", task))["result"]
        assert (found["status"], found["result"]["content"][0]["text"]) == ("completed", "pay")
    assert len(fake.called) == 1


async def test_state_means_nothing_where_there_are_no_rounds() -> None:
    """Other methods and the older era ignore it."""
    async with indoors(ASK, link=page) as broker:
        client = Modern(broker.join(), BOTH)
        assert "tools" in (await client.request("tools/list", {"requestState": "x"}))["result"]
        old = await legacy(broker, {})
        assert is_tool_error(await old.request("tools/call", {**PAY, "requestState": "x", "inputResponses": 5}))


async def test_every_round_is_judged_anew() -> None:
    """A policy that denies by now has the last word, whatever was granted before."""
    fake = echoing()
    async with indoors(ASK, [fake], link=page) as broker:
        client = Modern(broker.join(), BOTH)
        first = waits(await client.call())
        await broker.desk.vote(await only(broker), OPERATOR, True)
        broker.decree(rules("deny fake.*"))
        assert "error" in await client.call(**accepted(first)) or not fake.called
    assert not fake.called


# -- tasks


async def test_pending_call_becomes_a_task() -> None:
    """Flat, working, with the question in its words, and open for longer than the question."""
    async with indoors(ASK, link=page, limits=Limits(hold_s=3600.0, grace_s=0.0)) as broker:
        client = Modern(broker.join(), {**BOTH, **TASKED})
        with anyio.fail_after(5):
            task = (await client.call())["result"]
        id = await only(broker)
        assert task["resultType"] == "task"
        assert task["status"] == "working"
        assert task["statusMessage"] == f"waiting for approval {id}: {page(id)}"
        assert task["ttlMs"] == (1800 + RETENTION_S) * 1000
        assert task["pollIntervalMs"] == 2000
        assert not {"requestState", "inputRequests", "task", "result", "error", "ttl", "pollInterval"} & task.keys()
        assert id not in task["taskId"]
        found = (await client.task("get", task["taskId"]))["result"]
        assert found["resultType"] == "complete"
        assert found["taskId"] == task["taskId"]
        assert (found["status"], found["createdAt"]) == ("working", task["createdAt"])
        broker.clock.time_s += 60.0
        assert (await client.task("get", task["taskId"]))["result"]["pollIntervalMs"] == 10_000


async def test_identical_calls_are_the_same_task() -> None:
    """Whoever calls again while it waits is given the task that there is."""
    async with indoors(ASK) as broker:
        client = Modern(broker.join(), TASKED)
        first, second = (await client.call())["result"], (await client.call())["result"]
        assert first["taskId"] == second["taskId"]


async def test_denied_task_is_completed_with_an_error_result() -> None:
    """`failed` is for JSON-RPC errors; a model reads why it was refused."""
    async with indoors(ASK) as broker:
        client = Modern(broker.join(), TASKED)
        task = (await client.call())["result"]
        await broker.desk.vote(await only(broker), OPERATOR, False, "no")
        found = (await client.task("get", task["taskId"]))["result"]
        assert found["status"] == "completed"
        assert found["result"]["isError"]
        assert "A human refused this call" in found["result"]["content"][0]["text"]


async def test_expired_task_is_completed_with_an_error_result() -> None:
    """And it can be looked at for a while after that, then it is unknown."""
    async with indoors(ASK) as broker:
        client = Modern(broker.join(), TASKED)
        task = (await client.call())["result"]
        broker.clock.time_s += 1801.0
        await broker.desk.sweep()
        found = (await client.task("get", task["taskId"]))["result"]
        assert found["status"] == "completed"
        assert "Nobody approved" in found["result"]["content"][0]["text"]
        broker.clock.time_s += RETENTION_S
        assert code(await client.task("get", task["taskId"])) == -32602


async def test_task_whose_outcome_is_not_kept_any_more_says_so() -> None:
    """It was approved and made: that is neither unknown nor a failure to be repeated."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        client = Modern(broker.join(), TASKED)
        task = (await client.call())["result"]["taskId"]
        await broker.desk.vote(await only(broker), OPERATOR, True)
        assert text_of(await client.call()) == "pay"
        assert (await client.task("get", task))["result"]["result"]["content"][0]["text"] == "pay"
        await broker.store.discard(broker.clock.now() + 1e6)
        found = (await client.task("get", task))["result"]
        assert found["status"] == "completed"
        assert found["result"]["isError"]
        assert "Do not repeat it" in found["result"]["content"][0]["text"]
        assert (await client.task("cancel", task))["result"]["resultType"] == "complete"
    assert len(fake.called) == 1


async def test_cancelled_task_takes_its_question_along() -> None:
    """An empty answer, again and again; no yes can follow, and nothing runs."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        client = Modern(broker.join(), TASKED)
        task = (await client.call())["result"]
        for _ in range(2):
            cancelled = (await client.task("cancel", task["taskId"]))["result"]
            assert cancelled.keys() == {"resultType", "_meta"}
        assert (await client.task("get", task["taskId"]))["result"]["status"] == "cancelled"
        assert await broker.desk.pending() == []
    assert not fake.called


async def test_update_of_a_task_that_asks_for_nothing_changes_nothing() -> None:
    """It is acknowledged, and no answer in it is a vote."""
    fake = echoing()
    async with indoors(CONFIRM, [fake]) as broker:
        client = Modern(broker.join(), TASKED)
        task = (await client.call())["result"]
        updated = (await client.task("update", task["taskId"], inputResponses={KEY: YES}))["result"]
        assert updated.keys() == {"resultType", "_meta"}
        assert (await client.task("get", task["taskId"]))["result"]["status"] == "working"
        assert code(await client.task("update", task["taskId"])) == -32602
    assert not fake.called


@pytest.mark.parametrize("method", ["get", "cancel", "update"])
async def test_only_its_owner_can_name_a_task(method: str) -> None:
    """Foreign, tampered, invented, or a state: all the same -32602, and the question stays."""
    async with indoors(ASK, link=page) as broker:
        client = Modern(broker.join(), TASKED)
        id = (await client.call())["result"]["taskId"]
        more: Object = {"inputResponses": {}} if method == "update" else {}
        foreign = await Modern(broker.join(BEN), TASKED).task(method, id, **more)
        assert code(foreign) == -32602
        state = waits(await Modern(broker.join(), BOTH).call())["requestState"]
        for other in ("", "t_1", state, id[:-1], id + "A", "A" + id[1:], id.swapcase()):
            answer = await client.task(method, other, **more)
            assert answer["error"] == foreign["error"]
        assert (await client.task("get", id))["result"]["status"] == "working"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/cancel", "tasks/update"])
async def test_task_methods_need_the_capability_on_the_request(method: str) -> None:
    """-32021 names it; what the connection said before does not count."""
    async with indoors(ASK) as broker:
        agent = broker.join()
        task = (await Modern(agent, TASKED).call())["result"]
        refused = await Modern(agent, {}).request(method, {"taskId": task["taskId"], "inputResponses": {}})
        assert code(refused) == -32021
        assert refused["error"]["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}


async def test_extension_is_advertised_to_modern_callers_only() -> None:
    """Legacy clients have another kind of tasks, which is not offered; removed methods are unknown."""
    async with indoors(ASK) as broker:
        client = Modern(broker.join(), TASKED)
        discovered = (await client.request("server/discover"))["result"]["capabilities"]
        assert discovered == {"tools": {"listChanged": True}, "extensions": {TASKS: {}}}
        for removed in ("tasks/result", "tasks/list"):
            assert code(await client.request(removed, {"taskId": "t"})) == -32601
        old = await legacy(broker, TASKED)
        assert code(await old.request("tasks/get", {"taskId": "t"})) == -32601
        assert is_tool_error(await old.request("tools/call", PAY))


async def test_profile_leaves_tasks_out() -> None:
    """For a client that declares them and cannot use them."""
    async with indoors(ASK, profiles={"agent": Profile(0.0, tasks=False)}) as broker:
        assert is_tool_error(await Modern(broker.join(), TASKED).call())


# -- the caller's own user


async def asked_in(agent: Agent) -> Object:
    """The dialog that the broker opened."""
    await agent.until(lambda: bool(agent.notifications("elicitation/create")))
    return next(m for m in agent.messages if m.get("method") == "elicitation/create")


def response(dialog: Object, result: Object) -> Object:
    return {"jsonrpc": "2.0", "id": dialog["id"], "result": result}


async def test_legacy_caller_confirms_in_a_dialog() -> None:
    """Where policy lets the caller's own user answer, the call waits for their dialog and then runs, once."""
    fake = echoing()
    async with indoors(CONFIRM, [fake]) as broker:
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", PAY, id="held")
        dialog = await asked_in(agent)
        assert dialog["params"]["message"] == 'May this call be made? fake.echo with the arguments {"text":"pay"}'
        assert dialog["params"]["requestedSchema"]["required"] == ["approve"]
        await agent.send(response(dialog, YES))
        assert text_of(await agent.answer("held")) == "pay"
        (vote,) = broker.rows(Kind.VOTED)
        assert vote.principal.issuer == "elicitation"
    assert len(fake.called) == 1


@pytest.mark.parametrize("result", [{"action": "decline"}, {"action": "accept", "content": {"approve": False}}])
async def test_legacy_caller_declines_in_a_dialog(result: Object) -> None:
    """A no is a no, and the model is told."""
    fake = echoing()
    async with indoors(CONFIRM, [fake]) as broker:
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", PAY, id="held")
        await agent.send(response(await asked_in(agent), result))
        assert "A human refused this call" in text_of(await agent.answer("held"))
    assert not fake.called


@pytest.mark.parametrize("result", [{"action": "cancel"}, {"action": "accept"}, {"nonsense": True}])
async def test_dialog_that_is_dismissed_leaves_the_question_open(result: Object) -> None:
    """Somebody else may still say yes."""
    async with indoors(CONFIRM) as broker:
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", PAY, id="held")
        await agent.send(response(await asked_in(agent), result))
        await broker.desk.vote(await only(broker), OPERATOR, True)
        assert text_of(await agent.answer("held")) == "pay"


async def test_client_that_cannot_show_the_dialog_leaves_the_question_open() -> None:
    """An error is no answer."""
    async with indoors(CONFIRM) as broker:
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", PAY, id="held")
        dialog = await asked_in(agent)
        await agent.send({"jsonrpc": "2.0", "id": dialog["id"], "error": {"code": -32600, "message": "no"}})
        await broker.desk.vote(await only(broker), OPERATOR, True)
        assert text_of(await agent.answer("held")) == "pay"


async def test_answers_to_other_ids_and_late_ones_are_dropped() -> None:
    """A yes counts for the dialog that is open, and once."""
    fake = echoing()
    async with indoors(CONFIRM, [fake]) as broker:
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", PAY, id="held")
        dialog = await asked_in(agent)
        for id in ("interposer-99", 1, "", "held"):
            await agent.send({"jsonrpc": "2.0", "id": id, "result": YES})
        assert (await agent.request("ping"))["result"] == {}
        assert (await broker.desk.get(await only(broker))).state is QuestionState.OPEN
        await broker.desk.vote(await only(broker), OPERATOR, False, "no")
        assert is_tool_error(await agent.answer("held"))
        await agent.until(lambda: bool(agent.notifications("notifications/cancelled")))
        assert agent.notifications("notifications/cancelled") == [{"requestId": dialog["id"]}]
        await agent.send(response(dialog, YES))
        assert is_tool_error(await agent.request("tools/call", PAY))
    assert not fake.called


async def test_cancelled_call_closes_its_dialog() -> None:
    """The client is told, the question is withdrawn, and a yes after that does nothing."""
    fake = echoing()
    async with indoors(CONFIRM, [fake]) as broker:
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", PAY, id="held")
        dialog, id = await asked_in(agent), await only(broker)
        await agent.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "held"}})
        await agent.until(lambda: bool(agent.notifications("notifications/cancelled")))
        await agent.send(response(dialog, YES))
        assert (await agent.request("ping"))["result"] == {}
        assert (await broker.desk.get(id)).state is QuestionState.WITHDRAWN
    assert not fake.called


async def test_answer_is_read_from_a_peer_with_as_much_in_flight_as_it_may_have() -> None:
    """A peer that is read from no further could never answer its dialog; it still has no more calls under way."""
    fake = echoing()
    async with indoors(CONFIRM, [fake], limits=Limits(in_flight=1, hold_s=0.0, grace_s=0.0)) as broker:
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", PAY, id="held")
        await agent.send(response(await asked_in(agent), YES))
        assert text_of(await agent.answer("held")) == "pay"
    assert len(fake.called) == 1


async def test_every_dialog_has_an_id_of_its_own() -> None:
    """Two calls that wait are told apart, and each answer is for its own."""
    fake = echoing()
    async with indoors(CONFIRM, [fake]) as broker:
        agent = await legacy(broker, FORM)
        for text in ("one", "two"):
            await agent.post("tools/call", {"name": "echo", "arguments": {"text": text}}, id=text)
        await agent.until(lambda: len(agent.notifications("elicitation/create")) == 2)
        dialogs = [m for m in agent.messages if m.get("method") == "elicitation/create"]
        assert len({dialog["id"] for dialog in dialogs}) == 2
        (two,) = [dialog for dialog in dialogs if '"two"' in dialog["params"]["message"]]
        await agent.send(response(two, YES))
        assert text_of(await agent.answer("two")) == "two"
        assert not agent.answers("one")
    assert [intent.permit.invocation.arguments for intent in fake.called] == [{"text": "two"}]


@pytest.mark.parametrize(("capabilities", "version"), [({}, "2025-11-25"), (FORM, "2025-03-26")])
async def test_client_that_never_declared_it_is_sent_no_dialog(capabilities: Object, version: str) -> None:
    """It gets its ticket, and a response that it sends all the same is nobody's."""
    fake = echoing()
    async with indoors(CONFIRM, [fake]) as broker:
        agent = await legacy(broker, capabilities, version)
        await agent.send({"jsonrpc": "2.0", "id": "interposer-1", "result": YES})
        assert "interposer/pending" in (await agent.request("tools/call", PAY))["result"]["_meta"]
        assert not agent.notifications("elicitation/create")
    assert not fake.called


async def test_without_the_term_no_answer_of_a_client_counts() -> None:
    """Neither a dialog that was never opened, nor a form that was never shown, nor a link that was opened."""
    fake = echoing()
    async with indoors(ASK, [fake], link=page) as broker:
        old = await legacy(broker, FORM)
        assert is_tool_error(await old.request("tools/call", PAY))
        await old.send({"jsonrpc": "2.0", "id": "interposer-1", "result": YES})
        client = Modern(broker.join(), BOTH)
        first = waits(await client.call())
        waits(await client.call(**accepted(first, YES)))
        assert (await broker.desk.get(await only(broker))).votes == ()
    assert not fake.called


async def test_modern_caller_confirms_in_a_form() -> None:
    """The form's answer is bound to its question by the state, and the retry runs it."""
    fake = echoing()
    async with indoors(CONFIRM, [fake], link=page) as broker:
        client = Modern(broker.join(), {**BOTH, **TASKED})
        first = waits(await client.call())
        params = first["inputRequests"][KEY]["params"]
        assert params["mode"] == "form"
        assert '{"text":"pay"}' in params["message"]
        assert text_of(await client.call(**accepted(first, YES))) == "pay"
        assert text_of(await client.call(**accepted(first, YES))) == "pay"
    assert len(fake.called) == 1


async def test_modern_caller_declines_in_a_form() -> None:
    """A no is a no."""
    fake = echoing()
    async with indoors(CONFIRM, [fake]) as broker:
        client = Modern(broker.join(), FORM)
        first = waits(await client.call())
        denied = await client.call(**accepted(first, {"action": "decline"}))
        assert "A human refused this call" in text_of(denied)
    assert not fake.called


async def test_form_that_is_dismissed_gives_way_to_the_other_ways() -> None:
    """Asked again while there is no answer; after a cancel comes a link, a task or a ticket; the question stays."""
    async with indoors(CONFIRM, link=page) as broker:
        for capabilities in (BOTH, {**FORM, **TASKED}, FORM):
            client = Modern(broker.join(), capabilities)
            first = waits(await client.call())
            unanswered = waits(await client.call(requestState=first["requestState"]))
            assert unanswered["inputRequests"][KEY]["params"]["mode"] == "form"
            result = (await client.call(**accepted(unanswered, {"action": "cancel"})))["result"]
            kinds = {"input_required": BOTH, "task": {**FORM, **TASKED}, "complete": FORM}
            assert kinds[result["resultType"]] == capabilities
            if result["resultType"] == "input_required":
                assert result["inputRequests"][KEY]["params"]["mode"] == "url"
        assert (await broker.desk.get(await only(broker))).state is QuestionState.OPEN


READ = "version: 1\nrules: [{id: r, effect: ask, skills: ['fake.*'], approval: {confirm: caller, read_for: 60s}}]\n"
LONG: Object = {"name": "echo", "arguments": {"text": "a" * 2_000 + " and more"}}
HIDDEN: Object = {"name": "echo", "arguments": {"text": "\u202e" * 400}}
UNSEEN = [pytest.param(READ, PAY, id="read_for"), pytest.param(CONFIRM, LONG, id="long")]
UNSEEN += [pytest.param(CONFIRM, HIDDEN, id="long when escaped")]


@pytest.mark.parametrize(("policy", "call"), UNSEEN)
async def test_what_a_form_does_not_show_in_full_or_for_long_enough_is_answered_elsewhere(
    policy: str, call: Object
) -> None:
    """No form for a call that it would cut, or that has to be read for a while: a link, a task or a ticket."""
    fake = echoing()
    async with indoors(policy, [fake], link=page) as broker:
        found = waits(await Modern(broker.join(), BOTH).request("tools/call", call))
        assert found["inputRequests"][KEY]["params"]["mode"] == "url"
        client = Modern(broker.join(), BOTH)
        await client.request("tools/call", {**call, **accepted(found, YES)})
        tasked = (await Modern(broker.join(), {**FORM, **TASKED}).request("tools/call", call))["result"]
        assert tasked["resultType"] == "task"
        ticket = (await Modern(broker.join(), FORM).request("tools/call", call))["result"]
        assert "interposer/pending" in ticket["_meta"]
        assert (await broker.desk.get(await only(broker))).votes == ()
    assert not fake.called


@pytest.mark.parametrize(("policy", "call"), UNSEEN)
async def test_no_dialog_for_what_it_would_not_show_in_full_or_for_long_enough(policy: str, call: Object) -> None:
    """A legacy caller gets the ticket, and is asked nothing."""
    async with indoors(policy, limits=Limits(hold_s=0.0, grace_s=0.0)) as broker:
        agent = await legacy(broker, FORM)
        assert is_tool_error(await agent.request("tools/call", call))
        assert not agent.notifications("elicitation/create")


async def test_form_hides_nothing_of_a_call() -> None:
    """What would reverse, hide or break a line is shown as what it is, in forms and dialogs."""
    sly: Object = {"name": "echo", "arguments": {"text": "a\u202eb\u200b\n\x1b[2K\U000e0041é"}}
    shown = '{"text":"a\\u202eb\\u200b\\n\\u001b[2K\\udb40\\udc41\\u00e9"}'
    async with indoors(CONFIRM) as broker:
        found = waits(await Modern(broker.join(), FORM).request("tools/call", sly))
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", sly, id="held")
        for params in (found["inputRequests"][KEY]["params"], (await asked_in(agent))["params"]):
            assert params["message"] == f"May this call be made? fake.echo with the arguments {shown}"


async def test_dialog_has_more_time_than_the_usual_hold() -> None:
    """A human needs longer than the four seconds after which others get a ticket."""
    assert Limits().hold_s < DIALOG_S
    async with indoors(CONFIRM, limits=Limits(hold_s=0.0, grace_s=0.0)) as broker:
        agent = await legacy(broker, FORM)
        await agent.post("tools/call", PAY, id="held")
        await asked_in(agent)
        assert (await agent.request("ping"))["result"] == {}
        assert not agent.answers("held")
