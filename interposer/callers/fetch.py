"""One document by https, whole or not at all: within one deadline, one size, and from where it was asked for.

No redirect is followed, no proxy or netrc of the environment is used, no compression is undone, no cookie is kept,
no connection outlives its answer. What a fault says holds the host and a constant: nothing that the server said.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import anyio

from interposer.errors import ConfigurationError, InterposerError, Problem

from .addresses import fault, host_of

DEADLINE_S = 5.0
LIMIT_BYTES = 256 * 1024
_HEADERS = {
    "accept": "application/json, application/jwk-set+json",
    "accept-encoding": "identity",
    "cache-control": "no-cache",
    "user-agent": "interposer",
}


class IssuerFault(InterposerError):
    """An issuer's document could not be had. `status` is the HTTP status where there was one, else 0."""

    def __init__(self, reason: str, *, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Document:
    """What came, and when its server said that it was; None where it did not say."""

    body: bytes
    date: float | None = None


class Fetcher:
    """Makes one request at a time for each who asks; the certificates are read once."""

    def __init__(self, *, deadline_s: float = DEADLINE_S) -> None:
        """Raises `ConfigurationError` where `$SSL_CERT_FILE` or `$SSL_CERT_DIR` names nothing that can be read."""
        import httpx2  # 150 ms, at start: not in front of the first call, and not at all without issuers

        self._httpx: Any = httpx2
        self._deadline_s = deadline_s
        try:
            self._tls = httpx2.create_ssl_context(trust_env=True)
        except (OSError, ssl.SSLError):
            message = "the certificates that it names cannot be read; correct or unset it"
            raise ConfigurationError([Problem("$SSL_CERT_FILE", 0, 0, message)]) from None

    async def get(self, url: str) -> Document:
        """The document at `url`. Raises `IssuerFault`."""
        wrong = fault(url)
        if wrong:
            raise IssuerFault(f"{host_of(url)}: {wrong}")
        httpx = self._httpx
        try:
            with anyio.move_on_after(self._deadline_s):
                return await self._get(url)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            raise IssuerFault(f"{host_of(url)}: {type(error).__name__}") from None
        raise IssuerFault(f"{host_of(url)}: no whole answer within {self._deadline_s:g} s")

    async def _get(self, url: str) -> Document:
        httpx = self._httpx
        # Its own timeouts are per read, and a server that drips bytes never meets them: the deadline above does.
        client = httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=None)
        async with client, client.stream("GET", url, headers=_HEADERS) as answer:
            if answer.status_code != 200:
                kind = "a redirect, which is not followed" if answer.is_redirect else "an answer"
                said = f"{host_of(url)}: {kind} (status {answer.status_code})"
                raise IssuerFault(said, status=answer.status_code)
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise IssuerFault(f"{host_of(url)}: a compressed answer, which was not asked for")
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > LIMIT_BYTES:
                    raise IssuerFault(f"{host_of(url)}: more than {LIMIT_BYTES} bytes")
            return Document(bytes(body), _date(answer.headers.get("date", ""), answer.headers.get("age", "0")))


def _date(text: str, age: str) -> float | None:
    """RFC 9111 §4.2.3: an answer from a cache carries the time of its making, and for how long it was kept."""
    try:
        return parsedate_to_datetime(text).timestamp() + int(age)
    except (ValueError, OverflowError, TypeError):
        return None
