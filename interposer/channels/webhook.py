"""Webhooks: a notice as an HTTP POST, as JSON of our own that is signed, or in the shape that Slack takes.

Certificates are verified, no redirect is followed, no proxy of the environment is used, no cookie is kept, and of what
the receiver answers only the status and `Retry-After` are read. The address is in no log, error or record.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

from interposer.errors import ConfigurationError, Problem
from interposer.ports import Clock, Secret

from .notice import Notice
from .sender import Answer

Body = Callable[[Notice], bytes]
Address = Callable[[], Awaitable[str]]
"""The receiver's address as it is now: https, or http to this very machine. Raises `ConfigurationError`."""
Key = Callable[[], Awaitable[Secret]]
"""The signing key as it is now. Raises `ConfigurationError`."""

_AGAIN = frozenset({408, 425, 429})
"""Of the 4xx, those that say that later is another matter (RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4)."""


class Webhook:
    """Tells one receiver, one attempt at a time. Its time-out is the sender's."""

    def __init__(self, address: Address, body: Body, clock: Clock, *, key: Key | None = None) -> None:
        """Raises `ConfigurationError` where `$SSL_CERT_FILE` or `$SSL_CERT_DIR` names nothing that can be read."""
        import httpx2  # 150 ms, at start: not in front of the first question, and not at all without webhooks

        self._httpx: Any = httpx2
        self._address = address
        self._body = body
        self._clock = clock
        self._key = key
        try:
            self._tls = httpx2.create_ssl_context(trust_env=True)
        except (OSError, ssl.SSLError):
            message = "the certificates that it names cannot be read; correct or unset it"
            raise ConfigurationError([Problem("$SSL_CERT_FILE", 0, 0, message)]) from None

    async def tell(self, notice: Notice) -> Answer:
        """One POST. Raises `ConfigurationError` while address or key cannot be had."""
        url, body = await self._address(), self._body(notice)
        headers = {
            "content-type": "application/json",
            "user-agent": "interposer",
            "interposer-delivery": notice.delivery,
            "interposer-event": notice.event,
        }
        if self._key is not None:
            headers["interposer-signature"] = signature(await self._key(), body, int(self._clock.now()))
        httpx = self._httpx
        try:
            client = httpx.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=None)
            async with client, client.stream("POST", url, content=body, headers=headers) as answer:
                return self._verdict(answer.status_code, answer.headers.get("retry-after", ""))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            return Answer("again", type(error).__name__)

    def _verdict(self, status: int, retry_after: str) -> Answer:
        if 200 <= status < 300:
            return Answer("delivered", str(status))
        if status >= 500 or status in _AGAIN:
            return Answer("again", str(status), self._seconds(retry_after))
        return Answer("refused", str(status))

    def _seconds(self, retry_after: str) -> float:
        """RFC 9110 §10.2.3: seconds, or a date. Anything else is no wish."""
        if retry_after.isascii() and retry_after.isdigit():
            return float(retry_after[:9])
        try:
            return max(0.0, parsedate_to_datetime(retry_after).timestamp() - self._clock.now())
        except (ValueError, TypeError, OverflowError, IndexError):
            return 0.0


def signature(key: Secret, body: bytes, at: int) -> str:
    """`t=<unix>,v1=<hex>`: the HMAC-SHA-256 of the time, a dot and the body. The time is in it so that what is recorded
    today cannot be sent again tomorrow."""
    mac = hmac.new(key.reveal().encode(), f"{at}.".encode() + body, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"
