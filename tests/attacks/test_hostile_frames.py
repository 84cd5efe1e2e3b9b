"""Hostile frames from the agent's side, each row through a real broker process in front of a real upstream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.corpus import Daemon, Row, daemon, frames, parts
from tests.fakes.agent import UPSTREAM, Agent, Object, configured, finish, is_tool_error, spawned, unix

CAP_BYTES = 4 * 1024 * 1024
SLOW = "slow_bytes"
ANSWERS = {"ignored": 0, "one_result_one_error": 2}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("frames"), "--strict") as running:
        yield running


@pytest.mark.parametrize("row", frames("client"))
async def test_hostile_frame_is_answered_as_its_row_says(row: Row, broker: Daemon) -> None:
    """A hostile agent gets the answer that the row names; nothing undecided reaches the upstream, and the same
    connection goes on being served."""
    before = len(broker.arrived())
    async with unix(broker.socket) as agent:
        await agent.initialize()
        opened = len(agent.messages)
        await send(agent, row)
        if "EOF" in row["note"]:
            await agent.hang_up()
            await agent.to_the_end()
        else:
            await agent.send(b"\n")
            assert "result" in await agent.request("ping", id="still there")
            assert not is_tool_error(await agent.call("echo", {"text": "barrier"}))
        answers = [m for m in agent.messages[opened:] if m.get("id") not in ("still there", "a2")]
    arrived = [call for call in broker.arrived()[before:] if call["arguments"] != {"text": "barrier"}]
    judge(row, answers, arrived)


async def test_oversized_line_is_refused_in_bounded_memory(broker: Daemon) -> None:
    """An agent that sends 64 MiB without a line end cannot make the broker hold them."""
    async with unix(broker.socket) as agent:
        await agent.initialize()
        before = broker.peak_bytes()
        for _ in range(64):
            await agent.send(b"A" * (1024 * 1024))
        await agent.send(b"\n")
        assert "result" in await agent.request("ping")
    assert broker.peak_bytes() - before < 3 * CAP_BYTES


async def test_one_stdio_conversation_outlives_all_hostile_frames(tmp_path: Path) -> None:
    """All rows one after the other over the pipes of one `interposer stdio`: the broker is still there and still
    serves, and as much was forwarded as was answered with a result."""
    rows = [param.values[0] for param in frames("client") if param.values[0]]
    if not rows:
        pytest.skip("needs the attack corpora (hostile_frames.jsonl.gz in ../shared/corpora)")
    truth = tmp_path / "truth"
    config = configured(tmp_path, [*UPSTREAM, "--strict", "--truth", str(truth)])
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        await agent.call("echo", {"text": "warm"})
        for row in rows:
            if "EOF" not in row["note"]:
                # An agent that does not read is not read from, so each answer is awaited.
                wanted = len(agent.messages) + ANSWERS.get(row["expect"], 1)
                await send(agent, row)
                await agent.send(b"\n")
                await agent.until(lambda wanted=wanted: len(agent.messages) >= wanted)  # type: ignore[misc]
                assert "result" in await agent.request("ping")
        assert not is_tool_error(await agent.call("echo", {"text": "barrier"}))
        await finish(agent)
    served = [m for m in agent.messages if "content" in m.get("result", {}) and not is_tool_error(m)]
    arrived = [json.loads(line) for line in truth.read_bytes().splitlines()]
    assert len(served) == len(arrived)
    assert all((call["name"], call["arguments"].keys()) == ("echo", {"text"}) for call in arrived)


async def send(agent: Agent, row: Row) -> None:
    """The row's bytes; a row about slowness one byte per write."""
    prefix, unit, count, suffix = parts(row)
    if row["name"] == SLOW:
        for position in range(len(prefix)):
            await agent.send(prefix[position : position + 1])
        return
    await agent.send(prefix)
    many = max(1, 65_536 // max(1, len(unit)))
    for start in range(0, count, many):
        await agent.send(unit * min(many, count - start))
    await agent.send(suffix)


def judge(row: Row, answers: list[Object], arrived: list[Row]) -> None:
    errors = [a for a in answers if "error" in a or is_tool_error(a)]
    results = [a for a in answers if "result" in a and not is_tool_error(a)]
    assert len(errors) + len(results) == len(answers)
    expect = row["expect"]
    if expect == "ignored":
        assert not answers
    elif expect == "result":
        assert (len(results), len(errors)) == (1, 0)
    elif expect == "error":
        assert errors
        assert not results
    elif expect == "one_result_one_error":
        assert (len(results), len(errors)) == (1, 1)
    else:
        assert expect in ("error_or_result", "error_or_sanitised")
        assert len(errors) + len(results) == 1
    for error in errors if "codes" in row else []:
        assert ("app" if "result" in error else error["error"]["code"]) in row["codes"]
    # Exactly what was answered was forwarded, and only as it was decided on.
    assert len(arrived) == len(results)
    for call in arrived:
        # "Sanitised" is a result without what was forbidden: the frame itself is not what was forwarded.
        assert row["forwarded"] is not False or expect == "error_or_sanitised"
        assert call["name"] == "echo"
        assert call["arguments"].keys() == {"text"}
        assert not forged(call["meta"])


def forged(meta: Any) -> bool:
    """Whether anything that the agent put into `_meta` went through (the broker sends its own envelope only)."""
    return meta is not None and not meta.keys() <= {"progressToken"}


def test_corpus_is_where_it_is_looked_for() -> None:
    """The rows come from a corpus that is not part of the checkout; a moved corpus would silently test nothing."""
    rows = frames("client")
    assert len(rows) > 100 or rows[0].marks
    assert (Path(__file__).parents[2] / "interposer").is_dir()
