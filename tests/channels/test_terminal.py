"""The terminal channel: one line, whatever the call holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interposer.channels.terminal import TerminalChannel
from interposer.model import Principal, Question, QuestionState, Vote
from interposer.terms import ApprovalTerms

QUESTION = Question(
    id="q_1",
    digest="d",
    state=QuestionState.OPEN,
    session="s",
    invocation="i",
    requester=Principal("local", "agent"),
    skill="payments.refund",
    skill_digest="sd",
    policy="p",
    canonical=b'{"amount":90}',
    terms=ApprovalTerms(quorum=2),
    rules=(),
    asked_at=0.0,
    expires_at=1800.0,
)


async def told(question: Question) -> str:
    lines: list[str] = []
    await TerminalChannel(lines.append).announce(question)
    return "".join(lines)


async def test_question_is_one_line() -> None:
    """Who asks for what, on one line."""
    assert await told(QUESTION) == 'approval q_1: local:agent asks for payments.refund {"amount":90}\n'


async def test_end_is_one_line() -> None:
    """Votes and ends are told too."""
    vote = Vote(Principal("operator", "anna"), True, "", 1.0)
    assert await told(replace(QUESTION, votes=(vote,))) == "approval q_1: 1 of 2 have approved\n"
    for state in QuestionState:
        assert (await told(replace(QUESTION, state=state))).startswith("approval q_1: ")


async def test_changes_and_broken_glass_say_who() -> None:
    """Other arguments on the table, and one person's override, are told as what they are."""
    vote = Vote(Principal("operator", "anna\x1b[2J"), True, "", 1.0)
    changed = replace(QUESTION, amended=b'{"amount":10}', votes=(vote,))
    assert await told(changed) == "approval q_1: what would be approved was changed by operator:anna\\x1b[2J\n"
    broken = replace(QUESTION, state=QuestionState.GRANTED, votes=(replace(vote, broke_glass=True),))
    assert await told(broken) == "approval q_1: GLASS BROKEN by operator:anna\\x1b[2J, alone\n"


@pytest.mark.parametrize("hostile", ["\x1b]0;x\x07", "\nApproved: yes", "\u202e", "\x9b2J", "\U000e0041"])
async def test_hostile_text_stays_on_its_line(hostile: str) -> None:
    """A caller cannot write to the operator's terminal through a name or an argument (M13, M15)."""
    text = await told(
        replace(
            QUESTION,
            skill=f"x{hostile}",
            requester=Principal("local", f"a{hostile}"),
            canonical=f'{{"note":"{hostile}"}}'.encode(),
        )
    )
    assert text.endswith("\n")
    assert text[:-1].isprintable()


async def test_long_arguments_are_cut_and_measured() -> None:
    """A megabyte of arguments is a short line that says how long they are."""
    text = await told(replace(QUESTION, canonical=b'{"note":"' + b"x" * 1_000_000 + b'"}'))
    assert len(text) < 400
    assert "(1000011 bytes)" in text
