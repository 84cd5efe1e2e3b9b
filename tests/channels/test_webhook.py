"""Webhooks over real HTTP: signed, never redirected, never trusting, never chatty."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import anyio
import pytest

from interposer.channels.bodies import generic, slack
from interposer.channels.notice import notice
from interposer.channels.sender import Answer, Delivery, Sender
from interposer.channels.webhook import Webhook
from interposer.errors import ConfigurationError, Problem
from interposer.ports import Secret
from tests.callers.test_fetch import self_signed

from .questions import QUESTION, HandTurned, link
from .receiver import Receiver, receiver, status

KEY = "a-signing-key-of-this-test"


async def key() -> Secret:
    return Secret(KEY)


def webhook(to: Receiver | str, clock: HandTurned | None = None) -> Webhook:
    async def address() -> str:
        return to if isinstance(to, str) else to.url

    return Webhook(address, generic, clock or HandTurned(), key=key)


async def test_delivery_is_signed_over_time_and_body() -> None:
    """A receiver with the key can tell that we sent this, and when; independent code agrees."""
    async with receiver() as there:
        assert await webhook(there, HandTurned(at=5.0)).tell(notice(QUESTION, link)) == Answer("delivered", "200")
    (got,) = there.got
    fields = dict(part.split("=", 1) for part in got.headers["interposer-signature"].split(","))
    expected = hmac.digest(KEY.encode(), fields["t"].encode() + b"." + got.body, hashlib.sha256).hex()
    assert (fields["t"], fields["v1"]) == ("1700000005", expected)
    assert got.headers["interposer-delivery"] == json.loads(got.body)["delivery"]
    assert got.headers["interposer-event"] == "opened"
    assert got.headers["content-type"] == "application/json"


async def test_slack_is_told_in_its_shape_without_a_signature() -> None:
    """Slack's address is the secret; there is nothing to sign with."""
    async with receiver() as there:

        async def address() -> str:
            return there.url

        await Webhook(address, slack, HandTurned()).tell(notice(QUESTION, link))
    (got,) = there.got
    assert "interposer-signature" not in got.headers
    assert json.loads(got.body)["blocks"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (status(204), Answer("delivered", "204")),
        (status(500), Answer("again", "500")),
        (status(503, "retry-after: 120"), Answer("again", "503", 120.0)),
        (status(429, "retry-after: Tue, 14 Nov 2023 22:14:20 GMT"), Answer("again", "429", 60.0)),
        (status(429, "retry-after: Tue, 14 Nov 1999 22:14:20 GMT"), Answer("again", "429", 0.0)),
        (status(429, "retry-after: soon"), Answer("again", "429", 0.0)),
        (status(408), Answer("again", "408")),
        (status(400), Answer("refused", "400")),
        (status(404), Answer("refused", "404")),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Answer("again", "RemoteProtocolError")),
        (b"", Answer("again", "RemoteProtocolError")),
    ],
)
async def test_answers_are_read_as_http_means_them(answer: bytes, expected: Answer) -> None:
    """2xx is delivered, 5xx and the patient 4xx are tried again, other 4xx are final, and noise is no answer."""
    async with receiver(answer) as there:
        assert await webhook(there).tell(notice(QUESTION, link)) == expected


async def test_no_redirect_is_followed() -> None:
    """A receiver that was taken over cannot send the notice elsewhere."""
    async with receiver() as bait, receiver(status(307, f"location: {bait.url}")) as there:
        assert await webhook(there).tell(notice(QUESTION, link)) == Answer("refused", "307")
    assert not bait.got


async def test_body_of_the_answer_is_not_waited_for() -> None:
    """A receiver that has said 200 and then drips or floods has been told."""
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + b"x" * 1_000
    with anyio.fail_after(5):
        async with receiver(endless) as there:
            assert (await webhook(there).tell(notice(QUESTION, link))).verdict == "delivered"


async def test_nobody_there_is_tried_again() -> None:
    """A refused connection is as good as a bad answer."""
    async with receiver() as gone:
        pass
    assert await webhook(gone).tell(notice(QUESTION, link)) == Answer("again", "ConnectError")


async def test_environment_sends_nothing_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets the broker's environment does not read along."""
    async with receiver() as proxy, receiver() as there:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        await webhook(there).tell(notice(QUESTION, link))
    assert (len(proxy.got), len(there.got)) == (0, 1)


async def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who merely answers at the receiver's address is told nothing; a private authority counts when it is named."""
    serving, public = self_signed(tmp_path)
    async with receiver(tls=serving) as there:
        assert await webhook(there).tell(notice(QUESTION, link)) == Answer("again", "ConnectError")
        assert not there.got
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        assert await webhook(there).tell(notice(QUESTION, link)) == Answer("delivered", "200")


async def test_certificates_that_cannot_be_read_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken `$SSL_CERT_FILE` is said at the start, not at the first question."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/at-all.pem")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        webhook("https://receiver.example/")


async def test_address_and_key_are_in_no_log_and_no_record(caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that is gone, or a key that cannot be had, is said without either."""
    clock, ended = HandTurned(), list[Delivery]()
    done = anyio.Event()

    async def on_delivery(delivery: Delivery) -> None:
        ended.append(delivery)
        done.set()

    async with receiver() as gone:
        pass
    hook = webhook(gone, clock)
    channel = Sender(
        "webhook-1", hook.tell, link, on_delivery, clock, timeout_s=5, give_up_s=5, jitter=lambda: 1.0, wait=clock.wait
    )
    with caplog.at_level("DEBUG", "interposer"), anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            await channel.announce(QUESTION)
            await done.wait()
            tasks.cancel_scope.cancel()
    ours = " ".join(one.getMessage() for one in caplog.records if one.name.startswith("interposer"))
    assert ended[0].code == "gave_up"
    for secret in ("not-to-be-shown", "127.0.0.1", KEY):
        assert secret not in ours
        assert secret not in repr(ended)


async def test_key_that_cannot_be_had_sends_nothing() -> None:
    """Without its key, a notice is not sent unsigned: it is tried again."""

    async def missing() -> Secret:
        raise ConfigurationError([Problem("credential notify-1", 0, 0, "cannot be read")])

    async with receiver() as there:

        async def address() -> str:
            return there.url

        with pytest.raises(ConfigurationError):
            await Webhook(address, generic, HandTurned(), key=missing).tell(notice(QUESTION, link))
    assert not there.got
