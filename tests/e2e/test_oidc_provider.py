"""Callers who logged in: a certified OpenID provider, a real broker, and what each of them may do to the other."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client

from tests.e2e.daemon import daemon
from tests.e2e.oidc import CLIENT, Provider, Tokens, provider
from tests.fakes.agent import UPSTREAM, Agent, Object, Operator, configured, is_tool_error, operator, spawned, text_of

DEADLINE_S = 90
CACHE_S = 5.0
SLACK_S = 3.0
"""Of a machine that has other things to do."""
TOKEN_S = 6
POLICY = """\
version: 1
rules:
  - {id: support, effect: allow, skills: [fake.echo, fake.about], who: {groups: [support]}}
  - {id: gated, effect: ask, skills: [fake.slow], who: {groups: [support]}, approval: {expires: 5m}}
"""
PER_REQUEST = "interposer/token"


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[Provider]:
    async with provider(tmp_path) as found:
        yield found


def configuration(home: Path, issuer: Provider) -> Path:
    """Of a broker that trusts the provider."""
    more = (
        f"issuers:\n  - issuer: {issuer.issuer}\n    audience: interposer\n    authorized_parties: [{CLIENT}]\n"
        f"    leeway: 0s\n    keys: {{cache: {CACHE_S:g}s}}\n"
        "listen: {tcp: {}}\n"
        "approvals: {hold: 20s}\n"
        f"operators: [{{uid: {os.getuid()}, subject: olga}}]\n"
    )
    return configured(home, [*UPSTREAM, "--truth", str(home / "truth")], policy=POLICY, more=more)


@asynccontextmanager
async def broker(home: Path, issuer: Provider) -> AsyncIterator[list[str]]:
    """The daemon; yields what it said."""
    async with daemon(configuration(home, issuer), {"INTERPOSER_HOME": str(home / "state")}) as said:
        yield said


def keep(path: Path, tokens: Tokens) -> Path:
    """As whoever refreshes tokens should: in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_text(tokens.access)
    fresh.chmod(0o600)
    fresh.replace(path)
    return path


@asynccontextmanager
async def agent(home: Path, token_file: Path, *address: str) -> AsyncIterator[Agent]:
    """`interposer connect`, and a conversation opened over it."""
    async with spawned(home, ["connect", "--token-file", str(token_file), *address]) as found:
        await found.initialize()
        yield found


def executed(home: Path) -> int:
    truth = home / "truth"
    return len(truth.read_text().splitlines()) if truth.exists() else 0


def allowed(answer: Object) -> bool:
    return "result" in answer and not is_tool_error(answer)


async def until(agent: Agent, holds: Callable[[Object], bool], within_s: float, **meta: str) -> None:
    """Call until the answer is as wanted."""
    with anyio.fail_after(within_s):
        while not holds(await agent.call("echo", {"text": "hi"}, **meta)):
            await agent.read_for(0.1)


def refused(answer: Object) -> bool:
    return not allowed(answer)


async def test_who_logged_in_calls_by_their_groups(issuer: Provider, tmp_path: Path) -> None:
    """A group of the token opens a skill, another user of the same provider does not see it, and without a token the
    kernel's word for the caller is worth nothing; over the Unix socket and over TCP."""
    alice, bob = await issuer.login("alice"), await issuer.login("bob")
    files = {"alice": keep(tmp_path / "alice", alice), "bob": keep(tmp_path / "bob", bob)}
    with anyio.fail_after(DEADLINE_S):
        async with broker(tmp_path, issuer) as said:
            env = {"PATH": os.environ["PATH"], "INTERPOSER_HOME": str(tmp_path / "state")}

            def connected(*words: str) -> Client:
                arguments = ["-m", "interposer", "connect", *words]
                return Client(StdioServerParameters(command=sys.executable, args=arguments, env=env), mode="legacy")

            address = next(line.split()[-1] for line in said if "tcp://" in line)
            for place in ([], [address]):
                async with connected("--token-file", str(files["alice"]), *place) as client:
                    assert {tool.name for tool in (await client.list_tools()).tools} == {"about", "echo", "slow"}
                    assert not (await client.call_tool("echo", {"text": "hi"})).is_error
            assert executed(tmp_path) == 2
            async with agent(tmp_path, files["bob"]) as other:
                assert (await other.request("tools/list"))["result"]["tools"] == []
                assert refused(await other.call("echo"))
                assert allowed(await other.call("echo", {}, **{PER_REQUEST: alice.access}))
                assert refused(await other.call("echo", {}, **{PER_REQUEST: alice.access[:-8] + "AAAAAAAA"}))
            async with spawned(tmp_path, ["connect"]) as nobody:
                await nobody.initialize()
                assert "error" in await nobody.request("tools/list")
                assert refused(await nobody.call("echo"))
            files["alice"].write_text(alice.access[:-8] + "AAAAAAAA")
            words = [sys.executable, "-m", "interposer", "connect", address, "--token-file", str(files["alice"])]
            at_the_gate = await anyio.run_process(words, input=b"", check=False, stderr=subprocess.DEVNULL, env=env)
            assert at_the_gate.returncode == 3
            assert executed(tmp_path) == 3


@pytest.mark.parametrize("way", ["option", "variable"])
async def test_a_spawned_broker_asks_for_the_token_beside_the_wire(issuer: Provider, tmp_path: Path, way: str) -> None:
    """The agent runtime's token file speaks for the one peer as it is now, and never reaches an upstream."""
    alice, bob = await issuer.login("alice"), await issuer.login("bob")
    file = keep(tmp_path / "token", alice)
    option = ["--token-file", str(file)] if way == "option" else []
    variable = [] if way == "option" else ["env", f"INTERPOSER_TOKEN_FILE={file}", f"INTERPOSER_TOKEN={bob.access}"]
    words = ["stdio", "--config", str(configuration(tmp_path, issuer)), *option]
    with anyio.fail_after(DEADLINE_S):
        async with spawned(tmp_path, words, through=variable) as caller:
            await caller.initialize()
            seen = await caller.call("about")
            assert allowed(seen)
            assert "INTERPOSER_TOKEN" not in text_of(seen)
            keep(file, bob)
            assert refused(await caller.call("echo"))
            keep(file, alice)
            assert allowed(await caller.call("echo"))
            file.unlink()
            assert refused(await caller.call("echo"))


async def test_keys_are_rotated_and_removed_in_mid_session(issuer: Provider, tmp_path: Path) -> None:
    """A token of a new key is accepted after one fetch and without a new connection, beside those of the old key; when
    that is removed, its tokens are refused within the time that keys are believed."""
    first = await issuer.login("alice")
    with anyio.fail_after(DEADLINE_S):
        async with broker(tmp_path, issuer), agent(tmp_path, keep(tmp_path / "token", first)) as caller:
            assert allowed(await caller.call("echo"))
            before = (await issuer.tell("rotate"))["fetches"]
            second = await issuer.refreshed(first)
            assert second.access.split(".")[0] != first.access.split(".")[0]
            keep(tmp_path / "token", second)
            await until(caller, allowed, CACHE_S)
            assert (await issuer.tell("fetches"))["fetches"] == before + 1
            assert allowed(await caller.call("echo", {}, **{PER_REQUEST: first.access}))
            await issuer.tell("remove")
            await until(caller, refused, CACHE_S + SLACK_S, **{PER_REQUEST: first.access})
            assert allowed(await caller.call("echo"))


async def test_without_the_provider_keys_are_believed_for_their_time(issuer: Provider, tmp_path: Path) -> None:
    """When the provider is gone, calls go on until its keys are too old, and then nobody is let in; when it is back, so
    are its callers, over the same connection."""
    tokens = await issuer.login("alice")
    with anyio.fail_after(DEADLINE_S):
        async with broker(tmp_path, issuer), agent(tmp_path, keep(tmp_path / "token", tokens)) as caller:
            assert allowed(await caller.call("echo"))
            await issuer.kill()
            assert allowed(await caller.call("echo"))
            await until(caller, refused, CACHE_S + SLACK_S)
            known = executed(tmp_path)
            assert refused(await caller.call("echo"))
            await issuer.start()
            assert executed(tmp_path) == known
            await until(caller, allowed, CACHE_S + SLACK_S)


async def test_a_token_expires_while_its_call_is_held(issuer: Provider, tmp_path: Path) -> None:
    """A call that waits for a human outlives its token where that was refreshed, and is executed once; where it was
    not, the call ends within a second of the expiry, says so, and no approval revives it."""
    await issuer.tell(f"ttl {TOKEN_S}")
    async with broker(tmp_path, issuer):
        with anyio.fail_after(DEADLINE_S):
            alice, carol = await issuer.login("alice"), await issuer.login("carol")
            async with (
                agent(tmp_path, keep(tmp_path / "alice", alice)) as patient,
                agent(tmp_path, keep(tmp_path / "carol", carol)) as careless,
                operator(tmp_path) as human,
            ):
                held = await patient.post("tools/call", {"name": "slow", "arguments": {"ms": 1, "text": "alice"}})
                lost = await careless.post("tools/call", {"name": "slow", "arguments": {"ms": 1, "text": "carol"}})
                while len(asked := await human.questions()) < 2:
                    await anyio.sleep(0.05)
                await issuer.tell("ttl 600")
                keep(tmp_path / "alice", await issuer.refreshed(alice))
                answer = await careless.answer(lost, TOKEN_S + SLACK_S)
                assert -0.1 < time.time() - carol.claims["exp"] < 1 + SLACK_S / 2
                assert is_tool_error(answer)
                assert "expired" in text_of(answer)
                while time.time() < alice.claims["exp"] + 1.5:
                    await patient.read_for(0.1)
                assert patient.answers(held) == []
                assert executed(tmp_path) == 0
                for question in asked:
                    await _approve(human, question["id"])
                assert allowed(await patient.answer(held))
                assert allowed(await patient.call("echo"))
                assert refused(await careless.call("slow", {"ms": 1, "text": "carol"}))
    truth = (tmp_path / "truth").read_text()
    assert truth.count("alice") == 1
    assert "carol" not in truth


async def _approve(human: Operator, id: str) -> None:
    """Say yes; a question that ended with its call is no longer open."""
    with contextlib.suppress(AssertionError):
        await human.approve(id)
