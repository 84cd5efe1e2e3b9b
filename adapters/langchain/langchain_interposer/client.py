"""A small MCP client of the broker, sync and async, on the standard library.

It opens its connection at the first use, and a new one, once per call, when the old one is gone before a byte of the
call went out. A call whose bytes went out is never sent again.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from langchain_interposer.bearer import Bearer, Token
from langchain_interposer.channel import DISCARD, Channel, ProcessChannel, SocketChannel
from langchain_interposer.connection import Connection, Message, OnProgress
from langchain_interposer.errors import InterposerUnavailable, NotExecuted

Arguments: TypeAlias = Mapping[str, Any]

PROTOCOL_VERSION = "2025-11-25"
SPOKEN_VERSIONS = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", PROTOCOL_VERSION})
DEFAULT_COMMAND = ("interposer", "stdio")
_PAGE_LIMIT = 100


class InterposerClient:
    """Calls skills through a broker, from any number of threads and event loops at once.

    `timeout_s` bounds one call, holds for a human included; the broker has shorter limits of its own, so this one
    speaks only when the broker has stopped answering. `start_timeout_s` bounds the broker's start and handshake.

    `token` (text, or a function that returns the token of now) or `token_file` says for whom the calls are made: it is
    asked for by each request and goes with that request. The function is called in a thread, from several at once.
    """

    def __init__(
        self,
        open_channel: Callable[[], Channel],
        *,
        place: str,
        timeout_s: float = 300.0,
        start_timeout_s: float = 30.0,
        client_name: str = "langchain-interposer",
        token: Token | None = None,
        token_file: str | Path | None = None,
    ) -> None:
        self.place = place
        self.timeout_s = timeout_s
        self._open_channel = open_channel
        self._start_timeout_s = start_timeout_s
        self._client_name = client_name
        self._bearer = Bearer(token, token_file)
        self._opening = threading.Lock()
        self._connection: Connection | None = None
        self._forgotten: weakref.finalize[..., InterposerClient]
        self._edition = _Edition()
        self._closed = threading.Event()
        self._pid = os.getpid()

    @classmethod
    def spawn(
        cls,
        command: Sequence[str] = DEFAULT_COMMAND,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stderr: str | Path = DISCARD,
        **limits: Any,
    ) -> InterposerClient:
        """A broker of our own: `command` speaks MCP on its standard streams and ends at the end of its input.

        `env` is added to this process's environment; `stderr` is "discard", "inherit" or a file to append to.
        """
        line = list(command)
        if not line:
            raise ValueError("the broker's command is empty")
        return cls(lambda: ProcessChannel(line, env=env, cwd=cwd, stderr=stderr), place="stdio", **limits)

    @classmethod
    def connect(cls, path: str | Path, **limits: Any) -> InterposerClient:
        """A broker that listens on the Unix socket at `path`."""
        return cls(lambda: SocketChannel(path), place="unix", **limits)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **limits: Any) -> InterposerClient:
        """INTERPOSER_SOCKET, else INTERPOSER_URL (`unix:///path`), else INTERPOSER_COMMAND, else `interposer stdio`.

        Without a `token` or `token_file` of its own, INTERPOSER_TOKEN_FILE or INTERPOSER_TOKEN speaks.
        """
        environ = os.environ if environ is None else environ
        client = cls._named(environ, limits)
        if limits.get("token") is None and limits.get("token_file") is None:
            client._bearer = Bearer.from_env(environ)
        return client

    @classmethod
    def _named(cls, environ: Mapping[str, str], limits: Mapping[str, Any]) -> InterposerClient:
        if path := environ.get("INTERPOSER_SOCKET"):
            return cls.connect(path, **limits)
        if url := environ.get("INTERPOSER_URL"):
            scheme, _, rest = url.partition("://")
            if scheme != "unix" or not rest.startswith("/"):
                raise ValueError("INTERPOSER_URL has to look like unix:///path/to/socket")
            return cls.connect(rest, **limits)
        return cls.spawn(shlex.split(environ.get("INTERPOSER_COMMAND", "")) or DEFAULT_COMMAND, **limits)

    @property
    def edition(self) -> int:
        """Grows whenever the offered skills may have changed: the broker said so, or it is a new connection."""
        return self._edition.number

    def tools(self) -> list[Message]:
        """The definitions of every skill that this caller may use, all pages."""
        found: list[Message] = []
        cursor: dict[str, str] = {}
        for _ in range(_PAGE_LIMIT):
            answer = self._ask("tools/list", cursor, timeout_s=self._start_timeout_s)
            page = answer.get("result", {})
            if "error" in answer or not isinstance(page.get("tools"), list):
                raise InterposerUnavailable(f"the broker lists no skills: {_words(answer)}")
            found.extend(tool for tool in page["tools"] if isinstance(tool, dict) and isinstance(tool.get("name"), str))
            if not isinstance(page.get("nextCursor"), str):
                return found
            cursor = {"cursor": page["nextCursor"]}
        raise InterposerUnavailable(f"the broker's list of skills does not end within {_PAGE_LIMIT} pages")

    def call(
        self, name: str, arguments: Arguments, *, timeout_s: float | None = None, on_progress: OnProgress | None = None
    ) -> Message:
        """One `tools/call`; the JSON-RPC response, whether it holds a `result` or an `error`.

        Raises NotExecuted or OutcomeUnknown where there is none, NotJson if the arguments have no JSON form.
        """
        params = {"name": name, "arguments": dict(arguments)}
        return self._ask("tools/call", params, timeout_s=self._limit(timeout_s), on_progress=on_progress)

    async def acall(
        self, name: str, arguments: Arguments, *, timeout_s: float | None = None, on_progress: OnProgress | None = None
    ) -> Message:
        """`call` without blocking the event loop. Cancelling the task cancels the call at the broker."""
        params = {"name": name, "arguments": dict(arguments)}
        limit_s = self._limit(timeout_s)
        connection = await self._aopen()
        try:
            return await self._once(connection, await self._amarked(params), limit_s, on_progress)
        except NotExecuted:
            if connection.alive:
                raise
        return await self._once(await self._aopen(), await self._amarked(params), limit_s, on_progress)

    def sleep(self, seconds: float) -> None:
        """Wait, or until this client is closed."""
        self._closed.wait(seconds)
        self._refuse_if_closed()

    def open(self) -> None:
        """Start or reach the broker now, instead of at the first use."""
        self._opened()

    def close(self) -> None:
        """End the conversation; a broker that was spawned is gone when this returns. Idempotent."""
        self._closed.set()
        if os.getpid() == self._pid:  # else the broker is the parent's, and so may be whoever holds the lock
            with self._opening:
                self._drop()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a connection to the broker cannot be pickled: make a client in the process that uses it")

    def _ask(self, method: str, params: Message, *, timeout_s: float, on_progress: OnProgress | None = None) -> Message:
        def once(connection: Connection) -> Message:
            marked = self._bearer.marked(params)
            return connection.wait(connection.request(method, marked, on_progress=on_progress), timeout_s)

        connection = self._opened()
        try:
            return once(connection)
        except NotExecuted:
            if connection.alive:
                raise
        return once(self._opened())

    async def _amarked(self, params: Message) -> Message:
        if self._bearer.waits:
            return await asyncio.to_thread(self._bearer.marked, params)
        return self._bearer.marked(params)

    async def _once(
        self, connection: Connection, params: Message, timeout_s: float, on_progress: OnProgress | None
    ) -> Message:
        request = connection.request("tools/call", params, on_progress=on_progress)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(request.future)
        except TimeoutError:
            if request.future.done():
                return request.future.result()
            raise connection.give_up(request, f"no answer within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            connection.give_up(request, "cancelled by the caller")
            raise

    async def _aopen(self) -> Connection:
        connection = self._connection
        if connection is not None and connection.alive and not connection.inherited:
            self._refuse_if_closed()
            return connection
        return await asyncio.to_thread(self._opened)

    def _opened(self) -> Connection:
        if os.getpid() != self._pid:
            raise NotExecuted("This client was made before a fork: make a new one in the child. Nothing was executed.")
        with self._opening:
            self._refuse_if_closed()
            if self._connection is None or not self._connection.alive:
                self._drop()
                self._connection = self._begin()
            return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._forgotten.detach()
            connection.close()

    def _begin(self) -> Connection:
        connection = Connection(self._open_channel(), on_tools_changed=self._edition.advance)
        try:
            self._shake_hands(connection)
        except BaseException:
            connection.close(grace_s=0.5)
            raise
        self._forgotten = weakref.finalize(self, connection.hang_up)
        self._forgotten.atexit = False  # at exit, close_all waits for the broker's end
        self._edition.advance()
        return connection

    def _shake_hands(self, connection: Connection) -> None:
        from langchain_interposer import __version__

        me = {"name": self._client_name, "version": __version__}
        params = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": me}
        try:
            answer = connection.wait(connection.request("initialize", params), self._start_timeout_s)
        except InterposerUnavailable as fault:
            hint = " It says why on its standard error, which stderr='inherit' shows." if self.place == "stdio" else ""
            raise NotExecuted(f"The broker did not start: {fault.reason}.{hint} Nothing was executed.") from None
        version = answer.get("result", {}).get("protocolVersion")
        if version not in SPOKEN_VERSIONS:
            raise NotExecuted(
                f"The broker did not agree to a protocol version: {_words(answer)}. Nothing was executed."
            )
        connection.notify("notifications/initialized")

    def _limit(self, timeout_s: float | None) -> float:
        return self.timeout_s if timeout_s is None else timeout_s

    def _refuse_if_closed(self) -> None:
        if self._closed.is_set():
            raise NotExecuted("This client is closed. Nothing was executed.")


class _Edition:
    """A number that only grows. Apart from the client, so that a connection's threads do not keep the client alive."""

    def __init__(self) -> None:
        self.number = 0

    def advance(self) -> None:
        self.number += 1


def _words(answer: Message) -> str:
    error = answer.get("error")
    return str(error.get("message", "no reason given")) if isinstance(error, dict) else "an answer of another shape"
