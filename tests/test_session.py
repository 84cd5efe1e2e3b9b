"""Conversations, frame by frame: eras, ids, cancellation, progress, batches, listening, tickets."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from interposer.model import JsonObject, Kind
from interposer.reach import Profile
from interposer.session import Limits
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.agent import ENVELOPE, META, Agent, Object, is_tool_error, text_of
from tests.fakes.house import ANN, BEN, OPERATOR, Indoors, SlowStore, definition, echo, echoing, indoors, rules, said

ASK = rules("ask fake.*")
LEGACY_OPENING = {"protocolVersion": "2025-11-25", "capabilities": {}}


class Gate:
    """A skill that answers when the test says so."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.go = anyio.Event()
        self.calls = 0

    async def __call__(self, arguments: JsonObject) -> JsonObject:
        self.calls += 1
        self.began.set()
        await self.go.wait()
        return said("through the gate")


def gated() -> tuple[Gate, MemoryUpstream]:
    gate = Gate()
    return gate, MemoryUpstream("fake", {"echo": (definition(), echo), "gate": (definition(), gate)})


async def wait_for(event: anyio.Event) -> None:
    with anyio.fail_after(5):
        await event.wait()


def code(answer: Object) -> int:
    found: int = answer["error"]["code"]
    return found


def enveloped(**params: Any) -> Object:
    return {**params, "_meta": dict(ENVELOPE)}


# -- opening: mcp.md §1.2


async def test_initialize_opens_a_legacy_conversation() -> None:
    """The first request decides: after `initialize` an envelope is out of place."""
    async with indoors() as broker:
        agent = broker.join()
        result = await agent.initialize()
        assert result["protocolVersion"] == "2025-11-25"
        assert result["capabilities"] == {"tools": {"listChanged": True}}
        assert text_of(await agent.call("echo", {"text": "hi"})) == "hi"
        assert code(await agent.request("tools/list", enveloped())) == -32600


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
async def test_known_legacy_version_is_echoed(version: str) -> None:
    """Each legacy revision is served at its own version."""
    async with indoors() as broker:
        assert (await broker.join().initialize(version))["protocolVersion"] == version


@pytest.mark.parametrize("version", ["2026-07-28", "1999-01-01"])
async def test_unknown_legacy_version_is_answered_with_the_newest(version: str) -> None:
    """A version that `initialize` cannot have is answered with the newest that it can."""
    async with indoors() as broker:
        assert (await broker.join().initialize(version))["protocolVersion"] == "2025-11-25"


async def test_envelope_opens_a_modern_conversation() -> None:
    """The first request decides: after an enveloped one, `initialize` is refused with the versions served."""
    async with indoors() as broker:
        agent = broker.join()
        agent.modern = True
        answer = await agent.call("echo", {"text": "hi"})
        assert answer["result"]["resultType"] == "complete"
        assert answer["result"]["_meta"][META + "serverInfo"]["name"] == "interposer"
        agent.modern = False
        refused = await agent.request("initialize", LEGACY_OPENING)
        assert code(refused) == -32022
        assert refused["error"]["data"]["supported"] == ["2026-07-28"]


async def test_discovery_alone_leaves_the_era_open() -> None:
    """A client whose probe timed out may still say `initialize`."""
    async with indoors() as broker:
        agent = broker.join()
        found = await agent.discover()
        assert found["supportedVersions"] == ["2026-07-28"]
        agent.modern = False
        assert (await agent.initialize())["protocolVersion"] == "2025-11-25"
        assert text_of(await agent.call("echo", {"text": "hi"})) == "hi"


async def test_half_an_envelope_is_refused_by_name() -> None:
    """An envelope without its capabilities names what it lacks, and opens nothing."""
    async with indoors() as broker:
        agent = broker.join()
        answer = await agent.request("tools/list", {"_meta": {META + "protocolVersion": "2026-07-28"}})
        assert code(answer) == -32602
        assert META + "clientCapabilities" in answer["error"]["message"]
        await agent.initialize()


async def test_unserved_modern_version_is_refused_with_those_served() -> None:
    """-32022 with `supported` and `requested`."""
    async with indoors() as broker:
        agent = broker.join()
        meta = {**ENVELOPE, META + "protocolVersion": "2099-01-01"}
        answer = await agent.request("server/discover", {"_meta": meta})
    assert code(answer) == -32022
    assert answer["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}


async def test_bare_request_is_legacy_and_must_wait() -> None:
    """Without an envelope and before `initialize` only `ping` is answered."""
    async with indoors() as broker:
        agent = broker.join()
        assert "result" in await agent.request("ping")
        assert code(await agent.request("tools/list")) == -32600
        assert code(await agent.call("echo")) == -32600
        assert "result" in await agent.request("ping")
        await agent.initialize()


async def test_second_initialize_is_refused() -> None:
    """A conversation is opened once."""
    async with indoors() as broker:
        agent = broker.join()
        await agent.initialize()
        assert code(await agent.request("initialize", LEGACY_OPENING)) == -32600
        assert "result" in await agent.request("tools/list")


@pytest.mark.parametrize("method", ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"])
async def test_legacy_method_does_not_exist_for_modern_peers(method: str) -> None:
    """What 2026-07-28 removed is unknown to those who speak it."""
    async with indoors() as broker:
        agent = broker.join()
        await agent.discover()
        assert code(await agent.request(method)) == -32601


@pytest.mark.parametrize("method", ["resources/list", "prompts/get", "completion/complete", "nosuch", "tools/call "])
async def test_unknown_method_is_not_relayed(method: str) -> None:
    """A method that this broker does not police is not passed on because an upstream may know it."""
    async with indoors() as broker:
        agent = broker.join()
        await agent.initialize()
        assert code(await agent.request(method)) == -32601


# -- ids


async def test_ids_keep_their_type_and_value() -> None:
    """`1`, `"1"`, the empty string and 2^70 are four ids."""
    async with indoors() as broker:
        agent = broker.join()
        await agent.initialize()
        for id in (1, "1", "", 2**70, -7):
            await agent.post("tools/call", {"name": "echo", "arguments": {"text": repr(id)}}, id=id)
        for id in (1, "1", "", 2**70, -7):
            assert text_of(await agent.answer(id)) == repr(id)


async def test_id_in_flight_cannot_be_used_again() -> None:
    """Of two requests with one id the second is refused and the first goes on; two peers may use the same."""
    gate, fake = gated()
    async with indoors(upstreams=[fake]) as broker:
        agent, other = broker.join(), broker.join(BEN)
        await agent.initialize()
        await other.initialize()
        await agent.post("tools/call", {"name": "gate"}, id=7)
        await wait_for(gate.began)
        await agent.post("tools/call", {"name": "echo"}, id=7)
        assert code(await agent.answer(7)) == -32600
        assert (
            text_of(await other.request("tools/call", {"name": "echo", "arguments": {"text": "mine"}}, id=7)) == "mine"
        )
        gate.go.set()
        await agent.until(lambda: len(agent.answers(7)) == 2)
        assert text_of(agent.answers(7)[1]) == "through the gate"
        assert text_of(await agent.request("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id="7")) == "x"


# -- cancellation


async def test_cancelled_call_is_not_answered_and_is_in_doubt() -> None:
    """What a peer cancels is never answered, and its outcome is on record as unknown."""
    gate, fake = gated()
    async with indoors(upstreams=[fake]) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.post("tools/call", {"name": "gate"}, id="c")
        await wait_for(gate.began)
        await agent.send(cancelled("c"))
        assert text_of(await agent.call("echo", {"text": "next"})) == "next"
        assert not agent.answers("c")
        assert "in_doubt" in broker.kinds()


@pytest.mark.parametrize("id", [424242, {"a": 1}, True, None, "C"])
async def test_cancelling_something_else_does_nothing(id: Any) -> None:
    """A cancellation reaches exactly the request of that id, type and connection."""
    gate, fake = gated()
    async with indoors(upstreams=[fake]) as broker:
        agent, other = broker.join(), broker.join(BEN)
        await agent.initialize()
        await other.initialize()
        await agent.post("tools/call", {"name": "gate"}, id="c")
        await wait_for(gate.began)
        await agent.send(cancelled(id))
        await other.send(cancelled("c"))
        assert "result" in await other.request("ping")
        gate.go.set()
        assert text_of(await agent.answer("c")) == "through the gate"


def cancelled(id: Any) -> Object:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}


async def test_peer_that_vanishes_leaves_its_outcomes_on_record() -> None:
    """When a peer is gone its calls get a little time, then they are cancelled and put on record."""
    gate, fake = gated()
    async with indoors(upstreams=[fake]) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.post("tools/call", {"name": "gate"}, id="c")
        await wait_for(gate.began)
        await agent.hang_up()
        await agent.to_the_end()
        assert "in_doubt" in broker.kinds()
        assert broker.rows(Kind.SESSION_CLOSED)


async def test_answer_within_the_grace_is_still_given() -> None:
    """A peer that only stopped sending gets the answers of what it asked."""
    gate, fake = gated()
    async with indoors(upstreams=[fake], limits=Limits(grace_s=5.0)) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.post("tools/call", {"name": "gate"}, id="c")
        await wait_for(gate.began)
        await agent.hang_up()
        gate.go.set()
        assert text_of(await agent.answer("c")) == "through the gate"


# -- progress


class Stepping(MemoryUpstream):
    """An upstream that reports these values."""

    values: tuple[float, ...] = ()

    async def call(self, intent: Any, on_progress: Any) -> Any:
        from interposer.model import Progress

        for value in self.values if on_progress else ():
            on_progress(Progress(f"at {value}", value, 10))
        return await super().call(intent, None)


@pytest.mark.parametrize("token", [0, "", "t", 2**60])
async def test_progress_comes_with_the_callers_token_and_only_grows(token: int | str) -> None:
    """Progress carries the caller's own token and increases, whatever the upstream reports."""
    fake = Stepping("fake", {"echo": (definition(), echo)})
    fake.values = (1, 3, 2, 3, 7)
    async with indoors(upstreams=[fake]) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.call("echo", {"text": "x"}, progressToken=token)
    told = agent.notifications("notifications/progress")
    values = [params["progress"] for params in told]
    assert values == sorted(set(values))
    assert {1, 3, 7} <= set(values)
    assert all(params["progressToken"] == token for params in told)
    assert all(type(params["progressToken"]) is type(token) for params in told)


async def test_no_progress_without_a_token() -> None:
    """Progress is never invented."""
    fake = Stepping("fake", {"echo": (definition(), echo)})
    fake.values = (1, 2)
    async with indoors(upstreams=[fake]) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.call("echo", {"text": "x"})
        assert not agent.notifications("notifications/progress")


@pytest.mark.parametrize("token", [{"a": 1}, True, 1.5, [1]])
async def test_token_of_a_wrong_type_is_refused(token: Any) -> None:
    """A progress token is a string or an integer."""
    async with indoors() as broker:
        agent = broker.join()
        await agent.initialize()
        assert code(await agent.call("echo", {"text": "x"}, progressToken=token)) == -32602


# -- batches


async def test_batch_is_answered_as_one_array_in_2025_03_26() -> None:
    """Each element is judged by itself; notifications and responses have no answer."""
    fake = echoing()
    batch: list[Any] = [
        call("one", "echo", text="1"),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": "two", "method": "nosuch"},
        call("three", "unknown"),
        5,
        {"jsonrpc": "2.0", "id": "four", "method": "initialize", "params": LEGACY_OPENING},
    ]
    async with indoors(upstreams=[fake]) as broker:
        agent = broker.join()
        await agent.initialize("2025-03-26")
        await agent.send(json.dumps(batch).encode() + b"\n")
        await agent.until(lambda: isinstance(agent.messages[-1], list))
        answers = agent.messages[-1]
    by_id = {answer.get("id"): answer for answer in answers}
    assert len(answers) == 5
    assert text_of(by_id["one"]) == "1"
    assert [code(by_id[id]) for id in ("two", "three", None, "four")] == [-32601, -32602, -32600, -32600]
    assert len(fake.called) == 1


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2024-11-05"])
async def test_batch_is_refused_in_every_other_revision(version: str) -> None:
    """A batch elsewhere is one refusal, and nothing of it is run."""
    fake = echoing()
    async with indoors(upstreams=[fake]) as broker:
        agent = broker.join()
        await agent.initialize(version)
        await agent.send(json.dumps([call("one", "echo")]).encode() + b"\n")
        await agent.until(lambda: len(agent.messages) == 2)
        assert (agent.messages[1]["id"], code(agent.messages[1])) == (None, -32600)
    assert not fake.called


def call(id: str, name: str, **arguments: Any) -> Object:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


async def test_call_without_an_id_is_refused_on_record() -> None:
    """A `tools/call` sent as a notification is not run and not answered."""
    fake = echoing()
    async with indoors(upstreams=[fake]) as broker:
        agent = broker.join()
        await agent.initialize()
        message = call("x", "echo")
        del message["id"]
        await agent.send(message)
        await agent.call("echo", {"text": "after"})
        assert [row.code for row in broker.rows(Kind.REFUSED)] == ["bad_message"]
    assert len(fake.called) == 1


# -- lists


async def test_list_shows_what_a_call_could_get() -> None:
    """Each principal sees the skills that policy could allow or ask for; the rest does not exist."""
    policy = (
        "version: 1\nrules:\n"
        "  - {id: a, effect: allow, skills: [fake.echo]}\n"
        "  - {id: b, effect: ask, skills: [fake.asked], who: {groups: [support]}}\n"
        "  - {id: c, effect: allow, skills: [fake.denied]}\n"
        "  - {id: d, effect: deny, skills: [fake.denied]}\n"
    )
    async with indoors(policy, [echoing("fake", "asked", "denied", "unruled")]) as broker:
        for caller, names in [(ANN, {"echo", "asked"}), (BEN, {"echo"})]:
            agent = broker.join(caller)
            await agent.initialize()
            listed = (await agent.request("tools/list"))["result"]
            assert {tool["name"] for tool in listed["tools"]} == names
            assert "cacheScope" not in listed


async def test_modern_list_is_private_and_short_lived() -> None:
    """A list that policy touched is never cached for others (2026-07-28, caching)."""
    async with indoors() as broker:
        agent = broker.join()
        await agent.discover()
        listed = (await agent.request("tools/list"))["result"]
    assert (listed["cacheScope"], listed["resultType"]) == ("private", "complete")
    assert 0 <= listed["ttlMs"] <= 30_000


async def test_pages_come_to_an_end_and_cursors_are_sealed() -> None:
    """Every skill is on exactly one page; a forged, foreign or stale cursor starts the list over with -32602."""
    async with indoors(upstreams=[echoing("fake", *"abcdefg")], page=3) as broker:
        agent, other = broker.join(), broker.join(BEN)
        await agent.initialize()
        await other.initialize()
        names, cursors = [], []
        params: Object = {}
        while True:
            page = (await agent.request("tools/list", params))["result"]
            names += [tool["name"] for tool in page["tools"]]
            if "nextCursor" not in page:
                break
            cursors.append(page["nextCursor"])
            params = {"cursor": cursors[-1]}
        assert sorted(names) == ["a", "b", "c", "d", "e", "echo", "f", "g"]
        for cursor in ("", "../../../x", cursors[0][:-2] + "AA", 5, "é"):
            assert code(await agent.request("tools/list", {"cursor": cursor})) == -32602
        assert code(await other.request("tools/list", {"cursor": cursors[0]})) == -32602
        broker.decree(rules("allow fake.*"))
        assert code(await agent.request("tools/list", {"cursor": cursors[0]})) == -32602


# -- changes of the list


async def test_legacy_peer_hears_of_changed_lists() -> None:
    """A policy that changes what may be seen is announced."""
    async with indoors() as broker:
        agent = broker.join()
        await agent.initialize()
        broker.decree(rules("deny fake.*"))
        await agent.until(lambda: bool(agent.notifications("notifications/tools/list_changed")))


async def test_modern_peer_hears_only_what_it_listens_to() -> None:
    """`subscriptions/listen` is acknowledged first with what is honoured, its notices carry its id, and it ends with a
    result when it is cancelled."""
    async with indoors() as broker:
        agent, deaf = broker.join(), broker.join(BEN)
        await agent.discover()
        await deaf.discover()
        wanted = {"notifications": {"toolsListChanged": True, "resourcesListChanged": True}}
        await agent.post("subscriptions/listen", wanted, id="listen")
        await deaf.post("subscriptions/listen", {"notifications": {"other": True}}, id="listen")
        await agent.until(lambda: bool(agent.notifications("notifications/subscriptions/acknowledged")))
        (ack,) = agent.notifications("notifications/subscriptions/acknowledged")
        assert ack["notifications"] == {"toolsListChanged": True}
        assert ack["_meta"] == {META + "subscriptionId": "listen"}
        broker.decree(rules("deny fake.*"))
        await agent.until(lambda: bool(agent.notifications("notifications/tools/list_changed")))
        (notice,) = agent.notifications("notifications/tools/list_changed")
        assert notice["_meta"] == {META + "subscriptionId": "listen"}
        assert code(await agent.request("tools/list", id="listen")) == -32600
        agent.messages.clear()
        await agent.send(cancelled("listen"))
        assert (await agent.answer("listen"))["result"]["resultType"] == "complete"
        broker.decree(rules("allow fake.*"))
        await deaf.request("tools/list")
        await agent.request("tools/list")
        assert not agent.notifications("notifications/tools/list_changed")
        assert not deaf.notifications("notifications/tools/list_changed")


# -- tickets


async def test_ticket_names_the_question_and_repeating_it_executes_once() -> None:
    """A call that waits for a human comes back as a ticket; after the yes, the same call again is carried out, once."""
    fake = echoing()
    async with indoors(ASK, [fake]) as broker:
        agent = broker.join()
        await agent.initialize()
        ticket = await agent.call("echo", {"text": "pay"})
        assert is_tool_error(ticket)
        pending = ticket["result"]["_meta"]["interposer/pending"]
        assert pending.keys() == {"approval_id", "expires_at", "retry_after_ms"}
        again = await agent.call("echo", {"text": "pay"})
        assert again["result"]["_meta"]["interposer/pending"]["approval_id"] == pending["approval_id"]
        await broker.desk.vote(pending["approval_id"], OPERATOR, True)
        assert text_of(await agent.call("echo", {"text": "pay"})) == "pay"
        assert is_tool_error(await agent.call("echo", {"text": "pay"}))
    assert len(fake.called) == 1


async def test_hold_answers_at_once_when_a_human_does() -> None:
    """Within the hold the caller waits, told so if it gave a token, and gets the result itself."""
    async with indoors(ASK, limits=Limits(hold_s=60.0)) as broker:
        agent = broker.join()
        await agent.initialize()
        params = {"name": "echo", "arguments": {"text": "pay"}, "_meta": {"progressToken": "p"}}
        await agent.post("tools/call", params, id="held")
        await agent.until(lambda: bool(agent.notifications("notifications/progress")))
        (question,) = await broker.desk.pending()
        assert question.id in agent.notifications("notifications/progress")[0]["message"]
        await broker.desk.vote(question.id, OPERATOR, True)
        assert text_of(await agent.answer("held")) == "pay"


async def test_hold_follows_the_clients_profile() -> None:
    """A client that is known to wait no longer than this gets its ticket earlier than others."""
    async with indoors(ASK, limits=Limits(hold_s=60.0), profiles={"agent": Profile(0.0)}) as broker:
        agent = broker.join()
        await agent.initialize()
        assert "interposer/pending" in (await agent.call("echo"))["result"]["_meta"]


async def test_paused_call_stalls_no_other() -> None:
    """While one call waits for a human, others on the same connection are answered."""
    policy = rules("ask fake.echo", "allow fake.other")
    async with indoors(policy, [echoing("fake", "other")], limits=Limits(hold_s=60.0, grace_s=0.0)) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.post("tools/call", {"name": "echo"}, id="held")
        for number in range(20):
            assert text_of(await agent.call("other", {"text": str(number)})) == str(number)
        assert not agent.answers("held")


# -- bounds


async def test_peer_with_too_much_in_flight_is_not_read_any_further() -> None:
    """Beyond its calls in flight a peer waits; nothing is lost and nothing is refused."""
    gate, fake = gated()
    async with indoors(upstreams=[fake], limits=Limits(in_flight=2, grace_s=0.0)) as broker:
        agent = broker.join()
        await agent.initialize()
        for number in range(6):
            await agent.post("tools/call", {"name": "gate"}, id=number)
        await wait_for(gate.began)
        await settled(broker)
        assert gate.calls <= 2
        gate.go.set()
        for number in range(6):
            assert text_of(await agent.answer(number)) == "through the gate"


async def settled(broker: Indoors) -> None:
    """Whatever can happen without the test has happened: another peer was served meanwhile."""
    other: Agent = broker.join(BEN)
    await other.initialize()
    await other.call("echo", {"text": "x"})


async def test_too_large_message_is_refused_and_the_next_is_served() -> None:
    """The frame limit costs the peer that message only."""
    async with indoors(limits=Limits(frame_bytes=1_000)) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.send(b'{"jsonrpc":"2.0","id":9,"method":"ping","params":{"x":"' + b"x" * 2_000 + b'"}}\n')
        await agent.until(lambda: len(agent.messages) == 2)
        assert code(agent.messages[1]) == -32600
        assert "result" in await agent.request("ping")


async def test_broker_that_stops_takes_nothing_new() -> None:
    """After `hang_up` what is in flight gets its answer, and nothing new is begun."""
    gate, fake = gated()
    async with indoors(upstreams=[fake], limits=Limits(grace_s=5.0)) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.post("tools/call", {"name": "gate"}, id="running")
        await wait_for(gate.began)
        broker.sessions[0].hang_up()
        await agent.post("tools/call", {"name": "echo"}, id="late")
        gate.go.set()
        assert text_of(await agent.answer("running")) == "through the gate"
        await agent.to_the_end()
        assert not agent.answers("late")
    assert [intent.permit.invocation.skill.name for intent in fake.called] == ["gate"]


@pytest.mark.parametrize("slow", [Kind.INTENDED, Kind.ANSWERED])
async def test_call_cancelled_while_a_row_is_written_has_one_end(slow: Kind) -> None:
    """Whenever the cancellation comes, the call has one end on record and no answer."""
    store = SlowStore(slow)
    async with indoors(store=store) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.post("tools/call", {"name": "echo"}, id="c")
        await wait_for(store.reached)
        await agent.send(cancelled("c"))
        store.go.set()
        assert text_of(await agent.call("echo", {"text": "next"})) == "next"
        assert not agent.answers("c")
        first = [row.kind for row in broker.store.records if row.invocation == "i_0001"]
    assert first[0] is Kind.INTENDED
    assert first[1:] in ([Kind.ANSWERED], [Kind.IN_DOUBT])


async def test_subscriptions_are_bounded() -> None:
    """A peer cannot make every change of the list cost more and more."""
    async with indoors(limits=Limits(in_flight=2)) as broker:
        agent = broker.join()
        await agent.discover()
        for number in range(3):
            await agent.post("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, id=number)
        assert code(await agent.answer(2)) == -32600
        broker.decree(rules("deny fake.*"))
        await agent.request("tools/list")
    assert len(agent.notifications("notifications/tools/list_changed")) == 2


async def test_flood_of_calls_without_ids_is_bounded() -> None:
    """Calls that nobody can answer are put on record, as many as fit, and never run."""
    fake = echoing()
    async with indoors(upstreams=[fake], limits=Limits(in_flight=8)) as broker:
        agent = broker.join()
        await agent.initialize()
        message = call("x", "echo")
        del message["id"]
        await agent.send(*[message] * 1_000)
        await agent.call("echo", {"text": "after"})
    assert 1 <= len(broker.rows(Kind.REFUSED)) <= 8
    assert len(fake.called) == 1
