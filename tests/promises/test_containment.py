"""What agents cannot learn, and what takes effect at once."""

from __future__ import annotations

import base64
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.agent import (
    UPSTREAM,
    Agent,
    configured,
    finish,
    is_tool_error,
    operator,
    processes,
    spawned,
    text_of,
)
from tests.fakes.canary import canary
from tests.fakes.house import BEN, echoing, indoors

CREDENTIAL = canary("upstream")
ENCODINGS = {
    "plain": CREDENTIAL,
    "base64": base64.b64encode(CREDENTIAL.encode()).decode(),
    "base64 after one byte": base64.b64encode(b"x" + CREDENTIAL.encode()).decode(),
    "base64 after two bytes": base64.b64encode(b"xy" + CREDENTIAL.encode()).decode(),
    "base64url in basic": base64.urlsafe_b64encode(b"user:" + CREDENTIAL.encode()).decode(),
    "hexadecimal": CREDENTIAL.encode().hex(),
    "percent": "".join(f"%{byte:02X}" for byte in CREDENTIAL.encode()),
    "upper case": CREDENTIAL.upper(),
    "html entities": "".join(f"&#{ord(char)};" for char in CREDENTIAL),
}
ALLOW = "version: 1\nrules: [{id: all, effect: allow, skills: ['*']}]\n"
BROKEN = "rules: ["
DENY = "version: 1\nrules: [{id: none, effect: deny, skills: [fake.echo]}]\n"


async def test_echoed_credential_reaches_nobody(tmp_path: Path) -> None:
    """An upstream that sends its own credential back, in any of nine encodings, does not get it to the agent, nor into
    the record or the log; the record has an alarm."""
    script = tmp_path / "script.emitted"
    rows = [{"row": name, "frames": [answer(f"Authorization was {text}, ok")]} for name, text in ENCODINGS.items()]
    script.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configured(tmp_path, [*UPSTREAM, "--script", str(script)], credential=CREDENTIAL)
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        for name in ENCODINGS:
            assert "Authorization was" in text_of(await agent.call("play", {"row": name}))
        assert CREDENTIAL not in text_of(await agent.call("about"))
        await finish(agent)
    kept = b"".join(file.read_bytes() for file in [tmp_path / "stderr", *(tmp_path / "state").glob("record.db*")])
    assert kept.count(b"credential_echoed") >= len(ENCODINGS)
    for name, text in ENCODINGS.items():
        # The ends of an encoded text depend on what stands beside it.
        assert text[6:-6].encode() not in agent.raw + kept, name


def answer(text: str) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": "$ID", "result": {"content": [{"type": "text", "text": text}]}})


async def test_question_to_a_human_is_masked_in_the_log(tmp_path: Path) -> None:
    """The line that announces a question shows no personal data and no key of the call, also where it is cut short;
    the operator sees the exact call, and once the question has ended nothing keeps it."""
    key, card = "AKIA" + "Q7ZX9WV5TR3MPLK2", "4012888888" + "881881"
    config = configured(tmp_path, UPSTREAM, policy=ALLOW.replace("allow", "ask"), more="approvals: {hold: 10ms}\n")
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        for text in (f"card {card}", "x" * 170 + f" {key} and {card}"):
            assert is_tool_error(await agent.call("echo", {"text": text}))
        async with operator(tmp_path) as human:
            first, second = await human.questions()
            assert card in (await human.ask("approvals/show", {"id": first["id"]}))["question"]["canonical"]
            for question in (first, second):
                await human.ask("approvals/deny", {"id": question["id"], "reason": "no"})
        await finish(agent)
    log = (tmp_path / "stderr").read_text()
    assert f"approval {second['id']}" in log
    assert "asks for fake.echo" in log
    assert card[:7] not in log
    assert key[:9] not in log
    kept = b"".join(file.read_bytes() for file in (tmp_path / "state").glob("record.db*"))
    assert card.encode() not in kept


async def test_credential_is_in_one_process_only(tmp_path: Path) -> None:
    """The credential is in the environment of its upstream, and on no command line and in no environment of the
    broker."""
    config = configured(tmp_path, UPSTREAM, credential=CREDENTIAL)
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        assert not is_tool_error(await agent.call("echo", {"text": "x"}))
        assert agent.process is not None
        environ = Path(f"/proc/{agent.process.pid}/environ").read_bytes()
        assert CREDENTIAL.encode() not in environ
        assert not processes(CREDENTIAL)
        await finish(agent)


@pytest.mark.parametrize("method", ["legacy", "modern"])
async def test_invisible_skill_and_unknown_skill_look_the_same(method: str) -> None:
    """What an agent is told of a skill it may not see is, byte for byte, what it is told of one that does not exist;
    and neither is listed."""
    policy = "version: 1\nrules: [{id: a, effect: allow, skills: [fake.hidden], who: {groups: [support]}}]\n"
    async with indoors(policy, [echoing("fake", "hidden")]) as broker:
        agent = broker.join(BEN)
        await (agent.initialize() if method == "legacy" else agent.discover())
        for arguments in ({"text": "x"}, {"wrong": 1}, {}):
            one, two = await refused(agent, "hidden", arguments), await refused(agent, "absent", arguments)
            assert one.replace(b"hidden", b"absent") == two
        listed = await agent.request("tools/list")
    assert listed["result"]["tools"] == []


async def refused(agent: Agent, name: str, arguments: dict[str, Any]) -> bytes:
    """The raw answer to a call."""
    start = len(agent.raw)
    answered = await agent.request("tools/call", {"name": name, "arguments": arguments}, id="same")
    assert answered["error"]["code"] == -32602
    agent.messages.clear()
    return bytes(agent.raw[start:])


@pytest.mark.parametrize("how", ["signal", "operator"])
async def test_reloaded_policy_judges_the_next_call(how: str, tmp_path: Path) -> None:
    """A policy that is reloaded decides the next call; one that is broken leaves the old one in force."""
    config = configured(tmp_path, UPSTREAM, policy=ALLOW)
    policy = tmp_path / "policy.yaml"
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent, AsyncExitStack() as stack:
        await agent.initialize()
        human = await stack.enter_async_context(operator(tmp_path))
        for text, allowed in [(DENY, False), (ALLOW, True), (BROKEN, True), (DENY, False)]:
            before = (await human.ask("broker/status"))["policy"]
            policy.write_text(text)
            if how == "signal":
                assert agent.process is not None
                agent.process.send_signal(signal.SIGHUP)
                await (heard(human, tmp_path, before) if text == BROKEN else changed(human, before))
            elif text == BROKEN:
                with pytest.raises(AssertionError, match="configuration"):
                    await human.ask("policy/reload")
            else:
                await human.ask("policy/reload")
            answered = await agent.call("echo", {"text": "x"})
            assert ("result" in answered and not is_tool_error(answered)) == allowed
        await finish(agent)


async def changed(human: Any, before: str) -> None:
    """A signal has no answer: ask until the new policy is in force."""
    for _ in range(1_000):
        if (await human.ask("broker/status"))["policy"] != before:
            return
    raise AssertionError("the policy was not reloaded")


async def heard(human: Any, home: Path, before: str) -> None:
    """The broken policy was seen and refused, and the old one stands."""
    for _ in range(1_000):
        assert (await human.ask("broker/status"))["policy"] == before
        if "the old one stands" in (home / "stderr").read_text():
            return
    raise AssertionError("nobody was told of the broken policy")
