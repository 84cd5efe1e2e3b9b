"""Notices: what the world outside is told of a question, and what it is never told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from interposer.channels.bodies import generic, slack
from interposer.channels.notice import event_of, notice
from interposer.model import Effect, MatchedRule, Principal, Question, QuestionState, Vote
from interposer.terms import GrantSpec

from .questions import QUESTION, link, voted

AMENDED = replace(QUESTION, amended=b'{"amount":10,"card":"5500-planted-too"}')
STANDING = replace(QUESTION, spec=GrantSpec(3600.0, 3, schema=b'{"const":"planted-schema"}'))


@pytest.mark.parametrize(
    ("question", "event"),
    [
        (QUESTION, "opened"),
        (voted(QUESTION), "voted"),
        (voted(AMENDED), "amended"),
        (voted(STANDING), "amended"),
        (voted(voted(AMENDED), at=1_002.0), "voted"),
        (replace(voted(QUESTION), state=QuestionState.GRANTED), "granted"),
        (replace(voted(QUESTION, broke_glass=True), state=QuestionState.GRANTED), "broke_glass"),
        (replace(voted(QUESTION, yes=False), state=QuestionState.DENIED), "denied"),
        (replace(QUESTION, state=QuestionState.EXPIRED), "expired"),
        (replace(QUESTION, state=QuestionState.WITHDRAWN), "withdrawn"),
        (replace(QUESTION, state=QuestionState.CONSUMED), "consumed"),
    ],
)
def test_event_is_what_happened_to_the_question(question: Question, event: str) -> None:
    """Each turn in a question's life has a name of its own, which is read off the question alone."""
    assert event_of(question) == event
    assert notice(question, link).payload["event"] == event


def test_delivery_is_the_same_for_the_same_news_only() -> None:
    """Told again, after a restart too, a thing has the same id; the next thing has another."""
    first, again = notice(QUESTION, link), notice(replace(QUESTION, asked_at=1_000.0), link)
    later = [voted(QUESTION), voted(QUESTION, at=1_002.0), voted(AMENDED), replace(QUESTION, id="q_2")]
    ids = [first.delivery, *(notice(question, link).delivery for question in later)]
    assert first.delivery == again.delivery
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("body", [generic, slack])
def test_arguments_reasons_and_schemas_are_in_no_body(body: object) -> None:
    """Whoever reads along learns that somebody asks, and how many bytes, and nothing that is in them (M15)."""
    assert callable(body)
    for question in (QUESTION, voted(AMENDED), voted(STANDING), replace(voted(QUESTION), state=QuestionState.GRANTED)):
        told = notice(question, link)
        assert b"planted" not in body(told)
        assert told.question.canonical == told.question.amended == b""


def test_generic_body_says_which_call_and_where() -> None:
    """Digest of the version on the table, skill, requester, rules, times, length and link."""
    told = json.loads(generic(notice(QUESTION, link)))
    assert told == {
        "version": 1,
        "delivery": notice(QUESTION, link).delivery,
        "event": "opened",
        "question": "q_1",
        "state": "open",
        "digest": "d" * 64,
        "skill": "payments.refund",
        "destructive": True,
        "requester": "local:agent",
        "rules": ["refunds-need-a-lead"],
        "bytes": len(QUESTION.canonical),
        "amended": False,
        "grant": None,
        "agreed": 0,
        "quorum": 2,
        "by": None,
        "asked_at": 1000.0,
        "expires_at": 2800.0,
        "link": "https://console.example/q/q_1",
    }
    assert json.loads(generic(notice(STANDING, link)))["grant"] == {
        "for_s": 3600.0,
        "uses": 3,
        "session": False,
        "matching": True,
    }


def test_slack_body_is_blocks_with_a_link_and_no_button() -> None:
    """A heading, facts, and a place to look: nothing in it answers."""
    message = json.loads(slack(notice(QUESTION, link)))
    assert [block["type"] for block in message["blocks"]] == ["header", "section", "section"]
    assert message["blocks"][2]["text"]["text"] == "<https://console.example/q/q_1|Look and answer>"
    assert "`refunds-need-a-lead`" in message["blocks"][1]["text"]["text"]
    assert not {"actions", "button"} & set(json.dumps(message).split('"'))
    assert len(json.loads(slack(notice(QUESTION, lambda id: None)))["blocks"]) == 2


@pytest.mark.parametrize(
    "hostile",
    [
        "<!channel>",
        "<@U123>",
        "<https://evil.example|Approve>",
        "*bold* `code` _x_",
        "a\nb",
        "\u202e",
        "\x1b[2J",
        "&lt;",
    ],
)
def test_foreign_text_is_text_in_slack(hostile: str) -> None:
    """A skill or a name cannot mention a channel, make a link, or leave its place."""
    question = replace(
        QUESTION,
        skill=f"x{hostile}",
        requester=Principal("local", hostile),
        rules=(MatchedRule(hostile, Effect.ASK, "p", 1),),
    )
    raw = slack(notice(question, lambda id: None))
    message = json.loads(raw)
    facts = message["blocks"][1]["text"]["text"]
    assert raw.isascii()
    for text in (facts, message["text"]):
        assert not {"<", ">"} & set(text)
        assert all(line.isprintable() for line in text.split("\n"))
    assert message["mrkdwn"] is False
    assert message["blocks"][1]["text"]["verbatim"] is True
    assert len(facts.split("\n")) == len(
        json.loads(slack(notice(QUESTION, link)))["blocks"][1]["text"]["text"].split("\n")
    )
    assert all(line.count("`") in (0, 2) for line in facts.split("\n"))


def test_long_names_are_cut_in_slack() -> None:
    """Slack takes 3,000 characters of a section; a name of 10,000 does not lose the message."""
    long = "&" * 10_000
    vote = Vote(Principal("local", long), True, "", 1.0)
    question = replace(
        QUESTION,
        skill=long,
        requester=Principal("local", long),
        rules=(MatchedRule(long, Effect.ASK, "p", 1),) * 20,
        votes=(vote,),
    )
    message = json.loads(slack(notice(question, link)))
    assert all(len(block["text"]["text"]) <= 3_000 for block in message["blocks"])
