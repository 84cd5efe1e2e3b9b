"""The terminal hears of questions: one line each, on standard error. It is told, it cannot answer.

Whoever shares the terminal could type an answer for the human (TIOCSTI), so answers come over the administration
socket only.
"""

from __future__ import annotations

from collections.abc import Callable

from interposer.display import printable, printable_json
from interposer.model import Question, QuestionState

_SHOWN_CHARS = 200

_ENDED = {
    QuestionState.GRANTED: "approved",
    QuestionState.CONSUMED: "carried out",
    QuestionState.DENIED: "denied",
    QuestionState.EXPIRED: "expired",
    QuestionState.WITHDRAWN: "withdrawn: the caller has left",
}


class TerminalChannel:
    """Writes through `write`, which is given one line with its end. `mask` is applied to the arguments before they are
    shown: what is written is a log, and the exact call is shown where it is answered."""

    def __init__(self, write: Callable[[str], object], mask: Callable[[bytes], bytes] = bytes) -> None:
        self._write = write
        self._mask = mask

    async def announce(self, question: Question) -> None:
        self._write(line(question, self._mask) + "\n")


def line(question: Question, mask: Callable[[bytes], bytes] = bytes) -> str:
    """What is printed of a question: nothing of it can end the line or leave it."""
    head = f"approval {printable(question.id)}"
    if question.state is not QuestionState.OPEN:
        return f"{head}: {_ENDED[question.state]}"
    requester = printable(f"{question.requester.issuer}:{question.requester.subject}")
    if question.votes:
        return f"{head}: {len(question.votes)} of {question.terms.quorum} have approved"
    shown = printable_json(mask(question.canonical))
    if len(shown) > _SHOWN_CHARS:
        shown = f"{shown[:_SHOWN_CHARS]}… ({len(question.canonical)} bytes)"
    return f"{head}: {requester} asks for {printable(question.skill)} {shown}"
