"""Serving the console: uvicorn, held to our bounds and to our end.

uvicorn installs no signal handlers here, writes no access log, and is gone when `serve` returns. Its connections come
through a door of ours, that counts sockets as they are accepted, before TLS and before anything is read: so many in
all, so many of one address. A head must be complete within `HEAD_S`, TLS within `HANDSHAKE_S`, and an idle connection
is closed after `IDLE_S`; where there is no room, who has waited longest without asking for anything makes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import anyio
import anyio.lowlevel
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

from .place import Listener

CONNECTIONS = 256
SHARE = 64
"""Connections of one address: of this machine as a whole, of one network where it is IPv6."""
HANDSHAKE_S = 5.0
HEAD_S = 10.0
IDLE_S = 15
HEAD_BYTES = 16 * 1024
LAST_S = 1
_BREATH_S = 0.1


class _Seat:
    """A connection's place, from its acceptance to its end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.connection: _Connection | None = None
        self.handshake = anyio.CancelScope()

    def waits(self) -> bool:
        """Whether nothing has been asked for, or not wholly."""
        return self.connection is None or self.connection.waits()

    def leave(self) -> None:
        if self.connection is not None:
            self.connection.transport.abort()
        else:
            self.handshake.cancel()


class _Door:
    """Who comes in."""

    def __init__(self, listener: Listener, server: Server) -> None:
        self._listener = listener
        self._server = server
        self._share = CONNECTIONS if listener.proxied else SHARE
        self._seats: dict[_Seat, None] = {}

    async def stay_open(self) -> None:
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    found, peer = await loop.sock_accept(self._listener.socket)
                except OSError:  # gone again, or no descriptor is left
                    await anyio.sleep(_BREATH_S)
                    continue
                seat = self._seat(party(peer[0]))
                if seat is None:
                    found.close()
                else:
                    tasks.start_soon(self._admit, found, seat)
                await anyio.lowlevel.checkpoint()  # `sock_accept` does not wait while there are some

    def _seat(self, address: str) -> _Seat | None:
        own = [seat for seat in self._seats if seat.address == address]
        if len(own) >= self._share or len(self._seats) >= CONNECTIONS:
            every = own if len(own) >= self._share else [*own, *self._seats]
            first = next((seat for seat in every if seat.waits()), None)
            if first is None:
                return None
            self._seats.pop(first)
            first.leave()
        seat = _Seat(address)
        self._seats[seat] = None
        return seat

    async def _admit(self, found: socket.socket, seat: _Seat) -> None:
        loop, tls = asyncio.get_running_loop(), self._listener.tls

        def connection() -> _Connection:
            return _Connection(self._server, seat, lambda: self._seats.pop(seat, None))

        found.setblocking(False)
        bounds = {} if tls is None else {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": float(LAST_S)}
        with seat.handshake:
            try:
                await loop.connect_accepted_socket(connection, found, ssl=tls, **bounds)
            except OSError:  # no TLS, or too late
                pass
            finally:
                if seat.connection is None:
                    self._seats.pop(seat, None)


def party(address: str) -> str:
    """Addresses that one party has as many of as it likes count as one: this machine's own, an IPv6 network's."""
    found = ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback:
        return "loopback"
    return str(found if found.version == 4 else ip_network(f"{found}/64", strict=False))


class _Connection(H11Protocol):
    _head: asyncio.TimerHandle | None = None

    def __init__(self, server: Server, seat: _Seat, on_lost: Callable[[], object]) -> None:
        super().__init__(server.config, server.server_state, {})
        self._seat = seat
        self._on_lost = on_lost

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seat.connection = self
        self._head = self.loop.call_later(HEAD_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._between_requests():
            self._head = self._head or self.loop.call_later(HEAD_S, self.transport.abort)
        else:
            self._complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()
        self._complete()
        super().connection_lost(exc)

    def waits(self) -> bool:
        return self._between_requests() or self.cycle.more_body

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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens nowhere itself: connections come through the door."""
        self.servers = []
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Who is slow is hung up on, before uvicorn would cancel their requests and log each as a fault."""
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with anyio.move_on_after(LAST_S):
            await self._wait_tasks_to_complete()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown()


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
    server = _Quiet(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_to_its_end, server)
        tasks.start_soon(_Door(listener, server).stay_open)
        try:
            await anyio.sleep_forever()
        finally:
            hang_up()
            server.should_exit = True


async def _to_its_end(server: Server) -> None:
    # Cancelled in the middle, it would leave its connections behind.
    with anyio.CancelScope(shield=True):
        await server.serve()
