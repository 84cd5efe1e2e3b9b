"""A call that waits for a human, as its caller sees it: a ticket, a link and rounds of patience, a task, a dialog.

However a call is shown, it is judged anew whenever it is made, by `Broker.invoke`, and executed once. What is given out
to be brought back (a state, a task's id) is sealed and good for one principal; a state, for one call with one set of
arguments. A client's word that its user agreed counts only where policy says so, and the desk sees to that.

Nothing in here knows what a conversation is carried by.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import anyio

from . import reach as reaches
from .ballot import version_of
from .canonical import digest
from .carried import Carried
from .desk import UnknownQuestion
from .errors import (
    INVALID_PARAMS,
    ApprovalPending,
    ApprovalRefused,
    BadMessage,
    InterposerError,
    Refusal,
    Unauthenticated,
)
from .house import House
from .model import Call, Era, Json, JsonObject, Principal, Question, QuestionState
from .ports import Tasks
from .reach import Profile, Reach, Way
from .seal import BrokenSeal, Seal
from .tasked import Tasked
from .wire import elicitation
from .wire.elicitation import Answer
from .wire.jsonrpc import Response
from .wire.mcp import Peer

log = logging.getLogger(__name__)
Ask = Callable[[str, JsonObject], Awaitable[Response]]
"""Sends a request of ours to the peer and waits for its answer. Cancelled: the peer is told."""

_LEFT_PUBLIC = "The user did not want it to be approved."


class ForeignState(BadMessage):
    """A `requestState` that is not of this call: changed, expired, or another caller's, tool's or arguments'."""

    name = "foreign_state"

    def __init__(self) -> None:
        public = "The requestState is not for this call, or has expired: make the call again without it."
        super().__init__(INVALID_PARAMS, public)


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer that is no result yet."""

    kind: str
    """Its `resultType`."""
    body: JsonObject


@dataclass(frozen=True, slots=True)
class State:
    """What a `requestState` says: its call came back with it."""

    question: str
    round: int
    """How often the call was answered with a state."""
    way: Way
    """How it was answered last."""
    again: bool = False
    """Its client starts over after its user was shown something: it is shown the same in every round."""


class Pending:
    """What the callers of one house are shown of calls that wait."""

    def __init__(self, house: House, crew: Tasks) -> None:
        """Dialogs run on `crew`."""
        self.house = house
        self.crew = crew
        self._usual = Profile(house.limits.hold_s)
        self._profiles = house.profiles
        self._states = Seal(house.seal_key, "state")
        self.tasks = Tasked(house)

    def round(self, peer: Peer, ask: Ask | None = None) -> Round:
        """For one request of this peer. `ask`: how it can be asked something meanwhile (legacy)."""
        return Round(self, peer, ask)

    def profile(self, peer: Peer) -> Profile:
        return self._profiles.get(peer.client, self._usual)

    def reach(self, peer: Peer, ask: Ask | None) -> Reach:
        linked = self.house.link("") is not None
        found = reaches.reach(peer.era, peer.version, peer.capabilities, self.profile(peer), linked=linked)
        return found if ask is not None else replace(found, dialog=False)

    def sealed(self, question: Question, call: Call, way: Way, round: int, again: bool) -> str:
        """The state of a call that is answered in this way, for its round after this one."""
        bound, nonce = _bound(question.requester, call), secrets.token_hex(8)
        return self._states.close([question.id, round + 1, way.value, again, bound, question.expires_at, nonce])

    def opened(self, text: Json, principal: Principal, call: Call) -> State:
        """What the state says that came with a call. Raises `ForeignState`."""
        try:
            id, round, way, again, bound, expires_at, _ = self._states.open(text if isinstance(text, str) else "")
        except BrokenSeal:
            raise ForeignState() from None
        if bound != _bound(principal, call) or self.house.clock.now() >= expires_at:
            raise ForeignState()
        return State(id, round, Way(way), again)


class Round:
    """One request for a call: what came back with it, and how it is answered while a human is awaited."""

    def __init__(self, pending: Pending, peer: Peer, ask: Ask | None) -> None:
        self._pending = pending
        self._peer = peer
        self._ask = ask
        self._state: State | None = None
        self._answered = False
        """The form of the round before had its answer."""
        self._dialog: anyio.CancelScope | None = None
        self._began = pending.house.clock.now()
        self.hold_s = pending.profile(peer).hold_s

    async def carry(self, call: Call, params: JsonObject) -> Carried | Shown:
        """The outcome of the call, or what its caller is shown meanwhile. Raises `Refusal`: nothing was executed.
        `call.on_question` must be `told`."""
        if self._peer.era is Era.MODERN and params.get("requestState") is not None:
            try:
                call = await self._resumed(call, params)
            except Refusal as refusal:
                await self._noted(refusal, call)
                raise
        try:
            return await self._pending.house.broker.invoke(call)
        except ApprovalPending as pending:
            shown = await self._shown(pending, call)
            if shown is None:
                raise
            return shown
        finally:
            if self._dialog is not None:
                self._dialog.cancel()

    def told(self, question: Question) -> float:
        """The call waits for this question now; how long it is held for it."""
        reach = self._pending.reach(self._peer, self._ask)
        way = self._way(reach, question)
        if self._dialog is not None:
            self._dialog.cancel()
            self._dialog = None
        if way is Way.DIALOG and self._ask is not None:
            self._dialog = anyio.CancelScope()
            self._pending.crew.start_soon(self._asked, self._ask, question, self._dialog)
        return reach.hold_s(way, first=self._first(way, question))

    @property
    def _number(self) -> int:
        return 0 if self._state is None else self._state.round

    def _way(self, reach: Reach, question: Question) -> Way:
        state = self._state if self._state is not None and self._state.question == question.id else None
        form_done = state is not None and (self._answered or state.way is not Way.FORM)
        return reach.way(caller_confirms=_confirmable(question), round=self._number, form_done=form_done)

    def _first(self, way: Way, question: Question) -> bool:
        """Whether this question was not shown so before."""
        return self._state is None or (self._state.way, self._state.question) != (way, question.id)

    def _again(self, question: Question) -> bool:
        """Whether its client started over: it made the call anew, without a state, although that was asked about
        before. LangChain's adapter does when its user was shown the link, and raises on a round that asks nothing."""
        if self._state is not None and self._state.question == question.id:
            return self._state.again
        return question.asked_at < self._began

    async def _shown(self, pending: ApprovalPending, call: Call) -> Shown | None:
        """None: the ticket."""
        house, reach = self._pending.house, self._pending.reach(self._peer, self._ask)
        question = await house.desk.get(pending.question)
        way = self._way(reach, question)
        if way is Way.TASK:
            return Shown("task", self._pending.tasks.task(question))
        request: JsonObject | None = None
        again = self._again(question)
        if way is Way.FORM:
            request = {"mode": "form", **elicitation.form(question.skill, question.canonical)}
        elif way is Way.LINK:
            url = house.link(question.id)
            first = self._first(way, question)
            if url is not None and (again or reach.links(first=first, answered=pending.running)):
                request = elicitation.link(question.skill, question.id, url)
        else:
            return None
        state = self._pending.sealed(question, call, way, self._number, again)
        return Shown("input_required", elicitation.input_required(request, state))

    # -- a call that comes back

    async def _resumed(self, call: Call, params: JsonObject) -> Call:
        """Raises `ForeignState`, `BadMessage`, `ApprovalRefused` where its user gave up."""
        house = self._pending.house
        try:
            principal = await house.authenticator.authenticate(call.asking())
        except Unauthenticated:
            return call  # Nobody's state is nobody's: the broker refuses the call, on record.
        state = self._pending.opened(params["requestState"], principal, call)
        answer = elicitation.answered(params.get("inputResponses"), form=state.way is Way.FORM)
        try:
            question = await house.desk.get(state.question)
        except UnknownQuestion:
            return call  # Of another record: a call like any other.
        self._state = state
        if state.way is Way.FORM and answer is not Answer.NONE:
            self._answered = True
            if answer is not Answer.CANCELLED:
                await self._confirm(question, answer is Answer.YES)
        elif answer in (Answer.NO, Answer.CANCELLED):
            await self._give_up(question, principal)
        return replace(call, question=question.id)

    async def _give_up(self, question: Question, principal: Principal) -> None:
        """Raises `ApprovalRefused`, unless it is too late for that."""
        desk = self._pending.house.desk
        if await desk.withdraw(question.id, principal) or await desk.kept(question.id) is None:
            raise ApprovalRefused(
                f"{question.id}: its caller's user gave up", question=question.id, public=_LEFT_PUBLIC
            )

    async def _noted(self, refusal: Refusal, call: Call) -> None:
        house = self._pending.house
        name = house.masker.mask(call.name, frozenset({"pii", "secrets"}))
        await house.journal.refuse(refusal, session=call.session, name=str(name.value))

    async def _confirm(self, question: Question, yes: bool) -> None:
        """What a client says that its user answered; where it does not count, the desk says so, and nothing changes."""
        try:
            await self._pending.house.desk.confirm(question.id, question.requester, yes, version=version_of(question))
        except InterposerError as refusal:
            log.warning("an answer from the caller's client to %s does not count: %s", question.id, refusal)

    async def _asked(self, ask: Ask, question: Question, scope: anyio.CancelScope) -> None:
        """Ask the caller's own user while the call is held; it takes nobody else's chance to answer."""
        with scope:
            response = await ask(elicitation.METHOD, elicitation.form(question.skill, question.canonical))
            answer = elicitation.read_form(response.result)
            if answer in (Answer.YES, Answer.NO):
                await self._confirm(question, answer is Answer.YES)


def _confirmable(question: Question) -> bool:
    """Whether its caller's own user can answer it, and what they are shown, all of it, is what they would agree to. A
    form measures no reading time: where some is demanded, it is for those who look at the call elsewhere."""
    terms = question.terms
    alone = terms.caller and terms.quorum == 1 and not terms.minima and not terms.reading_s
    as_asked = question.state is QuestionState.OPEN and not question.amended and question.spec is None
    return alone and as_asked and elicitation.fits(question.skill, question.canonical)


def _bound(principal: Principal, call: Call) -> str:
    """What a state is good for: one principal, one method, one tool, one set of arguments."""
    return digest(["tools/call", principal.identity(), call.name, call.arguments])
