"""An issuer on loopback: signs tokens, publishes keys, counts who asks, and can be broken in every way."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from ssl import SSLContext
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from jwt.algorithms import ECAlgorithm

DISCOVERY = "/realms/acme/.well-known/openid-configuration"
RFC8414 = "/.well-known/oauth-authorization-server/realms/acme"
JWKS = "/realms/acme/keys"


class SigningKey:
    """A key pair of an issuer."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._private = generate_private_key(SECP256R1())

    def jwk(self) -> dict[str, Any]:
        public = json.loads(ECAlgorithm.to_jwk(self._private.public_key()))
        return {**public, "kid": self.kid, "use": "sig", "alg": "ES256"}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(claims, self._private, algorithm="ES256", headers={"kid": self.kid, **header})


@dataclass
class Provider:
    """What the fake does, turned by tests while it runs."""

    url: str = ""
    """The issuer's name."""
    keys: list[SigningKey] = field(default_factory=lambda: [SigningKey("k1")])
    """Those that are published; the first one signs."""
    jwks: bytes | None = None
    """Sent in place of the published keys."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Laid over the discovery document."""
    no_discovery: bool = False
    """OIDC's path is not there, RFC 8414's is."""
    broken: str = ""
    """`down`, `silent`, `drip`, `huge`, `html`, `redirect`, `error`, `gzip`, or empty."""
    bait: str = ""
    """Where redirects lead."""
    raw: bytes | None = None
    """Sent in place of any answer."""
    date: float | None = None
    age: int = 0
    """Seconds that the answer was kept by a cache on the way."""
    hits: Counter[str] = field(default_factory=Counter)
    held: asyncio.Event | None = None
    """While it is not set, answers wait for it."""

    def claims(self, now: float, **more: Any) -> dict[str, Any]:
        """An access token's, good for an hour."""
        times = {"iat": int(now), "exp": int(now) + 3600}
        return {"iss": self.url, "aud": "interposer", "sub": "alice", **times, **more}

    def token(self, now: float, *, key: SigningKey | None = None, **more: Any) -> str:
        return (key or self.keys[0]).sign(self.claims(now, **more))


@asynccontextmanager
async def provider(*, tls: SSLContext | None = None, **turned: Any) -> AsyncIterator[Provider]:
    """An issuer that listens while the block runs."""
    found = Provider(**turned)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _serve(found, reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    found.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/realms/acme"
    try:
        yield found
    finally:
        server.close()
        await server.wait_closed()


async def _serve(found: Provider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await reader.readuntil(b"\r\n\r\n")
    path = request.split(b" ", 2)[1].decode()
    found.hits[path] += 1
    if found.held is not None:
        await found.held.wait()
    if found.broken == "down":
        return
    if found.broken == "silent":
        await reader.read()  # until the client has had enough
        return
    if found.raw is not None:
        writer.write(found.raw)
        await writer.drain()
        return
    status, headers, body = _answer(found, path)
    if found.date is not None:
        headers["date"] = formatdate(found.date, usegmt=True)
        headers["age"] = str(found.age)
    headers["content-length"] = str(len(body))
    head = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items()), "connection: close"]
    writer.write("\r\n".join([*head, "", ""]).encode())
    if found.broken == "drip":
        await _drip(reader, writer)
        return
    writer.write(body)
    await writer.drain()


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte every few milliseconds, so that no timeout of a single read is ever met."""
    gone = asyncio.ensure_future(reader.read())
    while not gone.done():
        writer.write(b" ")
        await asyncio.wait([gone], timeout=0.005)
    await gone


def _answer(found: Provider, path: str) -> tuple[int, dict[str, str], bytes]:
    headers = {"content-type": "application/json"}
    if path not in (DISCOVERY, RFC8414, JWKS) or (path == DISCOVERY and found.no_discovery):
        return 404, headers, b"{}"
    if path != JWKS:
        base = found.url.removesuffix("/realms/acme")
        return 200, headers, json.dumps({"issuer": found.url, "jwks_uri": base + JWKS, **found.metadata}).encode()
    match found.broken:
        case "huge":
            return 200, headers, b'{"keys": [' + b" " * 10_000_000 + b"]}"
        case "html":
            return 200, {"content-type": "text/html"}, b"<html>Sign in</html>"
        case "redirect":
            return 302, {"location": found.bait}, b""
        case "error":
            return 503, headers, b"{}"
        case "gzip":
            headers["content-encoding"] = "gzip"
    published = json.dumps({"keys": [key.jwk() for key in found.keys]}).encode()
    return 200, headers, published if found.jwks is None else found.jwks
