"""Calls that became tasks: what they are called, and what their callers are told who look, cancel or update.

A task's id is sealed and good for one principal; there is no list of tasks, and whoever may not see one is told what is
told of any invented id. That a call was approved and made is never told as a failure of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import replies
from .canonical import digest
from .carried import Carried
from .desk import UnknownQuestion
from .errors import INVALID_PARAMS, ApprovalPending, BadMessage, Refusal
from .house import House
from .model import Call, JsonObject, Principal, Question, QuestionState
from .reach import RETENTION_S, poll_ms
from .seal import BrokenSeal, Seal
from .wire import tasks
from .wire.mcp import Peer
from .wire.tasks import Status

_UNKNOWN = "Unknown task"
_FORGOTTEN = (
    "This call was approved and made, and its outcome is not kept any more. It may have taken effect. "
    "Do not repeat it; check its effect first, or ask the user."
)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a task's id says."""

    question: str
    whose: str
    created_at: float
    expires_at: float


class Tasked:
    """The tasks of one house."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._seal = Seal(house.seal_key, "task")

    def task(self, question: Question) -> JsonObject:
        """The task that a call becomes which waits for this question."""
        created_at, expires_at = question.asked_at, question.expires_at + RETENTION_S
        whose = digest(question.requester.identity())
        return self._task(_Task(question.id, whose, created_at, expires_at), Status.WORKING, self._waits(question))

    async def serve(self, method: str, params: JsonObject, peer: Peer, call: Call) -> JsonObject:
        """The result of `tasks/get`, `tasks/update` or `tasks/cancel`; `call` says who asks. Raises `BadMessage`,
        `Unauthenticated`."""
        if not tasks.declared(peer.capabilities):
            raise tasks.MissingCapability()
        if method == "tasks/update":
            tasks.check_update(params)
        principal = await self._house.authenticator.authenticate(call.asking())
        found = self._named(tasks.task_id(params), principal)
        try:
            question = await self._house.desk.get(found.question)
            if method == "tasks/cancel":
                await self._house.errands.cancel(question.id, call)
        except UnknownQuestion:
            raise BadMessage(INVALID_PARAMS, _UNKNOWN) from None
        return await self._looked(found, call) if method == "tasks/get" else {}

    async def _looked(self, found: _Task, call: Call) -> JsonObject:
        try:
            came = await self._house.errands.look(found.question, call)
        except UnknownQuestion:
            result = {"content": [{"type": "text", "text": _FORGOTTEN}], "isError": True}
            return {**self._task(found, Status.COMPLETED), "result": self._house.face.stamped(result)}
        return self._told(found, came)

    def _named(self, id: str, principal: Principal) -> _Task:
        """Raises `BadMessage`: what is not a task, not this caller's, and over looks the same."""
        try:
            found = _Task(*self._seal.open(id))
        except BrokenSeal:
            raise BadMessage(INVALID_PARAMS, _UNKNOWN) from None
        if found.whose != digest(principal.identity()) or self._house.clock.now() >= found.expires_at:
            raise BadMessage(INVALID_PARAMS, _UNKNOWN)
        return found

    def _told(self, found: _Task, came: Question | Carried | Refusal) -> JsonObject:
        if isinstance(came, ApprovalPending):
            return self._task(found, Status.WORKING, came.public)
        if isinstance(came, Question):
            if came.state is QuestionState.WITHDRAWN:
                return self._task(found, Status.CANCELLED, f"approval {came.id} was taken back")
            return self._task(found, Status.WORKING, self._waits(came))
        if isinstance(came, Carried):
            error = replies.upstream_error(came)
            result = {} if error else replies.result_of(came)
        elif replies.is_protocol_error(came):
            error, result = {"code": came.code, "message": came.public}, {}
        else:
            error, result = None, replies.refused(came, self._house.clock.now())
        if error is not None:
            return {**self._task(found, Status.FAILED), "error": error}
        return {**self._task(found, Status.COMPLETED), "result": self._house.face.stamped(result)}

    def _waits(self, question: Question) -> str:
        if question.state is QuestionState.OPEN:
            url = self._house.link(question.id)
            return f"waiting for approval {question.id}" + (f": {url}" if url else "")
        return f"approval {question.id} is {question.state}; the call is under way"

    def _task(self, found: _Task, status: Status, said: str = "") -> JsonObject:
        now = self._house.clock.now()
        return tasks.task(
            self._seal.close([found.question, found.whose, found.created_at, found.expires_at]),
            status,
            created_at=found.created_at,
            updated_at=now,
            ttl_ms=round((found.expires_at - found.created_at) * 1000),
            poll_ms=poll_ms(now - found.created_at),
            said=said,
        )
