"""An agent's conversation with a deployed broker: `interposer connect` as some user, from opening to exit code."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

DEADLINE_S = 30.0
OPENING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "agent", "version": "1"}}

Object = dict[str, Any]


class Conversation:
    """One agent; requests one after the other."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._last = 0
        self.raw = b""

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=DEADLINE_S)

    def open(self) -> Object:
        return self.ask("initialize", OPENING)

    def call(self, name: str, **arguments: Any) -> Object:
        return self.ask("tools/call", {"name": name, "arguments": arguments})

    def ask(self, method: str, params: Object) -> Object:
        """The whole answer. Raises `EOFError` with what the shim said."""
        self._last += 1
        message = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()
        until = time.monotonic() + DEADLINE_S
        while True:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            line = self._process.stdout.readline() if ready else b""
            if not line:
                raise EOFError(self._process.communicate(timeout=DEADLINE_S)[1].decode() or "no answer in time")
            self.raw += line
            answer: Object = json.loads(line)
            if answer.get("id") == self._last:
                return answer


def until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the broker's `ready`. Raises `AssertionError` with its log."""
    assert process.stdout is not None
    until = time.monotonic() + DEADLINE_S
    while select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
        line = process.stdout.readline()
        if line == b"ready\n":
            return
        if not line:
            break
    raise AssertionError(log.read_text())


def connect(python: str, socket: Path) -> Sequence[str]:
    return [python, "-I", "-m", "interposer", "connect", str(socket)]
