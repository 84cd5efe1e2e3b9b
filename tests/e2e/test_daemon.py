"""The daemon as its operators run it: listeners, tokens, reload, drain, and one broker per record."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from pathlib import Path

import anyio
import pytest
from mcp import StdioServerParameters
from mcp.client.client import Client

from tests.e2e.daemon import daemon, interposer
from tests.fakes.canary import credential_file

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60
ALLOW = '  - {id: all, effect: allow, skills: ["*"]}\n'
DENY = (
    '  - {id: none, effect: deny, skills: ["fake.echo"], arguments: {properties: {text: {const: x}}}, message: Gone.}\n'
)


def configure(folder: Path, listen: str = "", callers: str = "") -> tuple[Path, dict[str, str]]:
    """An interposer.yaml with the scriptable upstream, and the environment of its broker."""
    (folder / "policy.yaml").write_text(f"version: 1\nrules:\n{ALLOW}")
    path, key = folder / "interposer.yaml", credential_file(folder, "fake")
    path.write_text(
        "version: 1\npolicy: policy.yaml\nupstreams:\n"
        f"  fake:\n    command: [{sys.executable}, {ROOT / 'tests/fakes/upstream.py'}]\n"
        f"    credential: {{env: UPSTREAM_TOKEN, source: 'file:{key.name}'}}\n{listen}{callers}"
    )
    return path, {"INTERPOSER_HOME": str(folder / "home")}


def shim(env: dict[str, str], *words: str) -> Client:
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "interposer", "connect", *words], env={**env, "PATH": os.environ["PATH"]}
    )
    return Client(parameters, mode="legacy")


async def test_tcp_callers_are_who_their_token_says(tmp_path: Path) -> None:
    """Without the token nobody gets in; with it, policy knows the caller by its configured name and groups."""
    token = tmp_path / "agent.token"
    token.write_text(secrets.token_urlsafe(32))
    token.chmod(0o400)
    listen = 'listen: {tcp: {tokens: [{source: "file:agent.token", subject: ci, groups: [robots]}]}}\n'
    path, env = configure(tmp_path, listen)
    (tmp_path / "policy.yaml").write_text(
        'version: 1\nrules:\n  - {id: r, effect: allow, skills: ["fake.echo"], who: {groups: [robots]}}\n'
    )
    with anyio.fail_after(DEADLINE_S):
        async with daemon(path, env) as said:
            address = next(line.split()[-1] for line in said if "tcp://" in line)
            async with shim(env, address, "--token-file", str(token)) as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == ["echo"]
                assert not (await client.call_tool("echo", {"text": "hi"})).is_error
            async with shim(env) as local:
                assert (await local.list_tools()).tools == []
            wrong = tmp_path / "wrong.token"
            wrong.write_text(secrets.token_urlsafe(32))
            words = [sys.executable, "-m", "interposer", "connect", address, "--token-file", str(wrong)]
            refused = await anyio.run_process(words, input=b"", check=False, env={**os.environ, **env})
            assert refused.returncode == 3
    shown = await interposer(tmp_path / "home", "sessions", "list")
    assert "token:ci" in shown


async def test_a_uid_that_is_not_listed_does_not_get_in(tmp_path: Path) -> None:
    """Whoever may not connect is told so at once, in a message that a client understands."""
    path, env = configure(tmp_path, f"listen: {{socket: {{uids: [{os.getuid() + 1}]}}}}\n")
    words = [sys.executable, "-m", "interposer", "connect"]
    with anyio.fail_after(DEADLINE_S):
        async with daemon(path, env):
            turned_away = await anyio.run_process(words, input=b"", check=False, env={**os.environ, **env})
    assert json.loads(turned_away.stdout)["error"]["message"].startswith("This user may not connect")


async def test_a_changed_policy_is_in_force_for_the_next_call(tmp_path: Path) -> None:
    """SIGHUP or not, callers are judged by what the file says now, and are told that the list may differ."""
    path, env = configure(tmp_path)
    with anyio.fail_after(DEADLINE_S):
        async with daemon(path, env), shim(env) as client:
            assert not (await client.call_tool("echo", {"text": "x"})).is_error
            (tmp_path / "policy.yaml").write_text(f"version: 1\nrules:\n{ALLOW}{DENY}")
            while not (denied := await client.call_tool("echo", {"text": "x"})).is_error:
                await anyio.sleep(0.05)
            assert "Gone." in denied.content[0].text  # type: ignore[union-attr]
            (tmp_path / "policy.yaml").write_text("version: 1\nrules: [nonsense]\n")
            assert not (await client.call_tool("echo", {"text": "y"})).is_error
            assert (await client.call_tool("echo", {"text": "x"})).is_error


async def test_one_record_has_one_daemon(tmp_path: Path) -> None:
    """The second one is refused, says who holds the record, and changes nothing."""
    path, env = configure(tmp_path)
    with anyio.fail_after(DEADLINE_S):
        async with daemon(path, env):
            words = [sys.executable, "-m", "interposer", "serve", "--config", str(path)]
            second = await anyio.run_process(words, check=False, env={**os.environ, **env})
            assert second.returncode == 5
            assert b"another broker (pid" in second.stderr
            async with shim(env) as client:
                assert not (await client.call_tool("echo", {"text": "hi"})).is_error


async def test_a_terminated_daemon_lets_calls_finish(tmp_path: Path) -> None:
    """What is in flight gets its grace; everything is on record, and the exit code says that all is well."""
    path, env = configure(tmp_path)
    with anyio.fail_after(DEADLINE_S):
        async with daemon(path, env), shim(env) as client:
            assert not (await client.call_tool("slow", {"ms": 100})).is_error
    assert "all as they were written" in await interposer(tmp_path / "home", "record", "verify")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stdio_broker_ends_with_its_agent_or_by_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """No broker and no upstream is left, whoever ends first."""
    mark = secrets.token_hex(8)
    words = [sys.executable, "-m", "interposer", "stdio", "--", sys.executable, str(ROOT / "tests/fakes/upstream.py")]
    env = {**os.environ, "INTERPOSER_HOME": str(tmp_path / "home")}
    with anyio.fail_after(DEADLINE_S):
        process = await anyio.open_process([*words, "--truth", str(tmp_path / mark)], env=env)
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        hello = (
            b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":'
            b'{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n'
            b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}\n'
        )
        await process.stdin.send(hello)
        seen = b""
        while b'"id":2' not in seen:
            seen += await process.stdout.receive()
        process.send_signal(number)
        assert await process.wait() == 0
        await process.aclose()
        while _running(mark):
            await anyio.sleep(0.05)


def _running(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found
