"""One conversation: wire messages in, `Broker.invoke`, wire messages out.

Calls overlap and never wait for each other. A peer that sends more than it may have in flight, or that does not read,
is read from no further until it does. What a peer cancels is cancelled upstream, and is never answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio

from . import replies
from .canonical import encode
from .errors import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    ApprovalPending,
    BadMessage,
    InterposerError,
    Refusal,
    Unauthenticated,
)
from .flight import Batch, Flight, Inquiries, progress_token
from .house import House, Limits
from .model import Call, Caller, Era, JsonObject, Progress
from .pending import Pending, Shown
from .ports import Connection, Tasks
from .subscriptions import Subscriptions
from .wire import jsonrpc, mcp, tasks
from .wire.framing import LineFramer, Oversize
from .wire.jsonrpc import Notification, Request

__all__ = ["House", "Limits", "Session"]

log = logging.getLogger(__name__)
_CALL_MEMBERS = frozenset({"name", "arguments", "_meta", "task", "inputResponses", "requestState"})
_WAITING = frozenset({"tools/call", "tools/list", "subscriptions/listen"}) | tasks.METHODS
MOST_CLIENT_BYTES = 4096
"""Of what a peer says about itself: it says so before it is known."""
CANCEL_S = 5.0
"""How long cancelled calls may take to be put on record."""


class Session:
    """A `Receiver`: what one connection says, and what it is told."""

    def __init__(
        self,
        id: str,
        connection: Connection,
        house: House,
        tasks: Tasks,
        gone: Callable[[Session], object] = lambda _: None,
        presented: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`gone` is called when the conversation is over and recorded. `presented` is the token that came beside the
        wire (environment, file), as it is now."""
        self.id = id
        self._gone = gone
        self._presented = presented
        self._connection = connection
        self._house = house
        self._tasks = tasks
        self._pending = Pending(house, tasks)
        self._inquiries = Inquiries(self._inquire)
        self._dialogue = mcp.Dialogue()
        self._token: str | None = connection.caller.token
        """The bearer token of this connection, as its peer gave it last: at the gate, or since."""
        self._framer = LineFramer(house.limits.frame_bytes)
        self._flights: dict[tuple[type, int | str], Flight] = {}
        self._subscriptions = Subscriptions(house.limits.in_flight)
        self._unasked = 0
        """Calls without an id that are being put on record; beyond `in_flight` they are dropped."""
        self._idle: anyio.Event | None = None
        self._reading = True
        self._over = False
        self._unwatch = house.catalogue.watch(self._list_changed)
        tasks.start_soon(self._opened)

    # -- Receiver

    def received(self, data: bytes) -> None:
        for frame in self._framer.feed(data):
            if isinstance(frame, Oversize):
                self._send(jsonrpc.error(None, INVALID_REQUEST, "The message is too large"))
            else:
                self._frame(frame)
        self._throttle()

    def ended(self) -> None:
        if not self._over:
            self._over = True
            self._tasks.start_soon(self._finish)

    def drained(self) -> None:
        self._throttle()

    def hang_up(self) -> None:
        """The broker stops: nothing new is taken, what is in flight gets its grace."""
        self._connection.pause()
        self.ended()

    # -- messages

    def _frame(self, frame: bytes) -> None:
        try:
            if self._dialogue.batches and frame.lstrip()[:1] == b"[":
                self._batch(jsonrpc.parse_batch(frame))
                return
            message = jsonrpc.parse(frame)
        except BadMessage as bad:
            self._send(_error(bad))
            return
        if isinstance(message, Request):
            self._request(message, None)
        elif isinstance(message, Notification):
            self._notification(message)
        else:
            self._inquiries.answered(message)

    def _batch(self, messages: list[jsonrpc.Message | BadMessage]) -> None:
        expected = sum(isinstance(m, Request | BadMessage) for m in messages)
        batch = Batch(expected, self._send)
        for message in messages:
            if isinstance(message, Request):
                self._request(message, batch)
            elif isinstance(message, Notification):
                self._notification(message)
            elif isinstance(message, BadMessage):
                batch.answer(_error(message))

    def _request(self, request: Request, batch: Batch | None) -> None:
        flight = Flight(request, self._caller(), batch=batch)
        key = (type(request.id), request.id)
        try:
            if key in self._flights or key in self._subscriptions:
                raise BadMessage(INVALID_REQUEST, "A request with this id is in flight", id=request.id)
            if self._over:
                raise BadMessage(INTERNAL_ERROR, "The broker is shutting down", id=request.id)
            self._dialogue.admit(request)
            flight.peer = self._dialogue.peer
            answer = self._at_once(request)
        except BadMessage as bad:
            self._answer(flight, _error(bad))
            return
        if answer is not None:
            self._answer(flight, jsonrpc.result(request.id, answer))
        elif request.method == "subscriptions/listen":
            self._send(self._subscriptions.open(key, request))
        else:
            self._flights[key] = flight
            self._tasks.start_soon(self._work, key, flight)

    def _at_once(self, request: Request) -> JsonObject | None:
        """The result of a request that needs no waiting; None where one has to wait. Raises `BadMessage`."""
        method, face = request.method, self._house.face
        if method in _WAITING:
            return None
        if method == "ping":
            return {}
        if method == "initialize":
            self._tasks.start_soon(self._introduce, request.params.get("clientInfo"))
            return face.initialized(self._dialogue.version)
        if method == "server/discover":
            return face.stamped(face.discovered([tasks.EXTENSION]))
        raise BadMessage(METHOD_NOT_FOUND, "Method not found", id=request.id)

    def _notification(self, message: Notification) -> None:
        if message.method == "notifications/cancelled":
            self._cancel(message.params.get("requestId"))
        elif message.method == mcp.TOKEN_NOTIFICATION:
            token = message.params.get("token")
            # What is no token is nobody's: the connection does not fall back to whom the kernel says it is.
            self._token = token if isinstance(token, str) else ""
        elif message.method == "tools/call" and self._unasked < self._house.limits.in_flight:
            self._unasked += 1
            # A call without an id would run without an answer: it is refused where only the record can show it.
            refusal = BadMessage(INVALID_REQUEST, "tools/call was sent as a notification")
            self._tasks.start_soon(self._refused_silently, refusal, message.params.get("name"))

    def _cancel(self, id: object) -> None:
        if isinstance(id, bool) or not isinstance(id, int | str):
            return
        key = (type(id), id)
        ended = self._subscriptions.close(key)
        if ended is not None:
            self._send(ended)
        flight = self._flights.get(key)
        if flight is not None:
            flight.cancel()

    # -- work that waits

    async def _work(self, key: tuple[type, int | str], flight: Flight) -> None:
        frame: bytes | None = None
        try:
            with flight.scope:
                frame = await self._worked(flight)
        finally:
            # Also when the call was cancelled; then there is no frame, and nothing is answered.
            del self._flights[key]
            if self._idle is not None and not self._flights:
                self._idle.set()
            self._answer(flight, frame)
            for question, call in flight.owed:
                sent = frame is not None and not flight.cancelled and not self._over
                self._tasks.start_soon(partial(self._house.broker.told, question, call, sent=sent))
            self._throttle()

    async def _worked(self, flight: Flight) -> bytes:
        request = flight.request
        try:
            if request.method == "tools/call":
                return await self._call(flight)
            if request.method in tasks.METHODS:
                serving = self._pending.tasks.serve(request.method, request.params, flight.peer, self._asking(flight))
                return jsonrpc.result(request.id, self._stamped(await serving))
            return jsonrpc.result(request.id, await self._list(flight))
        except BadMessage as bad:
            return _error(bad, id=request.id)
        except InterposerError as fault:
            log.warning("%s: %s", request.method, fault)
            code = fault.code if isinstance(fault, Refusal) else INTERNAL_ERROR
            return jsonrpc.error(request.id, code, fault.public)
        except Exception:
            # The session boundary: whatever went wrong, the caller is told nothing but that.
            log.exception("unexpected fault in %s", request.method)
            return jsonrpc.error(request.id, INTERNAL_ERROR, "The broker failed. The outcome is unknown.")

    async def _call(self, flight: Flight) -> bytes:
        params = flight.request.params
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str):
            raise BadMessage(INVALID_PARAMS, "tools/call needs a name")
        if not isinstance(arguments, dict):
            raise BadMessage(INVALID_PARAMS, "arguments must be an object")
        if not params.keys() <= _CALL_MEMBERS:
            raise BadMessage(INVALID_PARAMS, "tools/call has members that it does not know")
        flight.token = progress_token(params)
        round = self._pending.round(flight.peer, self._inquiries.ask)
        call = self._asking(
            flight,
            name,
            arguments,
            hold_s=round.hold_s,
            on_progress=None if flight.token is None else lambda progress: self._progress(flight, progress),
            on_question=round.told,
        )
        id = flight.request.id
        try:
            came = await round.carry(call, flight.request.params)
        except Refusal as refusal:
            if isinstance(refusal, Unauthenticated):
                log.warning("tools/call: %s", refusal)
            if replies.is_protocol_error(refusal):
                return jsonrpc.error(id, refusal.code, refusal.public)
            link = self._house.link(refusal.question) if isinstance(refusal, ApprovalPending) else None
            return jsonrpc.result(id, self._stamped(replies.refused(refusal, self._house.clock.now(), link=link)))
        if isinstance(came, Shown):
            return jsonrpc.result(id, self._house.face.stamped(came.body, came.kind))
        error = replies.upstream_error(came)
        if error is not None:
            return jsonrpc.error(id, error["code"], error["message"], error.get("data"))
        result = replies.result_of(came)
        if flight.peer.era is Era.LEGACY:
            wrap = mcp.wrapped(came.skill.definition)
            return jsonrpc.result(id, mcp.legacy_result(result, wrap=wrap))
        return jsonrpc.result(id, self._stamped(result))

    def _asking(self, flight: Flight, name: str = "", arguments: JsonObject | None = None, **more: Any) -> Call:
        """The call that this request makes; without a name, of nothing. Raises `BadMessage`."""
        caller = self._speaking(flight.request)
        return Call(
            session=self.id,
            caller=caller or flight.caller,
            name=name,
            arguments=arguments or {},
            latest=self._caller if caller is None else None,
            token=flight.caller.token,
            on_outcome=flight.owe,
            **more,
        )

    def _caller(self) -> Caller:
        """Who speaks on this connection now, where a request does not say otherwise."""
        token = self._token if self._token is not None else self._presented()
        return replace(self._connection.caller, session=self.id, token=token)

    def _speaking(self, request: Request) -> Caller | None:
        """Who speaks by a token of the request's own; None without one. Raises `BadMessage`."""
        meta = request.params.get("_meta")
        if not isinstance(meta, dict) or mcp.META_TOKEN not in meta:
            return None
        token = meta[mcp.META_TOKEN]
        if not isinstance(token, str):
            raise BadMessage(INVALID_PARAMS, f"{mcp.META_TOKEN} must be a string")
        return replace(self._connection.caller, session=self.id, token=token)

    async def _list(self, flight: Flight) -> JsonObject:
        house, request = self._house, flight.request
        cursor = request.params.get("cursor")
        if cursor is not None and not isinstance(cursor, str):
            raise BadMessage(INVALID_PARAMS, "cursor must be a string")
        principal = await house.authenticator.authenticate(self._speaking(request) or flight.caller)
        await house.catalogue.refresh()
        offers = house.catalogue.visible(principal)
        page, following = house.pages.turn(offers, cursor, principal, house.catalogue.generation)
        if self._dialogue.era is Era.LEGACY:
            listed: JsonObject = {"tools": [mcp.legacy_definition(offer.shown) for offer in page]}
        else:
            listed = {"tools": [offer.shown for offer in page], "ttlMs": 5000, "cacheScope": "private"}
        if following is not None:
            listed["nextCursor"] = following
        return self._stamped(listed)

    async def _refused_silently(self, refusal: Refusal, name: object) -> None:
        try:
            shown = self._house.masker.mask(name if isinstance(name, str) else "", frozenset({"pii", "secrets"}))
            await self._house.journal.refuse(refusal, session=self.id, name=str(shown.value), principal=None)
        except InterposerError as fault:
            log.warning("a refusal could not be recorded: %s", fault)
        finally:
            self._unasked -= 1

    async def _opened(self) -> None:
        try:
            await self._house.journal.session_opened(self.id, self._connection.caller)
        except InterposerError as fault:
            log.warning("the start of %s could not be recorded: %s", self.id, fault)

    async def _introduce(self, client: object) -> None:
        try:
            known = client if len(encode(client)) <= MOST_CLIENT_BYTES else "too large to be kept"
            masked = self._house.masker.mask(known, frozenset({"pii", "secrets"}))
            await self._house.journal.introduced(self.id, masked)
        except InterposerError as fault:
            log.warning("the introduction of %s could not be recorded: %s", self.id, fault)

    # -- what the peer is told

    def _stamped(self, result: JsonObject) -> JsonObject:
        return self._house.face.stamped(result) if self._dialogue.era is Era.MODERN else result

    def _progress(self, flight: Flight, progress: Progress) -> None:
        if not self._over and not flight.cancelled:
            self._send(jsonrpc.notification("notifications/progress", flight.advanced(progress)))

    def _list_changed(self) -> None:
        if self._over:
            return
        if self._dialogue.era is Era.LEGACY:
            self._send(jsonrpc.notification("notifications/tools/list_changed", {}))
            return
        for frame in self._subscriptions.list_changed():
            self._send(frame)

    def _answer(self, flight: Flight, frame: bytes | None) -> None:
        """Send the answer; a request that was cancelled has none (MCP, cancellation)."""
        if flight.cancelled:
            frame = None
        if flight.batch is not None:
            flight.batch.answer(frame)
        elif frame is not None:
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        self._connection.send(frame)

    def _inquire(self, frame: bytes) -> None:
        self._send(frame)
        self._throttle()

    def _throttle(self) -> None:
        limits = self._house.limits
        # Who has to answer us is read from: that much, and not without end.
        most = limits.in_flight + min(len(self._inquiries), limits.in_flight)
        free = len(self._flights) < most and self._connection.backlog < limits.backlog_bytes
        if free and not self._reading:
            self._reading = True
            self._connection.resume()
        elif not free and self._reading:
            self._reading = False
            self._connection.pause()

    async def _finish(self) -> None:
        """The peer has hung up: give its calls their grace, then cancel them."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(self._house.limits.grace_s):
                await self._landed()
            for flight in list(self._flights.values()):
                flight.cancel()
            with anyio.move_on_after(CANCEL_S):
                await self._landed()
            self._subscriptions.clear()
            self._unwatch()
            self._connection.close()
            self._house.facts.forget(self.id)
            try:
                await self._house.journal.session_closed(self.id)
            except InterposerError as fault:
                log.warning("the end of %s could not be recorded: %s", self.id, fault)
            self._gone(self)

    async def _landed(self) -> None:
        if self._flights:
            self._idle = anyio.Event()
            await self._idle.wait()


def _error(bad: BadMessage, *, id: int | str | None = None) -> bytes:
    return jsonrpc.error(bad.id if bad.id is not None else id, bad.code, bad.public, getattr(bad, "data", None))
