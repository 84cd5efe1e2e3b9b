"""What every `Transport` promises, on every one that we ship and on both event loops."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.ports import Connection, Secret, Transport
from interposer.transports.link import Limits
from interposer.transports.memory import Memory
from interposer.transports.sockets import TcpSocket, UnixSocket
from interposer.transports.stdio import Stdio
from tests.fakes.peer import Echo, Notes, Peer, Polite, RawPeer, receive_all, receive_exactly

TOKEN = "correct-horse-battery-staple"
HELLO = b'{"jsonrpc":"2.0","id":1,"method":"interposer/authenticate","params":{"token":"%s"}}\n' % TOKEN.encode()
WELCOME = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'
MIB = 1024 * 1024


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@dataclass
class Wire:
    """One transport being served, and the receivers of its peers."""

    connect: Callable[[], Any]
    cancel: Callable[[], None]
    receivers: list[Any] = field(default_factory=list)
    done: anyio.Event = field(default_factory=anyio.Event)


@asynccontextmanager
async def _serve(transport: Transport, wire: Wire, receiver: Callable[[Connection], Notes]) -> AsyncIterator[None]:
    ready = anyio.Event()

    def accept(connection: Connection) -> Notes:
        told = receiver(connection)
        wire.receivers.append(told)
        return told

    async def serve() -> None:
        await transport.serve(accept, lambda address: ready.set())
        wire.done.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        wire.cancel = tasks.cancel_scope.cancel
        with anyio.fail_after(5):
            await ready.wait()
        yield
        tasks.cancel_scope.cancel()


Serving = Callable[..., Any]


@pytest.fixture(params=["stdio", "unix", "tcp", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serving(kind: str, tmp_path: Path) -> Serving:
    """Serve one transport: `async with serving(Echo) as wire`, then `await wire.connect()`."""

    @asynccontextmanager
    async def start(receiver: Callable[[Connection], Notes], limits: Limits | None = None) -> AsyncIterator[Wire]:
        transport, connect, release = _make(kind, tmp_path, limits)
        wire = Wire(connect, lambda: None)
        try:
            async with _serve(transport, wire, receiver):
                yield wire
        finally:
            release()

    return start


def _make(kind: str, tmp_path: Path, limits: Limits | None) -> tuple[Transport, Callable[[], Any], Callable[[], None]]:
    peers: list[Peer] = []

    def release() -> None:
        for peer in peers:
            peer.vanish()

    async def on_socket(family: int, address: Any, greet: bool) -> Peer:
        sock = socket.socket(family)
        sock.connect(address)
        peer = RawPeer.on(sock)
        peers.append(peer)
        if greet:
            await peer.send(HELLO)
            assert await receive_exactly(peer, len(WELCOME)) == WELCOME
        return peer

    if kind == "stdio":
        their_read, our_write = os.pipe()
        our_read, their_write = os.pipe()
        pipes = RawPeer(their_read, their_write)
        peers.append(pipes)
        stdio = Stdio(our_read, our_write, limits=limits)

        async def take() -> Peer:
            return pipes

        def release_stdio() -> None:
            release()
            os.close(our_read)
            os.close(our_write)

        return stdio, take, release_stdio
    if kind == "unix":
        path = str(tmp_path / "s")
        return UnixSocket(path, limits=limits), lambda: on_socket(socket.AF_UNIX, path, False), release
    if kind == "tcp":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        tcp = TcpSocket("127.0.0.1", port, [(Secret(TOKEN), "ann")], limits=limits)
        return tcp, lambda: on_socket(socket.AF_INET, ("127.0.0.1", port), True), release
    memory = Memory()

    async def join() -> Peer:
        return memory.connect()

    return memory, join, release


async def _receiver_of(wire: Wire) -> Any:
    with anyio.fail_after(5):
        while not wire.receivers:
            await anyio.lowlevel.checkpoint()
    return wire.receivers[-1]


async def test_bytes_arrive_in_order_both_ways(serving: Serving) -> None:
    """What a peer sends arrives in order, and so do the answers, wherever the wire cuts them."""
    frames = [b'{"n":%d,"pad":"%s"}\n' % (n, b"x" * (n * 37 % 2048)) for n in range(500)]
    async with serving(Echo) as wire:
        peer = await wire.connect()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for_sending = b"".join(frames)
                tasks.start_soon(_send_in_pieces, peer, for_sending)
                echoed = await receive_exactly(peer, len(for_sending))
        assert echoed == for_sending
        assert bytes(wire.receivers[0].received_bytes) == for_sending


async def _send_in_pieces(peer: Peer, data: bytes) -> None:
    start, size = 0, 1
    while start < len(data):
        await peer.send(data[start : start + size])
        start, size = start + size, size * 7 % 4093 + 1


async def test_a_frame_of_one_mebibyte_goes_both_ways(serving: Serving) -> None:
    """A frame far bigger than any buffer of the kernel arrives whole."""
    frame = os.urandom(MIB - 1).replace(b"\n", b" ") + b"\n"
    async with serving(Echo) as wire:
        peer = await wire.connect()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(peer.send, frame)
                assert await receive_exactly(peer, len(frame)) == frame


async def test_a_peer_that_has_ended_is_still_answered(serving: Serving) -> None:
    """Half a close ends the peer's side only: the answer is delivered, then the connection closes."""
    async with serving(Notes) as wire:
        peer = await wire.connect()
        await peer.send(b"question\n")
        peer.end()
        receiver = await _receiver_of(wire)
        await receiver.until(lambda: receiver.ended_count == 1)
        assert bytes(receiver.received_bytes) == b"question\n"
        receiver.connection.send(b"answer\n")
        receiver.connection.close()
        receiver.connection.send(b"too late\n")
        with anyio.fail_after(5):
            assert await receive_all(peer) == b"answer\n"
        assert receiver.ended_count == 1


async def test_what_is_queued_is_sent_before_hanging_up(serving: Serving) -> None:
    """`close` loses nothing of what was sent before it, however much that is."""
    async with serving(Notes) as wire:
        peer = await wire.connect()
        receiver = await _receiver_of(wire)
        for n in range(64):
            receiver.connection.send(bytes([n]) * 32768)
        receiver.connection.close()
        with anyio.fail_after(5):
            assert await receive_all(peer) == b"".join(bytes([n]) * 32768 for n in range(64))


async def test_a_peer_that_vanishes_has_ended_once(serving: Serving) -> None:
    """A peer that is gone counts as ended, once; sending to it raises nothing and queues nothing."""
    async with serving(Notes) as wire:
        peer = await wire.connect()
        receiver = await _receiver_of(wire)
        receiver.connection.send(b"x" * 4 * MIB)
        peer.vanish()
        await receiver.until(lambda: receiver.ended_count == 1)
        with anyio.fail_after(5):
            while receiver.connection.backlog:
                receiver.connection.send(b"x" * 65536)
                await anyio.lowlevel.checkpoint()
        receiver.connection.send(b"x")
        receiver.connection.close()
        assert receiver.ended_count == 1


async def test_the_receiver_hears_when_the_backlog_has_left(serving: Serving) -> None:
    """The backlog shows what the peer has not taken; when it has, `drained` is called."""
    async with serving(Notes) as wire:
        peer = await wire.connect()
        receiver = await _receiver_of(wire)
        for _ in range(64):
            receiver.connection.send(b"y" * 32768)
        assert receiver.connection.backlog > MIB
        await anyio.lowlevel.checkpoint()
        with anyio.fail_after(5):
            assert len(await receive_exactly(peer, 64 * 32768)) == 64 * 32768
        await receiver.until(lambda: receiver.drained_count > 0)
        assert receiver.connection.backlog == 0


async def test_drained_follows_a_backlog_that_the_kernel_took_at_once(serving: Serving, kind: str) -> None:
    """A receiver that stops because of a backlog within one turn of the loop is never left waiting."""
    async with serving(Notes) as wire:
        peer = await wire.connect()
        receiver = await _receiver_of(wire)
        receiver.connection.send(b"z" * 65000)
        receiver.connection.send(b"z" * 1000)
        assert receiver.connection.backlog > 65536
        with anyio.fail_after(5):
            await receive_exactly(peer, 66000)
        await receiver.until(lambda: receiver.drained_count == 1)


async def test_a_paused_peer_is_not_read(serving: Serving) -> None:
    """Between `pause` and `resume` nothing arrives, and nothing is lost."""
    async with serving(Polite) as wire:
        peer = await wire.connect()
        receiver = await _receiver_of(wire)
        receiver.connection.pause()
        await peer.send(b"one\n")
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert not receiver.received_bytes
        receiver.connection.resume()
        await receiver.until(lambda: bytes(receiver.received_bytes) == b"one\n")


async def test_a_peer_that_does_not_read_is_given_up(serving: Serving, kind: str) -> None:
    """A peer that takes nothing for the stall time, with more than the stall size queued, is hung up on."""
    if kind == "memory":
        pytest.skip("the in-memory transport has no clock")
    async with serving(Notes, Limits(stall_s=0.05)) as wire:
        await wire.connect()
        receiver = await _receiver_of(wire)
        receiver.connection.send(b"x" * 32 * MIB)
        await receiver.until(lambda: receiver.ended_count == 1)
        assert receiver.connection.backlog == 0


async def test_the_backlog_has_a_ceiling(serving: Serving, kind: str) -> None:
    """However fast answers come, a peer cannot make the broker hold more than the limit for it."""
    if kind == "memory":
        pytest.skip("the in-memory transport holds what the test sends")
    async with serving(Notes, Limits(backlog_bytes=2 * MIB)) as wire:
        await wire.connect()
        receiver = await _receiver_of(wire)
        for _ in range(100):
            receiver.connection.send(b"x" * 65536)
            assert receiver.connection.backlog <= 2 * MIB + 65536
        await receiver.until(lambda: receiver.ended_count == 1)


async def test_a_hung_up_peer_that_reads_nothing_is_not_waited_for(serving: Serving, kind: str) -> None:
    """After `close`, a peer that does not take the rest is dropped after the stall time."""
    if kind == "memory":
        pytest.skip("the in-memory transport has no clock")
    async with serving(Notes, Limits(stall_s=0.05)) as wire:
        await wire.connect()
        receiver = await _receiver_of(wire)
        receiver.connection.send(b"x" * 32 * MIB)
        receiver.connection.close()
        await receiver.until(lambda: receiver.ended_count == 1)


async def test_cancelled_serving_leaves_nothing(serving: Serving) -> None:
    """When serving is cancelled every receiver is told, and no descriptor and no task is left."""
    await _serve_and_cancel(serving)  # libuv opens descriptors of its own with its first stream
    descriptors, tasks = _descriptors(), asyncio.all_tasks()
    await _serve_and_cancel(serving)
    assert _descriptors() == descriptors
    assert asyncio.all_tasks() == tasks


async def _serve_and_cancel(serving: Serving) -> None:
    async with serving(Notes) as wire:
        peer = await wire.connect()
        receiver = await _receiver_of(wire)
        receiver.connection.send(b"goodbye\n")
        wire.cancel()
    assert receiver.ended_count == 1
    peer.vanish()
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


def _descriptors() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(fd + " " + os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return found
