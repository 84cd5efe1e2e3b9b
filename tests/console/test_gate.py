"""The gate: which hosts, which forms, which headers."""

from __future__ import annotations

import pytest

from interposer.console.gate import CONTENT_SECURITY_POLICY
from interposer.model import QuestionState
from tests.console.rooms import room

HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


async def test_every_answer_carries_the_strict_headers() -> None:
    """Pages, files, redirects, faults and what the gate turns away: all the same."""
    async with room() as here:
        question, anna, nobody = await here.ask(), await here.anna(), here.visitor()
        answers = [
            *[await anna.get(path) for path in ("/", f"/q/{question.id}", "/grants", "/none", "/static/console.js")],
            *[await nobody.get(path) for path in ("/", "/login", "/events", "/static/console.css", "/static/icon.svg")],
            await nobody.get("/", host="evil.example"),
            await nobody.client.request("PUT", "/"),
            await nobody.post("/logout"),
        ]
        for answer in answers:
            assert HEADERS.items() <= dict(answer.headers).items(), answer.url
            assert "server" not in answer.headers


def test_the_policy_lets_no_foreign_thing_in() -> None:
    """Nothing inline, nothing from elsewhere, no frames, no other base."""
    assert CONTENT_SECURITY_POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )


async def test_no_page_has_inline_script_or_style() -> None:
    """What the policy would block is not there: no script text, no event attributes, no style attributes."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        for path in ("/", f"/q/{question.id}", "/grants", "/history", "/sessions", "/login?token=x"):
            page = (await anna.get(path)).text
            assert page.count("<script") == 1
            assert '<script src="/static/console.js" defer></script>' in page
            for never in (" style=", "<style", " onclick", "javascript:", "http://", "https://"):
                assert never not in page, (path, never)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example", ""])
async def test_other_hosts_are_not_answered(host: str) -> None:
    """DNS rebinding: a page that resolves its own name to us gets nothing, logged in or not."""
    async with room() as here:
        anna = await here.anna()
        answer = await anna.get("/", host=host)
        assert answer.status_code == 421
        assert "inbox" not in answer.text.lower()


@pytest.mark.parametrize(
    "sent",
    [
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "http://127.0.0.1:1", "sec-fetch-site": "same-site"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": ""},
        {"origin": "null", "sec-fetch-site": "none"},
        {"origin": "", "sec-fetch-site": ""},
    ],
)
async def test_forms_from_elsewhere_do_nothing(sent: dict[str, str]) -> None:
    """Cross-site, same-site from another port, sandboxed frames, and whoever says nothing of where they come from."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        anna.headers |= sent
        answer = await anna.act("approve", question, scope="once")
        assert answer.status_code == 403
        assert (await here.desk.get(question.id)).state is QuestionState.OPEN


async def test_a_browser_that_names_our_origin_is_heard() -> None:
    """An exact Origin is enough where a browser sends no Sec-Fetch-Site."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        anna.headers = {"origin": anna.base}
        assert (await anna.act("approve", question, scope="once")).status_code == 303


async def test_doubled_headers_are_nobodys() -> None:
    """Two Hosts, or two Origins, are read differently by different readers: refused."""
    async with room() as here:
        visitor = here.visitor()
        host = visitor.base.removeprefix("http://")
        assert (await visitor.client.get("/login", headers=[("host", host), ("host", host)])).status_code == 421
        forged = [("origin", visitor.base), ("origin", "https://evil.example"), ("host", host)]
        assert (await visitor.client.post("/logout", headers=forged)).status_code == 403


async def test_no_address_changes_anything() -> None:
    """GET of every address that a form posts to is not there, and no state changes by reading."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna()
        revision = here.desk.revision
        for path in ("approve", "deny", "break-glass", "compare", "revoke"):
            assert (await anna.get(f"/q/{question.id}/{path}?version=x&reason=y")).status_code == 405
        assert (await anna.get("/logout")).status_code == 405
        assert (await anna.get("/")).status_code == 200
        assert here.desk.revision == revision


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_other_pages_read_and_mark_nothing(site: str) -> None:
    """A page on another port is the same site: what it embeds is refused, and what it opens counts as read only when
    our own page has gone on from there."""
    async with room() as here:
        question, anna = await here.ask({"a": "x" * 5000}), await here.anna()
        for path in (f"/q/{question.id}/arguments", f"/q/{question.id}", "/events", "/static/console.js"):
            embedded = await anna.get(path, **{"sec-fetch-site": site, "sec-fetch-mode": "no-cors"})
            assert embedded.status_code == 403
        opened = await anna.get(f"/q/{question.id}/arguments", **{"sec-fetch-site": site, "sec-fetch-mode": "navigate"})
        assert f'content="0;url=/q/{question.id}"' in opened.text
        assert "payments" not in opened.text
        assert (await anna.act("approve", question, scope="once")).status_code == 409
        assert (await anna.client.head(f"/q/{question.id}/arguments")).status_code == 405
        assert (await anna.act("approve", question, scope="once")).status_code == 409
