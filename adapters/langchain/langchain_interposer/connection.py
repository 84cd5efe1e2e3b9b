"""One conversation with a broker: many calls in flight, each answered, or ended with what is known of it.

A reading and a writing thread serve the channel, so callers wait on futures: under any event loop, in a notebook, or in
plain threads. For each request it is known whether a byte of it left this process: `NotExecuted` is raised only where
none did, `OutcomeUnknown` wherever one may have.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum, auto
from queue import SimpleQueue
from typing import Any, TypeAlias

from langchain_interposer.channel import Channel
from langchain_interposer.errors import InterposerUnavailable, NotExecuted, NotJson, OutcomeUnknown

Message: TypeAlias = dict[str, Any]
OnProgress: TypeAlias = Callable[[Message], None]

LINE_LIMIT_BYTES = 64 * 1024 * 1024
_METHOD_NOT_FOUND = -32601

_log = logging.getLogger("langchain_interposer")
_live: weakref.WeakSet[Connection] = weakref.WeakSet()


class _State(Enum):
    QUEUED = auto()
    WRITING = auto()
    SENT = auto()


class Request:
    """One request on its way. `future` ends with the response message, or with an `InterposerUnavailable`."""

    __slots__ = ("frame", "future", "id", "on_progress", "state")

    def __init__(self, id: int, frame: bytes, on_progress: OnProgress | None) -> None:
        self.id = id
        self.frame = frame
        self.on_progress = on_progress
        self.state = _State.QUEUED
        self.future: Future[Message] = Future()
        self.future.set_running_or_notify_cancel()  # from here on only an answer or a fault can end it


class Connection:
    """A channel and its two threads; once it is gone it stays gone."""

    def __init__(self, channel: Channel, *, on_tools_changed: Callable[[], None]) -> None:
        self._channel = channel
        self._on_tools_changed = on_tools_changed
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._open: dict[int, Request] = {}
        self._outbox: SimpleQueue[Request | bytes | None] = SimpleQueue()
        self._gone = ""
        self._pid = os.getpid()
        self._reader = threading.Thread(target=self._read, name="interposer-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="interposer-writer", daemon=True)
        _live.add(self)
        self._reader.start()
        self._writer.start()

    @property
    def alive(self) -> bool:
        return not self._gone

    @property
    def inherited(self) -> bool:
        """Whether this is a forked child's copy: the threads and the peer are the parent's."""
        return os.getpid() != self._pid

    def request(self, method: str, params: Message, *, on_progress: OnProgress | None = None) -> Request:
        """Queue a request and return at once.

        Raises NotExecuted if the connection is gone, NotJson if `params` have no JSON form.
        """
        id = next(self._ids)
        if on_progress is not None:
            params = {**params, "_meta": {**params.get("_meta", {}), "progressToken": id}}
        request = Request(id, _frame({"jsonrpc": "2.0", "id": id, "method": method, "params": params}), on_progress)
        with self._lock:
            if self._gone:
                raise _not_sent(self._gone)
            self._open[id] = request
        self._outbox.put(request)
        return request

    def notify(self, method: str, params: Message | None = None) -> None:
        message: Message = {"jsonrpc": "2.0", "method": method}
        self._outbox.put(_frame({**message, "params": params} if params else message))

    def wait(self, request: Request, timeout_s: float) -> Message:
        """The response message, for a caller that may block."""
        try:
            return request.future.result(timeout_s)
        except TimeoutError:
            if request.future.done():
                return request.future.result()
            raise self.give_up(request, f"no answer within {timeout_s:g} s") from None
        except InterposerUnavailable:
            raise
        except BaseException:
            self.give_up(request, "interrupted")
            raise

    def give_up(self, request: Request, reason: str) -> InterposerUnavailable:
        """Stop waiting for `request`, and tell the broker if it may know of it. Returns what the caller is told."""
        with self._lock:
            self._open.pop(request.id, None)
            queued = request.state is _State.QUEUED
        if queued:
            return _not_sent(reason)
        self.notify("notifications/cancelled", {"requestId": request.id, "reason": reason})
        return _in_doubt(reason)

    def hang_up(self) -> None:
        """End our side and return at once; the broker ends by itself, and the reading thread collects it."""
        if self.inherited:
            return
        self._end("this client was closed")
        self._outbox.put(None)

    def close(self, grace_s: float = 2.0) -> None:
        """End the conversation and see the broker gone: end of input, then SIGTERM, then SIGKILL. Idempotent."""
        if self.inherited:
            return
        self.hang_up()
        self._join(self._writer, grace_s)
        if not self._channel.wait(0 if self._writer.is_alive() else grace_s):
            self._channel.kill(hard=False)
            if not self._channel.wait(1.0):
                self._channel.kill(hard=True)
                self._channel.wait(5.0)
        self._join(self._writer, 1.0)
        self._join(self._reader, 1.0)
        _live.discard(self)

    def forget(self) -> None:
        """In a forked child: drop the parent's descriptors, so that the broker still sees the parent's death."""
        self._gone = "it belongs to the parent process"
        self._channel.forget()

    def _join(self, thread: threading.Thread, timeout_s: float) -> None:
        if thread is not threading.current_thread():
            thread.join(timeout_s)

    # The writing thread.

    def _write(self) -> None:
        while (item := self._outbox.get()) is not None:
            if isinstance(item, Request) and not self._begin(item):
                continue
            sent, fault = self._put_on_wire(item.frame if isinstance(item, Request) else item)
            if isinstance(item, Request):
                self._written(item, sent, fault)
            if fault:
                self._end(fault)
                break
        self._channel.end_input()

    def _begin(self, request: Request) -> bool:
        with self._lock:
            if self._gone or request.id not in self._open:
                return False
            request.state = _State.WRITING
            return True

    def _put_on_wire(self, frame: bytes) -> tuple[int, str]:
        rest, sent = memoryview(frame), 0
        try:
            while sent < len(frame):
                sent += self._channel.send(rest[sent:])
        except (OSError, ValueError) as fault:
            return sent, f"cannot write to the broker ({fault})"
        return sent, ""

    def _written(self, request: Request, sent: int, fault: str) -> None:
        with self._lock:
            request.state = _State.SENT if sent else _State.QUEUED
            gone = fault or self._gone
            mine = bool(gone) and self._open.pop(request.id, None) is not None
        if mine:
            request.future.set_exception(_in_doubt(gone) if sent else _not_sent(gone))

    # The reading thread.

    def _read(self) -> None:
        reason = "the broker closed the connection"
        try:
            while line := self._channel.read_line(LINE_LIMIT_BYTES):
                if not line.endswith(b"\n"):
                    reason = "the broker's message was cut off or too long"
                    break
                self._receive(line)
        except (OSError, ValueError) as fault:
            reason = f"cannot read from the broker ({fault})"
        self._end(reason)
        self._outbox.put(None)
        self._channel.end_output()
        self._channel.wait(5.0)

    def _receive(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            _log.warning("dropped a line from the broker that is not JSON (%d bytes)", len(line))
            return
        if not isinstance(message, dict):
            _log.warning("dropped a message from the broker that is not an object")
        elif "method" in message:
            self._heard(message)
        else:
            self._answered(message)

    def _heard(self, message: Message) -> None:
        method, params = message.get("method"), message.get("params")
        if "id" in message:
            answer: Message = {"jsonrpc": "2.0", "id": message["id"]}
            refused = {"code": _METHOD_NOT_FOUND, "message": "This client serves no requests."}
            self._outbox.put(_frame(answer | ({"result": {}} if method == "ping" else {"error": refused})))
        elif method == "notifications/tools/list_changed":
            self._on_tools_changed()
        elif method == "notifications/progress" and isinstance(params, dict):
            self._progressed(params)

    def _progressed(self, params: Message) -> None:
        token = params.get("progressToken")
        with self._lock:
            request = self._open.get(token) if isinstance(token, int) else None
        if request is None or request.on_progress is None:
            return
        try:
            request.on_progress(params)
        except Exception:  # the program's own code: it must not end everybody's conversation
            _log.exception("a progress callback failed")

    def _answered(self, message: Message) -> None:
        id = message.get("id")
        with self._lock:
            request = self._open.pop(id, None) if isinstance(id, int) and not isinstance(id, bool) else None
        if request is None:
            _log.debug("dropped an answer that nobody waits for")
        elif isinstance(message.get("result"), dict) or isinstance(message.get("error"), dict):
            request.future.set_result(message)
        else:
            request.future.set_exception(_in_doubt("the broker's answer is neither a result nor an error"))

    # Both.

    def _end(self, reason: str) -> None:
        """Nothing more is sent. The request in the writing thread's hand is settled there: it knows what went out."""
        with self._lock:
            if self._gone:
                return
            self._gone = reason
            ended = [request for request in self._open.values() if request.state is not _State.WRITING]
            for request in ended:
                del self._open[request.id]
        for request in ended:
            request.future.set_exception(_not_sent(reason) if request.state is _State.QUEUED else _in_doubt(reason))


def close_all() -> None:
    """Close every connection that this process opened; runs at exit."""
    for connection in list(_live):
        connection.close()


def _forget_all() -> None:
    for connection in list(_live):
        connection.forget()
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _frame(message: Message) -> bytes:
    # A strict broker refuses lone surrogates and NaN: they raise here, before anything leaves.
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as fault:
        raise NotJson(str(fault)) from fault


def _not_sent(reason: str) -> NotExecuted:
    return NotExecuted(f"The call did not reach the broker: {reason}. Nothing was executed.", reason=reason)


def _in_doubt(reason: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"The outcome is unknown: {reason}, and the call had gone out. It was not repeated: it may have taken effect.",
        reason=reason,
    )
