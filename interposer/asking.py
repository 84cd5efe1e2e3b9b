"""Who asks, for as long as a call takes: a caller that is here, or one that has left and whose call was approved.

Who asks is established anew after every wait. While a human is waited for, whoever may not ask any more (an expired
token, a removed key, a name on the deny list) is found out within a second, and the wait ends in no.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import anyio

from .canonical import parse
from .errors import Denied, InterposerError, Unauthenticated
from .model import Call, Caller, Invocation, Principal, Question
from .ports import Authenticator

ATTEND_S = 0.5
"""How often a held call is asked again who makes it."""


class Asker(Protocol):
    """On whose behalf a call is made."""

    @property
    def waits(self) -> bool:
        """Whether whoever asks is given the answer at once; otherwise it is kept for them."""

    async def principal(self) -> Principal:
        """Who asks. Raises `Unauthenticated`."""

    async def again(self, invocation: Invocation) -> Invocation:
        """The invocation with its principal as it is now. Raises `Unauthenticated`, or `Denied` for another one, or
        for a token among the arguments."""


@dataclass(frozen=True, slots=True)
class Present:
    """A caller that speaks for itself."""

    authenticator: Authenticator
    call: Call
    waits: bool = True

    async def principal(self) -> Principal:
        return await self.authenticator.authenticate(self.call.caller)

    async def again(self, invocation: Invocation) -> Invocation:
        call, identity = self.call, invocation.principal.identity()
        principal = await self.authenticator.authenticate(call.asking())
        if principal.identity() != identity and call.latest is not None:
            # The connection speaks for somebody else by now; this call still speaks by what it came with.
            principal = await self.authenticator.authenticate(call.caller)
        if principal.identity() != identity:
            raise Denied("the caller is another one than when the call came", name="caller_changed")
        _keep_tokens_in(call, invocation)
        return invocation if principal == invocation.principal else replace(invocation, principal=principal)


@dataclass(frozen=True, slots=True)
class Absent:
    """A caller that has left, and speaks by the question that it asked."""

    authenticator: Authenticator
    question: Question
    waits: bool = False

    async def principal(self) -> Principal:
        return await self.authenticator.still(self.question.requester, self.question.session)

    async def again(self, invocation: Invocation) -> Invocation:
        principal = await self.authenticator.still(self.question.requester, invocation.session)
        return invocation if principal == invocation.principal else replace(invocation, principal=principal)


async def attended(asker: Asker, invocation: Invocation, work: Callable[[], Awaitable[object]]) -> None:
    """Wait for `work` for as long as whoever asks may ask. Raises what `work` raises, or why the wait was ended."""
    ended: list[InterposerError] = []
    async with anyio.create_task_group() as waiting:
        waiting.start_soon(_attend, asker, invocation, waiting.cancel_scope, ended)
        try:
            await work()
        except InterposerError as fault:
            ended.append(fault)
        waiting.cancel_scope.cancel()
    if ended:
        raise ended[0]


async def _attend(asker: Asker, invocation: Invocation, wait: anyio.CancelScope, ended: list[InterposerError]) -> None:
    try:
        while True:
            await anyio.sleep(ATTEND_S)
            with anyio.move_on_after(ATTEND_S) as asked:
                await asker.again(invocation)
            if asked.cancelled_caught:
                raise Unauthenticated("it cannot be found out who asks", why="no_answer")
    except InterposerError as fault:
        ended.append(fault)
        wait.cancel()


def _keep_tokens_in(call: Call, invocation: Invocation) -> None:
    """Raises `Denied` for arguments that would take a token of the caller's across the wall."""
    for token in {call.caller.token, call.token, call.asking().token}:
        if token and token.encode("utf-8", "surrogatepass") in invocation.canonical:
            raise Denied(
                "the arguments hold a token of the caller's",
                name="token_in_arguments",
                message="The arguments hold your own access token, which never leaves the broker.",
            )


def recalled(question: Question, caller: Call | None) -> Call:
    """The call of a question as it was asked, but for the name."""
    arguments = parse(question.canonical)
    if caller is None:
        return Call(question.session, Caller("question", session=question.session), "", arguments, hold_s=0.0)
    return replace(
        caller,
        session=question.session,
        arguments=arguments,
        hold_s=0.0,
        on_progress=None,
        question="",
        on_question=None,
    )
