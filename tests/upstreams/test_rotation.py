"""Credentials that change while their process runs."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from interposer.errors import MaskFault
from interposer.masking.engine import KEPT, Engine
from interposer.model import Answered, Failed, Outcome
from interposer.ports import Secret
from interposer.secrets.file import FileSecrets
from interposer.upstreams.server import Credential
from tests.upstreams.rig import FAKE, QUICK, Rig, intent, processes, running

WATCHFUL = replace(QUICK, watch_s=0.02, retry_s=0.2)


class Watched(FileSecrets):
    """Credentials in files, and how often somebody looked whether they changed."""

    looks = 0

    def stamp(self, name: str) -> Hashable:
        self.looks += 1
        return super().stamp(name)


@dataclass
class Writer:
    """The file, and who reads it."""

    path: Path
    secrets: Watched

    def __call__(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o400)
        new.rename(self.path)

    async def seen(self) -> None:
        """What is there now has been looked at long enough to count, and a few times more."""
        wanted = self.secrets.looks + 6
        with anyio.fail_after(10):
            while self.secrets.looks < wanted:
                await anyio.sleep(0.01)


@asynccontextmanager
async def rotating(tmp_path: Path, *options: str, **more: Any) -> AsyncIterator[tuple[Rig, Writer]]:
    """An upstream whose credential is `one` at first, and a way to write another."""
    path = tmp_path / "credential"
    write = Writer(path, Watched({"fake": str(path)}))
    write("one")
    credential = Credential("API_KEY", "fake", write.secrets)
    async with running(*options, credential=credential, limits=WATCHFUL, **more) as rig:
        yield rig, write


async def key(rig: Rig) -> str:
    found = (await rig.about())["environ"]["API_KEY"]
    assert isinstance(found, str)
    return found


async def until_key(rig: Rig, wanted: str) -> None:
    with anyio.fail_after(10):
        while await key(rig) != wanted:
            await anyio.sleep(0.01)


async def until_processes(rig: Rig, count: int) -> None:
    with anyio.fail_after(10):
        while len(processes(rig.token)) != count:
            await anyio.sleep(0.02)


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_new_credential_counts_without_a_restart(tmp_path: Path, era: str) -> None:
    """The next calls go to a process that has it, the skills are looked at again, and the old process goes."""
    async with rotating(tmp_path, "--era", era) as (rig, write):
        changes: list[int] = []
        rig.upstream.on_change(lambda: changes.append(1))
        assert await key(rig) == "one"
        before = len(processes(rig.token))
        write("two")
        await until_key(rig, "two")
        await until_processes(rig, before)
        assert [secret.reveal() for secret in rig.guarded] == ["one", "two"]
        with anyio.fail_after(5):
            while not changes:
                await anyio.sleep(0.01)
        assert rig.notices == []


async def test_calls_in_flight_are_finished_by_the_process_that_has_them(tmp_path: Path) -> None:
    """Nothing is sent twice, nothing fails, and nothing is in doubt because of a rotation."""
    async with rotating(tmp_path, truth=tmp_path / "truth") as (rig, write):
        outcomes: list[Outcome] = []

        async def slow(number: int) -> None:
            outcomes.append(await rig.call("slow", {"ms": 1_500, "text": f"slow {number}"}))

        async def steady(until: anyio.Event) -> None:
            while not until.is_set():
                outcomes.append(await rig.call("echo", {"text": "steady"}))

        assert await key(rig) == "one"
        over = anyio.Event()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(steady, over)
                for number in range(8):
                    tasks.start_soon(slow, number)
                write("two")
                await until_key(rig, "two")
                assert len(outcomes) > 0
                write("three")
                await until_key(rig, "three")
                over.set()
        assert all(isinstance(outcome, Answered) for outcome in outcomes)
        sent = [json.loads(line) for line in (tmp_path / "truth").read_text().splitlines()]
        assert sum(call["name"] in ("slow", "echo") for call in sent) == len(outcomes)
        assert sorted(call["arguments"]["text"] for call in sent if call["name"] == "slow") == [
            f"slow {number}" for number in range(8)
        ]
        assert rig.notices == []


async def test_an_old_process_ends_at_the_latest_with_its_last_deadline(tmp_path: Path) -> None:
    """A call that is never answered keeps the old credential no longer than the call itself may take."""
    async with rotating(tmp_path) as (rig, write):
        assert await key(rig) == "one"
        before = len(processes(rig.token))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rig.upstream.call, intent("slow", {"ms": 60_000}, timeout_s=1.5), None)
            write("two")
            await until_key(rig, "two")
            assert len(processes(rig.token)) > before
        await until_processes(rig, before)


@pytest.mark.parametrize("fault", ["missing", "empty", "mode"])
async def test_a_credential_that_became_unusable_leaves_the_process_running(tmp_path: Path, fault: str) -> None:
    """It is told of once; what is put right counts, and a second failure is told of again."""
    path = tmp_path / "credential"
    async with rotating(tmp_path) as (rig, write):
        assert await key(rig) == "one"
        for round in (1, 2):
            if fault == "missing":
                path.unlink()
            elif fault == "empty":
                write("")
            else:
                path.chmod(0o444)
            for _ in range(3):
                await write.seen()
                assert await key(rig) == "one"
            assert len(rig.told("credential_unusable")) == round
            write("one")
            await write.seen()
        write("two")
        await until_key(rig, "two")
        assert {kind for kind, _ in rig.notices} == {"credential_unusable"}


async def test_a_credential_that_the_service_does_not_start_with_is_not_switched_to(tmp_path: Path) -> None:
    """The old process serves on, it is told once, and the next credential is tried."""
    start = 'case "$API_KEY" in bad) exit 7;; esac; exec "$0" "$@"'
    argv = ("/bin/sh", "-c", start, sys.executable, str(FAKE))
    async with rotating(tmp_path, argv=argv) as (rig, write):
        assert await key(rig) == "one"
        write("bad")
        await rig.until_told("start_failed")
        for _ in range(5):
            await write.seen()
            assert await key(rig) == "one"
        assert len(rig.told("start_failed")) == 1
        write("two")
        await until_key(rig, "two")
        assert not rig.told("restart")


async def test_a_file_that_is_only_touched_changes_nothing(tmp_path: Path) -> None:
    """The same credential again is no rotation."""
    async with rotating(tmp_path) as (rig, write):
        before = (await rig.about())["pid"]
        for _ in range(5):
            write("one")
            await write.seen()
        assert (await rig.about())["pid"] == before
        assert len(rig.guarded) == 1


async def test_a_death_after_a_rotation_is_a_restart_with_the_new_credential(tmp_path: Path) -> None:
    """The process that took over is kept like the first one."""
    async with rotating(tmp_path) as (rig, write):
        assert await key(rig) == "one"
        write("two")
        await until_key(rig, "two")
        await rig.call("die")
        assert await key(rig) == "two"
        assert len(rig.told("restart")) == 1


async def test_closing_ends_old_and_new_processes(tmp_path: Path) -> None:
    """Also those that are finishing what they have begun, and one that is being started."""
    async with rotating(tmp_path) as (rig, write):
        assert await key(rig) == "one"
        async with anyio.create_task_group() as tasks:
            for number, credential in enumerate(("two", "three")):
                tasks.start_soon(rig.upstream.call, intent("slow", {"ms": 60_000}, id=f"i-{number}"), None)
                write(credential)
                await until_key(rig, credential)
            write("four")
            with anyio.fail_after(10):
                await rig.upstream.aclose()
        await until_processes(rig, 0)


async def test_new_credentials_that_fail_do_not_unguard_the_running_one(tmp_path: Path) -> None:
    """However many are tried: what the process that serves was given is found in its answers."""
    engine = Engine()
    start = 'case "$API_KEY" in bad*) exit 7;; esac; exec "$0" "$@"'
    argv = ("/bin/sh", "-c", start, sys.executable, str(FAKE))
    tried: list[str] = []
    ended: list[str] = []

    def guard(secret: Secret) -> None:
        engine.guard(secret, "fake")
        tried.append(secret.reveal())

    def release(secret: Secret) -> None:
        engine.release(secret, "fake")
        ended.append(secret.reveal())

    async with rotating(tmp_path, argv=argv, guard=guard, release=release) as (rig, write):
        write("running-credential")
        assert await key(rig) == "running-credential"
        for number in range(KEPT + 2):
            write(f"bad-credential-{number}")
            with anyio.fail_after(10):
                while len(set(ended)) <= number:
                    await anyio.sleep(0.01)
        assert await key(rig) == "running-credential"
        assert "running-credential" not in ended
        assert engine.mask(await key(rig), frozenset()).value == "[REDACTED:credential]"
        write("following-credential")
        await until_key(rig, "following-credential")
        with anyio.fail_after(10):
            while "running-credential" not in ended:
                await anyio.sleep(0.01)
    assert sorted(tried) == sorted(ended)


class Odd(Watched):
    """Raises what nobody expects of a source, for as long as it is told to."""

    reveal_fault: Exception | None = None
    stamp_fault: Exception | None = None

    async def reveal(self, name: str) -> Secret:
        if self.reveal_fault is not None:
            raise self.reveal_fault
        return await super().reveal(name)

    def stamp(self, name: str) -> Hashable:
        found = super().stamp(name)
        if self.stamp_fault is not None:
            raise self.stamp_fault
        return found


@pytest.mark.parametrize("fault", ["reveal_fault", "stamp_fault"])
async def test_an_unexpected_fault_of_a_source_leaves_the_process_running(tmp_path: Path, fault: str) -> None:
    """It is told of once by its kind, and what comes after it counts."""
    path = tmp_path / "credential"
    odd = Odd({"fake": str(path)})
    write = Writer(path, odd)
    write("one")
    credential = Credential("API_KEY", "fake", odd)
    async with running(credential=credential, limits=WATCHFUL) as rig:
        assert await key(rig) == "one"
        setattr(odd, fault, RuntimeError("with words of its own"))
        write("two")
        for _ in range(3):
            await write.seen()
            assert await key(rig) == "one"
        told = rig.told("credential_unusable")
        assert len(told) == 1
        assert "RuntimeError" in told[0]
        assert "words" not in told[0]
        setattr(odd, fault, None)
        await until_key(rig, "two")


async def test_a_notice_that_cannot_be_given_leaves_the_process_running(tmp_path: Path) -> None:
    """Neither a complaint nor a restart depends on who hears of it."""

    def deaf(kind: str, detail: str) -> None:
        raise MaskFault("x")

    async with rotating(tmp_path, on_notice=deaf) as (rig, write):
        assert await key(rig) == "one"
        write("")
        await write.seen()
        assert await key(rig) == "one"
        await rig.call("die")
        write("two")
        await until_key(rig, "two")


async def test_an_unexpected_fault_at_the_start_is_told_and_tried_again(tmp_path: Path) -> None:
    """The calls that waited fail at once, and a later one is answered."""
    path = tmp_path / "credential"
    odd = Odd({"fake": str(path)})
    Writer(path, odd)("one")
    odd.reveal_fault = RuntimeError("with words of its own")
    async with running(credential=Credential("API_KEY", "fake", odd), limits=WATCHFUL) as rig:
        with anyio.fail_after(WATCHFUL.start_s / 2):
            assert isinstance(await rig.call("about"), Failed)
        await rig.until_told("start_failed")
        assert "RuntimeError" in rig.told("start_failed")[0]
        assert "words" not in rig.told("start_failed")[0]
        odd.reveal_fault = None
        with anyio.fail_after(10):
            while not isinstance(await rig.call("about"), Answered):
                await anyio.sleep(0.01)
        assert await key(rig) == "one"


async def test_a_credential_that_cannot_be_guarded_is_given_to_nobody(tmp_path: Path) -> None:
    """No process is started with it."""
    engine = Engine()
    async with rotating(tmp_path, guard=engine.guard) as (rig, _):
        assert isinstance(await rig.call("about"), Failed)
        assert "fewer than" in rig.told("start_failed")[0]
        assert processes(rig.token) == []
