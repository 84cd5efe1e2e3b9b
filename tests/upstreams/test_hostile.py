"""What a hostile upstream writes costs at most its own call."""

from __future__ import annotations

import base64
import gzip
import json
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.model import Answered, InDoubt, Progress
from tests.upstreams.rig import Rig, intent, running, text

CORPUS = Path(__file__).parents[2] / "../shared/corpora/hostile_frames.jsonl.gz"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as rig:
        await rig.call("echo")
        yield rig


def raw(*frames: bytes, answer: bool = False) -> dict[str, Any]:
    return {"frames": [base64.b64encode(frame).decode() for frame in frames], "answer": answer}


ANSWER = b'{"jsonrpc":"2.0","id":"$ID","result":{"content":[{"type":"text","text":"%b"}]}}\n'


async def test_noise_on_stdout_is_dropped_and_told(rig: Rig) -> None:
    """Banners and JSON logs between the messages are no messages, and no reason to stop either."""
    assert text(await rig.call("noise")) == "quiet again"
    assert len(rig.told("stdout_noise")) == 3
    assert not rig.told("restart")


@pytest.mark.parametrize(
    "frame",
    [
        b'{"jsonrpc":"2.0","id":"$ID","result":{"content":[],"structuredContent":{"n":NaN}}}\n',
        b'{"jsonrpc":"2.0","id":"$ID","result":{},"result":{}}\n',
        b'{"result":{"a":1,"a":2},"jsonrpc":"2.0","id":"$ID"}\n',
        b'{"jsonrpc":"2.0","id":"$ID","result":{"x":"\\ud800"}}\n',
        b'{"jsonrpc":"2.0","id":"$ID","result":{"x":' + b"[" * 1000 + b"]" * 1000 + b"}}\n",
        b'{"jsonrpc":"2.0","id":"$ID","result":{"x":"\xff"}}\n',
        b'{"jsonrpc":"2.0","id":"$ID","result":[]}\n',
        b'{"jsonrpc":"2.0","id":"$ID","result":null}\n',
        b'{"jsonrpc":"2.0","id":"$ID","error":"no"}\n',
    ],
)
async def test_a_malformed_answer_ends_its_own_call_only(rig: Rig, frame: bytes) -> None:
    """The call is in doubt at once; the process goes on serving."""
    with anyio.fail_after(5):
        outcome = await rig.call("raw", raw(frame), timeout_s=60)
    assert outcome == InDoubt("the upstream's answer was malformed")
    assert text(await rig.call("echo", {"text": "still here"})) == "still here"
    assert rig.told("malformed")
    assert not rig.told("restart")


async def test_three_malformed_messages_in_a_row_end_the_process(rig: Rig) -> None:
    """Who cannot speak JSON-RPC any more is started anew."""
    before = (await rig.about())["pid"]
    outcome = await rig.call("raw", raw(b'{"jsonrpc":"2.0",\n' * 3))
    assert isinstance(outcome, InDoubt)
    assert (await rig.about())["pid"] != before
    assert rig.told("restart") == ["3 malformed messages in a row"]


async def test_only_the_first_answer_counts(rig: Rig) -> None:
    """A second answer to one call reaches nobody."""
    assert text(await rig.call("raw", raw(ANSWER % b"first", ANSWER % b"second"))) == "first"
    assert text(await rig.call("echo", {"text": "next"})) == "next"
    assert rig.told("second_answer")


@pytest.mark.parametrize("id", [b"777777", b'"1"', b'"x"', b"-1", b"0", b"1e0"])
async def test_an_answer_to_no_request_of_ours_reaches_nobody(rig: Rig, id: bytes) -> None:
    """Ids are matched by type and value."""
    stray = b'{"jsonrpc":"2.0","id":%b,"result":{"content":[]}}\n' % id
    assert text(await rig.call("raw", raw(stray, answer=True))) == "after the frames"
    assert rig.told("unknown_id") or rig.told("malformed")


async def test_what_an_upstream_asks_of_us_is_refused(rig: Rig) -> None:
    """Sampling, elicitation, roots and calls are answered -32601; a ping is answered."""
    asked = [
        b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":{}}\n' % (number, method)
        for number, method in enumerate(
            [b"sampling/createMessage", b"elicitation/create", b"roots/list", b"tools/call"]
        )
    ]
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
    assert text(await rig.call("raw", raw(*asked, ping, answer=True))) == "after the frames"
    replies = (await rig.about())["replies"]
    assert [reply.get("error", {}).get("code") for reply in replies] == [-32601] * 4 + [None]
    assert replies[4] == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_progress_for_others_reaches_nobody(rig: Rig) -> None:
    """A token of another call, of another type or of nobody is dropped."""
    seen: list[Progress] = []
    notes = [
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b,"progress":%b}}\n' % pair
        for pair in [(b'"other"', b"1"), (b"1", b"1"), (b'"$TOK"', b'"1"'), (b'"$TOK"', b"true"), (b'"$TOK"', b"5")]
    ]
    await rig.upstream.call(intent("raw", raw(*notes, answer=True)), seen.append)
    assert [progress.progress for progress in seen] == [5]


async def test_the_deadline_fires_whatever_the_upstream_says(rig: Rig) -> None:
    """Endless progress is no answer."""
    note = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"$TOK","progress":1}}\n'
    began = time.monotonic()
    seen: list[Progress] = []
    outcome = await rig.upstream.call(intent("raw", raw(note * 100), timeout_s=0.3), seen.append)
    assert isinstance(outcome, InDoubt)
    assert 0.25 < time.monotonic() - began < 2


def generated(prefix: bytes, unit: bytes, count: int, suffix: bytes) -> dict[str, Any]:
    parts = {"prefix": prefix, "unit": unit, "suffix": suffix}
    return {**{key: base64.b64encode(part).decode() for key, part in parts.items()}, "count": count}


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        (b'{"jsonrpc":"2.0","id":"$ID","result":{"content":[{"type":"text","text":"', b'"}]}}\n'),
        (b'{"result":{"content":[{"type":"text","text":"', b'"}]},"jsonrpc":"2.0","id":1234}\n'),
    ],
)
async def test_an_answer_of_64_mib_is_never_held(rig: Rig, prefix: bytes, suffix: bytes) -> None:
    """Beyond the frame limit it is thrown away as it comes; its call is in doubt, memory stays under three limits."""
    about = await rig.about()
    suffix = suffix.replace(b"1234", str(_next_id(about)).encode())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with anyio.fail_after(20):
        outcome = await rig.call("generate", generated(prefix, b"B" * 1024, 65536, suffix), timeout_s=60)
    assert outcome == InDoubt("the upstream's answer was larger than a frame may be")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024
    assert text(await rig.call("echo", {"text": "still here"})) == "still here"
    assert rig.told("oversize")


def _next_id(about: dict[str, Any]) -> int:
    """discover, initialize, echo, about: the call after those."""
    return 5


async def test_a_flood_of_notifications_is_one_notice(rig: Rig) -> None:
    """A million of them are dropped unparsed, the loop stays free, and the call is answered after them."""
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n'
    pauses: list[float] = []

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await anyio.sleep(0.005)
            pauses.append(time.monotonic() - began - 0.005)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with anyio.fail_after(60):
            outcome = await rig.call("generate", generated(b"", note, 1_000_000, b""), timeout_s=60)
        tasks.cancel_scope.cancel()
    assert text(outcome) == "after the flood"
    assert len(rig.told("flood")) == 1
    pauses.sort()
    assert pauses[len(pauses) // 2] < 0.05


async def test_hostile_frames_of_upstreams_are_contained() -> None:
    """Every row of the corpus: the caller gets one answer or none, and the process serves the next call."""
    if not CORPUS.exists():
        pytest.skip("needs shared/corpora/hostile_frames.jsonl.gz beside the project")
    with gzip.open(CORPUS) as file:
        rows = [json.loads(line) for line in file]
    rows = [row for row in rows if (row["transport"], row["direction"]) == ("stdio", "upstream") and "raw_b64" in row]
    assert rows
    for row in rows:
        async with running() as rig:
            await rig.call("echo")
            seen: list[Progress] = []
            frames = {"frames": [row["raw_b64"]], "answer": True}
            with anyio.fail_after(10):
                outcome = await rig.upstream.call(intent("raw", frames, timeout_s=5), seen.append)
                assert isinstance(outcome, Answered | InDoubt), row["name"]
                assert text(await rig.call("echo", {"text": "next"})) == "next", row["name"]
