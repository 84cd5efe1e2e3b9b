"""Logging in at a provider: what belongs to one attempt, one browser, one client, and nobody else."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from interposer.console.console import OidcLogin
from interposer.identity.keys import KeySet, read_keys
from interposer.identity.trust import GroupsFrom, Trust
from interposer.model import QuestionState
from interposer.ports import Secret
from interposer.terms import ApprovalTerms
from tests.console.rooms import ANNA, Room, TurnedClock, Visitor, hidden, room
from tests.fakes.issuer import SigningKey

SECRET = "client secret: ä&="
LEADS = ApprovalTerms(groups=frozenset({"leads"}), expires_s=600.0)


@dataclass
class Idp:
    """A provider that knows one person, and is turned by tests."""

    clock: TurnedClock
    url: str = ""
    key: SigningKey = field(default_factory=lambda: SigningKey("k1"))
    published: list[SigningKey] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    nonce: str = ""
    challenge: str = ""
    seen: list[tuple[str, dict[str, str], dict[str, list[str]]]] = field(default_factory=list)
    answer: bytes | None = None
    asked: int = 0
    """Times that its metadata was."""

    def current(self) -> KeySet | None:
        return read_keys(json.dumps({"keys": [key.jwk() for key in self.published]}).encode())

    async def refreshed(self) -> KeySet | None:
        self.published = [self.key]
        return self.current()

    def respond(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if path.endswith("/.well-known/openid-configuration"):
            self.asked += 1
            found = {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "authorization_response_iss_parameter_supported": True,
            }
            return 200, json.dumps(found | self.metadata).encode()
        form = parse_qs(body.decode())
        self.seen.append((path, headers, form))
        if self.answer is not None:
            return 200, self.answer
        spelled = base64.urlsafe_b64encode(sha256(form["code_verifier"][0].encode()).digest()).rstrip(b"=").decode()
        if form["code"] != ["the-code"] or spelled != self.challenge:
            return 400, b'{"error":"invalid_grant"}'
        return 200, json.dumps({"id_token": self.token(), "access_token": "x", "token_type": "Bearer"}).encode()

    def token(self) -> str:
        now = int(self.clock.now())
        claims = {"iss": self.url, "aud": "console", "sub": "u-17", "name": "lena", "roles": ["leads"]}
        return self.key.sign({**claims, "iat": now, "exp": now + 300, "nonce": self.nonce, **self.claims})


@asynccontextmanager
async def provider(clock: TurnedClock) -> AsyncIterator[Idp]:
    found = Idp(clock)
    found.published = [found.key]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            headers["authorization"] = next((x[15:] for x in head if x.lower().startswith("authorization:")), "")
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            status, said = found.respond(head[0].split(" ")[1], headers, body)
            writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(said)}\r\nconnection: close\r\n\r\n".encode())
            writer.write(said)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/realm"
    try:
        yield found
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def team(*, public: bool = False) -> AsyncIterator[tuple[Room, Idp]]:
    clock = TurnedClock()
    async with provider(clock) as idp:
        trust = Trust(
            idp.url,
            frozenset({"console"}),
            algorithms=frozenset({"ES256"}),
            subject=("name",),
            groups=(GroupsFrom(("roles",)),),
            id_tokens=True,
        )

        async def secret() -> Secret:
            return Secret(SECRET)

        login = OidcLogin(idp.url, "console", trust, idp, secret=None if public else secret)
        async with room(login=login, on_clock=clock) as here:
            yield here, idp


async def begun(visitor: Visitor, idp: Idp, to: str = "") -> dict[str, str]:
    """Off to the provider; gives what it would send back."""
    answer = await visitor.get(f"/login/start{f'?to={to}' if to else ''}")
    assert answer.status_code == 303, answer.text
    parts = urlsplit(answer.headers["location"])
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{idp.url}/authorize"
    assert query["redirect_uri"] == f"{visitor.room.console.listener.base}/login/callback"
    assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
    assert query["scope"] == "openid profile"
    idp.nonce, idp.challenge = query["nonce"], query["code_challenge"]
    return {"code": "the-code", "state": query["state"], "iss": idp.url}


async def entered(visitor: Visitor, sent: dict[str, str]) -> int:
    return int((await visitor.post("/login/callback", **sent)).status_code)


async def test_an_approver_logs_in_and_answers() -> None:
    """Their name and groups are the mapped claims, the address they wanted comes back, and their vote counts."""
    async with team() as (here, idp):
        question = await here.ask(terms=LEADS)
        visitor = here.visitor()
        assert (await visitor.get(f"/q/{question.id}")).headers["location"] == f"/login?to={question.id}"
        assert f"/login/start?to={question.id}" in (await visitor.get(f"/login?to={question.id}")).text
        sent = await begun(visitor, idp, question.id)
        page = (await visitor.get(f"/login/callback?code={sent['code']}&state={sent['state']}")).text
        assert hidden(page, "state") == sent["state"]
        assert (await visitor.get("/")).status_code == 303
        answer = await visitor.post("/login/callback", **sent)
        assert answer.headers["location"] == f"/q/{question.id}"
        assert (await visitor.act("approve", question, scope="once")).status_code == 303
        granted = await here.desk.get(question.id)
        assert granted.state is QuestionState.GRANTED
        voter = granted.votes[0].principal
        assert (voter.issuer, voter.subject, voter.groups) == (idp.url, "lena", ("leads",))
        _, headers, form = idp.seen[0]
        assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == (
            b"console:client+secret%3A+%C3%A4%26%3D"
        )
        assert "client_id" not in form


async def test_a_public_client_shows_no_secret() -> None:
    """Without a secret the client names itself in the form."""
    async with team(public=True) as (here, idp):
        visitor = here.visitor()
        assert await entered(visitor, await begun(visitor, idp)) == 303
        assert idp.seen[0][1]["authorization"] == ""
        assert idp.seen[0][2]["client_id"] == ["console"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "x"},
        {"state": ""},
        {"iss": "https://other.example"},
        {"iss": ""},
        {"code": "other"},
        {"code": ""},
        {"error": "access_denied"},
    ],
)
async def test_an_answer_that_is_not_to_this_attempt_logs_nobody_in(wrong: dict[str, str]) -> None:
    """State, issuer (RFC 9207) and code are those of the attempt that this browser began."""
    async with team() as (here, idp):
        visitor = here.visitor()
        assert await entered(visitor, {**await begun(visitor, idp), **wrong}) == 403
        assert (await visitor.get("/")).status_code == 303


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "other"},
        {"nonce": None},
        {"aud": "agents"},
        {"aud": ["console", "agents"]},
        {"aud": ["console", "agents"], "azp": "agents"},
        {"azp": "agents"},
        {"iss": "https://other.example"},
        {"exp": 1_000},
        {"roles": "leads"},
        {"name": ""},
    ],
)
async def test_a_token_that_is_not_for_this_login_logs_nobody_in(claims: dict[str, Any]) -> None:
    """Nonce, audience, authorized party, issuer, time and the shape of claims are all checked."""
    async with team() as (here, idp):
        visitor = here.visitor()
        idp.claims = claims
        assert await entered(visitor, await begun(visitor, idp)) == 403
        assert (await visitor.get("/")).status_code == 303


async def test_another_key_logs_nobody_in_and_a_new_one_is_fetched() -> None:
    """A signature by a key that is not published is refused; after a rotation the new keys are asked for."""
    async with team() as (here, idp):
        visitor, kept = here.visitor(), idp.key
        idp.key = SigningKey("k1")
        assert await entered(visitor, await begun(visitor, idp)) == 403
        idp.key, idp.published = SigningKey("k2"), [kept]
        assert await entered(visitor, await begun(visitor, idp)) == 303


async def test_an_attempt_belongs_to_one_browser_and_ends_once() -> None:
    """A code that somebody else was given is of no use here, nor twice, nor after ten minutes."""
    async with team() as (here, idp):
        visitor, victim = here.visitor(), here.visitor()
        sent = await begun(visitor, idp)
        assert await entered(victim, sent) == 403
        assert await entered(visitor, sent) == 303
        again = here.visitor()
        sent = await begun(again, idp)
        cookies = dict(again.client.cookies)
        assert await entered(again, sent) == 303
        again.client.cookies.update(cookies)
        assert await entered(again, sent) == 403
        late = here.visitor()
        sent = await begun(late, idp)
        here.clock.pass_s(601.0)
        assert await entered(late, sent) == 403


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://idp.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://u:p@idp.example/"},
        {"token_endpoint": None},
    ],
)
async def test_metadata_that_cannot_be_used_begins_no_login(metadata: dict[str, Any]) -> None:
    """Another issuer's document, or endpoints without TLS, send nobody anywhere."""
    async with team() as (here, idp):
        idp.metadata = metadata
        assert (await here.visitor().get("/login/start")).status_code == 403


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b"{}", b'{"id_token": 1}', b'{"id_token":"a.b.c"}', b"x" * 300_000]
)
async def test_what_is_no_token_answer_logs_nobody_in(answer: bytes) -> None:
    """The token endpoint is read strictly and never believed."""
    async with team() as (here, idp):
        visitor = here.visitor()
        idp.answer = answer
        assert await entered(visitor, await begun(visitor, idp)) == 403


async def test_a_login_ends_with_its_token_and_with_the_deny_list() -> None:
    """F21: the approver's token is looked at again when they vote."""
    async with team() as (here, idp):
        question = await here.ask(terms=LEADS)
        first, second = here.visitor(), here.visitor()
        assert await entered(first, await begun(first, idp)) == 303
        here.refused.add("lena")
        assert (await first.act("deny", question, reason="x")).status_code == 403
        assert (await first.get("/")).status_code == 303
        here.refused.clear()
        assert await entered(second, await begun(second, idp)) == 303
        here.clock.pass_s(331.0)
        assert (await second.get("/")).status_code == 303
        assert (await here.desk.get(question.id)).state is QuestionState.OPEN


async def test_with_a_provider_the_printed_address_holds_no_token() -> None:
    """Teams log in at their provider; operators can still have an address of their own."""
    async with team() as (here, _):
        assert here.console.address(ANNA) == f"{here.console.listener.base}/"
        assert "token=" in (await here.console.login(ANNA))["url"]


async def test_beginning_locks_nobody_out() -> None:
    """However many logins are begun from one address, the provider is asked once, and the next one begins."""
    async with team() as (here, idp):
        visitor, other = here.visitor(), here.visitor()
        for _ in range(100):
            assert (await visitor.get("/login/start")).status_code == 303
        assert idp.asked == 1
        assert await entered(other, await begun(other, idp)) == 303


async def test_a_provider_that_fails_is_not_asked_again_at_once() -> None:
    """Five seconds, then anew."""
    async with team() as (here, idp):
        idp.metadata = {"issuer": "https://other.example"}
        for _ in range(3):
            assert (await here.visitor().get("/login/start")).status_code == 403
        assert idp.asked == 1
        idp.metadata = {}
        here.clock.pass_s(5.0)
        assert (await here.visitor().get("/login/start")).status_code == 303
