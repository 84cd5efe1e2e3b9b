"""Questions that channels are told of, and a clock that is turned by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import anyio
import anyio.lowlevel

from interposer.ballot import version_of
from interposer.model import Effect, MatchedRule, Principal, Question, QuestionState, Vote
from interposer.terms import ApprovalTerms

ANNA = Principal("operator", "anna")
QUESTION = Question(
    id="q_1",
    digest="d" * 64,
    state=QuestionState.OPEN,
    session="s_1",
    invocation="i_1",
    requester=Principal("local", "agent"),
    skill="payments.refund",
    skill_digest="sd",
    policy="p",
    canonical=b'{"amount":90,"card":"4111-planted-number"}',
    terms=ApprovalTerms(quorum=2),
    rules=(MatchedRule("refunds-need-a-lead", Effect.ASK, "policy.yaml", 7),),
    asked_at=1_000.0,
    expires_at=2_800.0,
    destructive=True,
)


def voted(question: Question, *, yes: bool = True, at: float = 1_001.0, broke_glass: bool = False) -> Question:
    vote = Vote(ANNA, yes, "because of planted reason", at, version_of(question), broke_glass)
    return replace(question, votes=(*question.votes, vote))


def link(id: str) -> str:
    return f"https://console.example/q/{id}"


@dataclass
class HandTurned:
    """A clock that goes on by itself exactly when the sender has nothing to do until then."""

    at: float = 0.0

    def now(self) -> float:
        return 1_700_000_000.0 + self.at

    def monotonic(self) -> float:
        return self.at

    async def wait(self, changed: anyio.Event, longest_s: float | None) -> None:
        if longest_s is None:
            await changed.wait()
        else:
            self.at += longest_s
            await anyio.lowlevel.checkpoint()
