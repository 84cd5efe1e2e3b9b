"""What the upstream tests share: intents, a started fake, and ways to find processes by a token in their command."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from interposer import canonical
from interposer.model import (
    Answered,
    Decision,
    Effect,
    Era,
    Intent,
    Invocation,
    JsonObject,
    Obligations,
    Outcome,
    Permit,
    Principal,
    Skill,
)
from interposer.ports import Secret
from interposer.upstreams.mcp_stdio import McpStdio
from interposer.upstreams.server import Command, Credential, Limits

FAKE = Path(__file__).parents[1] / "fakes" / "upstream.py"
QUICK = Limits(probe_s=1.0, start_s=20.0, close_s=1.0, backoff_s=(0.02, 0.5))


class SystemClock:
    """The time as it is."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def intent(
    name: str, arguments: JsonObject | None = None, *, timeout_s: float = 10.0, limit: int = 4 << 20, id: str = "i-1"
) -> Intent:
    """An intent as the journal would make it."""
    arguments = arguments or {}
    skill = Skill(f"fake.{name}", "fake", name, name, {"name": name}, "d")
    invocation = Invocation(
        id, "s-1", Principal("local", "someone"), skill, arguments, canonical.canonical(arguments), "d"
    )
    obligations = Obligations(timeout_s=timeout_s, max_result_bytes=limit)
    return Intent(Permit(invocation, Decision(Effect.ALLOW, (), "p", "r", obligations=obligations), None), 1)


def text(outcome: Outcome) -> str:
    """The text of an answer."""
    assert isinstance(outcome, Answered), outcome
    found = outcome.result["content"][0]["text"]
    assert isinstance(found, str)
    return found


def processes(token: str) -> list[int]:
    """The processes that have this token in their command line, this one excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and token.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


async def until_there_are(count: int, token: str) -> None:
    """Wait for that many processes with the token: a command line appears a moment after its exec."""
    with anyio.fail_after(5):
        while len(processes(token)) != count:
            await anyio.sleep(0.02)


@dataclass
class Rig:
    """A started upstream and everything that it told."""

    upstream: McpStdio
    token: str
    notices: list[tuple[str, str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    guarded: list[Secret] = field(default_factory=list)
    truth: Path | None = None

    async def call(self, name: str, arguments: JsonObject | None = None, **options: Any) -> Outcome:
        return await self.upstream.call(intent(name, arguments, **options), None)

    async def about(self) -> dict[str, Any]:
        found = json.loads(text(await self.call("about")))
        assert isinstance(found, dict)
        return found

    def told(self, kind: str) -> list[str]:
        return [detail for found, detail in self.notices if found == kind]

    async def until_told(self, kind: str) -> None:
        with anyio.fail_after(10):
            while not self.told(kind):
                await anyio.sleep(0.01)


@asynccontextmanager
async def running(
    *options: str,
    argv: tuple[str, ...] = (),
    limits: Limits = QUICK,
    variables: dict[str, str] | None = None,
    inherit: tuple[str, ...] = (),
    credential: Credential | None = None,
    mask: Callable[[str], str] = str,
    truth: Path | None = None,
    era: Era | None = None,
    guard: Callable[[Secret], None] | None = None,
    release: Callable[[Secret], None] | None = None,
    on_notice: Callable[[str, str], None] | None = None,
) -> AsyncIterator[Rig]:
    """A fake upstream with these options, closed at the end."""
    token = f"rig-{secrets.token_hex(8)}"
    command = argv or (sys.executable, str(FAKE), "--token", token, *options)
    if truth is not None:
        command += ("--truth", str(truth))
    notices: list[tuple[str, str]] = []
    log: list[str] = []
    guarded: list[Secret] = []
    upstream = McpStdio(
        "fake",
        Command(command, variables=variables or {}, inherit=inherit, credential=credential),
        clock=SystemClock(),
        mask=mask,
        log=log.append,
        on_notice=on_notice or (lambda kind, detail: notices.append((kind, detail))),
        guard=guard or guarded.append,
        release=release,
        limits=limits,
        era=era,
    )
    try:
        yield Rig(upstream, token, notices, log, guarded, truth)
    finally:
        with anyio.fail_after(10, shield=True):
            await upstream.aclose()
