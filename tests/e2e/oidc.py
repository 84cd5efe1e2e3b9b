"""A real OpenID provider for tests, and the browser and client that log in to it (`oidc_provider.mjs`)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.e2e.needs import ROOT, missing

SCRIPT = Path(__file__).with_name("oidc_provider.mjs")
REDIRECT = "http://127.0.0.1/callback"
CLIENT = "agent"
START_S, ANSWER_S = 20, 10


def needed() -> None:
    """Skip, or fail, where the provider is not installed."""
    if shutil.which("node") is None or not (ROOT / ".node/node_modules/oidc-provider").exists():
        missing("oidc-provider is not installed; run `make servers` (needs Node 20 or newer)")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login is good for."""

    access: str
    refresh: str

    @property
    def claims(self) -> dict[str, Any]:
        body = self.access.split(".")[1]
        found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return found


class Provider:
    """One that runs; its keys stay in `folder` when it ends."""

    issuer = ""
    resource = ""

    def __init__(self, folder: Path) -> None:
        self._keys = folder / "provider-keys.json"
        self._log = folder / "provider-stderr"
        self._process: Process | None = None

    async def start(self) -> None:
        """At the place where it was before, if there was one."""
        port = urlsplit(self.issuer).port or 0
        with self._log.open("ab") as log:
            self._process = await anyio.open_process(["node", str(SCRIPT), str(self._keys), str(port)], stderr=log)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._said = BufferedByteReceiveStream(self._process.stdout)
        with anyio.fail_after(START_S):
            said = await self._answer()
        self.issuer, self.resource = said["issuer"], said["resource"]

    async def kill(self) -> None:
        """`kill -9`, and it is gone."""
        if self._process is not None:
            with anyio.CancelScope(shield=True):
                if self._process.returncode is None:
                    self._process.kill()
                await self._process.aclose()

    async def tell(self, command: str) -> dict[str, Any]:
        """Give it a command, and wait until that is done."""
        assert self._process is not None
        assert self._process.stdin is not None
        with anyio.fail_after(ANSWER_S):
            await self._process.stdin.send(f"{command}\n".encode())
            return await self._answer()

    async def login(self, name: str) -> Tokens:
        """Log in as a person would in a browser: authorization code with PKCE (RFC 7636)."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "client_id": CLIENT,
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "scope": "openid",
            "resource": self.resource,
            "state": secrets.token_urlsafe(8),
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        async with httpx2.AsyncClient(trust_env=False, timeout=ANSWER_S) as browser:
            page = await browser.get(f"{self.issuer}/auth", params=asked)
            answer = await _through_the_forms(browser, page, name)
            assert answer["state"] == asked["state"]
            return await self._exchange(
                browser,
                grant_type="authorization_code",
                code=answer["code"],
                redirect_uri=REDIRECT,
                code_verifier=verifier,
            )

    async def refreshed(self, tokens: Tokens) -> Tokens:
        """A new access token by the refresh token."""
        async with httpx2.AsyncClient(trust_env=False, timeout=ANSWER_S) as client:
            return await self._exchange(client, grant_type="refresh_token", refresh_token=tokens.refresh)

    async def _exchange(self, client: httpx2.AsyncClient, **grant: str) -> Tokens:
        form = {"client_id": CLIENT, "resource": self.resource, **grant}
        answer = await client.post(f"{self.issuer}/token", data=form)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        return Tokens(found["access_token"], found["refresh_token"])

    async def _answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self._said.receive_until(b"\n", 4096))
        return found


async def _through_the_forms(browser: httpx2.AsyncClient, page: httpx2.Response, name: str) -> dict[str, str]:
    """Fill in each form that comes, until the provider sends the browser back; the parameters it brings."""
    for _ in range(16):
        if page.has_redirect_location:
            target = str(page.url.join(page.headers["location"]))
            if target.startswith(REDIRECT):
                return {key: values[0] for key, values in parse_qs(urlsplit(target).query).items()}
            page = await browser.get(target)
            continue
        assert page.status_code == 200, page.text
        action = re.search(r'<form[^>]* action="([^"]+)"', page.text)
        prompt = re.search(r'name="prompt" value="([a-z]+)"', page.text)
        assert action is not None
        assert prompt is not None
        filled = {"prompt": prompt[1], "login": name, "password": "any will do"}
        page = await browser.post(str(page.url.join(action[1])), data=filled)
    raise AssertionError("the login does not end")


@asynccontextmanager
async def provider(folder: Path) -> AsyncIterator[Provider]:
    needed()
    found = Provider(folder)
    try:
        await found.start()
        yield found
    finally:
        await found.kill()
