"""Faults inside of the broker: wherever something breaks, the call is not made, or its answer is not given."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.errors import MaskFault, Unavailable
from interposer.masking import engine
from interposer.masking.engine import Engine
from interposer.model import (
    Answered,
    Decision,
    Facts,
    JsonObject,
    Kind,
    Masked,
    Obligations,
    Principal,
    Skill,
)
from interposer.upstreams.memory import MemoryUpstream
from tests.fakes.agent import (
    ALLOW_ALL,
    COMMAND,
    UPSTREAM,
    configured,
    environment,
    is_tool_error,
    kill,
    spawned,
    text_of,
)
from tests.fakes.house import definition, echoing, indoors, said

CANARY = "canary-4711-in-the-answer"


class BrokenPolicy:
    """A decision point that breaks when it is asked."""

    digest = "d" * 64

    def decide(self, principal: Principal, skill: Skill, arguments: JsonObject, session: str, facts: Facts) -> Decision:
        raise ZeroDivisionError

    def offers(self, principal: Principal, skill: Skill) -> bool:
        return True

    def obligations(self, skill_id: str) -> Obligations:
        return Obligations()


class Strike(Engine):
    """A masker that masks until it is told to break, and then breaks on everything."""

    broken = False

    def mask(self, value: Any, profiles: frozenset[str]) -> Masked:
        if self.broken:
            raise MaskFault("out of time")
        return super().mask(value, profiles)


def decision_of(answer: JsonObject) -> JsonObject:
    decision: JsonObject = answer["result"]["_meta"]["interposer/decision"]
    return decision


async def test_decision_that_breaks_is_a_deny() -> None:
    """When the policy raises while it decides, the call is denied and recorded, and nothing is sent."""
    upstream = echoing()
    async with indoors(BrokenPolicy(), [upstream]) as broker:
        agent = broker.join()
        await agent.initialize()
        answer = await agent.call("echo", {"text": "hi"})
    assert is_tool_error(answer)
    assert decision_of(answer)["reason"] == "decision_failed"
    assert not upstream.called
    assert broker.kinds() == ["refused"]


@pytest.mark.parametrize("fault", [RuntimeError("inside"), RecursionError(), KeyError("x")])
async def test_masker_that_breaks_withholds(fault: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised while an answer is masked, the answer is withheld, the caller is told that the call took
    effect, and the outcome is on record without it."""

    async def answer(_: JsonObject) -> JsonObject:
        monkeypatch.setattr(engine, "Collected", broken)
        return said(CANARY)

    def broken(value: Any, known: Any) -> Any:
        if value is not None:
            raise fault
        return real(value, known)

    real: Any = vars(engine)["Collected"]

    async with indoors(upstreams=[MemoryUpstream("fake", {"echo": (definition(), answer)})]) as broker:
        agent = broker.join()
        await agent.initialize()
        answered = await agent.call("echo")
    assert is_tool_error(answered)
    assert "took effect" in text_of(answered)
    assert CANARY.encode() not in agent.raw
    (row,) = broker.rows(Kind.ANSWERED)
    assert row.code == "withheld"
    assert row.payload is None


async def test_masker_that_overruns_withholds() -> None:
    """An answer that cannot be masked within its time is withheld, and so is everything after it if the masker is
    broken for good; the outcome is recorded all the same."""
    masker = Strike()

    async def answer(_: JsonObject) -> JsonObject:
        masker.broken = True
        return said(CANARY)

    upstream = MemoryUpstream("fake", {"echo": (definition(), answer)})
    async with indoors(upstreams=[upstream], masker=masker) as broker:
        agent = broker.join()
        await agent.initialize()
        first = await agent.call("echo")
        second = await agent.call("echo")
    assert "took effect" in text_of(first)
    assert decision_of(second)["code"] == -31003
    assert len(upstream.called) == 1
    assert CANARY.encode() not in agent.raw
    assert [kind for kind in broker.kinds() if kind in ("intended", "answered")] == ["intended", "answered"]


async def test_upstream_that_breaks_leaves_the_outcome_unknown() -> None:
    """When the connection to an upstream breaks in a way nobody foresaw, the outcome is recorded and told as unknown,
    never as success and never as "not executed"."""

    async def breaks(_: JsonObject) -> JsonObject:
        raise OSError(CANARY)

    async with indoors(upstreams=[MemoryUpstream("fake", {"echo": (definition(), breaks)})]) as broker:
        agent = broker.join()
        await agent.initialize()
        answer = await agent.call("echo")
    assert decision_of(answer)["code"] == -31005
    assert CANARY.encode() not in agent.raw
    assert broker.kinds()[-2:] == ["intended", "in_doubt"]


async def test_fault_at_the_session_boundary_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A fault that nobody foresaw becomes an error without any detail, and the conversation goes on."""

    async def breaks() -> None:
        raise OSError(CANARY)

    async with indoors() as broker:
        agent = broker.join()
        await agent.initialize()
        broker.catalogue.refresh = breaks  # type: ignore[method-assign]
        answer = await agent.request("tools/list")
        assert "result" in await agent.request("ping")
    assert answer["error"]["code"] == -32603
    assert CANARY.encode() not in agent.raw
    assert "unexpected fault in tools/list" in caplog.text


async def test_intent_that_cannot_be_written_stops_the_call() -> None:
    """A broken record refuses every call before anything is sent, and says that nothing was executed."""
    upstream = echoing()
    async with indoors(upstreams=[upstream]) as broker:
        agent = broker.join()
        await agent.initialize()
        broker.store.fail = "disk I/O error"
        answer = await agent.call("echo", {"text": "hi"})
        broker.store.fail = ""
        broker.store.in_place = False
        another = await agent.call("echo", {"text": "hi"})
    for refused in (answer, another):
        assert decision_of(refused)["code"] == -31003
        assert "Nothing was executed" in text_of(refused)
    assert not upstream.called


async def test_refusal_that_cannot_be_written_is_still_a_refusal() -> None:
    """A refused call on a broken record is answered as unavailable, not executed."""
    upstream = echoing()
    async with indoors(upstreams=[upstream]) as broker:
        agent = broker.join()
        await agent.initialize()
        await agent.request("tools/list")
        broker.store.fail = "disk I/O error"
        with pytest.raises(Unavailable):
            await broker.invoke({"wrong": 1})
        answer = await agent.call("echo", {"wrong": 1})
    assert decision_of(answer)["code"] == -31003
    assert not upstream.called


async def test_outcome_that_cannot_be_written_is_withheld() -> None:
    """An answer that could not be recorded is not given: the caller is told that the call took effect."""

    async with indoors() as broker:

        async def answer(_: JsonObject) -> Answered:
            broker.store.fail = "disk I/O error"
            return Answered(said(CANARY))

        fake = MemoryUpstream("fake", {"echo": (definition(), answer)})
        broker.catalogue._shelves["fake"].upstream = fake
        agent = broker.join()
        await agent.initialize()
        answered = await agent.call("echo", {})
    assert not broker.house.journal._reached, "a call that ended keeps a place among those under way"
    assert "took effect" in text_of(answered)
    assert CANARY.encode() not in agent.raw


def removed(record: Path) -> None:
    record.unlink()


def log_removed(record: Path) -> None:
    record.with_name("record.db-wal").unlink()


def replaced(record: Path) -> None:
    copy = record.with_suffix(".copy")
    copy.write_bytes(record.read_bytes())
    os.replace(copy, record)


def cut(record: Path) -> None:
    os.truncate(record.with_name("record.db-wal"), 4096)


@pytest.mark.parametrize("attack", [removed, log_removed, replaced, cut])
async def test_record_that_is_not_in_place_stops_every_call(attack: Any, tmp_path: Path) -> None:
    """When the live record is removed, replaced or cut under a running broker, no further call is forwarded."""
    config = configured(tmp_path, [*UPSTREAM, "--truth", str(tmp_path / "truth")])
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.initialize()
        assert text_of(await agent.call("echo", {"text": "before"})) == "before"
        attack(tmp_path / "state" / "record.db")
        for _ in range(3):
            assert decision_of(await agent.call("echo", {"text": "after"}))["code"] == -31003
        await kill(agent)
    assert (tmp_path / "truth").read_text().count("after") == 0


async def test_full_disk_stops_calls_until_there_is_room(tmp_path: Path) -> None:
    """When the record may not grow (RLIMIT_FSIZE), calls are refused and nothing is forwarded that is not on record;
    the broker does not die of it."""
    config = configured(tmp_path, [*UPSTREAM, "--truth", str(tmp_path / "truth")])
    async with limited(tmp_path, str(config), 256 * 1024) as agent:
        await agent.initialize()
        refused = 0
        for number in range(200):
            answer = await agent.call("echo", {"text": f"n{number} " + "x" * 2_000})
            refused += is_tool_error(answer)
            if refused >= 3:
                break
        assert refused >= 3
        assert "result" in await agent.request("ping")
    done = subprocess.run(
        [*COMMAND, "record", "verify", "--record", str(tmp_path / "state" / "record.db")],
        env=environment(tmp_path),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    answered = number + 1 - refused
    assert (tmp_path / "truth").read_text().count("\n") in (answered, answered + 1)


def limited(home: Path, config: str, bytes_: int) -> Any:
    """The broker with a limit on the size of its files; its children inherit it, and their truth stays below."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert hard == resource.RLIM_INFINITY or hard > bytes_
    command = f'ulimit -f {bytes_ // 1024}; exec "$@"'
    return spawned(home, ["stdio", "--config", config], through=["bash", "-c", command, "bash"])


async def test_policy_is_needed_to_start(tmp_path: Path) -> None:
    """A broker whose policy is broken does not start, and says where it is broken."""
    config = configured(tmp_path, UPSTREAM, policy=ALLOW_ALL.replace("effect", "efect"))
    async with spawned(tmp_path, ["stdio", "--config", str(config)]) as agent:
        await agent.to_the_end()
        assert agent.process is not None
        with anyio.fail_after(10):
            assert await agent.process.wait() == 2
    assert "policy.yaml:2" in (tmp_path / "stderr").read_text()
