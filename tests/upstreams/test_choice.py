"""Several credentials of one service, by who calls."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from interposer.errors import UpstreamFault
from interposer.model import Answered, Failed, Intent, Outcome, Principal
from interposer.ports import Secret
from interposer.upstreams.choice import Choice, Who
from interposer.upstreams.server import Credential
from tests.upstreams.rig import Rig, intent, running, text

ANN = Principal("https://idp.example", "ann", ("support", "staff"))
BEN = Principal("https://idp.example", "ben", ("leads",))
CAT = Principal("https://other.example", "cat")


class Named:
    """A `Secrets` in which each credential is its name."""

    async def reveal(self, name: str) -> Secret:
        return Secret(f"key of {name}")

    def stamp(self, name: str) -> None:
        return None


def by(principal: Principal, name: str, arguments: dict[str, object] | None = None) -> Intent:
    made = intent(name, arguments)
    invocation = replace(made.permit.invocation, principal=principal)
    return replace(made, permit=replace(made.permit, invocation=invocation))


@asynccontextmanager
async def choosing(*who: Who) -> AsyncIterator[tuple[Choice, list[Rig]]]:
    async with AsyncExitStack() as stack:
        rigs = [
            await stack.enter_async_context(running(credential=Credential("API_KEY", f"fake#{number}", Named())))
            for number, _ in enumerate(who, 1)
        ]
        yield Choice("fake", [(each, rig.upstream) for each, rig in zip(who, rigs, strict=True)]), rigs


async def seen(choice: Choice, principal: Principal) -> tuple[int, str]:
    """(process, credential) that a call of this principal reaches."""
    about = json.loads(text(await choice.call(by(principal, "about"), None)))
    return about["pid"], about["environ"]["API_KEY"]


@pytest.mark.parametrize(
    ("who", "takes"),
    [
        (Who(), "ann ben cat"),
        (Who(groups=frozenset({"support", "leads"})), "ann ben"),
        (Who(subjects=frozenset({"ann", "cat"})), "ann cat"),
        (Who(issuers=frozenset({"https://other.example"})), "cat"),
        (Who(groups=frozenset({"staff"}), subjects=frozenset({"ben"})), ""),
        (Who(subjects=frozenset({"ann"}), issuers=frozenset({"https://other.example"})), ""),
    ],
)
def test_every_list_that_is_given_must_match(who: Who, takes: str) -> None:
    """As in policy."""
    assert [each.subject for each in (ANN, BEN, CAT) if who.takes(each)] == takes.split()


async def test_each_credential_has_a_process_of_its_own() -> None:
    """The first that matches is used, callers of one credential share its process, and the others see none of it."""
    async with choosing(Who(groups=frozenset({"support"})), Who(issuers=frozenset({ANN.issuer})), Who()) as (choice, _):
        ann, ben, cat = [await seen(choice, each) for each in (ANN, BEN, CAT)]
        assert [key for _, key in (ann, ben, cat)] == [f"key of fake#{number}" for number in (1, 2, 3)]
        assert len({pid for pid, _ in (ann, ben, cat)}) == 3
        assert await seen(choice, replace(CAT, subject="dan")) == cat


async def test_whoever_has_no_credential_gets_nowhere() -> None:
    """It can be told before anything is written, and a call fails unsent all the same."""
    async with choosing(Who(groups=frozenset({"support"}))) as (choice, rigs):
        assert [choice.serves(each) for each in (ANN, BEN)] == [True, False]
        outcome = await choice.call(by(BEN, "echo"), None)
        assert isinstance(outcome, Failed)
        assert outcome.reason.startswith("not executed")
        assert not rigs[0].guarded


async def test_only_the_first_process_is_started_unasked() -> None:
    """It says what the skills are; another one is started by the first call that needs it."""
    async with choosing(Who(groups=frozenset({"support"})), Who()) as (choice, rigs):
        choice.start()
        assert {"echo"} <= {skill["name"] for skill in await choice.skills()}
        assert [len(rig.guarded) for rig in rigs] == [1, 0]
        assert isinstance(await choice.call(by(BEN, "echo", {"text": "x"}), None), Answered)
        assert [len(rig.guarded) for rig in rigs] == [1, 1]


async def test_one_that_dies_takes_nobody_elses_calls_along() -> None:
    """Processes and their limits are separate."""
    async with choosing(Who(groups=frozenset({"support"})), Who()) as (choice, _):
        outcomes: list[Outcome] = []

        async def slow() -> None:
            outcomes.append(await choice.call(by(BEN, "slow", {"ms": 300, "text": "safe"}), None))

        await choice.call(by(BEN, "echo"), None)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(slow)
                await choice.call(by(ANN, "die"), None)
        assert text(outcomes[0]) == "safe"


async def test_closing_closes_all() -> None:
    """No process of any credential is left, and none starts again."""
    async with choosing(Who(groups=frozenset({"support"})), Who()) as (choice, _):
        for each in (ANN, BEN):
            await seen(choice, each)
        with anyio.fail_after(10):
            await choice.aclose()
        for each in (ANN, BEN):
            assert isinstance(await choice.call(by(each, "echo"), None), Failed)
        with pytest.raises(UpstreamFault):
            await choice.skills()
