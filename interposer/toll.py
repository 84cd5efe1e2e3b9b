"""What a call that a human has to approve costs of policy's `rate`: one unit in all, however often it comes back.

The unit is taken when its question is put to a human, or for a use of a standing grant. Whoever joins a question that
stands, collects its yes or is told what came of it pays nothing more. Where there is no room no human is bothered.
Which questions were paid for is remembered for as long as rates are: in this run.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from .ballot import question_digest
from .desk import Desk, UnknownQuestion
from .judging import limited
from .model import Approval, Call, Decision, Invocation, Question
from .ports import PolicyInformationPoint
from .questions import LIVE

_REMEMBERED = 10_000
_OF_ONE_CALL = 4
"""One question of a call stands at a time; others have just ended."""


class Toll:
    """See the module."""

    def __init__(self, facts: PolicyInformationPoint, desk: Desk) -> None:
        self._facts = facts
        self._desk = desk
        self._paid: OrderedDict[str, deque[str]] = OrderedDict()
        """What a yes is bound to -> the questions that were paid for and have carried no call."""

    async def check(self, invocation: Invocation, decision: Decision, own: str) -> None:
        """Takes nothing. Raises `Denied` named `rate_limited` where there is no room, unless the call is asked about
        already; `own`: the question that it came back with, if any. Raises `RecordFault`."""
        wait_s = self._facts.room(invocation.principal, decision.obligations.rates)
        if wait_s > 0:
            bound = question_digest(invocation, decision)
            paid = tuple(self._paid.get(bound, ()))
            if not any([await self._stands(id, bound) for id in paid]):
                if not await self._stands(own, bound):
                    raise limited(wait_s)
                self._remember(bound, own)

    async def obtain(self, call: Call, invocation: Invocation, decision: Decision) -> Approval:
        """A human's yes, paid for. Raises as `Desk.obtain` does, and `Denied` named `rate_limited`."""
        hold_s, on_progress = call.hold_s, call.on_progress
        if not decision.obligations.rates:
            return await self._desk.obtain(
                invocation, decision, hold_s=hold_s, on_progress=on_progress, on_question=call.on_question
            )
        bound = question_digest(invocation, decision)

        def told(question: Question) -> float | None:
            if question.id not in self._paid.get(bound, ()):
                self._take(invocation, decision)
                self._remember(bound, question.id)
            return None if call.on_question is None else call.on_question(question)

        approval = await self._desk.obtain(
            invocation, decision, hold_s=hold_s, on_progress=on_progress, on_question=told
        )
        if not self._spend(bound, "" if approval.grant else approval.question):
            # A use of a grant, an answer that came before anybody was told of the question, or one of an earlier run.
            self._take(invocation, decision)
        return approval

    def _spend(self, bound: str, question: str) -> bool:
        """Whether the call has been paid for: by the asking of this question, or of any that asked for it."""
        paid = self._paid.get(bound)
        if not paid or (question and question not in paid):
            return False
        paid.remove(question or paid[-1])
        if not paid:
            del self._paid[bound]
        return True

    async def _stands(self, id: str, bound: str) -> bool:
        if not id:
            return False
        try:
            question = await self._desk.get(id)
        except UnknownQuestion:
            return False
        return question.digest == bound and question.state in LIVE

    def _take(self, invocation: Invocation, decision: Decision) -> None:
        wait_s = self._facts.admit(invocation.principal, decision.obligations.rates)
        if wait_s > 0:
            raise limited(wait_s)

    def _remember(self, bound: str, question: str) -> None:
        paid = self._paid.setdefault(bound, deque(maxlen=_OF_ONE_CALL))
        paid.append(question)
        self._paid.move_to_end(bound)
        if len(self._paid) > _REMEMBERED:
            self._paid.popitem(last=False)
