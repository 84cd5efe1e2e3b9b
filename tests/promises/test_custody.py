"""Where credentials and tokens are, and where they never are."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import stat
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.errors import ConfigurationError
from interposer.model import Kind, Principal
from interposer.ports import Secret
from interposer.secrets.sources import SourcedSecrets
from interposer.upstreams.choice import Choice, Who
from interposer.upstreams.server import Command, Credential, Server
from tests.fakes.agent import UPSTREAM, Agent, configured, finish, is_tool_error, processes, spawned, text_of
from tests.fakes.canary import canary, credential_file
from tests.fakes.house import TokenBook, indoors
from tests.fakes.issuer import SigningKey
from tests.upstreams.rig import running

CREDENTIAL = canary("custody")
ROTATED = canary("custody-rotated")


def kept(home: Path) -> bytes:
    """The broker's log and record."""
    return b"".join(file.read_bytes() for file in [home / "stderr", *(home / "state").glob("record.db*")])


def alarms(home: Path) -> list[str]:
    """The codes of the record's alarms."""
    with sqlite3.connect(f"file:{home / 'state' / 'record.db'}?mode=ro", uri=True) as record:
        return [code for (code,) in record.execute("SELECT code FROM events WHERE kind = 'alarm' ORDER BY seq")]


def family(pid: int) -> list[int]:
    """The process and everything below it."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def about(answered: dict[str, Any]) -> dict[str, Any]:
    found = json.loads(text_of(answered))
    assert isinstance(found, dict)
    return found


def links(pid: int) -> dict[int, str]:
    """The descriptors of a process, and what each is."""
    folder = Path(f"/proc/{pid}/fd")
    return {int(fd.name): os.readlink(fd) for fd in folder.iterdir()}


async def test_credential_is_in_the_environment_of_its_process_only(tmp_path: Path) -> None:
    """Of the broker, its leash and its upstream no command line holds the credential, no environment but the
    upstream's own does, and the record and the log do not."""
    config = configured(tmp_path, UPSTREAM, credential=CREDENTIAL)
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        upstream = about(await agent.call("about"))["pid"]
        assert agent.process is not None
        everybody = family(agent.process.pid)
        assert upstream in everybody
        assert not processes(CREDENTIAL)
        leash = int(Path(f"/proc/{upstream}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in set(everybody) - {upstream, leash}:
            assert CREDENTIAL.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        held = Path(f"/proc/{upstream}/environ").read_bytes().rstrip(b"\0").split(b"\0")
        assert f"UPSTREAM_TOKEN={CREDENTIAL}".encode() in held
        # Python sets LC_CTYPE for itself where the locale is C (PEP 538).
        assert {entry.partition(b"=")[0] for entry in held} - {b"LC_CTYPE"} == {b"PATH", b"HOME", b"UPSTREAM_TOKEN"}
        await finish(agent)
    assert CREDENTIAL.encode() not in kept(tmp_path)


async def test_upstream_inherits_no_descriptor(tmp_path: Path) -> None:
    """An upstream has its three streams, and its leash nothing but pipes and /dev/null, whatever the broker holds."""
    config = configured(tmp_path, UPSTREAM, credential=CREDENTIAL)
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        upstream = about(await agent.call("about"))["pid"]
        assert sorted(links(upstream)) == [0, 1, 2]
        leash = int(Path(f"/proc/{upstream}/stat").read_text().rpartition(")")[2].split()[1])
        held = links(leash)
        assert {held[fd] for fd in (0, 1, 2)} == {"/dev/null"}
        rest = [name.partition(":")[0] for fd, name in held.items() if fd > 2]
        assert rest == ["pipe"] * 3, held
        await finish(agent)


@pytest.mark.parametrize("given", ["environment", "notification", "request"])
async def test_callers_own_token_never_goes_upstream(given: str, tmp_path: Path) -> None:
    """However a caller's token arrives, in 100 calls no byte of it is in what the upstream was given."""
    key, wire = SigningKey("k1"), tmp_path / "wire.emitted"
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key.jwk()]}))
    now = int(time.time())
    issuer = "https://idp.example"
    claims = {"iss": issuer, "aud": "interposer", "sub": "alice", "iat": now, "exp": now + 3600}
    tokens = [key.sign({**claims, "jti": f"t{number}"}) for number in range(4)]
    trust = f"issuers: [{{issuer: '{issuer}', audience: interposer, algorithms: [ES256], keys: {{file: keys.json}}}}]\n"
    config = configured(tmp_path, [*UPSTREAM, "--wire", str(wire)], credential=CREDENTIAL, more=trust)
    through = ["/usr/bin/env", f"INTERPOSER_TOKEN={tokens[0]}"] if given == "environment" else []
    async with spawned(tmp_path, ["stdio", "--config", str(config)], through=through) as agent:
        await agent.initialize()
        for number in range(100):
            token = tokens[number % len(tokens)]
            if given == "notification":
                params = {"token": token}
                await agent.send({"jsonrpc": "2.0", "method": "notifications/interposer/token", "params": params})
            meta = {"interposer/token": token, "progressToken": f"p{number}"} if given == "request" else {}
            assert not is_tool_error(await agent.call("echo", {"text": f"call {number}"}, **meta))
        refused = await agent.call("echo", {"text": tokens[0]}, **{"interposer/token": tokens[0]})
        assert is_tool_error(refused) or "error" in refused
        await finish(agent)
    seen = wire.read_bytes()
    assert seen.count(b'"tools/call"') == 100
    for token in tokens:
        assert token.encode() not in seen
        assert token.rpartition(".")[2].encode() not in seen
        assert token.split(".")[1].encode() not in seen
    assert b"INTERPOSER_TOKEN" not in seen
    assert b"interposer/token" not in seen


async def test_rotated_credential_counts_without_restart(tmp_path: Path) -> None:
    """A credential that is replaced is given to a new process within seconds, while calls go on and none is lost; both
    are masked, and one that is of no use is an alarm and changes nothing."""
    script = tmp_path / "script.emitted"
    frame = json.dumps({"jsonrpc": "2.0", "id": "$ID", "result": {"content": [{"type": "text", "text": "$BOTH"}]}})
    row = {"row": "both", "frames": [frame.replace("$BOTH", f"{CREDENTIAL} and {ROTATED}")]}
    script.write_text(json.dumps(row) + "\n")
    config = configured(tmp_path, [*UPSTREAM, "--script", str(script)], credential=CREDENTIAL)
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        first = about(await agent.call("about"))["pid"]
        slow = await agent.post("tools/call", {"name": "slow", "arguments": {"ms": 6_000, "text": "begun before"}})
        credential_file(tmp_path, "fake", ROTATED)
        second = await another_process(agent, first)
        assert Path(f"/proc/{second}/environ").read_bytes().find(ROTATED.encode()) >= 0
        assert text_of(await agent.answer(slow)) == "begun before"
        assert CREDENTIAL not in text_of(await agent.call("play", {"row": "both"}))
        (tmp_path / "fake.credential").chmod(0o444)
        with anyio.fail_after(20):
            while "credential_unusable" not in alarms(tmp_path):
                assert about(await agent.call("about"))["pid"] == second
                await agent.read_for(0.02)
        await finish(agent)
    assert alarms(tmp_path).count("credential_unusable") == 1
    assert "restart" not in alarms(tmp_path)
    for each in (CREDENTIAL, ROTATED):
        assert each.encode() not in kept(tmp_path)


SOURCES = {
    "fd": ("fd:7", 'exec "$@" 7<fake.credential'),
    "systemd": ("systemd:fake.credential", 'CREDENTIALS_DIRECTORY="$PWD" exec "$@"'),
    "command": ("command:/bin/cat {}/fake.credential", 'exec "$@"'),
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_credential_may_come_from_elsewhere(kind: str, tmp_path: Path) -> None:
    """From an inherited descriptor, from systemd or from a program, it goes to the upstream and to nobody else: the
    descriptor is closed, and systemd's directory is not passed on."""
    source, start = SOURCES[kind]
    config = configured(tmp_path, UPSTREAM, credential=CREDENTIAL)
    config.write_text(config.read_text().replace("file:fake.credential", source.format(tmp_path)))
    async with spawned(tmp_path, ["stdio", "--config", str(config)], through=["/bin/sh", "-c", start, "sh"]) as agent:
        await agent.initialize()
        upstream = about(await agent.call("about"))["pid"]
        held = Path(f"/proc/{upstream}/environ").read_bytes()
        assert f"UPSTREAM_TOKEN={CREDENTIAL}\0".encode() in held
        assert b"CREDENTIALS_DIRECTORY" not in held
        assert sorted(links(upstream)) == [0, 1, 2]
        assert agent.process is not None
        for pid in family(agent.process.pid):
            assert not any(name.endswith("fake.credential") for name in links(pid).values())
        await finish(agent)
    assert CREDENTIAL.encode() not in kept(tmp_path)


async def another_process(agent: Agent, than: int) -> int:
    with anyio.fail_after(20):
        while (found := about(await agent.call("about"))["pid"]) == than:
            await agent.read_for(0.02)
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("place", ["stderr", "definition", "progress"])
async def test_credential_that_comes_back_beside_answers_is_an_alarm(place: str, tmp_path: Path) -> None:
    """Also on standard error, in a definition or in a progress message it is masked, and the record has one alarm."""
    script, tools = tmp_path / "script.emitted", tmp_path / "tools.emitted"
    progress = {"progressToken": "$TOK", "progress": 1, "message": f"using {CREDENTIAL}"}
    frames = {
        "stderr": f"STDERR:token is {CREDENTIAL}",
        "progress": json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}),
        "definition": json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}),
    }
    script.write_text(json.dumps({"row": "row", "frames": [frames[place]] * 5}) + "\n")
    told = {"name": "leaky", "description": f"Uses {CREDENTIAL}.", "inputSchema": {"type": "object"}}
    tools.write_text(json.dumps(told) + "\n" if place == "definition" else "")
    options = ["--script", str(script), "--tools", str(tools)]
    config = configured(tmp_path, [*UPSTREAM, *options], credential=CREDENTIAL)
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        listed = await agent.request("tools/list")
        if place == "definition":
            leaky = next(tool for tool in listed["result"]["tools"] if tool["name"] == "leaky")
            assert leaky["description"] == "Uses [REDACTED:credential]."
        assert text_of(await agent.call("play", {"row": "row"}, progressToken="p")) == "after the row"
        with anyio.fail_after(10):
            while "credential_echoed" not in alarms(tmp_path):
                await agent.call("echo", {"text": "again"})
        assert CREDENTIAL.encode() not in bytes(agent.raw)
        await finish(agent)
    assert alarms(tmp_path).count("credential_echoed") == 1
    pins = b"".join(file.read_bytes() for file in (tmp_path / "state").rglob("*") if stat.S_ISREG(file.stat().st_mode))
    assert CREDENTIAL.encode() not in kept(tmp_path) + pins


async def test_callers_get_the_process_of_their_own_credential(tmp_path: Path) -> None:
    """Who calls says which credential is used; callers of two credentials share no process, and one for whom there is
    none is refused before an intent is written."""
    issuer = "https://idp.example"
    people = {name: Principal(issuer, name, groups) for name, groups in [("ann", ("a",)), ("ben", ("b",)), ("eve", ())]}
    for name in "ab":
        credential_file(tmp_path, name, canary(f"custody-{name}"))
    sources = SourcedSecrets({f"fake#{name}": f"file:{tmp_path / name}.credential" for name in "ab"})
    async with AsyncExitStack() as stack:
        options = []
        for name in "ab":
            rig = await stack.enter_async_context(running(credential=Credential("KEY", f"fake#{name}", sources)))
            options.append((Who(groups=frozenset({name})), rig.upstream))
        book = TokenBook(**{f"{name}s": principal for name, principal in people.items()})
        broker = await stack.enter_async_context(indoors("", [Choice("fake", options)], authenticator=book))
        agent = broker.join()
        await agent.initialize()
        pids: dict[str, int] = {}
        for name in ("ann", "ben", "ann", "ben"):
            found = about(await agent.call("about", {}, **{"interposer/token": f"{name}s"}))
            assert found["environ"]["KEY"] == canary(f"custody-{name[0]}")
            assert pids.setdefault(name, found["pid"]) == found["pid"]
        assert pids["ann"] != pids["ben"]
        refused = await agent.call("about", {}, **{"interposer/token": "eves"})
        assert is_tool_error(refused) or "error" in refused
        intents = [row.principal.subject for row in broker.rows(Kind.INTENDED) if row.principal]
        assert intents == ["ann", "ben", "ann", "ben"]


FAILING: dict[str, Callable[[Path], str]] = {
    "file": lambda home: f"file:{home / 'x.credential'}",
    "systemd": lambda home: "systemd:x.credential",
    "command": lambda home: f"command:/bin/sh -c 'cat {home}/x.credential; cat {home}/x.credential >&2; exit 5'",
}


@pytest.mark.parametrize("kind", FAILING)
async def test_credential_is_in_no_error_and_no_repr(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A source that is refused, and everything that holds a credential, say nothing of it: as text, in a traceback, and
    in what the log makes of either."""
    credential_file(tmp_path, "x", CREDENTIAL).chmod(0o446)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    source = FAILING[kind](tmp_path)
    secrets = SourcedSecrets({"x": source})
    secret = Secret(CREDENTIAL)
    held = [secret, secrets, Credential("KEY", "x", secrets), Command((sys.executable,))]
    try:
        await secrets.reveal("x")
    except ConfigurationError as refused:
        logging.getLogger("interposer.test").exception("not to be had: %s", refused)
        said = "".join(traceback.format_exception(refused))
        said += f"{refused} {refused!r} {refused.problems} {refused.public}"
    else:
        raise AssertionError("a source that others can read was taken")
    shown = f"{held} {[str(each) for each in held]} {secret!r} {secret} {[vars(Server)]}"
    for text in (said, caplog.text, shown):
        assert CREDENTIAL not in text
        assert "cat " not in text
    with pytest.raises(TypeError):
        __import__("pickle").dumps(secret)
