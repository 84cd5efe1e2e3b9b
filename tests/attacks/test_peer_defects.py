"""Every defect of `peer_defects.py` has its tests or its reason, the page about them says the same, and the tests that
no other file has."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import anyio
import pytest

from interposer.ballot import VoteRefused
from interposer.carried import Carried
from interposer.errors import ApprovalPending, ApprovalRefused, ConfigurationError
from interposer.model import JsonObject
from interposer.policy import engine
from interposer.shown import full
from interposer.upstreams.memory import MemoryUpstream
from tests.attacks.peer_defects import PARTS, document
from tests.fakes.agent import COMMAND, UPSTREAM, configured, environment
from tests.fakes.house import OPERATOR, Indoors, definition, indoors, rules, said
from tests.promises.test_manifest import named_in

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs/explanation/peer-defects.md"
ASK = rules("ask fake.*")


def test_every_defect_has_a_test_or_a_reason() -> None:
    """What is named exists, and nothing is named twice."""
    defects = [defect for part in PARTS.values() for defect in part]
    assert len({defect.what for defect in defects}) == len(defects)
    known = cache(named_in)
    for defect in defects:
        assert defect.tests or defect.why, defect.what
        for test in defect.tests:
            assert test in known(TESTS / test.partition("::")[0]), f"{defect.what}: {test} does not exist"


def test_the_page_says_the_same() -> None:
    """Readers find what is tested: `python -m tests.attacks.peer_defects > docs/explanation/peer-defects.md`."""
    assert PAGE.read_text() == document()


async def question_about(broker: Indoors, arguments: JsonObject) -> str:
    with pytest.raises(ApprovalPending) as pending:
        await broker.invoke(arguments)
    return pending.value.question


async def test_a_yes_after_a_no_changes_nothing() -> None:
    """A call that one human refused is not let through by another's later yes."""
    async with indoors(ASK) as broker:
        question = await question_about(broker, {"text": "pay"})
        await broker.desk.vote(question, OPERATOR, False, "not today")
        with pytest.raises(VoteRefused, match="too late"):
            await broker.desk.vote(question, OPERATOR, True)
        with pytest.raises(ApprovalRefused):
            await broker.invoke({"text": "pay"})


async def test_a_call_repeated_while_it_is_carried_out_is_not_carried_out_twice() -> None:
    """An impatient client that repeats an approved call under way starts no second execution by the same yes."""
    begun, go = anyio.Event(), anyio.Event()
    runs = 0

    async def pay(arguments: JsonObject) -> JsonObject:
        nonlocal runs
        runs += 1
        begun.set()
        await go.wait()
        return said("paid")

    outcomes: list[Carried] = []

    async def call() -> None:
        outcomes.append(await broker.invoke({"text": "pay"}, name="pay"))

    with anyio.fail_after(10):
        async with indoors(ASK, [MemoryUpstream("fake", {"pay": (definition(), pay)})]) as broker:
            with pytest.raises(ApprovalPending) as pending:
                await broker.invoke({"text": "pay"}, name="pay")
            await broker.desk.vote(pending.value.question, OPERATOR, True)
            async with anyio.create_task_group() as callers:
                callers.start_soon(call)
                await begun.wait()
                for _ in range(5):
                    with pytest.raises(ApprovalPending):
                        await broker.invoke({"text": "pay"}, name="pay")
                go.set()
    assert runs == 1
    assert len(outcomes) == 1


async def test_a_tail_beyond_1800_bytes_is_bound_and_shown() -> None:
    """Two calls that differ only at their end are two questions, and whoever looks sees that end."""
    harmless, harmful = ({"text": "x" * 1_801 + tail} for tail in ("; keep", "; drop"))
    async with indoors(ASK) as broker:
        asked = await question_about(broker, harmless)
        await broker.desk.vote(asked, OPERATOR, True)
        other = await question_about(broker, harmful)
        assert other != asked
        shown = full(await broker.desk.get(other), broker.clock.now())
        assert str(shown["canonical"]).endswith('; drop"}')


@pytest.mark.parametrize("size", [2_000_000, 20_000_000])
async def test_large_results_pass_or_are_withheld(size: int) -> None:
    """Whatever its size, a result arrives whole or is said to be withheld; nothing is cut, and the next call works."""

    async def long(arguments: JsonObject) -> JsonObject:
        return said("x" * size if arguments["text"] == "long" else "short")

    with anyio.fail_after(30):
        async with indoors(rules("allow *"), [MemoryUpstream("fake", {"long": (definition(), long)})]) as broker:
            carried = await broker.invoke({"text": "long"}, name="long")
            assert carried.withheld or len(carried.masked.value["content"][0]["text"]) == size
            assert (await broker.invoke({"text": "next"}, name="long")).masked.value == said("short")


@pytest.mark.parametrize("limit", ["rate: 1O0/min", "rate: many", "max_result: 1O0KiB", "timeout: 1O s"])
def test_a_limit_that_is_no_number_is_refused(limit: str) -> None:
    """A policy with a misspelt limit is not loaded at all; it does not become a policy without one."""
    text = f"{rules('allow *')}obligations:\n  - {{skills: ['*'], {limit}}}\n"
    with pytest.raises(ConfigurationError):
        engine.load(text, "policy.yaml")


def test_a_broker_without_a_record_does_not_start(tmp_path: Path) -> None:
    """Where the record cannot be made, nothing is served: the start fails and says so."""
    config = configured(tmp_path, UPSTREAM)
    (tmp_path / "state").write_text("in the way")
    words = [*COMMAND, "serve", "--config", str(config)]
    env = {**environment(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(words, env=env, capture_output=True, timeout=30, text=True)
    assert done.returncode not in (0, 1)
    assert "ready" not in done.stdout
    assert done.stderr.startswith("interposer")
