"""An MCP server that the broker starts as a child process and speaks to over stdio, in either era.

Many calls are in flight over the one process. A call either fails before its first byte, or is answered, or is in
doubt: nothing is ever sent twice. A process that dies is started again, with growing pauses and not more than five
times a minute. The credential is read when a process is started and is in that process's environment only; when it
changes, another process takes over and the old one finishes what it has begun.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from interposer.errors import METHOD_NOT_FOUND, ConfigurationError, UpstreamFault
from interposer.model import Answered, Era, Failed, InDoubt, Intent, JsonObject, Outcome, Principal, Progress
from interposer.ports import Clock, Secret
from interposer.wire import jsonrpc
from interposer.wire.mcp import neutral_result
from interposer.wire.probe import Verdict

from .link import Reply, Waiting
from .notices import Notices
from .rotation import Rotation
from .server import Command, Limits, Server
from .settled import fault_of, settled, told

MAX_PAGES = 100
_ENVELOPE_BYTES = 256
_LOOK_S = 0.05
_WORTH_WAITING_S = 1.0
"""Calls wait for a restart that is no further away; otherwise they fail at once, unsent."""


class McpStdio:
    """The `Upstream` port over one child process. Use it on asyncio (or uvloop) only."""

    def __init__(
        self,
        name: str,
        command: Command,
        *,
        clock: Clock,
        mask: Callable[[str], str],
        log: Callable[[str], None],
        on_notice: Callable[[str, str], None],
        guard: Callable[[Secret], None] | None = None,
        release: Callable[[Secret], None] | None = None,
        limits: Limits | None = None,
        era: Era | None = None,
    ) -> None:
        """`mask` is applied to stderr before `log` sees it; `guard` is given the credential before a child has it
        (in a thread: it may take its time), and `release` the same when that child has ended.

        `on_notice(kind, detail)` hears of: stdout_noise, malformed, oversize, unknown_id, second_answer, late (detail
        is the invocation's id), flood, upstream_request, definition, pages, restart, quarantine, start_failed,
        credential_unusable.

        `era`: what this server is known to speak; without it, it is asked.
        """
        self.name = name
        self._command = command
        self._clock = clock
        self._mask = mask
        self._log = log
        self._on_notice = on_notice
        self._guard = guard
        self._release = release
        self._limits = limits = limits or Limits()
        self._ids = itertools.count(1)
        self._notices = Notices(on_notice)
        self._changed: list[Callable[[], None]] = []
        self._change_due: asyncio.TimerHandle | None = None
        self._deaths: deque[float] = deque(maxlen=limits.deaths + 1)
        self._era: Era | None = era
        self._ready: Server | None = None
        self._next: asyncio.Future[Server] | None = None
        self._open_until = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._servers: set[Server] = set()
        """All whose process may run."""
        self._retiring: set[asyncio.Task[None]] = set()
        self._rotation: Rotation | None = None
        if command.credential is not None:
            self._rotation = Rotation(
                command.credential,
                limits=limits,
                clock=clock,
                fresh=self._fresh,
                retiring=lambda: len(self._retiring),
                let_go=self._ended,
                on_notice=on_notice,
            )
        self._closed = False

    @property
    def verdict(self) -> Verdict | None:
        """What the running process said that it is."""
        return self._ready.verdict if self._ready is not None else None

    def serves(self, principal: Principal) -> bool:
        """Everybody: there is one credential, or none."""
        return True

    def on_change(self, changed: Callable[[], None]) -> None:
        self._changed.append(changed)

    def start(self) -> None:
        """Start the process in the background; `call` and `skills` do so themselves when need be."""
        if self._keeper is None and not self._closed:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name=f"upstream {self.name}")

    async def call(self, intent: Intent, on_progress: Callable[[Progress], None] | None) -> Outcome:
        try:
            ready = await self._usable_server()
        except UpstreamFault as fault:
            return Failed(f"not executed: {fault}")
        if ready.backlog > self._limits.backlog_bytes:
            return Failed("not executed: the upstream does not read its input")
        invocation, obligations = intent.permit.invocation, intent.permit.decision.obligations
        id = next(self._ids)
        meta = ready.meta if on_progress is None else {**(ready.meta or {}), "progressToken": id}
        line = jsonrpc.splice_call(id, invocation.skill.name, invocation.canonical, meta)
        waiting = Waiting(
            asyncio.get_running_loop().create_future(),
            invocation=invocation.id,
            limit_bytes=obligations.max_result_bytes + _ENVELOPE_BYTES,
            on_progress=on_progress,
        )
        ready.link.expect(id, waiting, obligations.timeout_s)
        ready.link.send(line)
        try:
            reply = await waiting.future
        except asyncio.CancelledError:
            ready.link.abandon(id, tell="cancelled by the caller")
            raise
        finally:
            ready.link.settle()
        return self._outcome(reply)

    async def skills(self) -> list[JsonObject]:
        ready = await self._usable_server()
        ready.listings += 1
        try:
            return await self._listed(ready)
        finally:
            ready.listings -= 1

    async def aclose(self) -> None:
        self._closed = True
        keeper, self._keeper = self._keeper, None
        if self._change_due is not None:
            self._change_due.cancel()
        try:
            ending = {task for task in (keeper, *self._retiring) if task is not None}
            for task in ending:
                task.cancel()
            if ending:
                await asyncio.wait(ending)
            await asyncio.gather(*(server.stop() for server in self._servers))
            self._servers.clear()
        except asyncio.CancelledError:
            for server in self._servers:
                server.kill()
            raise

    async def _listed(self, ready: Server) -> list[JsonObject]:
        found: list[JsonObject] = []
        cursors: set[str] = set()
        params: JsonObject = {}
        for _ in range(MAX_PAGES):
            page = await self._page(ready, params)
            tools = page.get("tools")
            found += self._usable(tools if isinstance(tools, list) else [])
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                return found
            if cursor in cursors:
                break
            cursors.add(cursor)
            params = {"cursor": cursor}
        self._on_notice("pages", "the list of tools has no end; what came so far is used")
        return found

    def _outcome(self, reply: Reply) -> Outcome:
        if isinstance(reply, InDoubt):
            return reply
        if reply.error is not None:
            return Failed(f"the upstream refused the call (code {reply.error['code']})", reply.error)
        result = reply.result or {}
        if result.get("resultType", "complete") != "complete":
            # We declare no capability that would allow it (MCP 2026-07-28, multi round-trip requests and tasks).
            self._on_notice("upstream_request", "the upstream asked for input that is not relayed")
            return InDoubt("the upstream asked for input we do not relay")
        return Answered(neutral_result(result))

    async def _page(self, ready: Server, params: JsonObject) -> JsonObject:
        if ready.meta is not None:
            params = {**params, "_meta": ready.meta}
        reply = await ready.request("tools/list", params, self._limits.list_s)
        if isinstance(reply, InDoubt):
            raise UpstreamFault(reply.reason)
        if reply.error is not None:
            if reply.error["code"] == METHOD_NOT_FOUND:
                return {}
            raise UpstreamFault(f"the upstream refused tools/list (code {reply.error['code']})")
        return reply.result or {}

    async def _usable_server(self) -> Server:
        ready = self._ready
        return ready if ready is not None and not ready.link.closed else await self._started()

    def _usable(self, tools: list[JsonObject]) -> list[JsonObject]:
        usable = []
        for tool in tools:
            name = tool.get("name") if isinstance(tool, dict) else None
            if isinstance(name, str) and name and isinstance(tool.get("inputSchema"), dict):
                usable.append(tool)
            else:
                self._on_notice("definition", "a tool without a name or an inputSchema was left out")
        return usable

    async def _started(self) -> Server:
        """The running process, waited for within bounds. Raises `UpstreamFault`."""
        if self._closed:
            raise UpstreamFault("the upstream is closed")
        if self._clock.monotonic() < self._open_until:
            raise UpstreamFault("the upstream is down; it will be started again in a while")
        self.start()
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._limits.start_s):
                return await asyncio.shield(self._next)
        except TimeoutError:
            raise UpstreamFault("the upstream did not start in time") from None

    async def _keep(self) -> None:
        """Start the process, again and again, until cancelled."""
        pause, longest = self._limits.backoff_s
        failures = 0
        restarted = False
        try:
            while True:
                lived = await self._life(restarted)
                failures = 1 if lived > longest else failures + 1
                await self._rest(min(longest, pause * 2 ** (failures - 1)))
                restarted = True
        finally:
            self._tell_waiters(UpstreamFault("the upstream is closed"))

    async def _rest(self, pause_s: float) -> None:
        now = self._clock.monotonic()
        self._deaths.append(now)
        if len(self._deaths) > self._limits.deaths and now - self._deaths[0] < self._limits.per_s:
            self._deaths.clear()
            self._tell_waiters(UpstreamFault("the upstream died too often; it is left alone for a while"))
            pause_s = self._limits.per_s
            why = f"died more than {self._limits.deaths} times in {self._limits.per_s:g} s"
            await told(self._on_notice, "quarantine", why)
        if pause_s > _WORTH_WAITING_S:
            self._open_until = now + pause_s
        await asyncio.sleep(pause_s)
        self._open_until = 0.0

    async def _life(self, restarted: bool) -> float:
        """One life, whatever ends it: for how many seconds it served."""
        life = await settled(self._live(restarted))
        fault = fault_of(life)
        if fault is None:
            return life.result()
        kind = type(fault).__name__
        self._tell_waiters(UpstreamFault(f"the upstream failed in an unexpected way ({kind})"))
        await told(self._on_notice, "start_failed", f"unexpected {kind}")
        return 0.0

    async def _live(self, restarted: bool) -> float:
        """One life of the process, and of those that took over from it: for how many seconds they served."""
        server = self._fresh()
        began = self._clock.monotonic()
        try:
            verdict = await server.introduced(self._era)
            self._ready, self._era = server, verdict.era
            self._tell_waiters(server)
            if restarted:
                self._change()
            while (successor := await self._outlived(server)) is not None:
                self._retire(server)
                self._ready = server = successor
                self._log("the credential changed: calls go to a new process")
                self._change()
            await told(self._on_notice, "restart", await server.ended)
        except (UpstreamFault, ConfigurationError, OSError) as fault:
            self._tell_waiters(UpstreamFault(f"the upstream could not be started: {fault}"))
            await told(self._on_notice, "start_failed", str(fault))
            return 0.0
        finally:
            self._ready = None
            await self._ended(server)
        return self._clock.monotonic() - began

    def _fresh(self) -> Server:
        server = Server(
            self._command,
            limits=self._limits,
            ids=self._ids,
            notices=self._notices,
            mask=self._mask,
            log=self._log,
            guard=self._guard,
            release=self._release,
            on_late=lambda invocation: self._on_notice("late", invocation),
            on_change=self._change,
        )
        self._servers.add(server)
        return server

    async def _outlived(self, server: Server) -> Server | None:
        """The process that takes over from this one, or None: it has ended."""
        if self._rotation is None:
            await asyncio.wait([server.ended])
            return None
        following = asyncio.create_task(self._rotation.successor(server, self._era))
        either: set[asyncio.Future[Any]] = {server.ended, following}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return following.result() if following.done() else None
        finally:
            if not following.done():
                following.cancel()
                await asyncio.wait([following])

    def _retire(self, server: Server) -> None:
        task = asyncio.create_task(self._see_off(server), name=f"upstream {self.name}, retiring")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _see_off(self, server: Server) -> None:
        """What this process has begun ends with an answer or at its own deadline; then the process does."""
        while server.busy:  # noqa: ASYNC110 - rare, where an event would cost something in every call
            await asyncio.sleep(_LOOK_S)
        await self._ended(server)

    async def _ended(self, server: Server) -> None:
        await server.stop()
        self._servers.discard(server)

    def _tell_waiters(self, news: Server | UpstreamFault) -> None:
        waiters, self._next = self._next, None
        if waiters is None or waiters.done():
            return
        if isinstance(news, Server):
            waiters.set_result(news)
        else:
            waiters.set_exception(news)
            waiters.exception()

    def _change(self) -> None:
        """Tell of a change, at most once a second whatever the upstream says."""
        if self._change_due is None and not self._closed:
            self._change_due = asyncio.get_running_loop().call_later(0.05, self._changed_now)

    def _changed_now(self) -> None:
        self._change_due = asyncio.get_running_loop().call_later(1.0, self._quiet)
        for changed in self._changed:
            changed()

    def _quiet(self) -> None:
        self._change_due = None
