"""Who a token says is asking: judged at every call, by keys and a time that are those of the call."""

from __future__ import annotations

import base64

import pytest

from interposer.callers.fetch import Fetcher
from interposer.callers.issuers import REMEMBERED, Issuers
from interposer.callers.jwks import Keys, RemoteKeys, discovery
from interposer.errors import EXPIRED, UNKNOWN_KEY, ConfigurationError, Unauthenticated
from interposer.identity.trust import Trust
from tests.fakes.house import HandClock
from tests.fakes.issuer import DISCOVERY, JWKS, Provider, SigningKey, provider


def issuers(idp: Provider, clock: HandClock, fetcher: Fetcher, **trust: object) -> Issuers:
    return Issuers([trusted(idp, clock, fetcher, **trust)], clock)


def trusted(idp: Provider, clock: HandClock, fetcher: Fetcher, **trust: object) -> tuple[Trust, Keys]:
    found = Trust(idp.url, frozenset({"interposer"}), **trust)  # type: ignore[arg-type]
    return found, RemoteKeys(idp.url, discovery(idp.url, fetcher), clock)


async def why(judge: Issuers, token: str) -> str:
    """Why a token is refused, or nothing."""
    try:
        await judge.verify(token)
    except Unauthenticated as refusal:
        return refusal.why
    return ""


async def test_a_token_is_its_subject(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """A good token of a configured issuer names its principal, and the keys are fetched when they are needed."""
    judge = issuers(idp, clock, fetcher)
    found = await judge.verify(idp.token(clock.now(), groups=["support"], jti="t1", sid="s1"))
    assert (found.principal.issuer, found.principal.subject, found.principal.groups) == (idp.url, "alice", ("support",))
    assert (found.token_id, found.session) == ("t1", "s1")


async def test_only_configured_issuers_are_asked(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """A token of another issuer is refused without a request to anyone."""
    judge = issuers(idp, clock, fetcher)
    async with provider() as stranger:
        assert await why(judge, stranger.token(clock.now())) == "unknown_issuer"
        assert await why(judge, idp.keys[0].sign(idp.claims(clock.now(), iss=idp.url + "/"))) == "unknown_issuer"
        assert not stranger.hits
    assert not idp.hits


@pytest.mark.parametrize("place", ["jku", "x5u", "jwk", "iss", "kid"])
async def test_nothing_that_a_token_names_is_fetched(
    idp: Provider, clock: HandClock, fetcher: Fetcher, place: str
) -> None:
    """Wherever a token puts an address, nobody is there to be asked: the bait has no visitor."""
    judge = issuers(idp, clock, fetcher)
    async with provider() as bait:
        uri = bait.url.removesuffix("/realms/acme") + JWKS
        forged = SigningKey("k1")
        claims = idp.claims(clock.now()) | ({"iss": bait.url} if place == "iss" else {})
        header = {} if place == "iss" else {place: forged.jwk() if place == "jwk" else uri}
        assert await why(judge, forged.sign(claims, **header))
        assert not bait.hits


async def test_tokens_are_told_apart_by_issuer(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """The keys of one issuer sign for that issuer alone."""
    async with provider() as other:
        pairs = [trusted(idp, clock, fetcher), trusted(other, clock, fetcher)]
        judge = Issuers(pairs, clock)
        assert (await judge.verify(other.token(clock.now()))).principal.issuer == other.url
        other.keys[0].kid = "k1"
        assert await why(judge, other.keys[0].sign(idp.claims(clock.now()))) == "signature"


async def test_an_issuer_is_trusted_once(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """Two entries for one issuer would hold its tokens to the weaker one."""
    with pytest.raises(ConfigurationError, match="twice"):
        Issuers([trusted(idp, clock, fetcher)] * 2, clock)


async def test_unknown_keys_cost_one_fetch_in_thirty_seconds(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """Ten thousand tokens with invented key ids, over 30 s, are one request to the provider."""
    judge = issuers(idp, clock, fetcher)
    assert await why(judge, idp.token(clock.now())) == ""
    clock.time_s += 30.0
    idp.hits.clear()
    forger = SigningKey("x")
    rest = forger.sign(idp.claims(clock.now())).partition(".")[2]
    for number in range(10_000):
        header = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"x%05d"}' % number).rstrip(b"=")
        assert await why(judge, f"{header.decode()}.{rest}") == UNKNOWN_KEY
        clock.time_s += 0.00299
    assert idp.hits == {DISCOVERY: 1, JWKS: 1}


async def test_a_rotated_key_is_taken_within_thirty_seconds(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """A key that the provider begins to sign with is fetched when the first token comes, once the cool-down is over."""
    judge = issuers(idp, clock, fetcher)
    old = idp.token(clock.now())
    assert await why(judge, old) == ""
    clock.time_s += 1.0
    idp.keys.insert(0, SigningKey("k2"))
    token = idp.token(clock.now())
    assert await why(judge, token) == UNKNOWN_KEY
    clock.time_s += 29.0
    assert await why(judge, token) == ""
    assert await why(judge, old) == ""
    assert idp.hits[JWKS] == 2


async def test_a_removed_key_is_refused_within_three_hundred_seconds(
    idp: Provider, clock: HandClock, fetcher: Fetcher
) -> None:
    """A token that was taken a moment ago is refused when the key behind it is gone, remembered or not."""
    judge = issuers(idp, clock, fetcher)
    token = idp.token(clock.now())
    assert await why(judge, token) == ""
    idp.keys[0] = SigningKey("k2")
    clock.time_s += 300.0
    assert await why(judge, token) == UNKNOWN_KEY


async def test_with_the_provider_down_nothing_is_granted_after_the_cache(
    idp: Provider, clock: HandClock, fetcher: Fetcher
) -> None:
    """A token that was good is refused when its keys cannot be confirmed for 300 s, and good again afterwards."""
    judge = issuers(idp, clock, fetcher)
    token = idp.token(clock.now())
    assert await why(judge, token) == ""
    idp.broken = "down"
    clock.time_s += 299.0
    assert await why(judge, token) == ""
    clock.time_s += 1.0
    assert await why(judge, token) == "no_keys"
    idp.broken = ""
    assert await why(judge, token) == "no_keys"
    clock.time_s += 30.0
    assert await why(judge, token) == ""


async def test_expiry_ends_a_token_that_is_remembered(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """The second it expires, leeway included, a token speaks for nobody, though it was verified before."""
    judge = issuers(idp, clock, fetcher)
    now = int(clock.now())
    token = idp.keys[0].sign(idp.claims(now, exp=now + 60))
    assert await why(judge, token) == ""
    clock.time_s += 89.0
    assert await why(judge, token) == ""
    clock.time_s += 1.0
    assert await why(judge, token) == EXPIRED


async def test_a_clock_that_was_set_back_is_noticed(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """A remembered token that does not hold yet is refused as well."""
    judge = issuers(idp, clock, fetcher)
    token = idp.token(clock.now())
    assert await why(judge, token) == ""
    clock.time_s -= 31.0
    assert await why(judge, token) == "not_yet_valid"


async def test_groups_are_never_remembered_from_another_token(
    idp: Provider, clock: HandClock, fetcher: Fetcher
) -> None:
    """A later token with fewer groups has fewer groups, whatever the subject had before."""
    judge = issuers(idp, clock, fetcher)
    for groups in (["leads", "support"], ["support"], []):
        found = await judge.verify(idp.token(clock.now(), groups=groups))
        assert found.principal.groups == tuple(groups)


async def test_a_refusal_is_not_remembered(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """A token that comes too early is taken as soon as it holds."""
    judge = issuers(idp, clock, fetcher)
    token = idp.token(clock.now() + 60)
    assert await why(judge, token) == "not_yet_valid"
    clock.time_s += 60.0
    assert await why(judge, token) == ""


async def test_what_is_remembered_is_bounded(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """Of many tokens the ones used last are remembered; the rest is verified again."""
    judge = issuers(idp, clock, fetcher)
    tokens = [idp.token(clock.now(), jti=str(number)) for number in range(REMEMBERED + 1)]
    found = [await judge.verify(token) for token in tokens[:-1]]
    assert await judge.verify(tokens[0]) is found[0]
    await judge.verify(tokens[-1])
    assert await judge.verify(tokens[0]) is found[0]
    assert await judge.verify(tokens[1]) is not found[1]


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "x" * 10_000, "\ud800", "é.é.é", "null"])
async def test_what_is_no_token_is_refused(idp: Provider, clock: HandClock, fetcher: Fetcher, token: str) -> None:
    """Texts that are no tokens are refused before anything is asked of anyone."""
    assert await why(issuers(idp, clock, fetcher), token)
    assert not idp.hits


async def test_it_is_told_how_issuers_stand(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """Operators see which issuers have keys, how old they are and what went wrong."""
    judge = issuers(idp, clock, fetcher)
    assert not judge.status()[idp.url].loaded
    await why(judge, idp.token(clock.now()))
    assert judge.status()[idp.url].loaded
