"""Tokens on a conversation: by request, by connection, and nobody else's word beside them."""

from __future__ import annotations

from typing import Any

import pytest

from interposer.model import Caller, Kind, Principal
from tests.fakes.agent import Agent, Object, is_tool_error, text_of
from tests.fakes.house import Indoors, TokenBook, echoing, indoors

POLICY = """\
version: 1
rules:
  - {id: by-name, effect: allow, skills: [fake.echo], who: {subjects: [kim]}}
  - {id: leads, effect: allow, skills: [fake.lead], who: {groups: [leads]}}
"""


def book() -> TokenBook:
    issuer = "https://idp.test"
    return TokenBook(kims=Principal(issuer, "kim"), lees=Principal(issuer, "lee", ("leads",)))


async def call(agent: Agent, name: str, token: Any = None) -> Object:
    meta = {} if token is None else {"interposer/token": token}
    return await agent.call(name, {"text": "hi"}, **meta)


async def present(agent: Agent, **params: Any) -> None:
    await agent.send({"jsonrpc": "2.0", "method": "notifications/interposer/token", "params": params})


async def opened(broker: Indoors, era: str) -> Agent:
    agent = broker.join()
    await (agent.initialize() if era == "legacy" else agent.discover())
    return agent


async def names(agent: Agent, **meta: str) -> list[str]:
    listed = await agent.request("tools/list", {"_meta": meta} if meta else None)
    return sorted(tool["name"] for tool in listed["result"]["tools"])


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_each_call_is_judged_by_its_own_token(era: str) -> None:
    """One connection carries several principals: what is listed, allowed and recorded is each one's own."""
    async with indoors(POLICY, [echoing("fake", "lead")], authenticator=book()) as broker:
        agent = await opened(broker, era)
        assert not is_tool_error(await call(agent, "echo", "kims"))
        assert not is_tool_error(await call(agent, "lead", "lees"))
        assert "error" in await call(agent, "lead", "kims")
        assert "error" in await call(agent, "echo", "lees")
        assert is_tool_error(await call(agent, "echo"))
        await present(agent, token="kims")
        assert await names(agent) == ["echo"]
        if era == "legacy":
            assert await names(agent, **{"interposer/token": "lees"}) == ["lead"]
    subjects = [row.principal.subject for row in broker.rows(Kind.ANSWERED) if row.principal]
    assert subjects == ["kim", "lee"]


async def test_connection_token_is_the_one_that_was_given_last() -> None:
    """A refreshed token takes the place of the old one, for the next call on."""
    async with indoors(POLICY, [echoing("fake", "lead")], authenticator=book()) as broker:
        agent = await opened(broker, "legacy")
        await present(agent, token="kims")
        assert not is_tool_error(await call(agent, "echo"))
        await present(agent, token="lees")
        assert not is_tool_error(await call(agent, "lead"))
        assert "error" in await call(agent, "echo")


async def test_token_is_for_what_comes_after_it() -> None:
    """Requests and tokens that arrive together are taken in the order in which they were sent."""
    async with indoors(POLICY, [echoing("fake", "lead")], authenticator=book()) as broker:
        agent = await opened(broker, "legacy")
        await agent.send(
            shown("kims"), request(1, "echo"), shown("lees"), request(2, "lead"), shown("kims"), request(3, "lead")
        )
        assert not is_tool_error(await agent.answer(1))
        assert not is_tool_error(await agent.answer(2))
        assert "error" in await agent.answer(3)


def shown(token: str) -> Object:
    return {"jsonrpc": "2.0", "method": "notifications/interposer/token", "params": {"token": token}}


def request(id: int, name: str) -> Object:
    params = {"name": name, "arguments": {"text": "hi"}}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


@pytest.mark.parametrize("params", [{"token": "old"}, {"token": ""}, {"token": None}, {"token": 7}, {}])
async def test_bad_token_does_not_fall_back_to_the_kernels_word(params: dict[str, Any]) -> None:
    """A peer that would be let in by its uid is nobody once it has shown a token that is none."""
    async with indoors() as broker:
        agent = await opened(broker, "legacy")
        assert not is_tool_error(await call(agent, "echo"))
        await present(agent, **params)
        assert is_tool_error(refused := await call(agent, "echo"))
    assert "not known" in text_of(refused)


@pytest.mark.parametrize("token", [7, None, ["kims"], {"a": "kims"}])
async def test_token_of_a_wrong_type_is_a_bad_request(token: Any) -> None:
    """What is in the place of a token and is no text is refused, and not ignored."""
    async with indoors(POLICY, authenticator=book()) as broker:
        agent = await opened(broker, "legacy")
        await present(agent, token="kims")
        answer = await agent.request("tools/call", {"name": "echo", "_meta": {"interposer/token": token}})
    assert answer["error"]["code"] == -32602


async def test_token_goes_nowhere_but_to_the_authenticator() -> None:
    """Neither an upstream nor the record nor an answer has the token of a request."""
    fake = echoing()
    async with indoors(POLICY, [fake], authenticator=book()) as broker:
        agent = await opened(broker, "legacy")
        await present(agent, token="kims")
        await call(agent, "echo", "kims")
    assert fake.called[0].permit.invocation.canonical == b'{"text":"hi"}'
    assert b"kims" not in agent.raw
    assert all(b"kims" not in (record.payload or b"") + str(record).encode() for record in broker.store.records)


def test_token_is_not_in_the_text_of_a_caller() -> None:
    """Whoever logs a caller logs no token."""
    assert "kims" not in repr(Caller("unix", token="kims"))
