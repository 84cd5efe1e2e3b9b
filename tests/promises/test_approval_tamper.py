"""Between a human's yes and the execution nothing may change, whatever the yes was for; and a yes is not multiplied."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.carried import Carried
from interposer.desk import Proposal
from interposer.errors import ApprovalPending, Refusal
from interposer.terms import GrantSpec
from interposer.upstreams.memory import MemoryUpstream
from tests.e2e.daemon import daemon
from tests.fakes.agent import UPSTREAM, Agent, configured, environment, gone, operator, text_of, unix
from tests.fakes.house import BEN, OPERATOR, Indoors, definition, echo, indoors

ATTEMPTS = 500
RETRIES, CONNECTIONS = 1000, 50
ASKED = {"text": "pay 10"}
APPROVAL = "{grant: {for: 1h, uses: 50, session: true, matching: true}}"
ASK = f"version: 1\nrules: [{{id: ask, effect: ask, skills: ['fake.*'], approval: {APPROVAL}}}]\n"
SHORT = (
    b'{"additionalProperties":false,"properties":{"text":{"enum":["pay 10","pay 9"]}},"required":["text"],'
    b'"type":"object"}'
)
AGREED: dict[str, Proposal | None] = {
    "once": None,
    "many times": Proposal(spec=GrantSpec(for_s=600, uses=50)),
    "for a time": Proposal(spec=GrantSpec(for_s=600, uses=40, session=False)),
    "this session": Proposal(spec=GrantSpec(for_s=600, uses=50, session=True)),
    "what matches": Proposal(spec=GrantSpec(for_s=600, uses=50, schema=SHORT)),
    "other arguments": Proposal(amended=b'{"text":"pay 5"}'),
}
Change = Callable[[Indoors, MemoryUpstream, random.Random], dict[str, Any]]


def upstream() -> MemoryUpstream:
    return MemoryUpstream("fake", {"echo": (definition(), echo), "other": (definition(), echo)})


def other_arguments(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    return {"arguments": {"text": dice.choice(["pay 10 ", "pay 100", "PAY 10", "pay 1\u200b0", "рay 10", "", "pay 5"])}}


def other_skill(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    return {"name": "other"}


def other_definition(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    changes: list[dict[str, Any]] = [
        {"description": "Pays."},
        {"title": "Pay"},
        {"annotations": {"readOnlyHint": True}},
        {"outputSchema": {"type": "object"}},
    ]
    fake.replace({"echo": (definition(**dice.choice(changes)), echo), "other": (definition(), echo)})
    return {}


def other_policy(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    changes = [
        ASK.replace("id: ask", "id: another"),
        ASK.replace("effect: ask", "effect: deny").replace(f", approval: {APPROVAL}", ""),
        ASK.replace("uses: 50", "uses: 49"),
        ASK.replace("{grant", "{quorum: 2, grant"),
        ASK + "otherwise: []\n",
    ]
    broker.decree(dice.choice(changes))
    return {}


def other_principal(broker: Indoors, fake: MemoryUpstream, dice: random.Random) -> dict[str, Any]:
    return {"caller": BEN}


CHANGES: list[Change] = [other_arguments, other_skill, other_definition, other_policy, other_principal]


async def agreed(broker: Indoors, proposal: Proposal | None) -> None:
    """The call is asked for, leaves with its ticket, and a human agrees."""
    with pytest.raises(ApprovalPending) as pending:
        await broker.invoke(ASKED)
    await broker.desk.vote(pending.value.question, OPERATOR, True, proposal=proposal)


async def test_nothing_changes_between_a_yes_and_the_execution() -> None:
    """Of 500 attempts to change arguments, skill, definition, policy or principal after a yes of any kind (once, many
    times, for a session, for what matches a schema, to other arguments), none executes."""
    dice = random.Random(23)
    for attempt in range(ATTEMPTS):
        kind = list(AGREED)[attempt // len(CHANGES) % len(AGREED)]
        fake = upstream()
        async with indoors(ASK, [fake]) as broker:
            await agreed(broker, AGREED[kind])
            changed = CHANGES[attempt % len(CHANGES)](broker, fake, dice)
            arguments: dict[str, Any] = changed.pop("arguments", ASKED)
            with pytest.raises(Refusal):
                await broker.invoke(arguments, **changed)
        assert not fake.called, (kind, CHANGES[attempt % len(CHANGES)].__name__)


@pytest.mark.parametrize("kind", AGREED)
async def test_the_unchanged_call_is_executed(kind: str) -> None:
    """The control: what was agreed to is executed, with the arguments that were agreed to."""
    fake = upstream()
    async with indoors(ASK, [fake]) as broker:
        await agreed(broker, AGREED[kind])
        assert isinstance(await broker.invoke(ASKED), Carried)
    (intent,) = fake.called
    wanted = b'{"text":"pay 5"}' if kind == "other arguments" else b'{"text":"pay 10"}'
    assert intent.permit.invocation.canonical == wanted


async def retry(agent: Agent, start: anyio.Event, count: int, texts: Counter[str]) -> None:
    """The identical call, so many times at once."""
    await start.wait()
    ids = [await agent.post("tools/call", {"name": "echo", "arguments": ASKED}) for _ in range(count)]
    for id in ids:
        answer = await agent.answer(id, within_s=60)
        texts[
            str(answer["result"].get("_meta", {}).get("interposer/pending", {}).get("approval_id", text_of(answer)))
        ] += 1


async def test_a_thousand_concurrent_retries_execute_once(tmp_path: Path) -> None:
    """One yes, and a thousand identical calls at once over fifty connections: one is executed, and all others wait for
    one new question."""
    mark = f"mark={tmp_path}"
    command = [*UPSTREAM, "--truth", str(tmp_path / "truth"), "--token", mark]
    policy = "version: 1\nrules: [{id: ask, effect: ask, skills: ['*']}]\n"
    config = configured(tmp_path, command, policy=policy, more="approvals: {hold: 50ms}\n")
    texts: Counter[str] = Counter()
    with anyio.fail_after(90):
        async with daemon(config, environment(tmp_path)), AsyncExitStack() as connections:
            agents = [
                await connections.enter_async_context(unix(tmp_path / "state/broker.sock")) for _ in range(CONNECTIONS)
            ]
            for agent in agents:
                await agent.initialize()
            ticket = await agents[0].call("echo", ASKED)
            id = ticket["result"]["_meta"]["interposer/pending"]["approval_id"]
            async with operator(tmp_path) as human:
                await human.approve(id)
            start = anyio.Event()
            async with anyio.create_task_group() as retries:
                for agent in agents:
                    retries.start_soon(retry, agent, start, RETRIES // CONNECTIONS, texts)
                start.set()
        await gone(mark)
    assert texts.pop(ASKED["text"]) == 1
    assert id not in texts
    assert list(texts.values()) == [RETRIES - 1]
    assert len((tmp_path / "truth").read_text().splitlines()) == 1
