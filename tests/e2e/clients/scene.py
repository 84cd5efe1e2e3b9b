"""A gated call of a client that nobody here wrote: the broker in front of it, the human behind, and what really ran.

The client is a program of `programs/`, in an environment of its own, with its default settings. It says what happens to
it as JSON lines, and waits after a ticket until the human has answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.e2e.needs import ROOT, missing
from tests.fakes.agent import COMMAND, UPSTREAM, configured, environment, operator

PROGRAMS = Path(__file__).parent / "programs"
DEADLINE_S = 60.0
POLICY = """\
version: 1
rules: [{id: human, effect: ask, skills: ["fake.*"], approval: {expires: 10m}}]
"""
ARGUMENTS = {"text": "pay 10 to Jöhn"}
SAID = "pay 10 to Jöhn"

Event = dict[str, Any]


def python_of(environment: str) -> str:
    """The interpreter of an environment of `make clients`."""
    folder = ROOT / ".clients" / environment
    if not (folder / ".ready").exists():
        missing(f"the clients of {environment} are not installed; run `make clients`")
    return str(folder / "bin/python")


@dataclass(frozen=True, slots=True)
class Scene:
    """A broker's configuration, and what reached the upstream behind it."""

    home: Path
    config: Path

    @property
    def stdio(self) -> list[str]:
        """What a client spawns: the broker itself."""
        return [*COMMAND, "stdio", "--config", str(self.config)]

    @property
    def connect(self) -> list[str]:
        """What a client spawns where a daemon runs."""
        return [*COMMAND, "connect", str(self.home / "state/broker.sock")]

    def executed(self) -> list[Any]:
        """The arguments of every call that reached the upstream."""
        truth = self.home / "truth"
        lines = truth.read_bytes().splitlines() if truth.exists() else []
        return [json.loads(line)["arguments"] for line in lines]

    def verified(self) -> bool:
        words = [*COMMAND, "record", "verify", "--record", str(self.home / "state/record.db")]
        return subprocess.run(words, env=environment(self.home), capture_output=True, timeout=30).returncode == 0


def scene(home: Path, more: str = "approvals: {hold: 500ms}\n", policy: str = POLICY) -> Scene:
    """The scriptable upstream, each of whose calls needs a human."""
    return Scene(home, configured(home, [*UPSTREAM, "--truth", str(home / "truth")], policy=policy, more=more))


class Program:
    """A client that runs."""

    def __init__(self, process: Process) -> None:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("no pipes")
        self._process = process
        self._said = BufferedByteReceiveStream(process.stdout)
        self.events: list[Event] = []

    async def next(self, *wanted: str) -> Event:
        """The next event of these; those before it are kept in `events`."""
        while True:
            line = await self._said.receive_until(b"\n", 1 << 20)
            if line.startswith(b"{"):
                self.events.append(json.loads(line))
                if self.events[-1]["event"] in wanted:
                    return self.events[-1]

    async def go_on(self) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send(b"\n")

    async def leave(self) -> None:
        """It is told nothing more: who waits for a human ends."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()

    async def ended(self) -> int:
        return await self._process.wait()


@asynccontextmanager
async def program(scene: Scene, words: list[str], command: list[str], **more: Any) -> AsyncIterator[Program]:
    """A client program that spawns `command`. It is gone afterwards."""
    order = {"command": command, "env": environment(scene.home), "arguments": ARGUMENTS, **more}
    with (scene.home / "client.stderr").open("ab") as stderr, anyio.fail_after(DEADLINE_S):
        process = await anyio.open_process(
            [*words, json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=scene.home,
        )
        try:
            yield Program(process)
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.aclose()


def python(name: str, interpreter: str = sys.executable) -> list[str]:
    return [interpreter, str(PROGRAMS / name)]


async def approve(scene: Scene) -> str:
    """A human's yes to the one question that is open, as soon as there is one; its id."""
    async with operator(scene.home) as human:
        listed = await human.ask("approvals/list")
        while not listed["questions"]:
            listed = await human.ask("approvals/watch", {"since": listed["revision"], "wait_s": 10})
        (question,) = listed["questions"]
        await human.approve(question["id"])
    id: str = question["id"]
    return id
