"""Whatever an upstream writes, a conversation stays in one piece."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interposer.model import InDoubt
from interposer.upstreams.link import Link, Waiting
from interposer.upstreams.notices import EACH, FLOOD_COUNT, Notices
from interposer.wire.jsonrpc import Response

_ids = st.sampled_from([1, 2, 3, "1", None, 1.5, -1, True])
_messages = st.fixed_dictionaries(
    {"jsonrpc": st.sampled_from(["2.0", "1.0"])},
    optional={
        "id": _ids,
        "method": st.sampled_from(["ping", "notifications/progress", "sampling/createMessage", 5]),
        "params": st.sampled_from(
            [{}, [], {"progressToken": 1, "progress": 2}, {"progressToken": [], "progress": "x"}]
        ),
        "result": st.sampled_from([{}, None, {"a": [1]}, []]),
        "error": st.sampled_from([{"code": 1, "message": "m"}, {}, "x"]),
    },
)
_lines = st.one_of(
    st.binary(max_size=40),
    _messages.map(lambda message: json.dumps(message).encode()),
    _messages.map(lambda message: json.dumps(message).encode()[:-3]),
    st.just(b'{"jsonrpc":"2.0","id":1,' + b"x" * 400),
)


class Talk:
    """A link with two requests out, and everything that it did."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.told: list[tuple[str, str]] = []
        self.link = Link(
            write=self.sent.append,
            hold=lambda seconds: None,
            frame_bytes=300,
            notices=Notices(lambda kind, detail: self.told.append((kind, detail))),
            on_late=lambda invocation: None,
            on_change=lambda: None,
            on_unusable=self.told_unusable,
        )
        self.waiting = {id: Waiting(asyncio.get_running_loop().create_future()) for id in (1, 2)}
        for id, each in self.waiting.items():
            self.link.expect(id, each, 60)

    def told_unusable(self, why: str) -> None:
        self.link.close(why)


@settings(max_examples=200)
@given(lines=st.lists(_lines, max_size=12), cut=st.integers(1, 60))
def test_no_bytes_break_a_conversation(lines: list[bytes], cut: int) -> None:
    """Nothing raises, and a request is ended by its own id or not at all."""

    async def scenario() -> None:
        talk = Talk()
        stream = b"\n".join(lines) + b"\n"
        for at in range(0, len(stream), cut):
            talk.link.received(stream[at : at + cut])
        for id, each in talk.waiting.items():
            if each.future.done():
                reply: Any = each.future.result()
                assert isinstance(reply, InDoubt) or (isinstance(reply, Response) and reply.id == id)
        talk.link.close("over")
        assert all(each.future.done() for each in talk.waiting.values())

    asyncio.run(scenario())


async def test_a_closed_conversation_leaves_nobody_waiting() -> None:
    """Whoever asks after the end is in doubt at once."""
    talk = Talk()
    talk.link.close("over")
    late = Waiting(asyncio.get_running_loop().create_future())
    talk.link.expect(3, late, None)
    assert late.future.result() == InDoubt("the upstream is gone")


@pytest.mark.parametrize(
    ("notices", "told"),
    [(1, 0), (FLOOD_COUNT, 0), (FLOOD_COUNT + 1, 1)],
)
def test_a_flood_is_told_once_and_ends_with_its_call(notices: int, told: int) -> None:
    """Within the budget nothing is said; beyond it, one notice with the number."""
    heard: list[str] = []
    budget = Notices(lambda kind, detail: heard.append(kind))
    for _ in range(notices):
        budget.spend(1)
    budget.settle()
    budget.settle()
    assert heard == ["flood"] * told
    assert not budget.flooded


def test_a_misdeed_is_told_a_few_times_and_then_counted() -> None:
    """The record is not flooded by what a flooding upstream does."""
    heard: list[tuple[str, str]] = []
    budget = Notices(lambda kind, detail: heard.append((kind, detail)))
    for _ in range(100):
        budget.tell("unknown_id", "x")
    budget.settle()
    assert heard == [("unknown_id", "x")] * EACH + [("unknown_id", f"{100 - EACH} more of the same")]
