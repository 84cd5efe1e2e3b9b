"""The load: raw JSON-RPC over a pair of pipes or a socket, with N calls in flight, as fast as one Python process can.

Closed loop: a call is sent the moment another is answered, one `write` each. An answer counts only when it has the
length of the one that was looked at before, so a refusal or a withheld result is never taken for a fast call.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.upstream import VERSION

_CHUNK_BYTES = 1024 * 1024
_HEAD = b'{"jsonrpc":"2.0","id":'
_FOLLOWS = b',"method":"tools/call","params":'


class Broken(Exception):
    """The other side hung up, or answered what it should not."""


@dataclass(slots=True)
class Load:
    """What one window of load brought."""

    latencies_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    wrong: int = 0
    """Answers that were not the expected one."""
    sample: str = ""
    """The beginning of the first of them."""

    @property
    def calls_per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s if self.elapsed_s else 0.0

    def centile_us(self, centile: int) -> float:
        """Nearest rank."""
        ranked = sorted(self.latencies_s)
        return ranked[max(0, -(-len(ranked) * centile // 100) - 1)] * 1e6 if ranked else 0.0


class Client:
    """One MCP session on two descriptors (the same one twice for a socket). Raises `Broken`; waits for as long as the
    other side lives, so whoever uses it ends that side in time (`processes.within`)."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._parts: list[bytes] = []
        self._next_id = 1

    def greet(self) -> None:
        """The handshake."""
        about = {"name": "benchmark", "version": "1"}
        self.ask("initialize", {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": about})
        self._write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    def ask(self, method: str, params: dict[str, Any]) -> bytes:
        """The line that answers a request."""
        wanted = self._next_id
        self._next_id += 1
        request = {"jsonrpc": "2.0", "id": wanted, "method": method, "params": params}
        self._write(json.dumps(request).encode() + b"\n")
        while True:
            for line in self._read():
                if _id_of(line) == wanted:
                    if "result" not in json.loads(line):
                        raise Broken(f"{method} was answered by {line[:300].decode(errors='replace')}")
                    return line

    def call(self, arguments: dict[str, Any]) -> str:
        """The text that one call of `echo` brings."""
        result = json.loads(self.ask("tools/call", {"name": "echo", "arguments": arguments}))["result"]
        text: str = result["content"][0]["text"]
        if result.get("isError"):
            raise Broken(f"the call was refused: {text[:300]}")
        return text

    def length_of(self, arguments: dict[str, Any]) -> int:
        """How long a right answer is, without the digits of its id."""
        line = self.ask("tools/call", {"name": "echo", "arguments": arguments})
        if json.loads(line)["result"].get("isError"):
            raise Broken(f"the call was refused: {line[:300].decode(errors='replace')}")
        return len(line) - len(str(_id_of(line)))

    def load(self, arguments: dict[str, Any], *, length: int, in_flight: int, seconds: float, calls: int = 0) -> Load:
        """Calls until `seconds` have passed (or `calls` are made, if given), then waits for what is under way."""
        params = json.dumps({"name": "echo", "arguments": arguments}, separators=(",", ":")).encode()
        tail = _FOLLOWS + params + b"}\n"
        now, write, to = time.perf_counter, os.write, self._write_fd
        found = Load()
        latencies = found.latencies_s
        sent: dict[int, float] = {}
        next_id = self._next_id
        last_id = next_id + (calls or 2**62)
        began = ended = now()
        until = began + seconds
        for _ in range(min(in_flight, last_id - next_id)):
            sent[next_id] = now()
            write(to, b"%b%d%b" % (_HEAD, next_id, tail))
            next_id += 1
        while sent:
            for line in self._read():
                answered = _id_of(line)
                started = sent.pop(answered, None)
                if started is None:
                    continue
                ended = now()
                latencies.append(ended - started)
                if len(line) - len(str(answered)) != length:
                    found.wrong += 1
                    found.sample = found.sample or line[:800].decode(errors="replace")
                if ended < until and next_id < last_id:
                    sent[next_id] = now()
                    write(to, b"%b%d%b" % (_HEAD, next_id, tail))
                    next_id += 1
        self._next_id = next_id
        found.elapsed_s = ended - began
        return found

    def _read(self) -> list[bytes]:
        """The whole lines that have come; none when a line is not complete yet."""
        try:
            chunk = os.read(self._read_fd, _CHUNK_BYTES)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise Broken("the other side hung up")
        end = chunk.rfind(b"\n")
        if end < 0:
            self._parts.append(chunk)
            return []
        self._parts.append(chunk[:end])
        lines = b"".join(self._parts).split(b"\n")
        self._parts = [chunk[end + 1 :]]
        return lines

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._write_fd, data) :]


def _id_of(line: bytes) -> int:
    """-1 for what is no answer."""
    if line.startswith(_HEAD):
        number = line[len(_HEAD) : len(_HEAD) + 20].partition(b",")[0]
        if number.isdigit():
            return int(number)
    message = json.loads(line) if line.strip() else {}
    found = message.get("id", -1) if "method" not in message else -1
    return found if isinstance(found, int) else -1
