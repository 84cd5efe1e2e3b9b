"""The upstream of the benchmark: a stdio MCP server with one tool, `echo`, that costs as little as Python allows.

`echo` answers with a text of the asked size: small (200 B, nothing personal in it), medium (16 KB with 20 items that a
masker must find) or large (1 MB with 200). `delay_ms` answers later and holds up no other call. The texts are the same
in every run; every personal number in them is computed here and belongs to nobody. Standard library only.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import select
import time
from collections.abc import Iterator

BYTES = {"small": 200, "medium": 16 * 1024, "large": 1024 * 1024}
ITEMS = {"small": 0, "medium": 20, "large": 200}
VERSION = "2025-11-25"
_CHUNK_BYTES = 256 * 1024
_PROSE = (
    "the order was packed on monday and left the warehouse in two parcels since then the customer asked about the "
    "second one the carrier says it waits at the counter because nobody opened we offered another delivery "
)
_TOOL = {
    "name": "echo",
    "description": "Answers with a text of the asked size.",
    "inputSchema": {
        "type": "object",
        "required": ["size", "order"],
        "additionalProperties": False,
        "properties": {
            "size": {"enum": list(BYTES)},
            "delay_ms": {"type": "integer", "minimum": 0, "maximum": 10_000},
            "order": {
                "type": "object",
                "required": ["customer", "lines"],
                "additionalProperties": False,
                "properties": {
                    "customer": {"type": "string", "pattern": "^c-[0-9]{1,8}$"},
                    "note": {"type": "string", "maxLength": 1000},
                    "lines": {
                        "type": "array",
                        "maxItems": 50,
                        "items": {
                            "type": "object",
                            "required": ["article", "count"],
                            "properties": {
                                "article": {"type": "string", "maxLength": 40},
                                "count": {"type": "integer", "minimum": 1},
                            },
                        },
                    },
                },
            },
        },
    },
}


def text_of(size: str) -> str:
    """Exactly `BYTES[size]` ASCII characters, with `ITEMS[size]` personal items at even distances."""
    whole, items = BYTES[size], ITEMS[size]
    prose = _prose()
    parts = []
    for number in range(items):
        item = f"; {item_of(number)}; "
        parts.append(_take(prose, whole * (number + 1) // items - whole * number // items - len(item)) + item)
    return "".join(parts) or _take(prose, whole)


def item_of(number: int) -> str:
    """One personal item, with the word in front of it that people write there."""
    kind = number % 5
    if kind == 0:
        return f"card {_card(number)}"
    if kind == 1:
        return f"SSN {501 + number % 90:03}-{12 + number % 80:02}-{1000 + number:04}"
    if kind == 2:
        return f"IBAN {_iban(number)}"
    if kind == 3:
        return f"e-mail customer.{number}@example.org"
    return f"phone +1 {212 + number // 100} 555 {100 + number % 100:04}"


def _prose() -> Iterator[str]:
    while True:
        yield from _PROSE.split()


def _take(words: Iterator[str], length: int) -> str:
    taken = ""
    while len(taken) < length:
        taken += next(words) + " "
    return taken[:length]


def _card(number: int) -> str:
    """Sixteen digits with the check digit of ISO/IEC 7812-1."""
    body = f"4539{number:05}271604"
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in body[-1::-2])
    return body + str(-(doubled + sum(map(int, body[-2::-2]))) % 10)


def _iban(number: int) -> str:
    """A German one with the check digits of ISO 13616."""
    account = f"37040044{number:010}"
    return f"DE{98 - int(account + '131400') % 97:02}{account}"


def main() -> None:
    """Serve standard input until it ends."""
    results = {size: json.dumps({"content": [{"type": "text", "text": text_of(size)}]}).encode() for size in BYTES}
    later: list[tuple[float, int, bytes]] = []
    poll = select.poll()
    poll.register(0, select.POLLIN)
    rest = b""
    while True:
        if later:
            left_ms = max(0.0, later[0][0] - time.monotonic()) * 1000
            ready = poll.poll(left_ms)
            while later and later[0][0] <= time.monotonic():
                _write(heapq.heappop(later)[2])
            if not ready:
                continue
        chunk = os.read(0, _CHUNK_BYTES)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "id" not in message or "method" not in message:
                continue
            answer, delay_ms = _answer(message, results)
            if delay_ms:
                heapq.heappush(later, (time.monotonic() + delay_ms / 1000, len(later), answer))
            else:
                _write(answer)


def _answer(message: dict[str, object], results: dict[str, bytes]) -> tuple[bytes, int]:
    """The line to send and after how many milliseconds."""
    head = b'{"jsonrpc":"2.0","id":' + json.dumps(message["id"]).encode()
    method, params = message["method"], message.get("params")
    delay_ms = 0
    if method == "tools/call" and isinstance(params, dict):
        arguments = params["arguments"]
        result = results[arguments["size"]]
        delay_ms = arguments.get("delay_ms", 0)
    elif method == "initialize":
        about = {"name": "benchmark-upstream", "version": "1"}
        result = json.dumps({"protocolVersion": VERSION, "capabilities": {"tools": {}}, "serverInfo": about}).encode()
    elif method == "tools/list":
        result = json.dumps({"tools": [_TOOL]}).encode()
    elif method == "ping":
        result = b"{}"
    else:
        return head + b',"error":{"code":-32601,"message":"Method not found"}}\n', 0
    return head + b',"result":' + result + b"}\n", delay_ms


def _write(data: bytes) -> None:
    sent = os.write(1, data)
    while sent < len(data):
        sent += os.write(1, memoryview(data)[sent:])


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
