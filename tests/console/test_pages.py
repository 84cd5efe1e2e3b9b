"""The pages: what they show, what their forms do, and what the server refuses whatever a page says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from interposer.ballot import version_of
from interposer.canonical import canonical
from interposer.console import texts
from interposer.desk import Proposal
from interposer.model import Kind, Principal, QuestionState
from interposer.terms import ApprovalTerms, GrantSpec, Window
from tests.console.rooms import ANNA, BELA, CAP, HARSH, TERMS, Room, hidden, room

LEAD = Principal("https://idp.example", "lena", ("leads",))
CAPPED = replace(TERMS, cap=CAP)


async def state(here: Room, id: str) -> QuestionState:
    return (await here.desk.get(id)).state


async def test_a_call_is_shown_whole_and_approved() -> None:
    """The page has who, what, digest, rule and masking; a yes from it grants the question."""
    async with room() as here:
        question = await here.ask({"to": "José", "amount": 90, "copy": "jose@example.com"})
        anna = await here.anna()
        assert f"/q/{question.id}" in (await anna.get("/")).text
        page = (await anna.get(f"/q/{question.id}")).text
        for shown in ("payments.refund", "local:agent", "Jos\\u00e9", question.digest, "policy.yaml:7", "effect: ask"):
            assert shown in page
        assert "email ×1" in page
        answer = await anna.act("approve", question, scope="once", reason="fine")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/q/{question.id}?told=approved")
        assert await state(here, question.id) is QuestionState.GRANTED


async def test_a_no_needs_a_reason() -> None:
    """Deny without a reason changes nothing; with one it ends the question."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        assert (await anna.act("deny", question, reason="  ")).status_code == 409
        assert await state(here, question.id) is QuestionState.OPEN
        assert (await anna.act("deny", question, reason="no ticket")).status_code == 303
        assert await state(here, question.id) is QuestionState.DENIED


async def test_a_vote_is_about_the_version_that_was_seen() -> None:
    """Who looked at another version than the one on the table is refused and shown the new one."""
    async with room() as here:
        question, anna = await here.ask(terms=replace(TERMS, quorum=2)), await here.anna()
        seen = hidden((await anna.get(f"/q/{question.id}")).text, "version")
        await here.desk.vote(question.id, BELA, True, proposal=Proposal(canonical({"amount": 9}), None))
        answer = await anna.send("approve", question, version=seen, scope="once")
        assert answer.status_code == 409
        assert "look again" in answer.text
        assert "&#34;amount&#34;: 9" in answer.text
        none = await anna.send("approve", question, version="", scope="once")
        assert none.status_code == 409
        assert await state(here, question.id) is QuestionState.OPEN


async def test_nobody_approves_what_they_were_never_shown() -> None:
    """The right version alone is not enough: the page must have been served to this login, whole, not in parts."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        await anna.get(f"/q/{question.id}", **{"x-part": "1"})
        answer = await anna.send("approve", question, version=version_of(question), scope="once")
        assert answer.status_code == 409
        assert await state(here, question.id) is QuestionState.OPEN


async def test_destructive_calls_need_their_reading_time() -> None:
    """The server counts from when it first sent the page, whatever the button says."""
    async with room() as here:
        question, anna = await here.ask(of=HARSH), await here.anna()
        await anna.get(f"/q/{question.id}")
        here.clock.pass_s(1.4)
        early = await anna.act("approve", question, scope="once")
        assert early.status_code == 409
        assert "1.5 seconds of reading" in early.text
        here.clock.pass_s(0.2)
        assert (await anna.act("approve", question, scope="once")).status_code == 303


async def test_policy_may_ask_for_a_longer_reading_time() -> None:
    """`reading_s` of the terms counts for mild calls too, and for breaking glass."""
    async with room() as here:
        question, anna = await here.ask(terms=replace(TERMS, reading_s=20.0)), await here.anna()
        await anna.get(f"/q/{question.id}")
        here.clock.pass_s(19.0)
        assert (await anna.act("approve", question, scope="once")).status_code == 409
        assert (await anna.act("break-glass", question, reason="fire")).status_code == 409
        here.clock.pass_s(1.0)
        assert (await anna.act("approve", question, scope="once")).status_code == 303


async def test_long_arguments_must_be_opened() -> None:
    """Beyond 4 KB the page shows an outline with every member, and no yes counts before the whole was opened."""
    async with room() as here:
        question, anna = await here.ask({"aaa": "x" * 1_000_000, "amount": 90}), await here.anna()
        page = (await anna.get(f"/q/{question.id}")).text
        assert "&#34;amount&#34;: 90" in page
        assert len(page) < 30_000
        assert 'id="approve" disabled' in page
        refused = await anna.act("approve", question, scope="once")
        assert refused.status_code == 409
        assert "Open the whole" in refused.text
        assert "x" * 1_000_000 in (await anna.get(f"/q/{question.id}/arguments")).text
        assert 'id="approve" disabled' not in (await anna.get(f"/q/{question.id}")).text
        assert (await anna.act("approve", question, scope="once")).status_code == 303


async def test_what_one_login_has_read_does_not_count_for_another() -> None:
    """Opening and reading are each person's own, in each browser."""
    async with room() as here:
        question, anna, bela = await here.ask({"a": "x" * 5000}), await here.anna(), await here.anna(BELA)
        await anna.get(f"/q/{question.id}/arguments")
        assert (await bela.act("approve", question, scope="once")).status_code == 409
        assert (await anna.act("approve", question, scope="once")).status_code == 303


async def test_a_standing_grant_is_given_within_its_cap_and_taken_back() -> None:
    """Uses, time and schema go to the desk as they were filled in; more than policy allows is refused."""
    async with room() as here:
        question, anna = await here.ask(terms=CAPPED), await here.anna()
        wish = {"scope": "grant", "for": "30", "unit": "m", "uses": "3", "reason": "all week", "session": "yes"}
        assert (await anna.act("approve", question, **{**wish, "uses": "6"})).status_code == 409
        assert (await anna.act("approve", question, **{**wish, "for": "2", "unit": "h"})).status_code == 409
        assert (await anna.act("approve", question, **{**wish, "reason": ""})).status_code == 409
        assert (await anna.act("approve", question, **{**wish, "uses": "1e9"})).status_code == 409
        assert (await anna.act("approve", question, **wish)).status_code == 303
        (grant,) = await here.desk.grants()
        assert (grant.uses, grant.session, grant.expires_at - grant.given_at) == (2, "s_1", 1800.0)
        assert "payments.refund" in (await anna.get("/grants")).text
        csrf = await anna.csrf()
        assert (await anna.post(f"/grants/{grant.id}/revoke", csrf=csrf, reason="")).status_code == 409
        assert (await anna.post(f"/grants/{grant.id}/revoke", csrf=csrf, reason="over")).status_code == 303
        assert await here.desk.grants() == []


async def test_the_schema_that_is_suggested_matches_this_call_alone() -> None:
    """A grant by schema starts from one that only these arguments match."""
    async with room() as here:
        question, anna = await here.ask(terms=CAPPED), await here.anna()
        page = (await anna.get(f"/q/{question.id}")).text
        assert "&#34;const&#34;: 90" in page
        amount, to = '{"type":"number","maximum":100}', '{"type":"string"}'
        members = f'{{"amount":{amount},"to":{to}}}'
        schema = f'{{"type":"object","properties":{members},"additionalProperties":false}}'
        wish = {"scope": "grant", "for": "1", "unit": "h", "uses": "2", "reason": "small ones", "matching": "yes"}
        assert (await anna.act("approve", question, **wish, schema="{not json")).status_code == 409
        assert (await anna.act("approve", question, **wish, schema=schema)).status_code == 303
        (grant,) = await here.desk.grants()
        assert b"maximum" in grant.schema
        assert "maximum" in (await anna.get("/grants")).text


async def test_no_grant_where_policy_allows_one_call_only() -> None:
    """Without a cap there is no form for more, and a forged one is refused."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        assert "Approve for…" not in (await anna.get(f"/q/{question.id}")).text
        forged = {"scope": "grant", "for": "1", "unit": "m", "uses": "1", "reason": "x"}
        assert (await anna.act("approve", question, **forged)).status_code == 409
        assert (await anna.act("approve", question, scope="everything")).status_code == 409


async def test_other_arguments_are_compared_and_then_approved() -> None:
    """The comparison shows both versions and changes nothing; the yes is to the new ones alone."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        page = await anna.act("compare", question, arguments='{"amount": 45,\r\n "to": "shop"}')
        assert page.status_code == 200
        assert "&#34;amount&#34;: 90" in page.text
        assert "&#34;amount&#34;: 45" in page.text
        assert (await here.desk.get(question.id)).amended == b""
        answer = await anna.act("approve", question, scope="once", arguments='{"amount": 45, "to": "shop"}')
        assert answer.status_code == 303
        granted = await here.desk.get(question.id)
        assert (granted.state, granted.amended) == (QuestionState.GRANTED, b'{"amount":45,"to":"shop"}')
        again = (await anna.get(f"/q/{question.id}")).text
        assert "Changed by an approver" in again


async def test_arguments_are_read_strictly() -> None:
    """Doubled members, what is no object, and what is no JSON are refused with a constant."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        for wrong in ('{"a":1,"a":2}', "[1]", "{", '{"a":NaN}', "", '{"a":"\\ud800"}'):
            answer = await anna.act("compare", question, arguments=wrong)
            assert answer.status_code == 409, wrong
            assert (await anna.act("approve", question, scope="once", arguments=wrong)).status_code == 409
        assert await state(here, question.id) is QuestionState.OPEN


async def test_what_was_proposed_is_approved_as_it_stands() -> None:
    """The second of two sees the grant that the first proposed, and agrees to it."""
    async with room() as here:
        question, anna = await here.ask(terms=replace(CAPPED, quorum=2)), await here.anna()
        await here.desk.vote(question.id, BELA, True, "ok", proposal=Proposal(b"", GrantSpec(600.0, 2)))
        assert "On the table: 2 calls within 10 min" in (await anna.get(f"/q/{question.id}")).text
        assert (await anna.act("approve", question, scope="proposed")).status_code == 303
        (grant,) = await here.desk.grants()
        assert grant.approvers == ("operator:bela", "operator:anna")


async def test_glass_is_broken_by_those_who_may() -> None:
    """One person overrides a quorum, with a reason and an alarm; who may not sees no such form."""
    async with room() as here:
        question = await here.ask(terms=replace(TERMS, quorum=3))
        anna, bela = await here.anna(), await here.anna(BELA)
        assert "break-glass" not in (await bela.get(f"/q/{question.id}")).text
        assert (await bela.act("break-glass", question, reason="me too")).status_code == 409
        assert (await anna.act("break-glass", question, reason="")).status_code == 409
        assert (await anna.act("break-glass", question, reason="outage")).status_code == 303
        assert await state(here, question.id) is QuestionState.GRANTED
        assert Kind.BROKE_GLASS in [row.kind for row in here.store.records]


async def test_an_unused_yes_is_taken_back() -> None:
    """Revoking a granted question ends its yes."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        await anna.act("approve", question, scope="once")
        assert (await anna.act("revoke", question, reason="wrong one")).status_code == 303
        assert await state(here, question.id) is not QuestionState.GRANTED


async def test_approvers_see_what_they_may_answer_and_viewers_everything() -> None:
    """Who logged in elsewhere finds neither lists nor pages of other people's questions; operators see all."""
    async with room(viewers=["vera"]) as here:
        hers = await here.ask({"n": 1}, terms=ApprovalTerms(groups=frozenset({"leads"}), expires_s=600.0))
        other = await here.ask({"n": 2}, terms=ApprovalTerms(groups=frozenset({"dba"}), expires_s=600.0))
        lena = await here.anna(LEAD)
        inbox = (await lena.get("/")).text
        assert hers.id in inbox
        assert f"/q/{other.id}" not in inbox
        for path in (f"/q/{other.id}", f"/q/{other.id}/arguments", "/q/q_none", "/q/..%2f", "/sessions"):
            assert (await lena.get(path)).status_code == 404, path
        assert (await lena.act("deny", other.id, reason="mine now")).status_code == 404
        vera = await here.anna(Principal("https://idp.example", "vera"))
        page = (await vera.get(f"/q/{other.id}")).text
        assert "not among the approvers" in page
        assert (await vera.act("approve", other, scope="once")).status_code == 409
        anna = await here.anna(ANNA)
        assert (await anna.get(f"/q/{other.id}")).status_code == 200


async def test_a_page_says_what_a_call_needs_and_when() -> None:
    """Who has to agree stands in words, and outside of the hours the button does nothing."""
    closed = ((Window(frozenset(), 0, 1, "Europe/Berlin"),),)
    terms = ApprovalTerms(
        groups=frozenset({"leads"}), quorum=2, minima=(("legal", 1),), windows=closed, expires_s=600.0
    )
    async with room() as here:
        question, anna = await here.ask(terms=terms), await here.anna(LEAD)
        page = (await anna.get(f"/q/{question.id}")).text
        assert "2 yes from group leads or group legal, with at least 1 of group legal" in page
        assert "Pays money back. &lt;b&gt;Approve&lt;/b&gt;" in page
        assert "\u202e" not in page
        assert "in the hours above only" in page
        assert 'id="approve" disabled' in page


async def test_nobody_approves_their_own_call() -> None:
    """The desk's rule holds at the console, and is told."""
    async with room() as here:
        question, anna = await here.ask(by=Principal("local", "anna", uid=5)), await here.anna()
        answer = await anna.act("approve", question, scope="once")
        assert answer.status_code == 409
        assert "cannot answer for it" in answer.text


async def test_similar_calls_are_shown_with_how_they_ended_and_what_differs() -> None:
    """Earlier calls of the skill, their reasons, and the members that changed since."""
    async with room() as here:
        before = await here.ask({"amount": 60, "to": "shop"})
        await here.desk.vote(before.id, BELA, True, "known customer")
        here.clock.pass_s(5.0)
        question, anna = await here.ask({"amount": 90, "to": "shop"}), await here.anna()
        page = (await anna.get(f"/q/{question.id}")).text
        assert "known customer" in page
        assert "Different from the last one" in page
        assert f"/q/{before.id}" in page


async def test_history_and_sessions_are_listed() -> None:
    """Decisions with reasons and figures; sessions with their clients, for those who see everything."""
    row = {"id": "s_9", "opened_at": 1.0, "last_at": 2.0, "client": "<b>cursor</b>", "callers": ["local:x"]}
    async with room(sessions=[row]) as here:
        question, anna = await here.ask(), await here.anna()
        await here.desk.vote(question.id, BELA, False, "too much")
        page = (await anna.get("/history?page=1")).text
        assert "too much" in page
        assert "operator:bela" in page
        assert "0 %" in page
        assert (await anna.get("/history?page=junk")).status_code == 200
        listed = (await anna.get("/sessions")).text
        assert "&lt;b&gt;cursor&lt;/b&gt;" in listed


async def test_what_the_script_fetches_opens_nothing() -> None:
    """A tab with all of the arguments, refreshed after somebody amended them, leaves the new ones unopened."""
    async with room() as here:
        question = await here.ask({"pad": "x" * 5_000}, terms=replace(TERMS, quorum=2))
        anna = await here.anna()
        assert "data-version=" in (await anna.get(f"/q/{question.id}/arguments")).text
        amended = canonical({"pad": "y" * 5_000})
        await here.desk.vote(question.id, BELA, True, proposal=Proposal(amended, None))
        version = version_of(await here.desk.get(question.id))
        for headers in ({"x-part": "1"}, {"sec-fetch-mode": "cors"}):
            part = (await anna.get(f"/q/{question.id}/arguments", **headers)).text
            assert f'data-version="{version}"' in part
            assert "yyyy" not in part
        assert (await anna.act("approve", question, scope="proposed")).status_code == 409
        await anna.get(f"/q/{question.id}/arguments", **{"sec-fetch-mode": "navigate"})
        assert (await anna.act("approve", question, scope="proposed")).status_code == 303


async def test_a_cookie_alone_reads_for_nobody() -> None:
    """Where the browser has a key, pages count as read when its script says so with it: what another server of this
    host fetches with the cookie takes no reading off the person."""
    async with room() as here:
        key = "ab" * 32
        question, anna = await here.ask({"pad": "x" * 6_000}, of=HARSH), await here.anna(key=key)
        version = version_of(question)
        sent = {"csrf": await anna.csrf(), "version": version}
        for page in ("", "/arguments"):
            await anna.get(f"/q/{question.id}{page}")
        for path in ("seen", "opened"):
            assert (await anna.post(f"/q/{question.id}/{path}", **sent)).status_code == 403
        here.clock.pass_s(5.0)
        keyed = {**sent, "key": key}
        refused = await anna.post(f"/q/{question.id}/approve", **keyed, scope="once")
        assert (refused.status_code, "not the version that you were shown" in refused.text) == (409, True)
        assert (await anna.post(f"/q/{question.id}/seen", **{**keyed, "version": "other"})).status_code == 204
        assert (await anna.post(f"/q/{question.id}/approve", **keyed, scope="once")).status_code == 409
        for path in ("seen", "opened"):
            assert (await anna.post(f"/q/{question.id}/{path}", **keyed)).status_code == 204
        assert (await anna.post(f"/q/{question.id}/approve", **keyed, scope="once")).status_code == 409
        here.clock.pass_s(1.5)
        assert (await anna.post(f"/q/{question.id}/approve", **keyed, scope="once")).status_code == 303


async def test_many_lines_are_long() -> None:
    """Less than 4 KB on more than 40 lines must be opened too; what is shown whole has no scroll bar of its own."""
    async with room() as here:
        many = await here.ask({"a": [[] for _ in range(900)], "z": "pay a million"})
        few, anna = await here.ask(), await here.anna()
        assert (await anna.act("approve", many, scope="once")).status_code == 409
        await anna.get(f"/q/{many.id}/arguments")
        assert (await anna.act("approve", many, scope="once")).status_code == 303
        assert '<pre class="code whole"' in (await anna.get(f"/q/{few.id}")).text


async def test_calls_go_on_while_megabytes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text of a call is laid out or compared on the event loop, however long it is."""
    async with room() as here:
        question = await here.ask({"a": "é" * 480_000}, terms=replace(TERMS, quorum=2))
        await here.desk.vote(question.id, BELA, True, proposal=Proposal(canonical({"a": "è" * 480_000}), None))
        anna = await here.anna()
        threads: set[int] = set()

        def watched(real: Callable[..., Any]) -> Callable[..., Any]:
            def run(*raw: bytes) -> Any:
                threads.add(threading.get_ident())
                return real(*raw)

            return run

        for name in ("difference", "whole", "outline"):
            monkeypatch.setattr(texts, name, watched(getattr(texts, name)))
        for page in ("", "/arguments"):
            assert (await anna.get(f"/q/{question.id}{page}")).status_code == 200
        await anna.act("compare", question, arguments='{"a": 1}')
        assert threads
        assert threading.get_ident() not in threads
