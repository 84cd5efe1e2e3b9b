"""How the demo looks for itself: at the service's files, at what the agent got, at what the commands answer."""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from .stage import KEY_VARIABLE, Agent, Stage, StageFault, plain_environment

QUESTION_TIMEOUT_S = 20.0
_WINDOW = 12
"""No part of the key of this length may be found either."""

Json = Any


class NotProved(Exception):
    """A step did not show what it claims."""


def prove(shown: bool, claim: str) -> None:
    """Raises `NotProved` unless the claim was shown."""
    if not shown:
        raise NotProved(f"not shown: {claim}")


def agent_of(stage: Stage) -> Agent:
    if stage.agent is None:
        raise StageFault("the agent was not started")
    return stage.agent


def result_of(answer: Json) -> dict[str, Json]:
    """The result in a JSON-RPC response. Raises `NotProved` for an error."""
    prove(isinstance(answer, dict) and isinstance(answer.get("result"), dict), f"a result, not {answer.get('error')}")
    result: dict[str, Json] = answer["result"]
    return result


def text_of(result: dict[str, Json]) -> str:
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")


def ledger(stage: Stage) -> list[dict[str, Json]]:
    """The refunds that were really made."""
    return [json.loads(line) for line in (stage.files / "ledger.jsonl").read_text().splitlines()]


def outbox(stage: Stage) -> set[str]:
    """The messages that were really sent."""
    return {path.name for path in (stage.files / "outbox").iterdir()}


def rows(stage: Stage, table: str) -> int:
    """How many rows the service's database really has in a table."""
    with closing(sqlite3.connect(f"file:{stage.files / 'shop.sqlite'}?mode=ro", uri=True)) as database:
        found: tuple[int] = database.execute(f"select count(*) from {table}").fetchone()  # noqa: S608 our own table names
        return found[0]


def customer(stage: Stage, id: str) -> dict[str, str]:
    """What the service really knows of a customer."""
    people: list[dict[str, str]] = json.loads((stage.files / "customers.json").read_text())
    return next(one for one in people if one["id"] == id)


def succeed(stage: Stage, *words: str) -> str:
    """What a command of the broker prints. Raises `NotProved` when it fails."""
    done = stage.interposer(*words)
    complaint = done.stderr.decode(errors="replace")[-800:]
    prove(done.returncode == 0, f"`interposer {' '.join(words)}` answers 0, not {done.returncode}: {complaint}")
    return done.stdout.decode()


def question_of(stage: Stage) -> str:
    """The id of the one open question, as soon as there is one."""
    deadline = time.monotonic() + QUESTION_TIMEOUT_S
    while time.monotonic() < deadline:
        waiting = [one for one in objects(succeed(stage, "approvals", "list", "--json")) if one["state"] == "open"]
        if waiting:
            prove(len(waiting) == 1, "exactly one question is open")
            id: str = waiting[0]["id"]
            return id
        time.sleep(0.05)
    raise NotProved("not shown: the broker asks a human")


def objects(text: str) -> list[dict[str, Json]]:
    """JSON objects printed as one array, or one per line."""
    if text.lstrip().startswith("["):
        found: list[dict[str, Json]] = json.loads(text)
        return found
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def alone(stage: Stage, skill_set: str, tool: str, arguments: dict[str, Json], key: str | None) -> dict[str, Json]:
    """What the service answers to a call that does not come through the broker."""
    environment = plain_environment() | ({} if key is None else {KEY_VARIABLE: key})
    meta = {f"io.modelcontextprotocol/{name}": value for name, value in _MODERN.items()}
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode() + b"\n"
    command = [sys.executable, "service.py", "--skill-set", skill_set, "--data", "data"]
    answer: dict[str, Json] = json.loads(stage.run(command, cwd=stage.service, stdin=line, env=environment).stdout)
    return answer


_MODERN: dict[str, Json] = {"protocolVersion": "2026-07-28", "clientCapabilities": {}}


def environment_of(agent: Agent) -> bytes:
    return Path(f"/proc/{agent.process.pid}/environ").read_bytes()


def spellings(key: str) -> Iterator[bytes]:
    """The key, its parts, and the encodings in which a careless service lets it slip."""
    raw = key.encode()
    yield from (raw[start : start + _WINDOW] for start in range(len(raw) - _WINDOW + 1))
    yield raw[::-1]
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield "".join(f"%{byte:02x}" for byte in raw).encode()
    yield "".join(f"%{byte:02X}" for byte in raw).encode()
    yield urllib.parse.quote(key, safe="").encode()
    yield "".join(f"\\u{byte:04x}" for byte in raw).encode()
    yield key.encode("utf-16-le")
    yield base64.b32encode(raw).rstrip(b"=")
    for shift in range(3):
        # Base64 looks different at each of three positions, and its ends depend on what stands beside the key.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * shift + raw)[4:-4]
