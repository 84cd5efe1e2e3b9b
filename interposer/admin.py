"""Administration: what operators may ask of a running broker, over a socket that agents cannot reach.

JSON-RPC 2.0, one message per line. Every connection belongs to one operator, known by the kernel's peer identity; the
methods never take an identity from their parameters. Errors tell the operator the reason (`message`) and a short
constant (`data.name`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio

from .ballot import VoteRefused
from .desk import Desk, UnknownQuestion
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
from .model import Json, JsonObject, Principal, Question, QuestionState, Vote
from .ports import Clock, Connection
from .wire import jsonrpc
from .wire.framing import LineFramer, Oversize

WATCH_S = 30.0
"""The longest that `approvals/watch` waits."""
PAGE = 200
"""The most questions in one answer."""

_AT_ONCE = 32
_PREVIEW_BYTES = 200

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]
Report = Callable[[], Awaitable[JsonObject]]
Order = Callable[[JsonObject], Awaitable[JsonObject]]


async def _nothing() -> JsonObject:
    return {}


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
    ) -> None:
        self._desk = desk
        self._clock = clock
        self._status = status
        self._methods: dict[str, Callable[[Principal, JsonObject], Awaitable[JsonObject]]] = {
            "approvals/list": self._list,
            "approvals/show": self._show,
            "approvals/approve": partial(self._vote, True),
            "approvals/deny": partial(self._vote, False),
            "approvals/watch": self._watch,
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
        shown = [summary(question, self._clock.now()) for question in matching[offset : offset + limit]]
        return {"questions": shown, "total": len(matching), "revision": revision}

    async def _show(self, operator: Principal, params: JsonObject) -> JsonObject:
        """`{id}` -> `{question}` with the exact call."""
        return {"question": full(await self._desk.get(_text(params, "id")), self._clock.now())}

    async def _vote(self, yes: bool, operator: Principal, params: JsonObject) -> JsonObject:
        """`{id, reason?, digest?}` -> `{question}`; a digest that is not the question's refuses the vote."""
        id, digest = _text(params, "id"), _text(params, "digest")
        if digest and (await self._desk.get(id)).digest != digest:
            raise VoteRefused("other_digest", f"{id} is not about the call with this digest")
        question = await self._desk.vote(id, operator, yes, _text(params, "reason"))
        return {"question": summary(question, self._clock.now())}

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
        return {**await self._status(), "approvals": approvals, "operator": _person(operator)}


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


def summary(question: Question, now: float) -> JsonObject:
    """A question as lists show it: at most `_PREVIEW_BYTES` of the arguments, as text."""
    preview = question.canonical[:_PREVIEW_BYTES].decode("utf-8", "ignore")
    return {
        "id": question.id,
        "state": question.state.value,
        "skill": question.skill,
        "requester": _person(question.requester),
        "session": question.session,
        "digest": question.digest,
        "preview": preview,
        "bytes": len(question.canonical),
        "asked_at": question.asked_at,
        "expires_at": question.expires_at,
        "left_s": _left(question, now),
        "quorum": question.terms.quorum,
        "votes": [_vote(vote) for vote in question.votes],
    }


def full(question: Question, now: float) -> JsonObject:
    """A question with everything that a human answers for. `canonical` is the exact text; it is empty once the
    question has ended."""
    terms = question.terms
    return {
        **summary(question, now),
        "canonical": question.canonical.decode(),
        "arguments_sha256": hashlib.sha256(question.canonical).hexdigest() if question.canonical else "",
        "invocation": question.invocation,
        "skill_digest": question.skill_digest,
        "policy": question.policy,
        "approvers": {"groups": sorted(terms.groups), "subjects": sorted(terms.subjects)},
        "rules": [
            {"id": rule.id, "effect": rule.effect.value, "file": rule.file, "line": rule.line, "message": rule.message}
            for rule in question.rules
        ],
    }


def _left(question: Question, now: float) -> float:
    standing = question.state in (QuestionState.OPEN, QuestionState.GRANTED)
    return max(0.0, round(question.expires_at - now, 3)) if standing else 0.0


def _person(principal: Principal) -> JsonObject:
    return {"issuer": principal.issuer, "subject": principal.subject, "groups": list(principal.groups)}


def _vote(vote: Vote) -> JsonObject:
    return {"by": _person(vote.principal), "yes": vote.yes, "reason": vote.reason, "at": vote.at}


def _begins(id: str, prefix: str) -> bool:
    return id.startswith(prefix) or id.partition("_")[2].startswith(prefix)


def _text(params: JsonObject, name: str) -> str:
    value: Json = params.get(name, "")
    if type(value) is not str:
        raise BadMessage(INVALID_PARAMS, f"{name} must be a string.")
    return value


def _count(params: JsonObject, name: str, default: int) -> int:
    value: Json = params.get(name, default)
    if type(value) is not int or value < 0:
        raise BadMessage(INVALID_PARAMS, f"{name} must be a whole number.")
    return value
