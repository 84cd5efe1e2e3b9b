"""The demo's scripted agent: a process that has the broker for a tool server, and no key.

It reads one step per line on stdin (`{"call": "crm.search", "arguments": {…}}`), makes the call through the command
that it was given as its MCP server, and prints the answer as one line on stdout. Every byte that comes back is kept in
a file, before anything is parsed, so that others can search what it was given.

    agent.py --received FILE -- interposer connect /path/to/broker.sock
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

PATIENCE_S = 20.0
LONGEST_PAUSE_S = 1.0

Object = dict[str, Any]


class ToolServer:
    """An MCP server as a child process, spoken to over its stdin and stdout."""

    def __init__(self, command: list[str], received: Path) -> None:
        self._kept = received.open("ab", buffering=0)
        self._complaints = received.with_suffix(".stderr").open("ab")
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, bufsize=0
        )
        self._to, self._from = _pipe(self._child.stdin), _pipe(self._child.stdout)
        self._buffer = bytearray()
        self._last_id = 0
        self.names: list[str] = []

    def __enter__(self) -> ToolServer:
        opening = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "demo-agent", "version": "1"},
        }
        self._ask("initialize", opening)
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.names = [tool["name"] for tool in self._ask("tools/list", {})["result"]["tools"]]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._to.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._from.close()
        self._kept.close()
        self._complaints.close()

    def call(self, skill: str, arguments: Object) -> Object:
        """Make a call. A ticket is what it says: the identical call again, later, until a human has answered."""
        name = self._shown_as(skill)
        tickets, deadline = 0, time.monotonic() + PATIENCE_S
        while True:
            answer = self._ask("tools/call", {"name": name, "arguments": arguments})
            pending = answer.get("result", {}).get("_meta", {}).get("interposer/pending")
            if pending is None or time.monotonic() > deadline:
                return {"answer": answer, "tickets": tickets}
            tickets += 1
            time.sleep(min(pending.get("retry_after_ms", 500) / 1000, LONGEST_PAUSE_S))

    def _shown_as(self, skill: str) -> str:
        """A broker adds the upstream's name to a tool's where two upstreams would collide."""
        upstream, _, name = skill.partition(".")
        return next((one for one in (skill, f"{upstream}__{name}", name) if one in self.names), name)

    def _ask(self, method: str, params: Object) -> Object:
        self._last_id += 1
        self._send({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params})
        while True:
            message: Object = self._next()
            if message.get("id") == self._last_id and "method" not in message:
                return message

    def _send(self, message: Object) -> None:
        self._to.write(json.dumps(message).encode() + b"\n")

    def _next(self) -> Object:
        while b"\n" not in self._buffer:
            some = self._from.read(65536)
            if not some:
                raise ConnectionError("the broker hung up")
            self._kept.write(some)
            self._buffer += some
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        message: Object = json.loads(line)
        return message


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    if end is None:
        raise RuntimeError("the child was started without pipes")
    return end


def main() -> int:
    parser = argparse.ArgumentParser(description="A scripted agent: steps in on stdin, answers out on stdout.")
    parser.add_argument("--received", required=True, type=Path, help="keep every received byte in this file")
    parser.add_argument("command", nargs="+", help="the MCP server to spawn")
    options = parser.parse_args()
    try:
        with ToolServer(options.command, options.received) as tools:
            print(json.dumps({"tools": tools.names}), flush=True)
            for line in sys.stdin:
                step = json.loads(line)
                print(json.dumps(tools.call(step["call"], step["arguments"])), flush=True)
    except ConnectionError as gone:
        print(f"agent.py: {gone}", file=sys.stderr)
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
