"""Live updates: a stream of server-sent events that says that something changed, and never what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .console import Console
from .logins import STREAMS, Login

LASTS_S = 600.0
"""The browser connects again by itself."""
BEAT_S = 15.0
ALL_STREAMS = 128


class Streams:
    """Those that are open."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open = 0

    def join(self, login: Login) -> Response:
        """The answer to a request for one."""
        if login.streams >= STREAMS or self._open >= ALL_STREAMS:
            return Response("Too many at once.", status_code=429, media_type="text/plain")
        return _Stream(lambda send: self._tell(login, send), self._console.ended)

    async def _tell(self, login: Login, send: Callable[[str], Awaitable[None]]) -> None:
        desk, logins = self._console.desk, self._console.logins
        login.streams += 1
        self._open += 1
        try:
            revision = desk.revision
            await send(f"retry: 2000\ndata: {revision}\n\n")
            with anyio.move_on_after(LASTS_S):
                while logins.lasts(login):
                    latest = await desk.changes(revision, BEAT_S)
                    await send(":\n\n" if latest == revision else f"data: {latest}\n\n")
                    revision = latest
        finally:
            login.streams -= 1
            self._open -= 1


class _Stream(Response):
    media_type = "text/event-stream"

    def __init__(self, tell: Callable[[Callable[[str], Awaitable[None]]], Awaitable[None]], ended: anyio.Event) -> None:
        super().__init__(b"")
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"  # a proxy that collects an answer first would never pass one on
        self._tell = tell
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def part(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with anyio.create_task_group() as either:
            either.start_soon(self._until_gone, receive, either.cancel_scope)
            either.start_soon(self._until_ended, either.cancel_scope)
            await self._tell(part)
            either.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _until_gone(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _until_ended(self, scope: anyio.CancelScope) -> None:
        await self._ended.wait()
        scope.cancel()
