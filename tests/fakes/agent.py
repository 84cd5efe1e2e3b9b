"""A raw JSON-RPC agent for tests: any bytes out, every byte that came back kept, over a child's pipes or a Unix socket.

It reads only while somebody waits for something, and every wait has a deadline. `COMMAND` is the broker as a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

from interposer.shown import DESTRUCTIVE_S
from tests.fakes import canary

COMMAND = [sys.executable, "-m", "interposer"]
UPSTREAM = [sys.executable, str(Path(__file__).parent / "upstream.py")]
ALLOW_ALL = "version: 1\nrules: [{id: all, effect: allow, skills: ['*']}]\n"
DEADLINE_S = 15.0
META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
ENVELOPE = {
    META + "protocolVersion": MODERN,
    META + "clientCapabilities": {},
    META + "clientInfo": {"name": "agent", "version": "1"},
}

Object = dict[str, Any]


class Agent:
    """One conversation from the client's side."""

    def __init__(self, inlet: ByteReceiveStream, outlet: ByteSendStream, process: Process | None = None) -> None:
        self.process = process
        self.raw = bytearray()
        """Every byte that came."""
        self.messages: list[Any] = []
        """Every line that came, parsed."""
        self.modern = False
        self._inlet = inlet
        self._outlet = outlet
        self._parsed = 0
        self._last = 0
        self._over = False

    async def send(self, *messages: Object | bytes) -> None:
        """Messages, or bytes as they are."""
        data = b"".join(
            message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n" for message in messages
        )
        with anyio.fail_after(4 * DEADLINE_S):
            await self._outlet.send(data)

    async def hang_up(self) -> None:
        """Send no more."""
        await self._outlet.aclose()

    async def until(self, holds: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
        """Read until it holds. Raises `TimeoutError`, or `EOFError` when the other side has hung up before."""
        with anyio.fail_after(within_s):
            while not holds():
                if self._over:
                    raise EOFError("the broker has hung up")
                await self._read()

    async def to_the_end(self, within_s: float = DEADLINE_S) -> None:
        """Read until the other side hangs up."""
        with anyio.fail_after(within_s):
            while not self._over:
                await self._read()

    async def read_for(self, seconds: float) -> None:
        """Read whatever comes in this time."""
        with anyio.move_on_after(seconds):
            while not self._over:
                await self._read()

    async def answer(self, id: int | str, within_s: float = DEADLINE_S) -> Object:
        """The first answer to this id, its type included."""
        await self.until(lambda: bool(self.answers(id)), within_s)
        return self.answers(id)[0]

    def answers(self, id: int | str) -> list[Object]:
        """Every answer to this id that came so far, those in batches included."""
        flat = [each for m in self.messages for each in (m if isinstance(m, list) else [m])]
        return [m for m in flat if "method" not in m and m.get("id") == id and type(m.get("id")) is type(id)]

    def notifications(self, method: str) -> list[Object]:
        return [m["params"] for m in self.messages if isinstance(m, dict) and m.get("method") == method]

    async def post(self, method: str, params: Object | None = None, *, id: int | str | None = None) -> int | str:
        """Send a request, enveloped if this agent is modern; returns its id."""
        if id is None:
            self._last += 1
            id = f"a{self._last}"
        params = dict(params or {})
        if self.modern:
            params["_meta"] = {**ENVELOPE, **params.get("_meta", {})}
        await self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        return id

    async def request(self, method: str, params: Object | None = None, *, id: int | str | None = None) -> Object:
        """The answer to a request: an object with `result` or `error`."""
        return await self.answer(await self.post(method, params, id=id))

    async def call(self, name: str, arguments: Object | None = None, **meta: Any) -> Object:
        """The answer to a `tools/call`."""
        params: Object = {"name": name, "arguments": arguments or {}}
        return await self.request("tools/call", {**params, "_meta": meta} if meta else params)

    async def initialize(self, version: str = "2025-11-25") -> Object:
        """Open a legacy conversation; the InitializeResult."""
        client = {"name": "agent", "version": "1"}
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
        answer = await self.request("initialize", params)
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        result: Object = answer["result"]
        return result

    async def discover(self) -> Object:
        """Open a modern conversation; the DiscoverResult."""
        self.modern = True
        answer = await self.request("server/discover")
        result: Object = answer["result"]
        return result

    async def _read(self) -> None:
        try:
            self.raw += await self._inlet.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._over = True
        while (end := self.raw.find(b"\n", self._parsed)) >= 0:
            line = bytes(self.raw[self._parsed : end])
            self._parsed = end + 1
            self.messages.append(json.loads(line, parse_constant=_no_constant))

    async def aclose(self) -> None:
        await self._outlet.aclose()
        await self._inlet.aclose()


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def text_of(answer: Object) -> str:
    """The text of a tool's result."""
    text: str = answer["result"]["content"][0]["text"]
    return text


def is_tool_error(answer: Object) -> bool:
    return bool(answer.get("result", {}).get("isError"))


def environment(home: Path) -> dict[str, str]:
    """What a broker under test is started with, and nothing else of ours."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "INTERPOSER_HOME": str(home / "state")}


def configured(
    home: Path, upstream: Sequence[str], *, policy: str = ALLOW_ALL, credential: str | None = None, more: str = ""
) -> Path:
    """Write a configuration with one upstream named `fake` and its policy; returns the file. The upstream has the
    credential, by default the canary, in UPSTREAM_TOKEN."""
    (home / "policy.yaml").write_text(policy)
    lines = ["version: 1", "policy: policy.yaml", "upstreams:", "  fake:", f"    command: {json.dumps(list(upstream))}"]
    key = canary.credential_file(home, "fake", credential)
    lines.append(f"    credential: {{env: UPSTREAM_TOKEN, source: 'file:{key.name}'}}")
    file = home / "interposer.yaml"
    file.write_text("\n".join(lines) + "\n" + more)
    return file


@asynccontextmanager
async def spawned(home: Path, arguments: Sequence[str], *, through: Sequence[str] = ()) -> AsyncIterator[Agent]:
    """The broker as a child on our pipes; its stderr goes to `home/stderr`. Killed at the end if it still lives.
    `through`: a command that becomes the broker."""
    with (home / "stderr").open("ab") as stderr:
        process = await anyio.open_process(
            [*through, *COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(home),
            cwd=home,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    agent = Agent(process.stdout, process.stdin, process)
    try:
        yield agent
        canary.require_absent(agent.raw, "what the broker wrote to standard output")
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


@asynccontextmanager
async def stdio(home: Path, config: Path) -> AsyncIterator[Agent]:
    """`interposer stdio` with a configuration. Left in order, it is given the time to end by itself."""
    async with spawned(home, ["stdio", "--config", str(config)]) as agent:
        yield agent
        await finish(agent)


async def finish(agent: Agent) -> int:
    """Hang up, read what still comes, and return the exit code."""
    assert agent.process is not None
    await agent.hang_up()
    await agent.to_the_end()
    with anyio.fail_after(DEADLINE_S):
        return await agent.process.wait()


async def kill(agent: Agent) -> None:
    """`kill -9`, and it is gone."""
    assert agent.process is not None
    agent.process.kill()
    with anyio.fail_after(DEADLINE_S):
        await agent.process.wait()


@asynccontextmanager
async def unix(path: Path) -> AsyncIterator[Agent]:
    """An agent on a Unix socket."""
    with anyio.fail_after(DEADLINE_S):
        stream = await anyio.connect_unix(str(path))
    agent = Agent(stream, _Half(stream))
    try:
        yield agent
        canary.require_absent(agent.raw, "what the broker wrote to a socket")
    finally:
        with anyio.CancelScope(shield=True):
            await stream.aclose()


class _Half(ByteSendStream):
    """The sending half of a socket: closing it leaves the other half open."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def aclose(self) -> None:
        await self._stream.send_eof()


class Operator:
    """A human at the administration socket of the broker whose state is under `home`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def ask(self, method: str, params: Object | None = None) -> Object:
        answer = await self._agent.request(method, params)
        if "error" in answer:
            raise AssertionError(answer["error"])
        result: Object = answer["result"]
        return result

    async def questions(self) -> list[Object]:
        found: list[Object] = (await self.ask("approvals/list"))["questions"]
        return found

    async def approve(self, id: str) -> None:
        """As a human does: look, read for as long as it takes, and say yes to that."""
        question = (await self.ask("approvals/show", {"id": id}))["question"]
        if question["destructive"]:
            await anyio.sleep(DESTRUCTIVE_S)
        await self.ask("approvals/approve", {"id": id, "digest": question["version"]})

    async def begin_approving(self, id: str) -> None:
        """Send a yes, and do not wait for what comes of it."""
        await self._agent.post("approvals/approve", {"id": id})


@asynccontextmanager
async def operator(home: Path) -> AsyncIterator[Operator]:
    async with unix(home / "state" / "admin.sock") as agent:
        key = (home / "state" / "admin.key").read_text()
        assert "result" in await agent.request("operator/key", {"key": key})
        yield Operator(agent)


def processes(mark: str) -> dict[int, str]:
    """Living processes with this word on their command line: pid -> command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (folder / "stat").read_text().rpartition(") ")[2][:1]
            except OSError:
                continue
            if mark in line and state != "Z":
                found[int(folder.name)] = line
    return found


async def gone(mark: str, within_s: float = DEADLINE_S) -> None:
    """Wait until no process with this word on its command line is left; woken by the kernel, not by a timer."""
    with anyio.fail_after(within_s):
        for pid in processes(mark):
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)
    assert not processes(mark)
