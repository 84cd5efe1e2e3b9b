"""The gate before every page: for whom we are the right host, from where forms may come, and what browsers are told.

Against DNS rebinding a request must name a host that is ours; against forms of other pages a POST must come from our
own origin, as the browser says it; whatever is answered carries the same strict headers. Nothing is read of a request
that is turned away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
FOREIGN = frozenset({"cross-site", "same-site"})
"""What browsers say of requests that another origin's page made (W3C Fetch Metadata)."""
_OURS = frozenset(name for name, _ in HEADERS)
_METHODS = frozenset({"GET", "POST"})


class Gate:
    """An ASGI application in front of another."""

    def __init__(self, inside: Asgi, hosts: frozenset[str], origins: frozenset[str]) -> None:
        """`hosts` as in the header Host, `origins` as in the header Origin."""
        self._inside = inside
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in _OURS]
                message["headers"] = [*kept, *HEADERS]
            await send(message)

        wrong = self._wrong(scope)
        if wrong is None:
            await self._inside(scope, receive, guarded)
        else:
            await _refuse(guarded, *wrong)

    def _wrong(self, scope: Scope) -> tuple[int, str] | None:
        if _one(scope, b"host") not in self._hosts:
            return 421, "This console is not reached under that name."
        if scope["method"] not in _METHODS:
            return 405, "This console reads pages and forms only."
        if scope["method"] == "POST" and not self._from_us(scope):
            return 403, "That form did not come from a page of this console."
        # Links of others may lead here; nothing is embedded or fetched (another port of this host is the same site).
        if _one(scope, b"sec-fetch-site") in FOREIGN and _one(scope, b"sec-fetch-mode") != "navigate":
            return 403, "Nothing of this console is for other pages."
        return None

    def _from_us(self, scope: Scope) -> bool:
        origin, site = _one(scope, b"origin"), _one(scope, b"sec-fetch-site")
        if site is not None and site != "same-origin":
            return False
        # Fetch, "append a request Origin header": under no-referrer, a form's Origin is `null` even to its own site.
        return origin in self._origins or (origin in ("null", None) and site == "same-origin")


def _one(scope: Scope, name: bytes) -> str | None:
    """The header's value; None where it is missing; empty, which is nobody's, where it is there twice."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        return ""
    return found[0].decode("latin-1").lower() if found else None


async def _refuse(send: Send, status: int, said: str) -> None:
    body = said.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
