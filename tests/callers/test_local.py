"""From a peer to a principal."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from interposer.callers.local import Callers, KnownCaller
from interposer.errors import ConfigurationError, Unauthenticated
from interposer.model import Caller, Principal


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


ANN = KnownCaller("ann", ("support",), uid=1000)
BOT = KnownCaller("bot", ("agents",), label="bot-token")


async def test_a_known_uid_is_its_subject() -> None:
    """The kernel's uid is looked up in the table, whichever local transport it came by."""
    callers = Callers([ANN, BOT])
    expected = Principal("local", "ann", ("support",), uid=1000)
    assert await callers.authenticate(Caller("unix", uid=1000, pid=1)) == expected
    assert await callers.authenticate(Caller("stdio", uid=1000, pid=2)) == expected


async def test_a_known_token_is_its_subject() -> None:
    """A token's label is looked up apart from uids, under an issuer of its own."""
    assert await Callers([ANN, BOT]).authenticate(Caller("tcp", label="bot-token")) == Principal(
        "token", "bot", ("agents",)
    )


async def test_an_unmapped_uid_has_no_groups() -> None:
    """A uid without a row is itself, and a member of nothing."""
    assert await Callers([ANN]).authenticate(Caller("unix", uid=7)) == Principal("local", "uid:7", (), uid=7)


async def test_principals_are_not_made_anew() -> None:
    """The same peer is the same object at every call."""
    callers = Callers([ANN])
    assert await callers.authenticate(Caller("unix", uid=7)) is await callers.authenticate(Caller("unix", uid=7))


@pytest.mark.parametrize(
    "caller",
    [Caller("unix", uid=7), Caller("tcp"), Caller("tcp", label="other"), Caller("tcp", label="", uid=1000)],
)
async def test_whoever_is_not_known_is_refused(caller: Caller) -> None:
    """With `refuse` nobody is let in without a row, and a wrong token is not saved by a known uid."""
    with pytest.raises(Unauthenticated):
        await Callers([ANN, BOT], unmapped="refuse").authenticate(caller)


async def test_a_token_is_never_a_uid() -> None:
    """A peer with a token is not let in as an unmapped uid."""
    with pytest.raises(Unauthenticated):
        await Callers([BOT]).authenticate(Caller("tcp", label="other", uid=7))


async def test_a_gid_brings_its_groups() -> None:
    """Whoever has the primary gid is a member of its row's groups, under the name that their uid has."""
    staff, ops = KnownCaller(groups=("staff", "support"), gid=100), KnownCaller(groups=("ops",), gid=200)
    callers = Callers([ANN, staff, ops], unmapped="refuse")
    both = Principal("local", "ann", ("support", "staff"), uid=1000)
    assert await callers.authenticate(Caller("unix", uid=1000, gid=100)) == both
    assert await callers.authenticate(Caller("unix", uid=7, gid=100)) == Principal(
        "local", "uid:7", ("staff", "support"), uid=7
    )
    assert (await callers.authenticate(Caller("unix", uid=7, gid=200))).groups == ("ops",)
    assert (await callers.authenticate(Caller("unix", uid=1000, gid=300))).groups == ("support",)


@pytest.mark.parametrize("caller", [Caller("unix", uid=7, gid=300), Caller("unix", uid=7), Caller("unix", gid=100)])
async def test_another_gid_lets_nobody_in(caller: Caller) -> None:
    """With `refuse` a row for a gid is for that gid, and a gid without a uid is nobody."""
    with pytest.raises(Unauthenticated):
        await Callers([KnownCaller(groups=("staff",), gid=100)], unmapped="refuse").authenticate(caller)


@pytest.mark.parametrize(
    "rows",
    [
        [KnownCaller("x")],
        [KnownCaller("x", uid=1, label="t")],
        [KnownCaller("", uid=1)],
        [KnownCaller("x", label="")],
        [KnownCaller("uid:0", uid=1)],
        [KnownCaller("x", uid=1), KnownCaller("y", uid=1)],
        [KnownCaller("x", gid=1)],
        [KnownCaller("x", uid=1, gid=1)],
        [KnownCaller(gid=1), KnownCaller(gid=1)],
    ],
)
def test_a_table_that_could_be_misread_is_refused(rows: list[KnownCaller]) -> None:
    """Rows that name nobody, two at once, or somebody else are configuration errors."""
    with pytest.raises(ConfigurationError):
        Callers(rows)


TEAM = KnownCaller(groups=("team",), gid=50)


def primary(monkeypatch: pytest.MonkeyPatch, **gids: int) -> None:
    """The users that the machine knows, and their primary groups."""

    def getpwuid(uid: int) -> SimpleNamespace:
        return SimpleNamespace(pw_gid={int(name[1:]): gid for name, gid in gids.items()}[uid])

    monkeypatch.setattr("interposer.callers.local.pwd.getpwuid", getpwuid)


async def test_somebody_who_left_in_this_run_is_who_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer of this run keeps what its gid brought."""
    primary(monkeypatch)
    callers = Callers([ANN, TEAM])
    peer = await callers.authenticate(Caller("unix", uid=1000, gid=50))
    assert peer.groups == ("support", "team")
    assert callers.now(peer) == peer


@pytest.mark.parametrize(
    ("asked", "gid", "now"),
    [
        (("support", "team"), 50, ("support", "team")),
        (("support", "team", "old"), 50, ("support", "team")),
        (("support", "team"), 51, ("support",)),
        (("support", "team"), None, ("support",)),
        (("support",), 50, ("support",)),
        ((), 50, ("support",)),
    ],
)
async def test_somebody_who_left_before_has_their_primary_groups_row(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], gid: int | None, now: tuple[str, ...]
) -> None:
    """After a start a gid's row counts for whom it counted, if it still is that user's group; nobody gains one."""
    primary(monkeypatch, **({} if gid is None else {"u1000": gid}))
    found = Callers([ANN, TEAM]).now(Principal("local", "ann", asked, uid=1000))
    assert found is not None
    assert found.groups == now


async def test_owner_of_several_tokens_who_left_has_what_all_of_them_say() -> None:
    """Nobody remembers which token it was: one that says less is believed, unless nothing changed."""
    bot = [KnownCaller("bot", groups, label=label) for groups, label in ((("a", "b"), "one"), (("b", "c"), "two"))]
    callers = Callers(bot)
    for groups, now in ((("a", "b"), ("a", "b")), (("a", "b", "c"), ("b",))):
        found = callers.now(Principal("token", "bot", groups))
        assert found is not None
        assert found.groups == now
    assert callers.now(Principal("token", "other")) is None
