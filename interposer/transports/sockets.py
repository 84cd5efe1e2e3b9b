"""Unix and TCP sockets: many peers, each known before its first byte is read as a message.

A Unix peer is whom the kernel says it is, and may be turned away for it; a TCP peer, on loopback only, shows a token in
its first line. Whoever is turned away is reported. The Unix socket is never reachable with wider rights than it is
meant to have, and never in a place where somebody else could put another socket under its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import partial

import anyio

from interposer.errors import BROKER_UNAVAILABLE, INVALID_REQUEST, Unavailable
from interposer.model import Caller
from interposer.ports import Secret

from .gate import FOREIGN_UID, GuardedLink, Judge, Refusals, digests
from .knock import error_line
from .link import Accept, Limits, Link
from .places import problem, remove_stale, require_bindable, require_safe_directory, require_socket, resolve_group

_ACCEPTS_PER_TURN = 64
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

NOT_YOURS = "This user may not connect to the broker. Nothing was executed."

_log = logging.getLogger("interposer.transports")


class _Listening(ABC):
    """Accepts peers until cancelled; one task for each, and none of them is left."""

    def __init__(self, limits: Limits | None, on_refused: Callable[[str], None] | None) -> None:
        self._limits = limits or Limits()
        self._refused = Refusals(on_refused)

    async def serve(self, accept: Accept, ready: Callable[[str], None]) -> None:
        """Serve until cancelled. Raises `ConfigurationError` when the address cannot be had safely."""
        listener = self._listen()
        try:
            ready(self._address(listener))
            door = _Door(listener, self._limits, lambda peer: self._link(peer, accept))
            try:
                await anyio.sleep_forever()
            finally:
                await door.shut()
        finally:
            self._unlisten(listener)

    @abstractmethod
    def _listen(self) -> socket.socket:
        """A listening, non-blocking socket."""

    @abstractmethod
    def _address(self, listener: socket.socket) -> str:
        """What a client is told."""

    @abstractmethod
    def _link(self, peer: socket.socket, accept: Accept) -> Link | None:
        """The link for a peer that has just been accepted; None for one that has been turned away."""

    def _unlisten(self, listener: socket.socket) -> None:
        listener.close()


class UnixSocket(_Listening):
    """A `Transport` on a Unix socket. `mode` and `group` say who may connect; the kernel says who did.

    With `uids`, peers of all others are turned away. `on_refused` is called with a short constant reason, at most once
    a second for each.
    """

    def __init__(
        self,
        path: str,
        mode: int = 0o660,
        group: str | int | None = None,
        *,
        uids: Collection[int] | None = None,
        limits: Limits | None = None,
        on_refused: Callable[[str], None] | None = None,
        taken: socket.socket | None = None,
    ) -> None:
        """`taken` listens at `path` already (`places.taken_over`): then mode and group are whoever's who made it, and
        it stays when we leave."""
        super().__init__(limits, on_refused)
        require_bindable(path)
        self._taken = taken
        self._path = os.path.abspath(path)
        self._mode = mode
        self._gid = resolve_group(group)
        self._uids = None if uids is None else frozenset(uids)
        self._identity: tuple[int, int] | None = None

    def _listen(self) -> socket.socket:
        require_safe_directory(self._path)
        if self._taken is not None:
            require_socket(self._path)
            return self._taken
        remove_stale(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind(listener)
        except OSError as error:
            listener.close()
            raise problem(self._path, f"cannot listen here: {os.strerror(error.errno or 0)}") from error
        return listener

    def _bind(self, listener: socket.socket) -> None:
        # unix(7), Linux: the file is created with the mode of the socket's own inode, so it is never open to others,
        # and the process-wide umask is left alone. It only becomes reachable with listen().
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(self._path)
        placed = os.lstat(self._path)
        self._identity = (placed.st_dev, placed.st_ino)
        if self._gid is not None:
            os.chown(self._path, -1, self._gid, follow_symlinks=False)
        os.chmod(self._path, self._mode)
        listener.listen(128)
        listener.setblocking(False)

    def _unlisten(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            placed = os.lstat(self._path)
            if (placed.st_dev, placed.st_ino) == self._identity:
                os.unlink(self._path)
        listener.close()

    def _address(self, listener: socket.socket) -> str:
        return f"unix:{self._path}"

    def _link(self, peer: socket.socket, accept: Accept) -> Link | None:
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, gid = struct.unpack("iII", raw)
        if self._uids is not None and uid not in self._uids:
            self._refused(FOREIGN_UID)
            _turn_away(peer, INVALID_REQUEST, NOT_YOURS)
            return None
        return Link(Caller("unix", uid=uid, gid=gid, pid=pid), accept, self._limits)


class TcpSocket(_Listening):
    """A `Transport` on a loopback address. `tokens` are (token, label): the label is what the caller is known by.

    A token that is none of these is put before the `judge`: one that is accepted is the caller's own, and speaks for
    every request until another is shown. `on_refused` is called with a short constant reason, at most once a second for
    each.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tokens: Sequence[tuple[Secret, str]],
        *,
        judge: Judge | None = None,
        limits: Limits | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(limits, on_refused)
        self._host = _loopback(host)
        self._port = port
        self._tokens = digests(f"tcp://{host}:{port}", tokens, judged=judge is not None)
        self._judge = judge

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen(128)
        except OSError as error:
            listener.close()
            place = f"tcp://{self._host}:{self._port}"
            raise problem(place, f"cannot listen here: {os.strerror(error.errno or 0)}; choose another port") from error
        listener.setblocking(False)
        return listener

    def _address(self, listener: socket.socket) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"tcp://{host}:{listener.getsockname()[1]}"

    def _link(self, peer: socket.socket, accept: Accept) -> Link:
        return GuardedLink(self._tokens, self._judge, self._refused, accept, self._limits)


class _Door:
    """Takes peers in while there is room, and rests when the process is out of descriptors."""

    def __init__(self, listener: socket.socket, limits: Limits, link: Callable[[socket.socket], Link | None]) -> None:
        self._listener = listener
        self._limits = limits
        self._link = link
        # anyio's task groups cannot be used from the loop's callbacks; `shut` is the end of these tasks instead.
        self._inside: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._loop.add_reader(listener.fileno(), self._admit)

    async def shut(self) -> None:
        """Nobody is let in any more, and everybody who was inside has left."""
        self._loop.remove_reader(self._listener.fileno())
        if self._rest is not None:
            self._rest.cancel()
        for task in self._inside:
            task.cancel()
        if self._inside:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(self._inside)

    def _admit(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                peer, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                self._pause(error)
                return
            peer.setblocking(False)
            if len(self._inside) >= self._limits.connections:
                _turn_away(peer, BROKER_UNAVAILABLE, Unavailable.public)
            else:
                task = self._loop.create_task(self._host(peer))
                self._inside.add(task)
                task.add_done_callback(partial(self._forget, peer))

    def _pause(self, error: OSError) -> None:
        _log.warning("not accepting for %.1f s: %s", self._limits.backoff_s, error.strerror)
        self._loop.remove_reader(self._listener.fileno())
        self._rest = self._loop.call_later(self._limits.backoff_s, self._reopen)

    def _reopen(self) -> None:
        self._rest = None
        self._loop.add_reader(self._listener.fileno(), self._admit)

    async def _host(self, peer: socket.socket) -> None:
        """One peer, from its first byte to its last."""
        try:
            link = self._link(peer)
            if link is None:
                return
            try:
                await self._loop.connect_accepted_socket(lambda: link, peer)
                await link.lost
            finally:
                await link.farewell()
        except OSError as error:
            _log.info("a peer was gone before it was connected: %s", error.strerror)

    def _forget(self, peer: socket.socket, task: asyncio.Task[None]) -> None:
        self._inside.discard(task)
        peer.close()


def _turn_away(peer: socket.socket, code: int, public: str) -> None:
    with contextlib.suppress(OSError):
        peer.send(error_line(None, code, public))
    peer.close()


def _loopback(host: str) -> str:
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        safe = ipaddress.ip_address(address).is_loopback
    except ValueError:
        safe = False
    if not safe:
        raise problem(f"tcp://{host}", "loopback addresses only: on a network a token needs TLS; use 127.0.0.1")
    return address
