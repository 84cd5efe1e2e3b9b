"""The operators' socket: the kernel says who they are, and a key that they may read what is the broker's.

An agent with the broker's uid can connect to any socket of that uid, in a sandbox too: Landlock does not stop it. It
cannot read the key there, and answers no question of its own. The key is new at each start, stands beside the socket
with mode 0600, and goes in the first line:
`{"jsonrpc": "2.0", "id": 1, "method": "operator/key", "params": {"key": "…"}}`, answered with an empty result. Whatever
else comes first, or nothing in time, is answered with one constant error and the end of the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
from typing import cast

from interposer.canonical import Malformed, encode, parse
from interposer.errors import INVALID_REQUEST, Unauthenticated
from interposer.model import Caller, Json

from .link import Accept, Limits, Link
from .sockets import UnixSocket

METHOD = "operator/key"
KEY_LINE_BYTES = 1024


class KeyedSocket(UnixSocket):
    """A `UnixSocket` for whoever may read the file at `key_path`, and nobody else."""

    def __init__(self, path: str, key_path: str, mode: int = 0o600, *, limits: Limits | None = None) -> None:
        super().__init__(path, mode, limits=limits)
        self._key_path = key_path
        self._key = secrets.token_hex(32)
        self._key_file: tuple[int, int] | None = None

    def _bind(self, listener: socket.socket) -> None:
        self._write_key()
        super()._bind(listener)

    def _unlisten(self, listener: socket.socket) -> None:
        super()._unlisten(listener)
        with contextlib.suppress(OSError):
            placed = os.lstat(self._key_path)
            if (placed.st_dev, placed.st_ino) == self._key_file:
                os.unlink(self._key_path)

    def _write_key(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._key_path)
        # O_EXCL: a link or a file that stands here is not followed, and the mode is ours from the first byte on.
        fd = os.open(self._key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            os.write(fd, self._key.encode())
            placed = os.fstat(fd)
            self._key_file = (placed.st_dev, placed.st_ino)
        finally:
            os.close(fd)

    def _link(self, peer: socket.socket, accept: Accept) -> Link | None:
        known = super()._link(peer, accept)
        return KeyedLink(known.caller, self._key, accept, self._limits) if known else None


class KeyedLink(Link):
    """A link whose conversation begins after the key, and not otherwise."""

    def __init__(self, caller: Caller, key: str, accept: Accept, limits: Limits) -> None:
        super().__init__(caller, accept, limits)
        self._key = key.encode()
        self._line = bytearray()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        both = cast("asyncio.Transport", transport)
        self.write_to(both)
        self.read_from(both)
        self._deadline = self._loop.call_later(self.limits.authenticate_s, self._refuse, None)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None:
            super().data_received(data)
            return
        if self._closed:
            return
        self._line += data
        line, newline, rest = self._line.partition(b"\n")
        if len(line) > KEY_LINE_BYTES:
            self._refuse(None)
        elif newline:
            self._line = bytearray()
            self._judge_line(bytes(line), bytes(rest))

    def eof_received(self) -> bool:
        if self._deadline is None:
            return super().eof_received()
        self.abort()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _judge_line(self, line: bytes, rest: bytes) -> None:
        id, shown = _shown(line)
        if self._deadline is None or not hmac.compare_digest(self._key, shown.encode("utf-8", "surrogatepass")):
            self._refuse(id)
            return
        self._deadline.cancel()
        self._deadline = None
        self.send(encode({"jsonrpc": "2.0", "id": id, "result": {}}) + b"\n")
        self.begin()
        if rest:
            self.data_received(rest)

    def _refuse(self, id: Json) -> None:
        error: Json = {"code": INVALID_REQUEST, "message": Unauthenticated.public}
        self.send(encode({"jsonrpc": "2.0", "id": id, "error": error}) + b"\n")
        self.close()


def _shown(line: bytes) -> tuple[Json, str]:
    """The id and the key of a first line; no key when it is anything else."""
    try:
        message = parse(line)
    except Malformed:
        return None, ""
    if not isinstance(message, dict) or type(message.get("id")) not in (int, str):
        return None, ""
    params = message.get("params")
    key = params.get("key") if message.get("method") == METHOD and isinstance(params, dict) else None
    return message["id"], key if isinstance(key, str) else ""
