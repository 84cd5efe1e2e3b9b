"""Logging in at an OpenID provider: authorization code with PKCE (RFC 6749, RFC 7636, OIDC Core 1.0).

Nothing is kept between the two halves: what belongs to one attempt is derived from a random value in the browser's
cookie, under a key of this process, so a code that another browser was given is of no use here. Each attempt can be
finished once, within ten minutes. The ID token is held to the same rules as every token (`identity`), and beyond them
to this attempt (nonce) and this client (azp).
"""

from __future__ import annotations

import base64
import hmac
import secrets as randomness
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import anyio
import httpx2

from interposer.canonical import Malformed, parse
from interposer.errors import UNKNOWN_KEY, InterposerError, Unauthenticated
from interposer.identity.token import read_object, take_apart
from interposer.identity.trust import Identity
from interposer.identity.verify import verify
from interposer.model import JsonObject

from .console import Console, OidcLogin
from .proposals import Form

ATTEMPT_S = 600.0
DEADLINE_S = 10.0
LIMIT_BYTES = 256 * 1024
KNOWN_S = 300.0
FAILED_S = 5.0
"""How long a provider that could not be asked is not asked again."""
_USED = 4_096
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "interposer"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class LoginFailed(InterposerError):
    """Nobody was logged in; the text is a constant for the person who tried."""


@dataclass(frozen=True, slots=True)
class _Provider:
    authorize: str
    token: str
    says_issuer: bool
    """RFC 9207: its answers carry `iss`."""
    read_at: float


@dataclass(frozen=True, slots=True)
class _Attempt:
    began: int
    seed: str
    to: str


class Oidc:
    """See the module."""

    def __init__(self, console: Console) -> None:
        if console.oidc is None:
            raise ValueError("no provider is configured")
        self._chosen: OidcLogin = console.oidc
        self._clock = console.clock
        self._redirect = f"{console.listener.base}/login/callback"
        self._key = randomness.token_bytes(32)
        self._provider: _Provider | None = None
        self._asking = anyio.Lock()
        self._failed: tuple[float, str] | None = None
        self._used: OrderedDict[str, None] = OrderedDict()
        self._tls = httpx2.create_ssl_context(trust_env=True)

    async def begin(self, to: str) -> tuple[str, str]:
        """Where to send the browser, and the cookie that it comes back with. Raises `LoginFailed`."""
        provider = await self._known()
        attempt = _Attempt(int(self._clock.now()), randomness.token_urlsafe(32), to)
        challenge = sha256(self._derived("verifier", attempt).encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._chosen.client_id,
            "redirect_uri": self._redirect,
            "scope": " ".join(self._chosen.scopes),
            "state": self._derived("state", attempt),
            "nonce": self._derived("nonce", attempt),
            "code_challenge": _base64url(challenge),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in provider.authorize else "?"
        return f"{provider.authorize}{joint}{urlencode(query, quote_via=quote)}", self._cookie(attempt)

    async def finish(self, form: Form, cookie: str) -> tuple[Identity, str]:
        """Who came back, and where they wanted to go. Raises `LoginFailed`."""
        attempt = self._attempt(cookie)
        if not hmac.compare_digest(self._derived("state", attempt).encode(), form.get("state", "").encode()):
            raise LoginFailed("This answer does not belong to the login that was begun here. Begin again.")
        self._use_up(attempt)
        provider = await self._known()
        # RFC 9207 §2.4: an answer of another issuer must not be taken to this one's token endpoint.
        said = form.get("iss", "")
        if said != self._chosen.issuer and (said or provider.says_issuer):
            raise LoginFailed("The answer came from another provider.")
        if form.get("error") or not form.get("code"):
            raise LoginFailed("The provider did not log you in.")
        token = await self._redeemed(provider, form["code"], self._derived("verifier", attempt))
        return await self._verified(token, self._derived("nonce", attempt)), attempt.to

    # -- one attempt

    def _derived(self, purpose: str, attempt: _Attempt) -> str:
        return _base64url(hmac.digest(self._key, f"{purpose}.{_spelled(attempt)}".encode(), "sha256"))

    def _cookie(self, attempt: _Attempt) -> str:
        return f"{_spelled(attempt)}.{self._derived('cookie', attempt)}"

    def _attempt(self, cookie: str) -> _Attempt:
        parts = cookie.split(".")
        if len(parts) != 4 or not (parts[0].isascii() and parts[0].isdigit() and len(parts[0]) < 13):
            raise LoginFailed("This browser has not begun to log in, or keeps no cookies. Begin again.")
        attempt = _Attempt(int(parts[0]), parts[1], parts[2])
        genuine = hmac.compare_digest(self._derived("cookie", attempt).encode(), parts[3].encode("utf-8", "replace"))
        age_s = self._clock.now() - attempt.began
        if not genuine or not -5.0 <= age_s <= ATTEMPT_S or attempt.seed in self._used:
            raise LoginFailed("This login was begun too long ago, or is finished. Begin again.")
        return attempt

    def _use_up(self, attempt: _Attempt) -> None:
        self._used[attempt.seed] = None
        while len(self._used) > _USED:
            self._used.popitem(last=False)

    # -- the provider

    async def _known(self) -> _Provider:
        """OIDC Discovery 1.0 §4. However many want to know, it is asked once: beginning a login needs no bound."""
        async with self._asking:
            now = self._clock.monotonic()
            if self._failed is not None and now - self._failed[0] < FAILED_S:
                raise LoginFailed(self._failed[1])
            try:
                return await self._discovered(now)
            except LoginFailed as failed:
                self._failed = now, str(failed)
                raise

    async def _discovered(self, now: float) -> _Provider:
        if self._provider is None or now - self._provider.read_at >= KNOWN_S:
            raw = await self._asked("GET", f"{self._chosen.issuer.rstrip('/')}/.well-known/openid-configuration")
            if raw.get("issuer") != self._chosen.issuer:
                raise LoginFailed("The provider's metadata is another issuer's.")
            self._provider = _Provider(
                self._endpoint(raw, "authorization_endpoint"),
                self._endpoint(raw, "token_endpoint"),
                raw.get("authorization_response_iss_parameter_supported") is True,
                now,
            )
        return self._provider

    def _endpoint(self, metadata: JsonObject, name: str) -> str:
        url = metadata.get(name)
        if isinstance(url, str) and url.isascii() and url.isprintable() and "#" not in url:
            parts = urlsplit(url)
            local = parts.scheme == "http" and self._chosen.issuer.startswith("http:") and parts.hostname in _LOOPBACK
            if "@" not in parts.netloc and parts.hostname and (parts.scheme == "https" or local):
                return url
        raise LoginFailed("The provider's metadata names no endpoint that can be used.")

    async def _redeemed(self, provider: _Provider, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect,
            "code_verifier": verifier,
        }
        headers = {}
        if self._chosen.secret is None:
            form["client_id"] = self._chosen.client_id
        else:
            secret = await self._chosen.secret()
            # RFC 6749 §2.3.1: both are form-encoded before they are joined.
            pair = f"{quote_plus(self._chosen.client_id)}:{quote_plus(secret.reveal())}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        answer = await self._asked("POST", provider.token, form=form, headers=headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginFailed("The provider gave no ID token; `openid` must be among the scopes.")
        return token

    async def _asked(
        self, method: str, url: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> JsonObject:
        """A JSON object from the provider: one deadline, one size, no redirect, no proxy of the environment."""
        said = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "interposer",
            **(headers or {}),
        }
        try:
            with anyio.fail_after(DEADLINE_S):
                client = httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=None)
                async with client, client.stream(method, url, data=form, headers=said) as answer:
                    body = bytearray()
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > LIMIT_BYTES:
                            raise LoginFailed("The provider's answer is too long.")
                    found: Any = parse(bytes(body)) if answer.status_code == 200 else None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, Malformed):
            raise LoginFailed("The provider cannot be reached, or gives no answer that can be read.") from None
        if not isinstance(found, dict):
            raise LoginFailed("The provider refused, or gave no answer that can be read.")
        return found

    # -- the token

    async def _verified(self, token: str, nonce: str) -> Identity:
        try:
            identity = await self._judged(token)
            claims = read_object(take_apart(token, self._chosen.trust.max_bytes).payload, "payload")
        except Unauthenticated:
            raise LoginFailed("The provider's ID token is not accepted.") from None
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode("utf-8", "replace"), nonce.encode()):
            raise LoginFailed("The ID token belongs to another login.")
        # OIDC Core 1.0 §3.1.3.7, 4 and 5: for several audiences, this client is the one it was issued to.
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else self._chosen.client_id) != self._chosen.client_id:
            raise LoginFailed("The ID token was issued to another client.")
        return identity

    async def _judged(self, token: str) -> Identity:
        chosen = self._chosen
        keys = chosen.keys.current()
        if keys is None:
            keys = await chosen.keys.refreshed()
        if keys is None:
            raise LoginFailed("The provider's keys cannot be had.")
        try:
            return verify(token, keys, chosen.trust, self._clock.now())
        except Unauthenticated as refusal:
            fresh = await chosen.keys.refreshed() if refusal.why == UNKNOWN_KEY else None
            if fresh is None or fresh is keys:
                raise
        return verify(token, fresh, chosen.trust, self._clock.now())


def _spelled(attempt: _Attempt) -> str:
    return f"{attempt.began}.{attempt.seed}.{attempt.to}"


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
