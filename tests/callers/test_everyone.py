"""Who asks, for every kind of caller: the token in hand decides, and the deny list has the last word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from interposer.callers.everyone import Everyone
from interposer.callers.fetch import Fetcher
from interposer.callers.issuers import Issuers
from interposer.callers.jwks import RemoteKeys, discovery
from interposer.callers.local import Callers, KnownCaller
from interposer.callers.revocation import Revocations
from interposer.errors import EXPIRED, Unauthenticated
from interposer.identity.trust import Trust
from interposer.model import Caller, Effect, Facts, Principal, Skill
from interposer.policy import engine
from tests.fakes.house import HandClock
from tests.fakes.issuer import Provider, SigningKey

LOCAL = Callers([KnownCaller("ann", ("support",), uid=1000), KnownCaller("bot", label="t")])
PEER = Caller("unix", uid=1000, gid=100, session="s_1")


def everyone(
    idp: Provider, clock: HandClock, fetcher: Fetcher, revoked: Path | None = None, subject: tuple[str, ...] = ("sub",)
) -> Everyone:
    keys = RemoteKeys(idp.url, discovery(idp.url, fetcher), clock)
    judge = Issuers([(Trust(idp.url, frozenset({"interposer"}), subject=subject), keys)], clock)
    return Everyone(LOCAL, judge, None if revoked is None else Revocations(str(revoked)))


async def why(who: Everyone, caller: Caller) -> str:
    with anyio.fail_after(5):
        try:
            await who.authenticate(caller)
        except Unauthenticated as refusal:
            return refusal.why
    return ""


async def test_without_a_token_the_kernel_has_the_word(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """A peer that shows no token is the local user, or the static token's owner, that it was before."""
    who = everyone(idp, clock, fetcher)
    assert await who.authenticate(PEER) == Principal("local", "ann", ("support",), uid=1000)
    assert await who.authenticate(Caller("tcp", label="t")) == Principal("token", "bot")


async def test_with_a_token_the_token_has_the_word(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """Its subject and groups count, nothing of the local user's; the uid is kept as a fact of the connection."""
    who = everyone(idp, clock, fetcher)
    token = idp.token(clock.now(), groups=["leads"], azp="desk")
    expected = Principal(idp.url, "alice", ("leads",), uid=1000, client_id="desk")
    assert await who.authenticate(replace(PEER, token=token)) == expected
    assert (await who.authenticate(Caller("tcp", token=token))).uid is None


@pytest.mark.parametrize("kind", ["empty", "garbage", "expired", "forged", "stranger", "down"])
@pytest.mark.parametrize("peer", [PEER, Caller("tcp", label="t")])
async def test_a_bad_token_is_nobody(
    idp: Provider, clock: HandClock, fetcher: Fetcher, kind: str, peer: Caller
) -> None:
    """Whoever shows a token that does not hold is refused, however well the kernel or a static token knows them."""
    who = everyone(idp, clock, fetcher)
    now = int(clock.now())
    idp.broken = "down" if kind == "down" else ""
    tokens = {
        "empty": "",
        "garbage": "x",
        "expired": idp.token(now - 7200),
        "forged": SigningKey("k1").sign(idp.claims(now)),
        "stranger": idp.keys[0].sign(idp.claims(now, iss="https://other.example")),
        "down": idp.token(now),
    }
    assert await why(who, peer) == ""
    assert await why(who, replace(peer, token=tokens[kind]))
    if kind == "expired":
        assert await why(who, replace(peer, token=tokens[kind])) == EXPIRED


async def test_without_issuers_a_token_is_nobody(idp: Provider, clock: HandClock) -> None:
    """A broker that trusts no issuer refuses tokens; it does not overlook them."""
    who = Everyone(LOCAL)
    assert await why(who, replace(PEER, token=idp.token(clock.now()))) == "no_issuer"
    assert await why(who, replace(PEER, token="")) == "no_issuer"
    with anyio.fail_after(1):
        await who.run()


@pytest.mark.parametrize(
    "row",
    [
        "{subject: alice}",
        "{{subject: alice, issuer: '{url}'}}",
        "{jti: t-1}",
        "{session: sid-1}",
        "{session: s_1}",
    ],
)
async def test_revocation_counts_at_the_next_call(
    idp: Provider, clock: HandClock, fetcher: Fetcher, tmp_path: Path, row: str
) -> None:
    """A subject, a token, its session or the broker's own session that is put on the list is refused at once, with a
    token that was verified before; taken from the list, it is back."""
    path = tmp_path / "revoked.yaml"
    path.write_text("version: 1\nrevoked: []\n")
    who = everyone(idp, clock, fetcher, path)
    caller = replace(PEER, token=idp.token(clock.now(), jti="t-1", sid="sid-1"))
    assert await why(who, caller) == ""
    path.write_text(f"version: 1\nrevoked:\n- {row.format(url=idp.url) if '{{' in row else row}\n")
    assert await why(who, caller) == "revoked"
    path.write_text("version: 1\nrevoked: []\n")
    assert await why(who, caller) == ""


@pytest.mark.parametrize("row", ["{subject: alice}", "{subject: a@b.test}"])
async def test_a_subject_is_revoked_by_either_of_its_names(
    idp: Provider, clock: HandClock, fetcher: Fetcher, tmp_path: Path, row: str
) -> None:
    """Where another claim names the caller, the deny list may name that, or `sub` as the provider does."""
    path = tmp_path / "revoked.yaml"
    path.write_text(f"version: 1\nrevoked:\n- {row}\n")
    who = everyone(idp, clock, fetcher, path, subject=("email",))
    assert await why(who, replace(PEER, token=idp.token(clock.now(), email="a@b.test"))) == "revoked"
    assert await why(who, replace(PEER, token=idp.token(clock.now(), sub="bea", email="c@d.test"))) == ""


@pytest.mark.parametrize(
    ("row", "caller", "refused"),
    [
        ("{subject: ann, issuer: local}", PEER, True),
        ("{subject: ann, issuer: token}", PEER, False),
        ("{subject: bot, issuer: token}", Caller("tcp", label="t"), True),
        ("{subject: 'uid:7'}", Caller("unix", uid=7), True),
        ("{session: s_1}", PEER, True),
        ("{session: s_1}", replace(PEER, session="s_2"), False),
        ("{session: s_1}", replace(PEER, session=""), False),
    ],
)
async def test_local_callers_are_revoked_as_well(tmp_path: Path, row: str, caller: Caller, refused: bool) -> None:
    """The deny list names kernel identities and static tokens by their issuer, `local` and `token`."""
    path = tmp_path / "revoked.yaml"
    path.write_text(f"version: 1\nrevoked:\n- {row}\n")
    who = Everyone(LOCAL, revoked=Revocations(str(path)))
    assert (await why(who, caller) == "revoked") is refused


async def test_keys_are_there_before_the_first_call(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """What keeps keys fresh loads them at start, so the first caller does not depend on the provider."""
    who = everyone(idp, clock, fetcher)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as running:
            running.start_soon(who.run)
            while not who.status()["issuers"][0]["loaded"]:
                await anyio.lowlevel.checkpoint()
            idp.broken = "down"
            assert await why(who, replace(PEER, token=idp.token(clock.now()))) == ""
            running.cancel_scope.cancel()


async def test_operators_see_how_it_stands(idp: Provider, clock: HandClock, fetcher: Fetcher, tmp_path: Path) -> None:
    """Keys that are missing, and a deny list that is an old one, are not found out from refusals alone."""
    path = tmp_path / "revoked.yaml"
    path.write_text("version: 1\nrevoked: []\n")
    who = everyone(idp, clock, fetcher, path)
    idp.broken = "error"
    path.unlink()
    assert await why(who, replace(PEER, token=idp.token(clock.now()))) == "no_keys"
    assert await why(who, PEER) == ""
    found = who.status()
    assert found["issuers"][0]["issuer"] == idp.url
    assert found["issuers"][0]["loaded"] is False
    assert "status 503" in found["issuers"][0]["error"]
    assert found["revoked"]["error"]
    assert Everyone(LOCAL).status() == {"issuers": [], "revoked": None}


RULES = """\
version: 1
rules:
  - {id: broad, effect: allow, skills: [a.*], who: {groups: [leads]}}
  - {id: not-from-1000, effect: deny, skills: [a.denied], who: {uids: [1000]}}
  - {id: kernel-only, effect: allow, skills: [b.*], who: {uids: [1000], issuers: [local]}}
"""


async def test_a_token_neither_sheds_nor_borrows_the_uid_behind_it(
    idp: Provider, clock: HandClock, fetcher: Fetcher
) -> None:
    """A deny by uid holds for whoever speaks over that uid's connection; an allow by uid that says `issuers: [local]`
    is the local user's alone."""
    who = everyone(idp, clock, fetcher)
    policy = engine.load(RULES, "rules.yaml")
    token = await who.authenticate(replace(PEER, token=idp.token(clock.now(), groups=["leads"])))
    kernel = await who.authenticate(PEER)

    def effect(principal: Principal, id: str) -> Effect:
        skill = Skill(id, id[0], id[2:], id[2:], {}, "")
        return policy.decide(principal, skill, {}, "", Facts()).effect

    assert effect(token, "a.read") is Effect.ALLOW
    assert effect(token, "a.denied") is Effect.DENY
    assert effect(token, "b.read") is Effect.DENY
    assert effect(kernel, "b.read") is Effect.ALLOW


GONE = Principal("local", "ann", ("support",), uid=1000)


@pytest.mark.parametrize(
    "row",
    ["{subject: ann}", "{subject: ann, issuer: local}", "{session: s_1}"],
)
async def test_whoever_has_left_is_refused_by_the_deny_list(tmp_path: Path, row: str) -> None:
    """A call that is made later, without its caller, is not made for somebody who is on the list by then."""
    path = tmp_path / "revoked.yaml"
    path.write_text("version: 1\nrevoked: []\n")
    who = Everyone(LOCAL, revoked=Revocations(str(path)))
    await who.still(GONE, "s_1")
    path.write_text(f"version: 1\nrevoked:\n- {row}\n")
    with pytest.raises(Unauthenticated) as refused:
        await who.still(GONE, "s_1")
    assert refused.value.why == "revoked"


@pytest.mark.parametrize(
    ("principal", "known"),
    [
        (GONE, True),
        (replace(GONE, subject="ben"), False),
        (replace(GONE, uid=None), False),
        (Principal("local", "uid:7", uid=7), True),
        (Principal("local", "uid:8", uid=7), False),
        (Principal("token", "bot"), True),
        (Principal("token", "ann"), False),
        (Principal("https://elsewhere.test", "ann"), False),
    ],
)
async def test_whoever_has_left_must_be_known_still(principal: Principal, known: bool) -> None:
    """A caller, a token or an issuer that is no longer configured vouches for nobody who has left."""
    who = Everyone(LOCAL)
    if known:
        await who.still(principal, "s_1")
    else:
        with pytest.raises(Unauthenticated):
            await who.still(principal, "s_1")


async def test_an_issuer_vouches_for_whom_it_sent(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """Its tokens' owners may have left, as long as it is trusted."""
    await everyone(idp, clock, fetcher).still(Principal(idp.url, "alice"), "s_1")


async def test_whoever_has_left_has_the_groups_of_now(idp: Provider, clock: HandClock, fetcher: Fetcher) -> None:
    """What the configuration took from somebody since they asked is theirs no more; a token's groups are remembered."""
    who = Everyone(Callers([KnownCaller("ann", ("staff",), uid=1000), KnownCaller("bot", ("agents",), label="b")]))
    assert (await who.still(GONE, "s_1")).groups == ("staff",)
    assert (await who.still(Principal("token", "bot", ("admins",)), "s_1")).groups == ("agents",)
    token = Principal(idp.url, "alice", ("leads",))
    assert await everyone(idp, clock, fetcher).still(token, "s_1") == token
