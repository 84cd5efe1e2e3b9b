"""One running MCP server: a process, the conversation with it, and what it said that it is.

The environment of the process is an allow list plus what was configured; its credential is read when it is started,
guarded, and handed to that process alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from interposer import __version__
from interposer.errors import UpstreamFault
from interposer.model import Era, InDoubt, JsonObject
from interposer.ports import Secret, Secrets
from interposer.wire import jsonrpc
from interposer.wire.mcp import modern_envelope
from interposer.wire.probe import Probe, Verdict

from .child import Child
from .link import Link, Reply, Waiting
from .notices import Notices

PASSED_ON = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""What a child gets of the broker's environment without being asked for; `LC_*` besides."""
_CLIENT = "interposer"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one upstream."""

    start_s: float = 60.0
    """How long callers wait for a process that is starting (a package runner may have to download it)."""
    probe_s: float = 3.0
    list_s: float = 30.0
    close_s: float = 2.0
    frame_bytes: int = 16 * 1024 * 1024
    backlog_bytes: int = 16 * 1024 * 1024
    """Bytes that the process may leave unread before calls fail unsent."""
    backoff_s: tuple[float, float] = (0.2, 30.0)
    deaths: int = 5
    watch_s: float = 1.0
    """How often it is looked whether a credential changed, and for how long it has to hold still before it counts."""
    retry_s: float = 60.0
    """A new credential that is of no use is tried again after so long, or when it changes."""
    per_s: float = 60.0
    """More than `deaths` in `per_s` seconds: calls fail at once until the process has stayed down for as long."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Which variable holds the upstream's credential, and where it comes from."""

    variable: str
    name: str
    secrets: Secrets


@dataclass(frozen=True, slots=True)
class Command:
    """What to start, and with which environment."""

    argv: tuple[str, ...]
    cwd: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    inherit: tuple[str, ...] = ()
    credential: Credential | None = None


def environment(command: Command, secret: Secret | None, ours: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a child: an allow list of ours, then what was configured, then the credential."""
    names = {*PASSED_ON, *command.inherit}
    passed = {name: value for name, value in ours.items() if name in names or name.startswith("LC_")}
    passed.update(command.variables)
    if command.credential is not None and secret is not None:
        passed[command.credential.variable] = secret.reveal()
    return passed


_KEY = os.urandom(32)


def fingerprint(secret: Secret) -> bytes:
    """Equal for equal credentials, for as long as this process lives: they are compared, and not kept for it."""
    return hashlib.blake2b(secret.reveal().encode("utf-8", "surrogatepass"), key=_KEY, digest_size=16).digest()


class Server:
    """One process from its start to its end; at most one more where the probe asks for it."""

    def __init__(
        self,
        command: Command,
        *,
        limits: Limits,
        ids: Iterator[int],
        notices: Notices,
        mask: Callable[[str], str],
        log: Callable[[str], None],
        guard: Callable[[Secret], None] | None,
        release: Callable[[Secret], None] | None,
        on_late: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._command = command
        self._limits = limits
        self._ids = ids
        self._notices = notices
        self._mask = mask
        self._log = log
        self._guard = guard
        self._release = release
        self._held: list[Secret] = []
        """What was guarded for this process, until it has ended."""
        self._on_late = on_late
        self._on_change = on_change
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why the process is of no use any more, once it is not."""
        self.verdict = Verdict(Era.LEGACY, "")
        self.meta: JsonObject | None = None
        """What every request to this server carries."""
        self.link: Link
        self.stamp: Hashable = None
        """Of the credential, taken before it was read."""
        self.fingerprint = b""
        """Of the credential that the process was given."""
        self.listings = 0
        """Lists of skills under way, whose pages come one by one."""
        self._child: Child | None = None

    @property
    def busy(self) -> bool:
        """Whether anybody still needs this process."""
        return not self.link.closed and (self.listings > 0 or self.link.busy)

    @property
    def backlog(self) -> int:
        """Bytes that the process has not read."""
        return self._child.backlog if self._child is not None else 0

    async def introduced(self, known: Era | None) -> Verdict:
        """Start the process and learn what it speaks. Raises `UpstreamFault`, `ConfigurationError`, `OSError`."""
        try:
            async with asyncio.timeout(self._limits.start_s):
                self.verdict = await self._introduce(Probe(self._ids, _CLIENT, __version__, known=known))
        except TimeoutError:
            raise UpstreamFault("no answer in time") from None
        self.link.version = self.verdict.version
        if self.verdict.era is Era.MODERN:
            self.meta = modern_envelope(self.verdict.version, _CLIENT, __version__)
            self._listen()
        return self.verdict

    async def request(self, method: str, params: JsonObject, deadline_s: float | None) -> Reply:
        """One request of our own, with its answer."""
        id = next(self._ids)
        return await self._answer(id, jsonrpc.request(id, method, params), deadline_s, tells=True)

    async def stop(self) -> None:
        """No process is left, and whoever still waited is in doubt."""
        if self._child is not None:
            self.link.close("the upstream was stopped before it answered")
            await self._child.stop(self._limits.close_s)
        held, self._held = self._held, []
        for secret in held:
            self._let_go_of(secret)

    def kill(self) -> None:
        """For those who cannot wait: the process ends soon, by force."""
        if self._child is not None:
            self._child.kill()

    async def _answer(self, id: int, line: bytes, deadline_s: float | None, *, tells: bool) -> Reply:
        waiting = Waiting(asyncio.get_running_loop().create_future(), tells=tells)
        self.link.expect(id, waiting, deadline_s)
        self.link.send(line)
        try:
            return await waiting.future
        finally:
            self.link.abandon(id)

    async def _introduce(self, probe: Probe) -> Verdict:
        await self._spawn()
        line = probe.begin()
        while True:
            deadline_s = self._limits.probe_s if probe.may_be_silent else None
            reply = await self._answer(probe.awaiting, line, deadline_s, tells=False)
            if not isinstance(reply, InDoubt):
                line = probe.answered(reply)
            elif not self.link.closed:
                line = probe.timed_out()
            elif probe.exited():
                await self._spawn()
                line = probe.begin()
            else:
                raise UpstreamFault(self._last_words())
            if probe.verdict is not None:
                if line:
                    self.link.send(line)
                return probe.verdict

    async def _spawn(self) -> None:
        """A fresh process with a fresh conversation; the one before is gone."""
        if self._child is not None:
            await self._child.stop(0.0)
        self.ended = ended = asyncio.get_running_loop().create_future()
        secret = await self._credential()

        def over(why: str) -> None:
            link.close(why)
            if not ended.done():
                ended.set_result(why)

        child = Child(
            received=lambda data: link.received(data),
            ended=lambda status: over(f"the upstream ended (status {status}) before it answered"),
            mask=self._mask,
            log=self._log,
        )
        link = Link(
            write=child.write,
            hold=child.hold,
            frame_bytes=self._limits.frame_bytes,
            notices=self._notices,
            on_late=self._on_late,
            on_change=self._on_change,
            on_unusable=over,
        )
        self._child, self.link = child, link
        await child.start(self._command.argv, environment(self._command, secret, os.environ), self._command.cwd)

    async def _credential(self) -> Secret | None:
        """What this process is to be given, as it is now; the masker knows it before anybody else does."""
        found = self._command.credential
        if found is None:
            return None
        self.stamp = found.secrets.stamp(found.name)
        secret = await found.secrets.reveal(found.name)
        self.fingerprint = fingerprint(secret)
        await self._hold(secret)
        return secret

    async def _hold(self, secret: Secret) -> None:
        """To guard a credential is to compile it: not on the event loop."""
        if self._guard is None:
            return
        guarding = asyncio.get_running_loop().run_in_executor(None, self._guard, secret)
        try:
            await asyncio.shield(guarding)
        except asyncio.CancelledError:
            guarding.add_done_callback(lambda done: None if _failed(done) else self._let_go_of(secret))
            raise
        self._held.append(secret)

    def _let_go_of(self, secret: Secret) -> None:
        if self._release is not None:
            self._release(secret)

    def _listen(self) -> None:
        """MCP 2026-07-28: news of changed lists come only to those who ask. The answer ends the subscription."""
        tools = self.verdict.capabilities.get("tools")
        if isinstance(tools, dict) and tools.get("listChanged") is True:
            id = next(self._ids)
            self.link.expect(id, Waiting(asyncio.get_running_loop().create_future()), None)
            params = {"notifications": {"toolsListChanged": True}, "_meta": self.meta}
            self.link.send(jsonrpc.request(id, "subscriptions/listen", params))

    def _last_words(self) -> str:
        said = self._child.stderr_tail() if self._child is not None else ""
        return f"it ended before it had introduced itself: {said}" if said else "it ended before it introduced itself"


def _failed(done: asyncio.Future[None]) -> bool:
    return done.cancelled() or done.exception() is not None
