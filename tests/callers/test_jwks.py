"""The keys of one issuer: believed for minutes, fetched once for all who wait, and not at all between."""

from __future__ import annotations

import asyncio
import json
import logging

import anyio
import pytest

from interposer.callers.fetch import Document, Fetcher, IssuerFault
from interposer.callers.jwks import RemoteKeys, discovery, located
from tests.fakes.house import HandClock
from tests.fakes.issuer import DISCOVERY, JWKS, RFC8414, Provider, SigningKey


def remote(
    idp: Provider, clock: HandClock, fetcher: Fetcher, *, cache_s: float = 300.0, deadline_s: float = 5.0
) -> RemoteKeys:
    source = discovery(idp.url, fetcher)
    return RemoteKeys(idp.url, source, clock, cache_s=cache_s, deadline_s=deadline_s)


def kids(keys: RemoteKeys) -> list[str | None]:
    found = keys.current()
    return [] if found is None else [key.kid for key in found.keys]


async def test_keys_are_found_by_discovery(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """The issuer's name is all that has to be configured."""
    keys = remote(idp, clock, fetcher)
    assert keys.current() is None
    await keys.refreshed()
    assert kids(keys) == ["k1"]
    assert idp.hits == {DISCOVERY: 1, JWKS: 1}


async def test_oauth_metadata_stands_in_for_a_missing_openid_document(
    idp: Provider, clock: HandClock, fetcher: Fetcher
) -> None:
    """An authorization server without OpenID Connect is found at RFC 8414's address."""
    idp.no_discovery = True
    keys = remote(idp, clock, fetcher)
    await keys.refreshed()
    assert kids(keys) == ["k1"]
    assert idp.hits == {DISCOVERY: 1, RFC8414: 1, JWKS: 1}


async def test_a_configured_address_needs_no_discovery(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """`keys.uri` is asked, and nothing else."""
    uri = idp.url.removesuffix("/realms/acme") + JWKS
    keys = RemoteKeys(idp.url, located(uri, fetcher), clock)
    await keys.refreshed()
    assert kids(keys) == ["k1"]
    assert idp.hits == {JWKS: 1}


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": ["https://idp.example/keys"]},
        {"jwks_uri": "http://idp.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://169.254.169.254/latest"},
    ],
)
async def test_metadata_that_speaks_for_another_is_refused(
    idp: Provider, clock: HandClock, fetcher: Fetcher, metadata: dict[str, object]
) -> None:
    """A document under another name, or one that leads to where keys must not come from, gives no keys."""
    idp.metadata = metadata
    keys = remote(idp, clock, fetcher)
    assert await keys.refreshed() is None
    assert idp.hits[JWKS] == 0
    assert "discovery document" in keys.status().error


async def test_an_issuer_with_tls_never_leads_to_keys_without() -> None:
    """What a document that came by https names is https as well, this machine included."""
    issuer, uri = "https://idp.example", "http://127.0.0.1:1/keys"

    class Said(Fetcher):
        async def get(self, url: str) -> Document:
            assert url.startswith(issuer)
            return Document(json.dumps({"issuer": issuer, "jwks_uri": uri}).encode())

    with pytest.raises(IssuerFault, match="without TLS"):
        await discovery(issuer, Said())()


async def test_keys_are_believed_for_as_long_as_configured(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """After 300 s without a fetch that succeeded there are no keys, and asking for more than that changes nothing."""
    keys = remote(idp, clock, fetcher, cache_s=3600.0)
    await keys.refreshed()
    clock.time_s += 299.9
    assert kids(keys) == ["k1"]
    clock.time_s += 0.1
    assert keys.current() is None
    await keys.refreshed()
    assert kids(keys) == ["k1"]


async def test_all_who_wait_share_one_fetch(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """A hundred callers who need keys at once cost the provider one request, and all of them get the keys."""
    idp.held = asyncio.Event()
    keys = remote(idp, clock, fetcher)
    found: list[object] = []

    async def ask() -> None:
        found.append(await keys.refreshed())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as asking:
            for _ in range(100):
                asking.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            idp.held.set()
    assert idp.hits[JWKS] == 1
    assert found == [keys.current()] * 100
    assert found[0] is not None


async def test_the_caller_who_fetches_may_hang_up(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """That the first of those who wait is cancelled does not leave the others without keys."""
    idp.held = asyncio.Event()
    keys = remote(idp, clock, fetcher)
    found: list[object] = []

    async def ask() -> None:
        found.append(await keys.refreshed())

    async def hang_up(scope: anyio.CancelScope) -> None:
        with scope:
            await keys.refreshed()
            await anyio.sleep_forever()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as asking:
            first = anyio.CancelScope()
            asking.start_soon(hang_up, first)
            await anyio.wait_all_tasks_blocked()
            asking.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            idp.held.set()
    assert found == [keys.current()]
    assert found[0] is not None


async def test_a_task_that_is_cancelled_natively_ends_no_fetch(
    idp: Provider, clock: HandClock, fetcher: Fetcher
) -> None:
    """A peer at the gate that hangs up cancels its own task, and not the fetch that others wait for."""
    idp.held = asyncio.Event()
    keys = remote(idp, clock, fetcher)
    first = asyncio.ensure_future(keys.refreshed())
    with anyio.fail_after(5):
        await anyio.wait_all_tasks_blocked()
        other = asyncio.ensure_future(keys.refreshed())
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        idp.held.set()
        assert await other is not None
    assert first.cancelled()


async def test_between_fetches_lies_a_cool_down(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """However often fresh keys are wanted, they are fetched once in 30 s, when the provider is down as well."""
    keys = remote(idp, clock, fetcher)
    for broken in ("", "down"):
        idp.broken = broken
        idp.hits.clear()
        clock.time_s += 30.0
        for _ in range(1_000):
            await keys.refreshed()
            clock.time_s += 0.0299
        assert idp.hits[DISCOVERY] == 1


async def test_a_short_cache_has_a_short_cool_down(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """Keys that are believed for 8 s can be fetched again after 2."""
    keys = remote(idp, clock, fetcher, cache_s=8.0)
    await keys.refreshed()
    clock.time_s += 2.0
    await keys.refreshed()
    assert idp.hits[JWKS] == 2


@pytest.mark.parametrize("broken", ["down", "error", "huge", "html", "redirect", "silent", "drip"])
async def test_a_bad_answer_leaves_the_old_keys_standing_until_their_time_is_over(
    idp: Provider, clock: HandClock, fetcher: Fetcher, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """A provider in trouble takes nothing from anyone for 300 s, then everything, and is heard of once per fetch."""
    idp.bait = idp.url
    keys = remote(idp, clock, fetcher, deadline_s=0.2)
    await keys.refreshed()
    standing = keys.current()
    idp.broken = broken
    clock.time_s += 250.0
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            with anyio.fail_after(5):
                assert await keys.refreshed() is standing
    assert [("stand for another 50 s" in line) for line in caplog.messages] == [True]
    clock.time_s += 50.0
    assert await keys.refreshed() is None
    assert "none of its tokens is accepted" in caplog.messages[-1]
    assert not keys.status().loaded
    idp.broken = ""
    clock.time_s += 30.0
    assert await keys.refreshed() is not None
    assert keys.status().error == ""


@pytest.mark.parametrize(
    "jwks",
    [
        b"",
        b"[]",
        b'{"keys": []}',
        b'{"keys": {}}',
        b'{"keys": [{"kty": "oct", "kid": "k1", "k": "c2VjcmV0"}]}',
        b'{"keys": [], "keys": []}',
    ],
)
async def test_keys_that_cannot_be_used_are_no_keys(
    idp: Provider, clock: HandClock, fetcher: Fetcher, jwks: bytes
) -> None:
    """An empty set, a shared secret, or JSON that can be read in two ways does not take the place of keys."""
    keys = remote(idp, clock, fetcher)
    await keys.refreshed()
    standing = keys.current()
    idp.jwks = jwks
    clock.time_s += 30.0
    assert await keys.refreshed() is standing
    assert keys.status().error


async def test_a_key_id_that_means_two_keys_means_none(
    idp: Provider, clock: HandClock, fetcher: Fetcher, caplog: pytest.LogCaptureFixture
) -> None:
    """Of keys with the same id none is taken, and the others stand; operators hear of it once."""
    published = [SigningKey("twin").jwk(), SigningKey("twin").jwk(), SigningKey("only").jwk()]
    idp.jwks = json.dumps({"keys": published}).encode()
    keys = remote(idp, clock, fetcher)
    await keys.refreshed()
    clock.time_s += 30.0
    await keys.refreshed()
    assert kids(keys) == ["only"]
    assert ["cannot be used" in line for line in caplog.messages] == [True]


async def test_fresh_keys_are_fetched_before_the_old_ones_are_over(
    idp: Provider, clock: HandClock, fetcher: Fetcher
) -> None:
    """The loop fetches at start, then after 240 s; when that fails, every 30 s; a key that was removed is gone within
    300 s without anyone asking."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.time_s += seconds
        if len(slept) == 1:
            idp.keys.append(SigningKey("k2"))
            del idp.keys[0]
        if len(slept) == 2:
            assert kids(keys) == ["k2"]
            idp.broken = "down"
        if len(slept) == 6:
            raise asyncio.CancelledError

    keys = RemoteKeys(idp.url, discovery(idp.url, fetcher), clock, sleep=sleep)
    with pytest.raises(asyncio.CancelledError):
        await keys.run()
    assert [round(seconds, 6) for seconds in slept] == [240.0, 240.0, 30.0, 30.0, 30.0, 30.0]
    assert keys.current() is None


async def test_the_clocks_are_compared(
    idp: Provider, clock: HandClock, fetcher: Fetcher, caplog: pytest.LogCaptureFixture
) -> None:
    """How far the provider's clock is ahead of ours is known from its answers, and said when it matters."""
    idp.date = float(round(clock.now())) + 120.0
    caplog.set_level(logging.WARNING)
    keys = remote(idp, clock, fetcher)
    assert keys.status().age_s is None
    await keys.refreshed()
    assert ["+120 s from ours" in line for line in caplog.messages] == [True]
    clock.time_s += 10.0
    status = keys.status()
    assert status.skew_s == pytest.approx(120.0, abs=1.0)
    assert (status.loaded, status.age_s, status.error) == (True, 10.0, "")
