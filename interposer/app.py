"""A broker that stands: its parts put together, its conversations, and how it ends. Nothing is decided here."""

from __future__ import annotations

import logging
import os
import secrets as randomness
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from . import __version__, parts, people
from .admin import AdminSession
from .broker import Broker
from .canonical import canonical, parse
from .catalogue import Catalogue
from .channels.sender import Delivery
from .channels.terminal import TerminalChannel
from .checked import duration_s
from .clock import SystemClock
from .config_approvals import ConsoleConfig
from .crew import Crew
from .desk import Desk
from .display import printable
from .echoes import Echoes, echoed
from .errands import Errands
from .errors import ConfigurationError, InterposerError
from .facts import MemoryFacts
from .journal import Journal
from .logs import DroppingHandler
from .masking.engine import Engine
from .model import Kind, Masked
from .operations import Operations
from .pages import Pages
from .pins import FilePins
from .ports import Connection, Receiver, Transport
from .recovery import recover
from .session import House, Limits, Session
from .settings import Settings
from .standing import StandingPolicy
from .state import State, claim
from .transports.keyed import KeyedSocket
from .transports.stdio import Stdio
from .wire.mcp import ServerFace

log = logging.getLogger("interposer")
T = TypeVar("T")
DRAIN_S = 10.0
AGAIN_S = 0.5
"""Whoever signals all our processes at once (systemd, timeout(1)) reaches the broker itself and through its keeper
(boundary/launch.py): what comes so soon is the same signal."""
MASKING_S_PER_MB = 0.5
"""Of the processor's time, so that a busy machine withholds nothing; text that is all candidates needs most of it."""


def run(serve: Callable[[Settings], Awaitable[int]], chosen: Settings) -> int:
    """Run on uvloop where it is there; returns the exit code. Raises `ConfigurationError`."""
    heard = DroppingHandler()
    logging.getLogger().addHandler(heard)
    try:
        return anyio.run(serve, chosen, backend="asyncio", backend_options={"use_uvloop": _has_uvloop()})
    except BaseExceptionGroup as several:
        raise _first(several) from several
    finally:
        heard.stop()


def _first(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a task group wrapped: the operator's own mistake if there is one, else the first fault."""
    ours = several.subgroup(ConfigurationError)
    found: BaseException = ours if ours is not None else several
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True


async def serve_stdio(
    chosen: Settings, presented: Callable[[], str | None] = lambda: None, peer_pid: int | None = None
) -> int:
    """One agent on standard input and output; ends with it. `presented` is the token that came beside the wire,
    `peer_pid` the agent's process."""
    wire = Stdio(limits=parts.link_limits(chosen), peer_pid=peer_pid)
    wire.take()
    async with _broker(chosen, several=True) as standing:
        standing.presented = presented
        await standing.serve(wire)
    return standing.exit_code


async def serve_daemon(chosen: Settings, passed: int | None = None) -> int:
    """Unix socket and TCP, until a signal. Prints one line per listener, then `ready`. `passed` is the descriptor
    of the agents' socket, where whoever started us listens on it already."""
    async with _broker(chosen, several=False) as standing:
        await standing.daemon(passed)
    return standing.exit_code


@asynccontextmanager
async def _broker(chosen: Settings, *, several: bool) -> AsyncIterator[_Standing]:
    answering = chosen.config.console
    if answering is None and not several:
        answering = ConsoleConfig()
    state = claim(chosen.home, several=several)
    try:
        standing = _Standing(chosen, state, answering if answering and answering.enabled else None)
        async with anyio.create_task_group() as tasks, Crew(standing.failed) as crew:
            await standing.open(tasks, crew)
            try:
                yield standing
            finally:
                with anyio.CancelScope(shield=True):
                    await standing.close()
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await state.store.aclose()


class _Standing:
    """A broker that stands: its parts, its conversations, and how it ends."""

    _tasks: TaskGroup
    _crew: Crew

    def __init__(self, chosen: Settings, state: State, answering: ConsoleConfig | None) -> None:
        """`answering`: the console, if there is one. Raises `ConfigurationError`: a broker that cannot keep its
        promises does not start."""
        self._chosen = chosen
        self._state = state
        self._clock = SystemClock()
        self._masker = Engine(monotonic=time.thread_time, seconds_per_mb=MASKING_S_PER_MB)
        self._policy = StandingPolicy(chosen.policy, self._policy_changed)
        self._secrets = parts.credentials(chosen)
        self._facts = MemoryFacts(self._clock)
        self._journal = Journal(state.store, self._clock)
        self._silence = self._masker.mask("", frozenset())
        """What is shown of a notice that cannot be masked."""
        self._echoes = Echoes(self._noticed, self._clock)
        self._upstreams = [
            parts.upstream(
                name,
                found,
                chosen,
                secrets=self._secrets,
                clock=self._clock,
                masker=self._masker,
                on_notice=partial(self._noticed, name),
                on_echo=self._echoes.told,
            )
            for name, found in chosen.upstreams.items()
        ]
        commands = {name: found.command for name, found in chosen.upstreams.items()}
        self._catalogue = Catalogue(
            self._upstreams,
            pins=FilePins(chosen.home / "pins", commands),
            masker=self._masker,
            policy=lambda: self._policy.current,
            clock=self._clock,
            new_id=_new_id,
            on_echo=self._echoes.told,
        )
        approvals = chosen.config.approvals
        self._senders = people.senders(
            chosen,
            secrets=self._secrets,
            masker=self._masker,
            link=self._link,
            on_delivery=self._delivered,
            clock=self._clock,
        )
        terminal = TerminalChannel(lambda line: log.warning("%s", line.rstrip()), self._masked_json)
        limits = parts.desk_limits(chosen)
        self._desk = Desk(state.store, self._clock, [terminal, *self._senders], _new_id, limits, masker=self._masker)
        self._callers = parts.callers(chosen, self._clock)
        broker = Broker(
            authenticator=self._callers,
            catalogue=self._catalogue,
            policy=lambda: self._policy.current,
            facts=self._facts,
            desk=self._desk,
            journal=self._journal,
            masker=self._masker,
            on_echo=self._echoes.told,
        )
        self._desk.review = broker.review
        self._errands = Errands(self._desk, broker, lambda work, *given: self._tasks.start_soon(work, *given))
        self._console = (
            people.console(
                chosen,
                answering,
                desk=self._desk,
                clock=self._clock,
                masker=self._masker,
                policy=self._policy,
                catalogue=self._catalogue,
                callers=self._callers,
                secrets=self._secrets,
                record=state.folder / "record.db",
            )
            if answering
            else None
        )
        self._house = House(
            broker=broker,
            desk=self._desk,
            errands=self._errands,
            link=self._link,
            seal_key=parts.seal_key(state.folder),
            catalogue=self._catalogue,
            journal=self._journal,
            masker=self._masker,
            authenticator=self._callers,
            facts=self._facts,
            pages=Pages(randomness.token_bytes(32)),
            face=ServerFace("interposer", __version__),
            clock=self._clock,
            limits=Limits(
                frame_bytes=chosen.config.limits.frame,
                in_flight=chosen.config.limits.in_flight,
                hold_s=duration_s(approvals.hold),
            ),
            profiles=parts.client_profiles(approvals),
        )
        self._sessions: set[Session] = set()
        self._operations = Operations(
            chosen,
            state,
            policy=self._policy,
            catalogue=self._catalogue,
            journal=self._journal,
            masker=self._masker,
            callers=self._callers,
            sessions=lambda: len(self._sessions),
        )
        self._administration = self._operations.administration(
            self._desk, self._clock, login=self._console.login if self._console else None, link=self._link
        )
        self._emptied = anyio.Event()
        self.exit_code = 0
        self.presented: Callable[[], str | None] = lambda: None
        """The token that came beside the wire; only where there is one wire."""
        self._stop = anyio.Event()

    async def open(self, tasks: TaskGroup, crew: Crew) -> None:
        """Upstreams start while the rest is made ready."""
        self._tasks, self._crew = tasks, crew
        for upstream in self._upstreams:
            upstream.start()
        await recover(self._state.store, self._clock)
        await self._journal.note(Kind.BROKER_STARTED, policy=self._policy.current.digest)
        self._masker.warm()
        self._tasks.start_soon(self._desk.run)
        await people.require_notice_secrets(self._chosen, self._secrets)
        self._tasks.start_soon(self._errands.run)
        for sender in self._senders:
            self._tasks.start_soon(sender.run)
        if self._console is not None:
            self._tasks.start_soon(self._console.serve)
        self._tasks.start_soon(self._policy.watch)
        self._tasks.start_soon(self._callers.run)
        self._tasks.start_soon(self._heed_signals)
        admin = KeyedSocket(str(self._state.admin_socket), str(self._state.admin_key))
        await self._tasks.start(self._listen, admin, self._admit_operator)

    async def serve(self, transport: Transport) -> None:
        """Serve one transport until it ends, or until a signal."""
        async with anyio.create_task_group() as both:
            both.start_soon(self._end_with, both)
            await transport.serve(self._admit, lambda _: None)
            both.cancel_scope.cancel()

    async def daemon(self, passed: int | None) -> None:
        transports = await parts.listeners(
            self._chosen,
            self._state.folder,
            self._secrets,
            self._masker.guard,
            self._callers,
            partial(self._noticed, "", "peer_refused"),
            passed,
        )
        async with anyio.create_task_group() as listening:
            for transport in transports:
                address = await listening.start(self._listen, transport, self._admit)
                print(f"listening on {address}", flush=True)
            print(f"administration on unix:{self._state.admin_socket}", flush=True)
            if self._console is not None:
                # A journal is read by others, and kept (systemd.exec: $JOURNAL_STREAM).
                kept = "JOURNAL_STREAM" in os.environ
                place = people.where(self._console, self._operations.operator(os.getuid()), token=not kept)
                print(f"console on {place}", flush=True)
            print("ready", flush=True)
            await self._stop.wait()
            await self._drain()
            listening.cancel_scope.cancel()

    def failed(self, fault: BaseException) -> None:
        """Something that nobody expected left a task: nothing is served by a broker that may be half a broker."""
        log.critical("%s left a task; the broker stops", type(fault).__name__, exc_info=fault)
        self.exit_code = 1
        self._stop.set()

    async def close(self) -> None:
        await self._drain()
        await self._errands.aclose()
        async with anyio.create_task_group() as closing:
            for upstream in self._upstreams:
                closing.start_soon(upstream.aclose)
        await self._journal.note(Kind.BROKER_STOPPED)

    # -- conversations

    def _admit(self, connection: Connection) -> Receiver:
        session = Session(_new_id("s"), connection, self._house, self._crew, self._gone, self.presented)
        self._sessions.add(session)
        if self._stop.is_set():
            session.hang_up()
        return session

    def _gone(self, session: Session) -> None:
        self._sessions.discard(session)
        if not self._sessions:
            self._emptied.set()

    def _admit_operator(self, connection: Connection) -> Receiver:
        operator = self._operations.operator(connection.caller.uid)
        return AdminSession(connection, operator, self._administration, self._tasks.start_soon)

    async def _listen(
        self,
        transport: Transport,
        accept: Callable[[Connection], Receiver],
        *,
        task_status: anyio.abc.TaskStatus[str] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        await transport.serve(accept, task_status.started)

    async def _end_with(self, both: TaskGroup) -> None:
        await self._stop.wait()
        await self._drain()
        both.cancel_scope.cancel()

    async def _drain(self) -> None:
        """Nothing new is taken; what is in flight gets its grace."""
        for session in list(self._sessions):
            session.hang_up()
        self._emptied = anyio.Event()
        if self._sessions:
            with anyio.move_on_after(DRAIN_S):
                await self._emptied.wait()

    async def _heed_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            told = -AGAIN_S
            async for number in signals:
                if number == signal.SIGHUP:
                    await self._policy.try_reload()
                elif not self._stop.is_set():
                    told = anyio.current_time()
                    self._stop.set()
                elif anyio.current_time() - told >= AGAIN_S:
                    os._exit(1)  # the second signal: now

    async def _policy_changed(self) -> None:
        self._catalogue.rework()
        await self._journal.note(Kind.POLICY_LOADED, policy=self._policy.current.digest)

    # -- people

    def _link(self, question: str) -> str | None:
        return self._console.link(question) if self._console is not None else None

    async def _delivered(self, delivery: Delivery) -> None:
        masked = self._masker.mask(delivery.payload, frozenset({"pii", "secrets"}))
        await self._journal.notified(delivery.question, delivery.code, masked)

    # -- what upstreams say

    def _masked_text(self, text: str) -> str:
        return parts.masked_text(self._masker, text)

    def _masked_json(self, raw: bytes) -> bytes:
        return canonical(self._masker.mask(parse(raw), frozenset({"pii", "secrets"})).value)

    def _noticed(self, upstream: str, kind: str, detail: str) -> None:
        try:
            masked = self._masker.mask(detail, frozenset({"pii", "secrets"}))
        except InterposerError as fault:
            log.error("%s: %s, and what it is about cannot be shown: %s", upstream or "listener", kind, fault)
            masked = self._silence
        if echoed(masked):
            self._echoes.told(upstream, "notice")
        log.warning("%s: %s %s", upstream or "listener", kind, printable(str(masked.value)))
        self._tasks.start_soon(self._note_alarm, upstream, kind, masked)

    async def _note_alarm(self, upstream: str, kind: str, masked: Masked) -> None:
        try:
            await self._journal.note(Kind.ALARM, skill=upstream, code=kind, masked=masked)
        except InterposerError as fault:
            log.error("an alarm could not be recorded: %s", fault)


def _new_id(kind: str) -> str:
    """`<kind>_` and 80 random bits."""
    return f"{kind}_{randomness.token_hex(10)}"
