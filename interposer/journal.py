"""The journal: the only way from a Permit to an Intent, and it is on disk before you hold it.

Every row of a call's life is written here, in the order that `lifecycle.TABLE` allows: a transition that the table
does not have raises `RecordFault` and writes nothing. Payloads come as `Masked`; what is not masked cannot be recorded.
"""

from __future__ import annotations

from typing import Any

import anyio

from . import canonical, lifecycle
from .errors import ApprovalPending, ApprovalRefused, RecordFault, Refusal, Unauthenticated, UnknownSkill
from .grant import Kept
from .model import (
    Answered,
    Caller,
    Decision,
    Failed,
    Intent,
    Invocation,
    Json,
    Kind,
    Masked,
    Outcome,
    Permit,
    Principal,
    Question,
    Record,
)
from .ports import Clock, RecordStore

LIMIT_OPEN = 65_536
"""Invocations that may be under way at once; another one is refused, for none may be forgotten."""
LIMIT_IN_DOUBT = 4_096
"""Calls in doubt of which a late answer is still expected; the oldest are given up."""
REVOKED = "the approval was revoked while the call was under way"
_CLAIMED_CHARS = 128

_NOTED = frozenset(
    {Kind.BROKER_STARTED, Kind.BROKER_STOPPED, Kind.POLICY_LOADED, Kind.SKILLS_PINNED, Kind.ALARM},
)


class Journal:
    """Writes the record, row by row, and knows how far each call under way has come."""

    def __init__(self, store: RecordStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._reached: dict[str, Kind] = {}
        self._in_doubt: dict[str, Kind] = {}

    async def intend(self, permit: Permit, masked: Masked) -> Intent:
        """The call is about to be made: returns only when that is on disk. `masked` are the arguments.

        Raises `RecordFault`, and then the call must not be made. Cancelled: the intent is written all the same, and
        `abandon` says how it ended.
        """
        invocation, decision, question, code = permit.invocation, permit.decision, "", ""
        if permit.approval is not None:
            question = permit.approval.question
            # What was asked stands in the row before: these are the arguments that approvers put in its place.
            code = "amended" if permit.approval.amended else ""
        payload = _payload(decision, "arguments", masked)
        seq = await self._step(Kind.INTENDED, invocation, decision, payload=payload, code=code, question=question)
        return Intent(permit, seq)

    async def abandon(self, permit: Permit) -> None:
        """Whoever waited for the intent was cancelled before it was had: nothing was sent, and that is on record."""
        if self._reached.get(permit.invocation.id) is Kind.INTENDED:
            await self._step(Kind.IN_DOUBT, permit.invocation, permit.decision, code="cancelled_unsent")

    def forget(self, invocation: Invocation) -> None:
        """The end of a call could not be written: nothing more follows in this run, and recovery ends it on record."""
        self._reached.pop(invocation.id, None)

    def under_way(self, invocation: Invocation) -> bool:
        """Whether rows of this call may follow."""
        return invocation.id in self._reached

    async def conclude(self, intent: Intent, outcome: Outcome, masked: Masked, *, withheld: str = "") -> None:
        """How the call ended, on disk. `masked` is what the caller is given: the result, or the upstream's error.
        `withheld`: an answer came and may not be shown; the row says so, and `masked` is kept as it is given."""
        permit = intent.permit
        part = "result"
        if isinstance(outcome, Answered):
            kind = Kind.ANSWERED
            code = "withheld" if withheld else _answered_code(masked.value)
        elif isinstance(outcome, Failed):
            kind, part, code = Kind.FAILED, "error", "upstream_failed"
        else:
            kind, code = Kind.IN_DOUBT, "revoked" if outcome.reason == REVOKED else "outcome_unknown"
        payload = None if masked.value is None else _payload(permit.decision, part, masked)
        await self._step(kind, permit.invocation, permit.decision, payload=payload, code=code)

    async def late(self, intent: Intent, masked: Masked) -> None:
        """An answer to a call in doubt came after all. Nobody is told, and nothing follows from it."""
        payload = _payload(intent.permit.decision, "result", masked)
        await self._step(Kind.LATE, intent.permit.invocation, intent.permit.decision, payload=payload, code="late")

    async def asked(self, invocation: Invocation, decision: Decision, masked: Masked) -> None:
        """Policy wants a human's yes to this call. `masked` are the arguments. Not cut short by cancellation: what was
        asked can be withdrawn."""
        with anyio.CancelScope(shield=True):
            await self._step(Kind.ASKED, invocation, decision, payload=_payload(decision, "arguments", masked))

    async def ticketed(self, invocation: Invocation, decision: Decision | None, pending: ApprovalPending) -> None:
        """No human has answered yet; the caller was told to come back."""
        await self._step(Kind.TICKETED, invocation, decision, code=pending.name, question=pending.question)

    async def told(self, invocation: Invocation, decision: Decision, kept: Kept) -> None:
        """The call was made earlier, when it was approved, and is not made again: its caller is told how that ended."""
        await self._step(Kind.TOLD, invocation, decision, code=kept.state.value, question=kept.question)

    async def told_again(self, question: Question, session: str, kept: Kept) -> None:
        """Whoever asked a question came for its outcome, and made no call."""
        await self._append(
            Kind.TOLD,
            session,
            skill=question.skill,
            skill_digest=question.skill_digest,
            principal=question.requester,
            policy=question.policy,
            code=kept.state.value,
            question=question.id,
        )

    async def withdrawn(self, invocation: Invocation, decision: Decision | None = None) -> None:
        """The caller gave up before anything was sent."""
        await self._step(Kind.WITHDRAWN, invocation, decision, code="client_gone")

    async def refuse(
        self,
        refusal: Refusal,
        *,
        session: str,
        name: str = "",
        principal: Principal | None = None,
        invocation: Invocation | None = None,
        decision: Decision | None = None,
        masked: Masked | None = None,
    ) -> None:
        """The call was not made. Without an invocation, `name` is what the caller called the skill: it is kept
        escaped and cut. A refusal that is a ticket is recorded as one. `masked` are the arguments, if they are to be
        kept."""
        question = refusal.question if isinstance(refusal, ApprovalPending | ApprovalRefused) else ""
        kept: dict[str, Json] = {"said": _said(refusal)}
        if isinstance(refusal, Unauthenticated):
            kept["why"] = refusal.why
        if invocation is None:
            payload = canonical.encode(kept)
            await self._append(
                Kind.REFUSED,
                session,
                skill=claimed(name),
                principal=principal,
                code=refusal.name,
                payload=payload,
            )
            return
        kind, code = Kind.REFUSED, refusal.name
        if isinstance(refusal, ApprovalPending):
            # Nobody was asked about this call, for the identical one is under way.
            kind, code = (Kind.REFUSED, "under_way") if refusal.running else (Kind.TICKETED, code)
        if masked is not None:
            kept |= {"arguments": masked.value, "masked": dict(masked.counts)}
        stored = None if _unrecorded(decision) else canonical.encode(kept)
        await self._step(kind, invocation, decision, payload=stored, code=code, question=question)

    async def session_opened(self, session: str, caller: Caller) -> None:
        """A peer has connected; who it is, is established call by call."""
        peer = {"uid": caller.uid, "gid": caller.gid, "pid": caller.pid, "label": caller.label}
        payload = canonical.encode({"peer": {key: value for key, value in peer.items() if value is not None}})
        await self._append(Kind.SESSION_OPENED, session, code=caller.transport, payload=payload)

    async def introduced(self, session: str, masked: Masked) -> None:
        """What the peer calls itself (name and version): for readers, never for a decision."""
        await self._append(
            Kind.SESSION_OPENED, session, code="introduced", payload=canonical.encode({"client": masked.value})
        )

    async def session_closed(self, session: str) -> None:
        await self._append(Kind.SESSION_CLOSED, session)

    async def notified(self, question: Question, code: str, masked: Masked) -> None:
        """How it ended that somebody was to be told of a question; `code` is `delivered` or `gave_up`."""
        payload = canonical.encode({"notice": masked.value})
        await self._append(
            Kind.NOTIFIED,
            question.session,
            skill=question.skill,
            skill_digest=question.skill_digest,
            policy=question.policy,
            code=code,
            question=question.id,
            payload=payload,
        )

    async def alarm(self, invocation: Invocation, code: str) -> None:
        """Something about a call that operators must hear of; `code` is a short constant."""
        skill = invocation.skill
        await self._append(
            Kind.ALARM,
            invocation.session,
            invocation=invocation.id,
            skill=skill.id,
            skill_digest=skill.digest,
            principal=invocation.principal,
            code=code,
        )

    async def note(
        self,
        kind: Kind,
        *,
        session: str = "",
        skill: str = "",
        skill_digest: str = "",
        policy: str = "",
        code: str = "",
        masked: Masked | None = None,
    ) -> None:
        """What happened to the broker itself. Raises `RecordFault` for kinds that belong to calls or questions."""
        if kind not in _NOTED:
            raise RecordFault(f"a row of kind {kind.value} cannot be written as a note")
        payload = None if masked is None else canonical.encode({"note": masked.value})
        await self._append(
            kind, session, skill=skill, skill_digest=skill_digest, policy=policy, code=code, payload=payload
        )

    async def _step(
        self,
        kind: Kind,
        invocation: Invocation,
        decision: Decision | None,
        *,
        payload: bytes | None = None,
        code: str = "",
        question: str = "",
    ) -> int:
        id, skill = invocation.id, invocation.skill
        previous = self._reached.get(id) or self._in_doubt.get(id)
        if not lifecycle.allowed(previous, kind):
            raise RecordFault(f"a call that was {previous or 'not begun'} cannot be {kind.value} next")
        if previous is None and len(self._reached) >= LIMIT_OPEN:
            raise RecordFault("too many calls are under way")
        # Before the wait, so that of two who would take the same step only the first can.
        self._reached[id] = kind
        unwritten = False
        try:
            seq = await self._store.append(
                Record(
                    kind,
                    invocation.session,
                    self._clock.now(),
                    id,
                    skill.id,
                    invocation.principal,
                    "" if decision is None else decision.effect.value,
                    () if decision is None else tuple([rule.id for rule in decision.rules]),
                    "" if decision is None else decision.policy,
                    skill.digest,
                    code,
                    question,
                    0 if payload is None else len(payload),
                    payload,
                )
            )
        except RecordFault:
            self._go_back(id, previous)
            unwritten = True
            raise
        finally:
            # Also when whoever waited was cancelled: what was handed to the store is written.
            if kind in lifecycle.ENDS and not unwritten:
                self._ended(id, kind)
        return seq

    def _go_back(self, id: str, previous: Kind | None) -> None:
        if previous is None or previous is Kind.IN_DOUBT:
            del self._reached[id]
        else:
            self._reached[id] = previous

    def _ended(self, id: str, kind: Kind) -> None:
        self._reached.pop(id, None)
        if kind is Kind.IN_DOUBT:
            self._in_doubt[id] = kind
            if len(self._in_doubt) > LIMIT_IN_DOUBT:
                del self._in_doubt[next(iter(self._in_doubt))]
        else:
            self._in_doubt.pop(id, None)

    async def _append(self, kind: Kind, session: str, **fields: Any) -> int:
        return await self._store.append(Record(kind, session, self._clock.now(), **fields))


def claimed(name: str) -> str:
    """What a caller called a skill, fit for the record: ASCII, one line, cut."""
    return name[:_CLAIMED_CHARS].encode("ascii", "backslashreplace").decode().translate(_ESCAPES)[: 2 * _CLAIMED_CHARS]


_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


def _unrecorded(decision: Decision | None) -> bool:
    return decision is not None and decision.obligations.record == "none"


def _payload(decision: Decision, part: str, masked: Masked) -> bytes | None:
    if _unrecorded(decision):
        return None
    if masked.counts:
        return canonical.encode({part: masked.value, "masked": dict(masked.counts)})
    return canonical.encode({part: masked.value})


def _answered_code(result: Json) -> str:
    return "tool_error" if isinstance(result, dict) and result.get("isError") is True else ""


def _said(refusal: Refusal) -> str:
    """The text the caller got, without the name it gave: that stands escaped in a column of its own."""
    return UnknownSkill.public if isinstance(refusal, UnknownSkill) else refusal.public
