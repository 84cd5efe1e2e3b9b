"""Real brokers that ordinary users start: greeted, looked at from outside, and gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.boundary.installation import Installation, Person

DEADLINE_S = 20.0
ALLOW_ALL = "version: 1\nrules: [{id: all, effect: allow, skills: ['*']}]\n"
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


@dataclass
class Broker:
    """What was started is the keeper; the broker is its child."""

    process: subprocess.Popen[bytes]
    credential: str

    @property
    def keeper(self) -> int:
        return self.process.pid

    @property
    def pid(self) -> int:
        (child,) = children(self.keeper)
        return child

    def request(self, method: str, params: dict[str, Any], id: int = 1) -> dict[str, Any]:
        """The answer to a request on standard input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        until = time.monotonic() + DEADLINE_S
        line = b""
        while f'"id":{id}'.encode() not in line or not line.endswith(b"\n"):
            line = b"" if line.endswith(b"\n") else line
            wait = max(0.0, until - time.monotonic())
            assert select.select([self.process.stdout], [], [], wait)[0], "no answer in time"
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, self.said()
            line += piece
        answer: dict[str, Any] = json.loads(line.splitlines()[-1])
        return answer

    def greet(self) -> dict[str, Any]:
        """Answered when the upstream runs too."""
        answer = self.request("initialize", HELLO)
        self.request("tools/list", {}, id=2)
        return answer

    def said(self) -> str:
        """Standard error, to its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def end(self) -> int:
        """The agent hangs up; the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(DEADLINE_S)


def configured(installation: Installation, person: Person, credential: str, more: str = "") -> Path:
    """A configuration with a credential in a file, both the person's own."""
    person.file("policy.yaml", ALLOW_ALL)
    person.file("credential", credential, 0o400)
    return person.file(
        "interposer.yaml",
        "version: 1\npolicy: policy.yaml\nupstreams:\n"
        f"  fake:\n    command: [{installation.python}, -I, {installation.upstream}]\n"
        f"    credential: {{env: TOKEN, source: 'file:{person.home / 'credential'}'}}\n{more}",
    )


@contextlib.contextmanager
def stdio(
    installation: Installation, person: Person, words: Sequence[str] = ("-m", "interposer"), **options: Any
) -> Iterator[Broker]:
    """A broker of that person's on pipes, with a credential of its own."""
    credential = secrets.token_urlsafe(24)
    config = configured(installation, person, credential)
    process = person.popen([installation.python, *words, "stdio", "--config", str(config)], **options)
    with ended(process):
        yield Broker(process, credential)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def below(pid: int) -> list[int]:
    """Every descendant."""
    found = children(pid)
    for each in found:
        found += children(each)
    return found


def alive(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def gone(pids: Sequence[int]) -> None:
    """Returns when none of them runs any more."""
    until = time.monotonic() + DEADLINE_S
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < until, f"{left} still run"
        time.sleep(0.01)


def eventually(holds: Any) -> None:
    until = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < until, "it does not come to hold"
        time.sleep(0.01)


def status(pid: int, name: str) -> str:
    """A field of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    raise KeyError(name)
