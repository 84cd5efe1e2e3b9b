"""Serving the console: uvicorn, held to our bounds and to our end.

uvicorn installs no signal handlers here, writes no access log, and is gone when `serve` returns. A peer that opens
connections and says little gets no more than its share: connections are counted before anything is read, a head must
be complete within `HEAD_S`, and an idle connection is closed after `IDLE_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import anyio
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

from .place import Listener

CONNECTIONS = 256
HEAD_S = 10.0
IDLE_S = 15
HEAD_BYTES = 16 * 1024
LAST_S = 1


class _Connection(H11Protocol):
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= CONNECTIONS:
            transport.abort()
        super().connection_made(transport)
        self._head = self.loop.call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._between_requests():
            self._head = self._head or self.loop.call_later(HEAD_S, self.transport.abort)
        else:
            self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._complete()
        super().connection_lost(exc)

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _complete(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


class _Quiet(Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the broker's."""
        yield


async def serve(site: Any, listener: Listener, hang_up: Callable[[], None]) -> None:
    """Serve the ASGI application until cancelled; `hang_up` ends the streams that would go on by themselves."""
    config = Config(
        site,
        http=_Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=LAST_S,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    config.load()
    config.ssl = listener.tls
    server = _Quiet(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_to_its_end, server, listener)
        try:
            await anyio.sleep_forever()
        finally:
            hang_up()
            server.should_exit = True


async def _to_its_end(server: Server, listener: Listener) -> None:
    # Cancelled in the middle, it would leave its connections behind.
    with anyio.CancelScope(shield=True):
        await server.serve(sockets=[listener.socket])
