"""The terminal hears of questions: one line each, on standard error. It is told, it cannot answer.

Whoever shares the terminal could type an answer for the human (TIOCSTI), so answers come over the administration
socket only.
"""

from __future__ import annotations

from collections.abc import Callable

from interposer.ballot import named
from interposer.display import printable, printable_json
from interposer.model import Question

from .notice import event_of

_SHOWN_CHARS = 200

_ENDED = {
    "granted": "approved",
    "consumed": "carried out",
    "denied": "denied",
    "expired": "expired",
    "withdrawn": "withdrawn: its caller has left, or somebody took it back",
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
    event = event_of(question)
    if event in _ENDED:
        return f"{head}: {_ENDED[event]}"
    last = printable(named(question.votes[-1].principal)) if question.votes else "nobody"
    if event == "broke_glass":
        return f"{head}: GLASS BROKEN by {last}, alone"
    if event == "amended":
        return f"{head}: what would be approved was changed by {last}"
    requester = printable(named(question.requester))
    if event == "voted":
        return f"{head}: {len(question.votes)} of {question.terms.quorum} have approved"
    shown = printable_json(mask(question.canonical))
    if len(shown) > _SHOWN_CHARS:
        shown = f"{shown[:_SHOWN_CHARS]}… ({len(question.canonical)} bytes)"
    return f"{head}: {requester} asks for {printable(question.skill)} {shown}"
