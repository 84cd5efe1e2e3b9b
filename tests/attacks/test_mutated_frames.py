"""Frames that were damaged at random, against a whole broker: whatever they say, it serves the next request."""

from __future__ import annotations

import json
import random

from tests.fakes.agent import ENVELOPE, Object, is_tool_error
from tests.fakes.house import echoing, indoors

ROUNDS = 9_000
CALL: Object = {"name": "echo", "arguments": {"text": "hi"}, "_meta": {"progressToken": 1}}
SEEDS = [
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL},
    {"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": {**CALL, "_meta": ENVELOPE}},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"cursor": "AAAA"}},
    {
        "jsonrpc": "2.0",
        "id": 3,
        "method": "subscriptions/listen",
        "params": {"notifications": {"toolsListChanged": True}},
    },
    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
    {"jsonrpc": "2.0", "id": 4, "result": {"content": []}},
    {
        "jsonrpc": "2.0",
        "id": 5,
        "method": "initialize",
        "params": {"protocolVersion": "2025-03-26", "capabilities": {}},
    },
]
PIECES = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\xff", b"\x00", b"NaN", b"1e999"]
PIECES += [
    b"null",
    b"true",
    b"-0",
    b'"id":1,',
    b'"method":"ping",',
    b"\xe2\x80\xa8",
    b"\r",
    b"\n",
    b"[" * 70,
    b"9" * 400,
]


def damaged(dice: random.Random) -> bytes:
    """A frame of the seeds after one to four cuts, swaps, repetitions or insertions."""
    frame = bytearray(json.dumps(dice.choice(SEEDS)).encode())
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(frame) + 1)
        end = min(len(frame), start + dice.randint(0, 12))
        how = dice.randrange(4)
        if how == 0:
            del frame[start:end]
        elif how == 1:
            frame[start:start] = dice.choice(PIECES)
        elif how == 2:
            frame[start:start] = frame[start:end] * dice.randint(1, 3)
        else:
            frame[start:end] = bytes(dice.randrange(256) for _ in range(end - start))
    return bytes(frame) + b"\n"


async def test_damaged_frames_end_nothing_and_bypass_nothing() -> None:
    """However a frame is damaged, the conversation goes on, every answer is JSON with a code or a result, and the
    upstream sees only calls that were answered, with arguments that fit the schema."""
    dice = random.Random(1)
    fake = echoing()
    async with indoors(upstreams=[fake]) as broker:
        for version in ("2025-11-25", "2025-03-26", ""):
            agent = broker.join()
            await (agent.initialize(version) if version else agent.discover())
            for number in range(ROUNDS // 3):
                await agent.send(damaged(dice))
                if number % 50 == 0:
                    assert "id" in await agent.request("nosuch", id=f"alive {number}")
            answer = await agent.call("echo", {"text": "end"})
            assert "result" in answer
            assert not is_tool_error(answer)
            for message in agent.messages:
                for each in message if isinstance(message, list) else [message]:
                    assert ("method" in each) or (("result" in each) != ("error" in each))
    for intent in fake.called:
        arguments = intent.permit.invocation.arguments
        assert arguments.keys() <= {"text"}
        assert all(isinstance(value, str) for value in arguments.values())
