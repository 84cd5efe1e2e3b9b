"""Logging in: one-time tokens, cookies, sessions, forms bound to them, and bounds."""

from __future__ import annotations

import anyio
import pytest

from interposer.console.console import SERVED_TOKEN_S
from interposer.console.logins import LOGINS, OWN_LOGINS, STREAMS, TOKENS, Logins
from interposer.console.place import Place
from interposer.model import Principal, QuestionState
from tests.console.rooms import ANNA, BELA, TurnedClock, hidden, room


async def test_a_token_logs_in_once() -> None:
    """Its address shows a form and logs nobody in; the form does, once."""
    async with room() as here:
        url = (await here.console.login(ANNA, "q_7"))["url"]
        path = url.removeprefix(here.console.listener.base)
        first, second = here.visitor(), here.visitor()
        page = (await first.get(path)).text
        assert "data-auto" in page
        assert (await first.get("/")).headers["location"] == "/login"
        form = {"token": hidden(page, "token"), "to": hidden(page, "to")}
        answer = await first.post("/login", **form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/q/q_7")
        assert (await first.get("/")).status_code == 200
        assert (await second.post("/login", **form)).status_code == 403
        assert (await second.get("/")).status_code == 303


async def test_a_token_is_over_after_its_time() -> None:
    """The one that `interposer console` prints lives two minutes, the one that `serve` prints fifteen."""
    async with room() as here:
        asked, served = (await here.console.login(ANNA))["url"], here.console.address(ANNA)
        here.clock.pass_s(121.0)
        visitor = here.visitor()
        assert (await visitor.post("/login", token=asked.partition("token=")[2])).status_code == 403
        here.clock.pass_s(SERVED_TOKEN_S - 122.0)
        assert (await visitor.post("/login", token=served.partition("token=")[2])).status_code == 303


@pytest.mark.parametrize("to", ["//evil.example", "../grants", "q_7/approve", "javascript:alert(1)", "q_7\r\nX: y"])
async def test_a_login_leads_nowhere_else(to: str) -> None:
    """Only the id of a question is followed."""
    async with room() as here:
        visitor = here.visitor()
        answer = await visitor.post("/login", token=here.console.logins.mint(ANNA, 60.0), to=to)
        assert answer.headers["location"] == "/"


async def test_the_cookie_is_strict_and_the_servers_own() -> None:
    """HttpOnly, SameSite=Strict, host-bound; Secure with the __Host- prefix over https; named by port without."""
    async with room() as here:
        visitor = here.visitor()
        said = (await visitor.post("/login", token=here.console.logins.mint(ANNA, 60.0))).headers["set-cookie"]
        port = here.console.listener.socket.getsockname()[1]
        assert said.startswith(f"interposer-{port}=")
        assert "HttpOnly" in said
        assert "SameSite=strict" in said
        assert "Secure" not in said
        assert "domain" not in said.lower()
    async with room(place=Place(url="https://console.example")) as here:
        visitor = here.visitor()
        visitor.client.base_url = "https://console.example"
        said = (await visitor.post("/login", token=here.console.logins.mint(ANNA, 60.0))).headers["set-cookie"]
        assert said.startswith("__Host-interposer=")
        assert "Secure" in said
        assert "Path=/" in said
        assert here.console.link("q_7") == "https://console.example/q/q_7"


async def test_a_form_belongs_to_one_login() -> None:
    """Another login's CSRF token, or none, does nothing."""
    async with room() as here:
        question, anna, bela = await here.ask(), await here.anna(), await here.anna(BELA)
        for csrf in (await bela.csrf(), "", "x" * 43, "é"):
            answer = await anna.act("approve", question, scope="once", csrf=csrf)
            assert answer.status_code == 403
        assert (await here.desk.get(question.id)).state is QuestionState.OPEN


async def test_a_session_ends() -> None:
    """After its time, and at once when somebody logs out; a page then leads to the login, and back."""
    async with room(session_s=100.0) as here:
        anna, bela = await here.anna(), await here.anna(BELA)
        assert (await anna.post("/logout", csrf=await anna.csrf())).headers["location"] == "/login"
        assert (await anna.get("/")).status_code == 303
        here.clock.pass_s(101.0)
        answer = await bela.get("/q/q_7")
        assert answer.headers["location"] == "/login?to=q_7"
        assert (await bela.post("/q/q_7/approve")).status_code == 403


async def test_failed_logins_are_counted_and_right_ones_pass() -> None:
    """Guessing is slowed down by address, and locks nobody out who has a token."""
    async with room() as here:
        visitor = here.visitor()
        codes = [(await visitor.post("/login", token=f"guess{n}")).status_code for n in range(12)]
        assert codes[:10] == [403] * 10
        assert codes[10:] == [429] * 2
        assert (await visitor.post("/login", token=here.console.logins.mint(ANNA, 60.0))).status_code == 303


async def test_forms_of_one_login_are_bounded() -> None:
    """Thirty a minute; what is beyond does nothing, and passes again later. What comes without the login's token and
    key counts for nothing."""
    async with room() as here:
        question, anna = await here.ask(), await here.anna(key="ab" * 32)
        csrf = await anna.csrf()
        for forged in ({}, {"csrf": "x"}, {"csrf": csrf}, {"csrf": csrf, "key": "cd" * 32}):
            for _ in range(31):
                assert (await anna.post(f"/q/{question.id}/deny", **forged)).status_code == 403
        keyed = {"csrf": csrf, "key": "ab" * 32}
        codes = [(await anna.post(f"/q/{question.id}/deny", **keyed)).status_code for _ in range(32)]
        assert codes[29:] == [409, 429, 429]
        here.clock.pass_s(60.0)
        assert (await anna.act("deny", question, reason="no", **keyed)).status_code == 303


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("application/json", b'{"csrf":"x"}', 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 70_000, 413),
        ("application/x-www-form-urlencoded", b"csrf=a&csrf=b", 400),
        ("application/x-www-form-urlencoded", b"a=%ff", 400),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(40)), 400),
    ],
)
async def test_forms_are_read_strictly(kind: str, body: bytes, code: int) -> None:
    """Urlencoded only, 64 KB, no field twice, UTF-8, a handful of fields."""
    async with room() as here:
        anna = await here.anna()
        answer = await anna.client.post("/logout", content=body, headers={**anna.headers, "content-type": kind})
        assert answer.status_code == code
        assert (await anna.get("/")).status_code == 200


def test_secrets_are_not_kept() -> None:
    """Neither tokens nor cookies stand in the clear in what is kept of them."""
    logins = Logins(TurnedClock(), session_s=60.0)
    token = logins.mint(ANNA, 60.0)
    found = logins.redeem(token)
    assert found is not None
    spare = logins.mint(ANNA, 60.0)
    kept = repr(vars(logins))
    assert not any(secret in kept for secret in (token, spare, found[0], found[1].csrf))


def test_tokens_and_sessions_are_bounded() -> None:
    """The oldest go first, and their live connections with them."""
    logins = Logins(TurnedClock(), session_s=60.0)
    tokens = [logins.mint(ANNA, 60.0) for _ in range(TOKENS + 1)]
    assert logins.redeem(tokens[0]) is None
    begun = [logins.begin(Principal("https://idp.example", f"p{n}")) for n in range(LOGINS + 1)]
    assert logins.find(begun[0][0]) is None
    assert not logins.lasts(begun[0][1])
    assert logins.find(begun[1][0]) is not None


def test_nobody_drives_others_out() -> None:
    """One person's logins push out that person's own, oldest first."""
    logins = Logins(TurnedClock(), session_s=60.0)
    annas = logins.begin(ANNA)[0]
    belas = [logins.begin(BELA)[0] for _ in range(LOGINS + 1)]
    assert logins.find(annas) is not None
    assert [logins.find(cookie) is not None for cookie in belas[-OWN_LOGINS - 1 :]] == [False] + [True] * OWN_LOGINS


async def test_live_streams_are_bounded_and_end_with_the_login() -> None:
    """One login holds a few; they say that something changed, never what, and end when it does."""
    async with room(on_clock=TurnedClock()) as here:
        anna = await here.anna()
        login = here.console.logins.find(anna.client.cookies[here.console.listener.cookie])
        assert login is not None
        told: list[str] = []

        async def listen() -> None:
            async def receive() -> dict[str, str]:
                await anyio.sleep_forever()
                raise AssertionError

            async def send(message: dict[str, object]) -> None:
                told.append(str(message.get("body", b"")))

            cookie = f"{here.console.listener.cookie}={anna.client.cookies[here.console.listener.cookie]}"
            headers = [(b"host", anna.base.removeprefix("http://").encode()), (b"cookie", cookie.encode())]
            scope = {"type": "http", "method": "GET", "path": "/events", "headers": headers, "query_string": b""}
            await here.site(scope, receive, send)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(STREAMS):
                    tasks.start_soon(listen)
                while login.streams < STREAMS:
                    await anyio.sleep(0)
                assert (await anna.get("/events")).status_code == 429
                question = await here.ask()
                while sum("data: 1" in each for each in told) < STREAMS:
                    await anyio.sleep(0)
                assert question.id not in "".join(told)
                here.console.logins.end(anna.client.cookies[here.console.listener.cookie])
                await here.desk.vote(question.id, BELA, False, "wake")
        assert login.streams == 0
        assert (await here.visitor().get("/events")).status_code == 401
