"""Requests in flight: one flight per request of the peer's, the batches that some of them came in, and our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import anyio

from .errors import INVALID_PARAMS, BadMessage
from .model import Caller, Era, JsonObject, Progress
from .wire import jsonrpc
from .wire.jsonrpc import Request, Response
from .wire.mcp import Peer

_NOBODY = Peer(Era.LEGACY, "", "", {})


@dataclass(slots=True, eq=False)
class Flight:
    """A request that is being worked on."""

    request: Request
    caller: Caller
    """Who spoke on the connection when the request came; a token that is shown after it is for what comes after it."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """What works on it works inside of this. Cancelled by it, and not by its task: shields must hold, and a task that
    is cancelled before it began would never clear up."""
    batch: Batch | None = None
    peer: Peer = _NOBODY
    """What its sender says of itself in it."""
    token: int | str | None = None
    """The caller's progress token."""
    progress: float = 0.0
    owed: list[tuple[str, str]] = field(default_factory=list)
    """Outcomes that its answer tells: question and call."""

    def owe(self, question: str, call: str) -> None:
        self.owed.append((question, call))

    def advanced(self, progress: Progress) -> JsonObject:
        """The parameters of a progress notification. One counter for our own heartbeat and the upstream's: it only
        grows (MCP, progress)."""
        told = progress.progress
        passed = told is not None and told > self.progress
        self.progress = float(told) if told is not None and passed else self.progress + 0.001
        params: JsonObject = {"progressToken": self.token, "progress": told if passed else self.progress}
        if passed and progress.total is not None:
            params["total"] = progress.total
        if progress.message is not None:
            params["message"] = progress.message
        return params

    @property
    def cancelled(self) -> bool:
        return self.scope.cancel_called

    def cancel(self) -> None:
        self.scope.cancel()


class Batch:
    """The answers to a 2025-03-26 batch, sent as one array when the last of them is there."""

    def __init__(self, size: int, send: Callable[[bytes], None]) -> None:
        self._missing = size
        self._send = send
        self._answers: list[bytes] = []

    def answer(self, frame: bytes | None) -> None:
        if frame is not None:
            self._answers.append(frame.rstrip(b"\n"))
        self._missing -= 1
        if self._missing == 0 and self._answers:
            self._send(b"[" + b",".join(self._answers) + b"]\n")


class Inquiries:
    """Requests of ours that the peer has not answered yet. Ids are made here and never used twice; an answer that is to
    nothing, or too late, is dropped."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._ids = count(1)
        self._open: dict[int | str, _Inquiry] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, method: str, params: JsonObject) -> Response:
        """The peer's answer. Cancelled: the peer is told that it need not answer any more."""
        id = f"interposer-{next(self._ids)}"
        inquiry = self._open[id] = _Inquiry()
        self._send(jsonrpc.request(id, method, params))
        try:
            await inquiry.answered.wait()
        except anyio.get_cancelled_exc_class():
            self._send(jsonrpc.notification("notifications/cancelled", {"requestId": id}))
            raise
        finally:
            del self._open[id]
        return inquiry.responses[0]

    def answered(self, response: Response) -> None:
        inquiry = self._open.get(response.id)
        if inquiry is not None:
            inquiry.responses.append(response)
            inquiry.answered.set()


@dataclass(slots=True)
class _Inquiry:
    answered: anyio.Event = field(default_factory=anyio.Event)
    responses: list[Response] = field(default_factory=list)
    """The first one counts."""


def progress_token(params: JsonObject) -> int | str | None:
    """The token that the caller wants progress under. Raises `BadMessage` for one that is none."""
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    if token is None or isinstance(token, str) or (isinstance(token, int) and not isinstance(token, bool)):
        return token
    raise BadMessage(INVALID_PARAMS, "progressToken must be a string or an integer")
