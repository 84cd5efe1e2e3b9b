"""Administration: what operators may ask of a running broker, over a socket that agents cannot reach.

JSON-RPC 2.0, one message per line. Every connection belongs to one operator, known by the kernel's peer identity; the
methods never take an identity from their parameters. Errors tell the operator the reason (`message`) and a short
constant (`data.name`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio

from . import shown
from .ballot import VoteRefused, named, version_of
from .canonical import canonical
from .desk import Desk, Proposal, UnknownQuestion
from .errors import (
    BROKER_UNAVAILABLE,
    DENIED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    BadMessage,
    ConfigurationError,
    InterposerError,
)
from .figures import figures
from .model import Json, JsonObject, Principal, Question, QuestionState
from .ports import Clock, Connection
from .terms import GrantSpec
from .wire import jsonrpc
from .wire.framing import LineFramer, Oversize

WATCH_S = 30.0
"""The longest that `approvals/watch` waits."""
PAGE = 200
"""The most questions in one answer."""

_AT_ONCE = 32
_LOOKS = 4_096
_LOOKS_BACK = 1_000
"""As far as `Desk.questions` goes."""
_LONGEST_S = 1e9
_MOST = 1_000_000_000

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
Report = Callable[[], Awaitable[JsonObject]]
Order = Callable[[JsonObject], Awaitable[JsonObject]]
Login = Callable[[Principal, str], Awaitable[JsonObject]]
"""A one-time address of the console for this operator, of a question's page where an id is given."""


async def _nothing() -> JsonObject:
    return {}


async def _no_console(operator: Principal, id: str) -> JsonObject:
    raise BadMessage(METHOD_NOT_FOUND, "This broker has no console.")


class Administration:
    """The methods. Everything but approvals is done by the callables it is given."""

    def __init__(
        self,
        desk: Desk,
        clock: Clock,
        *,
        reload: Report,
        skills: Report,
        pin: Order,
        status: Report = _nothing,
        targets: Report = _nothing,
        login: Login = _no_console,
        link: Callable[[str], str | None] = lambda id: None,
    ) -> None:
        """`link` gives the console's address of a question."""
        self._desk = desk
        self._clock = clock
        self._status = status
        self._login = login
        self._link = link
        self._looks: dict[tuple[str, str], float] = {}
        """(operator, version of a question) -> when it was first shown."""
        self._methods: dict[str, Callable[[Principal, JsonObject], Awaitable[JsonObject]]] = {
            "approvals/list": self._list,
            "approvals/show": self._show,
            "approvals/approve": self._approve,
            "approvals/deny": self._deny,
            "approvals/break_glass": self._break_glass,
            "approvals/revoke": self._revoke,
            "approvals/watch": self._watch,
            "approvals/figures": self._figures,
            "grants/list": self._grants,
            "console/login": lambda operator, params: self._login(operator, _text(params, "id")),
            "boundary/targets": lambda operator, params: targets(),
            "broker/status": self._report,
            "policy/reload": lambda operator, params: reload(),
            "skills/list": lambda operator, params: skills(),
            "skills/pin": lambda operator, params: pin(params),
        }

    async def answer(self, operator: Principal, method: str, params: JsonObject) -> JsonObject:
        """The result of one request. Raises `BadMessage`, and what the desk and the callables raise."""
        known = self._methods.get(method)
        if known is None:
            raise BadMessage(METHOD_NOT_FOUND, "There is no such method.")
        return await known(operator, params)

    async def _list(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{prefix?, all?, offset?, limit?}` -> `{questions, total, revision}`; open ones oldest first, all newest."""
        prefix = _text(params, "prefix")
        offset, limit = _count(params, "offset", 0), min(_count(params, "limit", PAGE), PAGE)
        revision = self._desk.revision
        found = await self._desk.questions() if params.get("all") is True else await self._desk.pending()
        matching = [question for question in found if _begins(question.id, prefix)]
        page = [self._summary(question) for question in matching[offset : offset + limit]]
        return {"questions": page, "total": len(matching), "revision": revision}

    async def _show(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{id}` -> `{question}` with the exact call."""
        question = await self._desk.get(_text(params, "id"))
        kept = await self._desk.kept(question.id)
        self._looked(operator, question)
        return {"question": shown.full(question, self._clock.now(), self._link(question.id), kept)}

    async def _approve(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{id, reason?, digest?, uses?, for_s?, session?, schema?, arguments?, once?}` -> `{question}`.

        `digest` is the version that was looked at: another one refuses the vote. What is to be agreed to beyond this
        call once is a standing grant (`uses`, `for_s`, `session`, `schema`); `arguments` go in place of the caller's.
        Without any of them it is a yes to what is on the table; `once` takes a grant off it.
        """
        id, reason = _text(params, "id"), _text(params, "reason")
        question = await self._desk.get(id)
        proposal = _proposal(question, params)
        # What is not said stays as it is, and what was looked at is what is agreed to: as it is now.
        version = _text(params, "digest") or version_of(question)
        if version == version_of(question):
            self._require_look(operator, question)
        voted = await self._desk.vote(id, operator, True, reason, version=version, proposal=proposal)
        return {"question": self._summary(voted)}

    async def _deny(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{id, reason, digest?}` -> `{question}`."""
        id, version, reason = (_text(params, name) for name in ("id", "digest", "reason"))
        return {"question": self._summary(await self._desk.vote(id, operator, False, reason, version=version))}

    async def _break_glass(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{id, reason, digest?}` -> `{question}`: this operator alone, for this call once."""
        id, reason = _text(params, "id"), _text(params, "reason")
        question = await self._desk.get(id)
        version = _text(params, "digest") or version_of(question)
        if reason and version == version_of(question):
            # Nobody waits where something burns, and nobody signs what they have not seen.
            self._require_look(operator, question, waiting=False)
        broken = await self._desk.break_glass(id, operator, reason, version=version)
        return {"question": self._summary(broken)}

    async def _revoke(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{id, reason}` -> `{revoked}`: a grant by its id, or all that came of a question by the question's."""
        id = _text(params, "id")
        await self._desk.revoke(id, operator, _text(params, "reason"))
        return {"revoked": id}

    async def _grants(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{all?, prefix?, offset?, limit?}` -> `{grants, total}`; active ones oldest first, all newest first."""
        prefix = _text(params, "prefix")
        offset, limit = _count(params, "offset", 0), min(_count(params, "limit", PAGE), PAGE)
        found = await self._desk.grants(active=params.get("all") is not True)
        matching = [grant for grant in found if _begins(grant.id, prefix)]
        now = self._clock.now()
        return {
            "grants": [shown.grant(each, now) for each in matching[offset : offset + limit]],
            "total": len(matching),
        }

    async def _figures(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{days?}` -> `figures.figures` of what was asked in the last days; `complete` is false where there was more
        than the desk looks back."""
        days = _count(params, "days", 1)
        since = self._clock.now() - days * 86_400.0
        found = await self._desk.questions()
        recent = [question for question in found if question.asked_at >= since]
        complete = len(recent) < len(found) or len(found) < _LOOKS_BACK
        return {"last_days": days, "complete": complete, **figures(recent)}

    async def _watch(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{since, wait_s?}` -> as `approvals/list`, once something changed or the wait is over."""
        wait_s = params.get("wait_s", WATCH_S)
        if type(wait_s) not in (int, float) or wait_s < 0:
            raise BadMessage(INVALID_PARAMS, "wait_s must be a number of seconds.")
        since = params.get("since", -1)
        if type(since) is not int:
            raise BadMessage(INVALID_PARAMS, "since must be an integer.")
        await self._desk.changes(since, min(wait_s, WATCH_S))
        return await self._list(operator, {})

    async def _report(self, operator: Principal, params: JsonObject) -> JsonObject:
        approvals = {"pending": len(await self._desk.pending()), "repeats": self._desk.repeats}
        return {**await self._status(), "approvals": approvals, "operator": shown.person(operator)}

    def _summary(self, question: Question) -> JsonObject:
        return shown.summary(question, self._clock.now(), self._link(question.id))

    def _looked(self, operator: Principal, question: Question) -> None:
        if len(self._looks) >= _LOOKS:
            del self._looks[next(iter(self._looks))]
        self._looks.setdefault(_look(operator, question), self._clock.monotonic())

    def _require_look(self, operator: Principal, question: Question, *, waiting: bool = True) -> None:
        """M15, M18: what is long, or has to be read by its rule (`read_for`), has been before whoever approves it, for
        as long as that takes if they are `waiting`. That somebody knows the digest is no look: lists have it too.
        Raises `VoteRefused`."""
        id, reading_s = question.id, question.terms.reading_s
        if question.state is not QuestionState.OPEN or (reading_s <= 0 and not shown.long(question)):
            return
        looked_at = self._looks.get(_look(operator, question))
        if looked_at is None:
            raise VoteRefused("unread", f"{id} has not been before you yet: interposer approvals show {id}")
        left_s = looked_at + reading_s - self._clock.monotonic()
        if waiting and left_s > 0:
            raise VoteRefused("unread", f"{id} has to be before you for {reading_s:g} s: {left_s:.1f} s are left")


class AdminSession:
    """One operator's connection: the `Receiver` of the administration socket.

    `spawn` starts a task of the broker, as a task group's `start_soon` does. When the operator hangs up, what still
    waits is cancelled; a vote that was given counts.
    """

    def __init__(
        self, connection: Connection, operator: Principal, administration: Administration, spawn: Spawn
    ) -> None:
        self._connection = connection
        self._operator = operator
        self._administration = administration
        self._spawn = spawn
        self._framer = LineFramer()
        self._serving: set[anyio.CancelScope] = set()
        self._over = False

    def received(self, data: bytes) -> None:
        for frame in self._framer.feed(data):
            if self._over:
                return
            if isinstance(frame, Oversize):
                self._connection.send(jsonrpc.error(None, INVALID_REQUEST, "The message is too long."))
                self.ended()
                return
            self._take(frame)

    def ended(self) -> None:
        self._over = True
        for scope in tuple(self._serving):
            scope.cancel()
        self._connection.close()

    def drained(self) -> None:
        """Answers are few and small; nothing waits for this."""

    def _take(self, frame: bytes) -> None:
        try:
            message = jsonrpc.parse(frame)
        except BadMessage as refusal:
            self._connection.send(jsonrpc.error(refusal.id, refusal.code, refusal.public))
            return
        if not isinstance(message, jsonrpc.Request):
            return
        if len(self._serving) >= _AT_ONCE:
            self._connection.send(jsonrpc.error(message.id, BROKER_UNAVAILABLE, "Too many requests at once."))
            return
        scope = anyio.CancelScope()
        self._serving.add(scope)
        self._spawn(partial(self._serve, message, scope))

    async def _serve(self, request: jsonrpc.Request, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                self._connection.send(await self._reply(request))
        finally:
            self._serving.discard(scope)

    async def _reply(self, request: jsonrpc.Request) -> bytes:
        try:
            answer = await self._administration.answer(self._operator, request.method, request.params)
            return jsonrpc.result(request.id, answer)
        except BadMessage as refusal:
            return jsonrpc.error(request.id, refusal.code, refusal.public)
        except VoteRefused as refusal:
            return jsonrpc.error(request.id, DENIED, str(refusal), {"name": refusal.name})
        except UnknownQuestion as unknown:
            return jsonrpc.error(request.id, INVALID_PARAMS, str(unknown), {"name": "unknown_question"})
        except ConfigurationError as wrong:
            problems = [str(problem) for problem in wrong.problems]
            return jsonrpc.error(
                request.id, INVALID_PARAMS, str(wrong), {"name": "configuration", "problems": problems}
            )
        except InterposerError as fault:
            return jsonrpc.error(request.id, BROKER_UNAVAILABLE, str(fault), {"name": type(fault).__name__})
        except (OSError, ValueError, LookupError) as fault:
            return jsonrpc.error(request.id, INTERNAL_ERROR, f"{type(fault).__name__}", {"name": "internal"})


def _look(operator: Principal, question: Question) -> tuple[str, str]:
    return named(operator), version_of(question)


def _proposal(question: Question, params: JsonObject) -> Proposal | None:
    """What these parameters put on the table; None where they leave it as it is."""
    amended, spec = question.amended, question.spec
    arguments = params.get("arguments")
    if arguments is not None:
        amended = canonical(_object(params, "arguments"))
    if params.get("once") is True:
        spec = None
    elif not {"uses", "for_s", "session", "schema"}.isdisjoint(params):
        spec = _spec(question, params)
    elif arguments is None:
        return None
    return Proposal(amended, spec)


def _spec(question: Question, params: JsonObject) -> GrantSpec:
    cap = question.terms.cap
    for_s = params.get("for_s")
    if for_s is None:
        for_s = cap.for_s if cap is not None else 0.0  # as long as policy lets it; the desk refuses it without a cap
    if type(for_s) not in (int, float) or not 0 <= for_s <= _LONGEST_S:
        raise BadMessage(INVALID_PARAMS, "for_s must be a number of seconds.")
    uses = None if params.get("uses") is None else _count(params, "uses", 0)
    schema = b"" if params.get("schema") is None else canonical(_object(params, "schema"))
    return GrantSpec(float(for_s), uses, params.get("session") is True, schema)


def _begins(id: str, prefix: str) -> bool:
    return id.startswith(prefix) or id.partition("_")[2].startswith(prefix)


def _text(params: JsonObject, name: str) -> str:
    value: Json = params.get(name, "")
    if type(value) is not str:
        raise BadMessage(INVALID_PARAMS, f"{name} must be a string.")
    return value


def _object(params: JsonObject, name: str) -> JsonObject:
    value: Json = params.get(name)
    if type(value) is not dict:
        raise BadMessage(INVALID_PARAMS, f"{name} must be an object.")
    return value


def _count(params: JsonObject, name: str, default: int) -> int:
    value: Json = params.get(name, default)
    if type(value) is not int or not 0 <= value <= _MOST:
        raise BadMessage(INVALID_PARAMS, f"{name} must be a whole number.")
    return value
