"""What is known of a request when its connection ends: whether a byte of it left."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from langchain_interposer import InterposerClient, NotExecuted, OutcomeUnknown
from langchain_interposer.connection import Connection


class Pipe:
    """A channel in memory. `room` bytes are taken before writing fails; lines are put into it by the test."""

    def __init__(self, room: int = 1 << 30, answer: Callable[[dict[str, Any]], bytes | None] | None = None) -> None:
        self.room = room
        self.answer = answer
        self.taken = bytearray()
        self.lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.hold = threading.Event()
        self.hold.set()

    def read_line(self, limit_bytes: int) -> bytes:
        return self.lines.get()

    def send(self, data: memoryview) -> int:
        self.hold.wait(5)
        if not self.room:
            raise BrokenPipeError("gone")
        taken = bytes(data[: min(self.room, 10)])
        self.room -= len(taken)
        self.taken += taken
        if self.answer and self.taken.endswith(b"\n"):
            line = self.answer(json.loads(self.taken))
            self.taken.clear()
            if line:
                self.lines.put(line)
        return len(taken)

    def end_input(self) -> None:
        self.lines.put(b"")

    def end_output(self) -> None: ...

    def wait(self, timeout_s: float) -> bool:
        return True

    def kill(self, *, hard: bool) -> None:
        self.lines.put(b"")

    def forget(self) -> None: ...


def open_on(pipe: Pipe) -> Connection:
    return Connection(pipe, on_tools_changed=lambda: None)


def greet(message: dict[str, Any]) -> bytes | None:
    """Answers the handshake, and echoes every other request's id."""
    if "id" not in message:
        return None
    result: dict[str, Any] = {"protocolVersion": "2025-11-25"} if message["method"] == "initialize" else {"content": []}
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode() + b"\n"


def test_request_of_which_nothing_left_was_not_executed() -> None:
    """A write that fails at the first byte is safe to make again, and is told apart."""
    connection = open_on(Pipe(room=0))
    with pytest.raises(NotExecuted):
        connection.wait(connection.request("tools/call", {}), 5)
    connection.close()


def test_request_cut_in_the_middle_is_in_doubt() -> None:
    """One byte out is enough for doubt."""
    connection = open_on(Pipe(room=1))
    with pytest.raises(OutcomeUnknown):
        connection.wait(connection.request("tools/call", {}), 5)
    connection.close()


def test_requests_behind_the_one_that_failed_were_not_executed() -> None:
    """What waited in the queue never left."""
    pipe = Pipe(room=1)
    pipe.hold.clear()
    connection = open_on(pipe)
    first, second = connection.request("tools/call", {}), connection.request("tools/call", {})
    pipe.hold.set()
    with pytest.raises(OutcomeUnknown):
        connection.wait(first, 5)
    with pytest.raises(NotExecuted):
        connection.wait(second, 5)
    connection.close()


def test_deadline_before_the_first_byte_means_not_executed() -> None:
    """A request that is given up while it queues is never sent."""
    pipe = Pipe()
    pipe.hold.clear()
    connection = open_on(pipe)
    first, second = connection.request("first", {}), connection.request("second", {})
    with pytest.raises(NotExecuted):
        connection.wait(second, 0.01)
    pipe.hold.set()
    with pytest.raises(OutcomeUnknown):
        connection.wait(first, 0.01)
    connection.close()
    assert b"second" not in pipe.taken


def test_call_is_made_again_once_when_nothing_left() -> None:
    """The first connection fails before the first byte: the call goes over a second one, and there is no third."""
    pipes = [Pipe(answer=greet), Pipe(answer=greet), Pipe(answer=greet)]
    opened = iter(pipes)
    client = InterposerClient(lambda: next(opened), place="memory", timeout_s=5)
    client.open()
    pipes[0].room = 0
    assert client.call("x", {})["result"] == {"content": []}
    pipes[1].room = 0
    client.open()
    assert client.call("x", {})["result"] == {"content": []}
    assert next(opened, None) is None
    client.close()


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b'{"id":"1","result":{}}\n',
        b'{"id":true,"result":{}}\n',
        b"\xff\n",
    ],
)
def test_strange_lines_are_dropped(line: bytes) -> None:
    """What is no answer to any request of ours changes nothing for those that wait."""
    pipe = Pipe()
    connection = open_on(pipe)
    request = connection.request("tools/call", {})
    pipe.lines.put(line)
    pipe.lines.put(b'{"jsonrpc":"2.0","id":1,"result":{}}\n')
    assert connection.wait(request, 5)["result"] == {}
    connection.close()


def test_answer_without_result_or_error_is_in_doubt() -> None:
    """The broker broke the protocol after it had the call."""
    pipe = Pipe()
    connection = open_on(pipe)
    request = connection.request("tools/call", {})
    pipe.lines.put(b'{"jsonrpc":"2.0","id":1}\n')
    with pytest.raises(OutcomeUnknown):
        connection.wait(request, 5)
    connection.close()


def test_brokers_own_requests_are_answered() -> None:
    """A ping is answered, anything else refused: no broker waits for us in vain."""
    answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    pipe = Pipe(answer=lambda message: answers.put(message))
    connection = open_on(pipe)
    pipe.lines.put(b'{"jsonrpc":"2.0","id":"a","method":"ping"}\n')
    pipe.lines.put(b'{"jsonrpc":"2.0","id":"b","method":"sampling/createMessage","params":{}}\n')
    assert answers.get(timeout=5) == {"jsonrpc": "2.0", "id": "a", "result": {}}
    assert answers.get(timeout=5)["error"]["code"] == -32601
    connection.close()
