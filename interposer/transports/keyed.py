"""The operators' socket: the kernel says who they are, and a key that they may read what is the broker's.

An agent with the broker's uid can connect to any socket of that uid, in a sandbox too: Landlock does not stop it. It
cannot read the key there, and answers no question of its own. The key is new at each start, stands beside the socket
with mode 0600, and goes in the first line (`operator/key`, see `knock.py`).
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket

from interposer.model import Caller, Json

from .knock import KnockingLink, Word
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


class KeyedLink(KnockingLink):
    """A link that begins after the key in the first line."""

    def __init__(self, caller: Caller, key: str, accept: Accept, limits: Limits) -> None:
        super().__init__(Word(METHOD, "key", KEY_LINE_BYTES), caller, accept, limits)
        self._key = key.encode()

    def _hear(self, id: Json, shown: str) -> None:
        if hmac.compare_digest(self._key, shown.encode("utf-8", "surrogatepass")):
            self._let_in(id)
        else:
            self._refuse(id)
