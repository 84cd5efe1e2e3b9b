"""The operators' socket: without the key beside it there is no conversation, whoever the kernel says one is."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from interposer.ports import Connection
from interposer.transports.keyed import KEY_LINE_BYTES, KeyedSocket
from interposer.transports.link import Limits
from tests.fakes.peer import Echo, RawPeer, receive_all, receive_exactly


@asynccontextmanager
async def served(home: Path) -> AsyncIterator[list[Echo]]:
    """An echo for operators; the receivers that it made."""
    receivers: list[Echo] = []

    def accept(connection: Connection) -> Echo:
        receivers.append(Echo(connection))
        return receivers[-1]

    transport = KeyedSocket(str(home / "s"), str(home / "key"), limits=Limits(authenticate_s=0.2))
    ready = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transport.serve, accept, lambda _: ready.set())
        with anyio.fail_after(5):
            await ready.wait()
        yield receivers
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def dialled(home: Path) -> AsyncIterator[RawPeer]:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(home / "s"))
        yield RawPeer.on(line)


def hello(key: str, id: object = 1, method: str = "operator/key") -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": {"key": key}}).encode() + b"\n"


async def test_the_key_opens_the_conversation(tmp_path: Path) -> None:
    """What follows the key, in the same bytes even, is the conversation; the caller is whom the kernel names."""
    async with served(tmp_path) as receivers, dialled(tmp_path) as peer:
        await peer.send(hello((tmp_path / "key").read_text()) + b"rest")
        with anyio.fail_after(5):
            expected = b'{"jsonrpc":"2.0","id":1,"result":{}}\nrest'
            assert await receive_exactly(peer, len(expected)) == expected
        assert (receivers[0].connection.caller.uid, receivers[0].connection.caller.pid) == (os.getuid(), os.getpid())


@pytest.mark.parametrize(
    "line",
    [
        hello("0" * 64),
        hello(""),
        hello("\ud800"),
        b'{"jsonrpc":"2.0","id":1,"method":"approvals/list","params":{}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"operator/key","params":{"key":null}}\n',
        b'{"jsonrpc":"2.0","id":1,"method":"operator/key"}\n',
        b"[]\n",
        b"\xff\n",
        b"\n",
        b"x" * (KEY_LINE_BYTES + 1),
        b"",
    ],
)
async def test_without_the_key_nothing_is_done(tmp_path: Path, line: bytes) -> None:
    """Whatever comes first in its place, and silence too, is answered with one error and the end."""
    async with served(tmp_path) as receivers, dialled(tmp_path) as peer:
        await peer.send(line)
        with anyio.fail_after(5):
            said = await receive_all(peer)
    assert json.loads(said)["error"]["code"] == -32600
    assert receivers == []


async def test_the_right_key_under_another_method_is_refused(tmp_path: Path) -> None:
    """Only the one request shows the key."""
    async with served(tmp_path) as receivers, dialled(tmp_path) as peer:
        await peer.send(hello((tmp_path / "key").read_text(), method="interposer/authenticate"))
        with anyio.fail_after(5):
            assert b"error" in await receive_all(peer)
    assert receivers == []


async def test_a_key_byte_by_byte_is_taken(tmp_path: Path) -> None:
    """However it arrives, the first line is the key."""
    async with served(tmp_path) as receivers, dialled(tmp_path) as peer:
        for byte in hello((tmp_path / "key").read_text()):
            await peer.send(bytes([byte]))
        with anyio.fail_after(5):
            await receive_exactly(peer, 10)
    assert len(receivers) == 1


async def test_each_start_has_a_key_of_its_own_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0600 whatever stood there before; new at each start; gone with the socket."""
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / "key").symlink_to(outside)
    keys = []
    for _ in range(2):
        async with served(tmp_path):
            found = (tmp_path / "key").lstat()
            assert stat.S_ISREG(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
            keys.append((tmp_path / "key").read_text())
        assert not (tmp_path / "key").exists()
    assert len(set(keys)) == 2
    assert all(len(key) == 64 for key in keys)
    assert outside.read_text() == "kept"
