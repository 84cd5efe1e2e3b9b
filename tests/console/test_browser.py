"""The console in a real browser: from inbox to result, by mouse and by keys, under attack, and in a race."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import httpx2
import pytest

from interposer.canonical import canonical
from interposer.desk import Proposal
from interposer.model import Approval, Decision, Effect, Kind, Principal, QuestionState
from tests.console.browser import Driver, Window, chromium
from tests.console.rooms import ANNA, BELA, CAP, HARSH, RULE, TERMS, Room, call, hidden, room, skill
from tests.console.strings import HUGE, NAUGHTY


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


class RealClock:
    """The machine's."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@asynccontextmanager
async def served(**more: Any) -> AsyncIterator[Room]:
    """A console on a real socket."""
    async with room(on_clock=RealClock(), **more) as here, anyio.create_task_group() as tasks:
        tasks.start_soon(here.console.serve)
        tasks.start_soon(here.desk.run)
        yield here
        tasks.cancel_scope.cancel()


async def enter(window: Window, here: Room, person: Principal = ANNA, to: str = "") -> str:
    """Log in as people do: open the address. Gives the console's base address."""
    await window.go((await here.console.login(person, to))["url"])
    await window.until("return location.pathname !== '/login' && document.readyState === 'complete'")
    await window.until_text("live", "#live")
    return here.console.listener.base


async def test_a_call_is_approved_from_the_inbox_and_its_caller_gets_it(driver: Driver) -> None:
    """The held call appears by itself, is opened, approved with a reason, and goes ahead while the page tells."""
    async with served() as here, driver.windows() as (window,), anyio.create_task_group() as tasks:
        await enter(window, here)
        await window.until_text("No call waits for you.")
        got: list[Approval] = []

        async def held() -> None:
            decision = Decision(Effect.ASK, (RULE,), "policy-1", "asks", terms=TERMS)
            got.append(await here.desk.obtain(call({"amount": 90}), decision, hold_s=20.0))

        tasks.start_soon(held)
        await window.until_text("payments.refund", "#inbox")
        await window.click(".row a")
        await window.until_text("Approve once")
        await window.type("#yes-reason", "customer called")
        await window.click("#approve")
        await window.until_text("Your approval counts.")
        with anyio.fail_after(5):
            while not got:
                await anyio.sleep(0.01)
        assert got[0].approvers == ("operator:anna",)
        await window.until_text("consumed", "#status")
        question = await here.desk.get(got[0].question)
        assert question.votes[0].reason == "customer called"


async def test_keys_lead_through_it(driver: Driver) -> None:
    """j and k move, Enter opens, a and d go to the answers, i goes back, ? lists them; typing is not taken for keys."""
    async with served() as here, driver.windows() as (window,):
        first, second = await here.ask({"n": 1}), await here.ask({"n": 2})
        await enter(window, here)
        await window.press("j")
        assert await window.focus() == f"/q/{first.id}"
        await window.press("j")
        assert await window.focus() == f"/q/{second.id}"
        await window.press("k")
        assert await window.focus() == f"/q/{first.id}"
        await window.press("\ue007")
        await window.until_text("Your answer")
        await window.press("a")
        assert await window.focus() == "approve"
        await window.press("d")
        assert await window.focus() == "no-reason"
        await window.type("#no-reason", "jade")
        assert await window.focus() == "no-reason"
        await window.press("\ue007")
        await window.until_text("Denied.")
        assert (await here.desk.get(first.id)).votes[0].reason == "jade"
        await window.press("?")
        await window.until("return document.querySelector('#keys').open")
        await window.press("\ue00c")
        await window.press("i")
        await window.until("return location.pathname === '/'")


async def test_naughty_strings_stay_text(driver: Driver) -> None:
    """As arguments, skills, callers, reasons, clients and figures: no element, no script, no request comes of them."""
    rows = [{"id": one, "opened_at": 1.0, "last_at": 1.0, "client": one, "callers": [one]} for one in NAUGHTY]
    async with served(sessions=rows) as here, driver.windows() as (window,):
        about = {str(number): one for number, one in enumerate(NAUGHTY)} | dict.fromkeys(NAUGHTY, 1)
        every = await here.ask(about, terms=replace(TERMS, cap=CAP, quorum=2))
        other = canonical({"a": NAUGHTY[0], "b": [one for one in NAUGHTY if len(one) < 1_000]})
        await here.desk.vote(every.id, BELA, True, "".join(NAUGHTY)[:1500], proposal=Proposal(other, None))
        paths = [f"/q/{every.id}", f"/q/{every.id}/arguments"]
        for number in range(0, len(NAUGHTY), 4):
            some = (NAUGHTY + NAUGHTY)[number : number + 4]
            who = Principal("local", some[0] or "nobody", (some[-1],))
            question = await here.ask({"x": number}, of=skill(some[1] or "nothing"), by=who)
            await here.desk.vote(question.id, Principal("operator", some[3] or "x"), False, some[2].strip() or "no")
        huge = await here.ask({"a": HUGE, "b": 1})
        paths += [f"/q/{huge.id}", f"/q/{question.id}", "/", "/history", "/sessions", "/grants"]
        base = await enter(window, here)
        for path in paths:
            await window.go(base + path)
            await window.until("return document.readyState === 'complete'")
            found = await window.run(_INSPECT)
            assert found == {"foreign": [], "requests": [], "alarm": False, "attributes": []}, path
            if path.startswith("/q/") and path.endswith(every.id):
                assert "window.xss=1" in await window.text("main")
                await window.run("for (const one of document.querySelectorAll('details')) one.open = true")
                await window.click("form[action$=compare] button")
                await window.until_text("What changes")
                assert (await window.run(_INSPECT))["foreign"] == []
        assert Kind.GRANTED not in [row.kind for row in here.store.records]


_INSPECT = """
const ours = new Set(("html head meta title link script body a header img nav form input span bdi button main div h1 "
  + "h2 h3 p article section pre code dl dt dd ul li details summary label select option textarea dialog kbd time "
  + "table thead tbody tr th td noscript").split(" "));
const every = [...document.querySelectorAll("*")];
const named = every.filter((it) => !ours.has(it.localName) || it.id === "xss" || it.getAttribute("name") === "xss");
const bad = ["style", "srcdoc", "formaction", "background"];
return {
  foreign: named.map((it) => it.outerHTML.slice(0, 80)),
  requests: performance.getEntriesByType("resource").map((it) => it.name).filter((it) => it.includes("xss")
    || !it.startsWith(location.origin + "/")),
  alarm: window.xss !== undefined && !(window.xss instanceof Element),
  attributes: every.flatMap((it) => [...it.attributes]).filter((it) => it.name.startsWith("on")
    || bad.includes(it.name) || /^\\s*(javascript|data):/i.test(it.value) && it.name !== "value").map((it) => it.name),
};
"""


async def test_a_link_from_elsewhere_finds_whoever_is_logged_in(driver: Driver) -> None:
    """Strict cookies do not come with a link in a message: the page goes on by itself, and asks nobody to log in."""
    async with served() as here, driver.windows() as (window,):
        question = await here.ask()
        base = await enter(window, here)
        await window.go(f"data:text/html,<a id=it href='{base}/q/{question.id}'>a message</a>")
        await window.click("#it")
        await window.until_text("Your answer")


async def test_a_stolen_cookie_answers_nothing(driver: Driver) -> None:
    """Cookies know no ports: a server on another port of this host gets the cookie of whoever opens its pages. What it
    cannot get is the key that the browser keeps for the console's origin."""
    async with served() as here, driver.windows() as (window,), httpx2.AsyncClient(trust_env=False) as thief:
        question = await here.ask()
        await window.ask("DELETE", "/cookie")
        base = await enter(window, here, ANNA, question.id)
        (cookie,) = [
            each for each in await window.ask("GET", "/cookie") if each["name"] == here.console.listener.cookie
        ]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        stolen = {"cookie": f"{cookie['name']}={cookie['value']}", "origin": base}
        page = (await thief.get(f"{base}/q/{question.id}", headers=stolen)).text
        form = {"csrf": hidden(page, "csrf"), "version": hidden(page, "version"), "scope": "once"}
        for key in ({}, {"key": ""}, {"key": "0" * 64}):
            answer = await thief.post(f"{base}/q/{question.id}/approve", data={**form, **key}, headers=stolen)
            assert answer.status_code == 403
        assert (await here.desk.get(question.id)).state is QuestionState.OPEN
        await window.click("#approve")
        await window.until_text("Your approval counts.")


async def test_two_approvers_race(driver: Driver) -> None:
    """Yes in one browser and no in another at the same moment: one decision, both told, both on the record."""
    async with served() as here, driver.windows(2) as (one, two):
        question = await here.ask()
        await enter(one, here, ANNA, question.id)
        await enter(two, here, BELA, question.id)
        await two.type("#no-reason", "not today")
        async with anyio.create_task_group() as both:
            both.start_soon(one.run, "document.querySelector('#approve').form.requestSubmit()")
            both.start_soon(two.run, "document.querySelector('#deny').form.requestSubmit()")
        for window in (one, two):
            await window.until("return document.querySelector('[role=alert]:not([hidden]), .told') !== null")
        ended = await here.desk.get(question.id)
        assert ended.state in (QuestionState.GRANTED, QuestionState.DENIED)
        won, lost = (one, two) if ended.state is QuestionState.GRANTED else (two, one)
        assert await won.count(".told") == 1
        assert "came too late" in await lost.text("[role=alert]:not([hidden])")
        assert (await lost.address()).endswith(f"/q/{question.id}")
        said = [(row.kind, row.code) for row in here.store.records if row.question == question.id]
        assert (Kind.ALARM, "vote_ended") in said
        assert len([kind for kind, _ in said if kind in (Kind.GRANTED, Kind.QUESTION_DENIED)]) == 1
        assert len([kind for kind, _ in said if kind is Kind.VOTED]) == 1


async def test_a_page_follows_what_others_do(driver: Driver) -> None:
    """Votes, other versions and ends appear without a reload; what was typed stays."""
    async with served() as here, driver.windows() as (window,):
        question = await here.ask({"amount": 90}, terms=replace(TERMS, quorum=3))
        await enter(window, here, ANNA, question.id)
        await window.type("#yes-reason", "half typed")
        await here.desk.vote(question.id, BELA, True, "looks right")
        await window.until_text("looks right", "#status")
        cleo = Principal("operator", "cleo", uid=2003)
        await here.desk.vote(question.id, cleo, True, proposal=Proposal(canonical({"amount": 9}), None))
        await window.until("return !document.querySelector('#changed').hidden")
        await here.desk.vote(question.id, BELA, False, "no after all")
        await window.until("return document.querySelector('[data-answer]').hidden")
        assert await window.run("return document.querySelector('#yes-reason').value") == "half typed"
        assert "denied" in await window.text("#status")


async def test_buttons_wait_for_the_reading(driver: Driver) -> None:
    """A destructive call's button opens after its time; a long one's when the whole has been opened."""
    async with served() as here, driver.windows() as (window,):
        question = await here.ask({"pad": "x" * 5_000, "amount": 5}, of=HARSH)
        base = await enter(window, here, ANNA, question.id)
        assert await window.run("return document.querySelector('#approve').disabled")
        await window.click("main .note a")
        await window.until("return document.querySelector('#back') !== null")
        await window.click("#back")
        await window.until("return location.pathname.startsWith('/q/') && !!document.querySelector('#approve')")
        await window.until("return !document.querySelector('#approve').disabled")
        await window.click("#approve")
        await window.until_text("Your approval counts.")
        assert (await window.address()).startswith(base)


async def test_it_fits_a_phone_and_reads_well(driver: Driver) -> None:
    """At 390 pixels nothing is wider than the screen; in light and dark, every text has a contrast of 4.5 or more."""
    async with served() as here, driver.windows() as (window,):
        question = await here.ask({"to": "x" * 300, "amount": 90}, terms=replace(TERMS, cap=CAP), of=HARSH)
        base = await enter(window, here)
        await window.resize(390, 844)
        for scheme in ("light", "dark"):
            await window.scheme(scheme)
            for path in ("/", f"/q/{question.id}", "/grants", "/history", "/sessions", "/login?token=x"):
                await window.go(base + path)
                await window.until("return document.readyState === 'complete'")
                assert await window.run("return document.documentElement.scrollWidth <= innerWidth"), path
                assert await window.run(_CONTRAST) == [], (scheme, path)
        await window.resize(1100, 860)
        await window.scheme("light")


_CONTRAST = """
const channels = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (rgb) => rgb.slice(0, 3).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
const ground = (it) => {
  for (; it; it = it.parentElement) {
    const rgb = channels(getComputedStyle(it).backgroundColor);
    if (rgb.length < 4 || rgb[3] > 0) return rgb;
  }
  return [255, 255, 255];
};
const bad = [];
for (const it of document.querySelectorAll("body *")) {
  const own = [...it.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || it.disabled || !it.checkVisibility()) continue;
  const [a, b] = [light(channels(getComputedStyle(it).color)), light(ground(it))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) bad.push([it.localName, it.className, it.textContent.slice(0, 20)]);
}
return bad;
"""


async def test_labels_and_landmarks_are_there(driver: Driver) -> None:
    """Every field has a label, every button a name, headings do not skip, and focus is seen."""
    async with served() as here, driver.windows() as (window,):
        question = await here.ask(terms=replace(TERMS, cap=CAP))
        await enter(window, here, ANNA, question.id)
        faults = await window.run(
            "const fields = [...document.querySelectorAll('input:not([type=hidden]), select, textarea')];"
            "const levels = [...document.querySelectorAll('h1, h2, h3')].map((it) => Number(it.localName[1]));"
            "return {fields: fields.filter((it) => !it.labels.length).map((it) => it.id),"
            " buttons: [...document.querySelectorAll('button')].filter((it) => !it.textContent.trim()).length,"
            " skipped: levels.some((level, at) => level > (levels[at - 1] ?? 0) + 1),"
            " ones: levels.filter((level) => level === 1).length,"
            " twice: [...document.querySelectorAll('[id]')].map((it) => it.id)"
            "  .filter((id, at, every) => every.indexOf(id) !== at)}"
        )
        assert faults == {"fields": [], "buttons": 0, "skipped": False, "ones": 1, "twice": []}


async def test_it_works_without_script(driver: Driver) -> None:
    """Log in, read, approve: with scripts switched off."""
    async with served() as here, driver.windows() as (window,):
        question = await here.ask()
        await window.cdp("Emulation.setScriptExecutionDisabled", value=True)
        try:
            await window.go((await here.console.login(ANNA, question.id))["url"])
            await window.click("main button")
            await window.click("#approve")
            assert (await window.address()).endswith("?told=approved")
        finally:
            await window.cdp("Emulation.setScriptExecutionDisabled", value=False)
        assert (await here.desk.get(question.id)).state is QuestionState.GRANTED


async def test_an_address_that_logs_nobody_in_breaks_no_login(driver: Driver) -> None:
    """Any page can lead to the form of a wrong token: the browser keeps its key, and answers afterwards; after a real
    new login as well."""
    async with served() as here, driver.windows() as (window,):
        first, second = await here.ask({"n": 1}), await here.ask({"n": 2})
        base = await enter(window, here)
        await window.go(f"{base}/login?token=junk")
        await window.until_text("This address was used already")
        await window.go(f"{base}/q/{first.id}")
        await window.click("#approve")
        await window.until_text("Your approval counts.")
        await enter(window, here, ANNA, second.id)
        await window.click("#approve")
        await window.until_text("Your approval counts.")


async def test_a_tab_with_all_arguments_follows_too(driver: Driver) -> None:
    """Amended while they are before somebody: the tab says so, and the new ones stay unopened."""
    async with served() as here, driver.windows() as (window,):
        question = await here.ask({"pad": "x" * 5_000}, terms=replace(TERMS, quorum=2))
        base = await enter(window, here, ANNA, question.id)
        await window.go(f"{base}/q/{question.id}/arguments")
        await window.until_text("live", "#live")
        await here.desk.vote(question.id, BELA, True, proposal=Proposal(canonical({"pad": "y" * 5_000}), None))
        await window.until("return !document.querySelector('#changed').hidden")
        await window.go(f"{base}/q/{question.id}")
        assert await window.run("return document.querySelector('#approve').disabled")
