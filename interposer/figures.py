"""Figures of approvals: how often people are asked, what they say, and how long they take, so that it shows when saying
yes has become a habit (approver fatigue).

Pure. Of the questions that are given, and of nothing else: votes for a version that somebody changed are not in them.

```
figures  {"overall": tally, "days": {"2027-01-15": tally, …}, "skills": {"crm.refund": tally, …},
          "people": {"local:bob": person, …}}
tally    {"asked", "open", "granted", "denied", "expired", "withdrawn", "broke_glass": count,
          "approval_ratio": 0 … 1 or null, "decision_s": times or null}
person   {"votes", "approved", "denied", "broke_glass": count, "approval_ratio": 0 … 1, "decision_s": times}
times    {"median", "p95": seconds from the asking to the vote that decided, or to this person's own}
```
A question is counted once, on the day on which it was asked: `asked` is the sum of the five after it. `granted` are
those that people agreed to, also where the yes was not used in time or was taken back. `approval_ratio` is granted of
those decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from itertools import groupby

from .ballot import enough, named
from .model import JsonObject, Question, QuestionState, Vote

_PLACES = 3
_STANDS = {
    QuestionState.OPEN: "open",
    QuestionState.GRANTED: "granted",
    QuestionState.CONSUMED: "granted",
    QuestionState.DENIED: "denied",
    QuestionState.EXPIRED: "expired",
    QuestionState.WITHDRAWN: "withdrawn",
}
_STATES = ("open", "granted", "denied", "expired", "withdrawn")
_DECIDED = ("granted", "denied")


def figures(questions: Iterable[Question], *, zone: tzinfo = UTC) -> JsonObject:
    """See the module. Days are those of `zone`."""
    every = list(questions)
    return {
        "overall": _tally(every),
        "days": _by(every, lambda question: datetime.fromtimestamp(question.asked_at, zone).date().isoformat()),
        "skills": _by(every, lambda question: question.skill),
        "people": _people(every),
    }


def _by(questions: Sequence[Question], key: Callable[[Question], str]) -> JsonObject:
    return {name: _tally(list(some)) for name, some in groupby(sorted(questions, key=key), key)}


def _tally(questions: Sequence[Question]) -> JsonObject:
    ended = [(question, _became(question)) for question in questions]
    counts = {state: sum(became == state for _, became in ended) for state in _STATES}
    decided = [question for question, became in ended if became in _DECIDED and question.votes]
    return {
        "asked": len(questions),
        **counts,
        "broke_glass": sum(any(vote.broke_glass for vote in question.votes) for question in questions),
        "approval_ratio": _ratio(counts["granted"], counts["denied"]),
        "decision_s": _times([_took(question, question.votes[-1]) for question in decided]),
    }


def _became(question: Question) -> str:
    agreed = [vote.principal for vote in question.votes if vote.yes]
    unused = question.state in (QuestionState.EXPIRED, QuestionState.WITHDRAWN)
    if unused and agreed and (any(vote.broke_glass for vote in question.votes) or enough(agreed, question.terms)):
        return "granted"
    return _STANDS[question.state]


def _people(questions: Sequence[Question]) -> JsonObject:
    votes = [(named(vote.principal), vote, _took(question, vote)) for question in questions for vote in question.votes]
    votes.sort(key=lambda each: each[0])
    found: JsonObject = {}
    for name, some in groupby(votes, lambda each: each[0]):
        theirs = list(some)
        yes = sum(vote.yes for _, vote, _ in theirs)
        found[name] = {
            "votes": len(theirs),
            "approved": yes,
            "denied": len(theirs) - yes,
            "broke_glass": sum(vote.broke_glass for _, vote, _ in theirs),
            "approval_ratio": _ratio(yes, len(theirs) - yes),
            "decision_s": _times([took for *_, took in theirs]),
        }
    return found


def _took(question: Question, vote: Vote) -> float:
    """Never below zero: a wall clock may have been set back in between."""
    return max(0.0, vote.at - question.asked_at)


def _ratio(yes: int, no: int) -> float | None:
    return round(yes / (yes + no), _PLACES) if yes + no else None


def _times(seconds: Sequence[float]) -> JsonObject | None:
    """The median, and the time within which 95 of 100 were decided (nearest rank)."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    count = len(ordered)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    p95 = ordered[-(-95 * count // 100) - 1]
    return {"median": round(median, _PLACES), "p95": round(p95, _PLACES)}
