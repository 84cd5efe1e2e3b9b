"""The policy in force: all of a new file, or none of it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from interposer.config import STARTER
from interposer.errors import ConfigurationError
from interposer.standing import StandingPolicy

ALLOW = 'version: 1\nrules:\n  - {id: a, effect: allow, skills: ["*"]}\n'
DENY = 'version: 1\nrules:\n  - {id: d, effect: deny, skills: ["*"]}\n'


async def test_a_broken_file_leaves_the_old_policy(tmp_path: Path) -> None:
    """Half a policy is never in force."""
    path = tmp_path / "p.yaml"
    path.write_text(ALLOW)
    standing = StandingPolicy(str(path))
    before = standing.current
    path.write_text("version: 1\nrules: [{id: a}]\n")
    with pytest.raises(ConfigurationError):
        await standing.reload()
    await standing.try_reload()
    assert standing.current is before
    path.unlink()
    await standing.try_reload()
    assert standing.current is before


async def test_a_new_file_is_in_force_at_once_and_is_told(tmp_path: Path) -> None:
    """Whoever depends on the policy hears of the change before the reload returns."""
    path = tmp_path / "p.yaml"
    path.write_text(ALLOW)
    told: list[str] = []

    async def reloaded() -> None:
        told.append(standing.current.digest)

    standing = StandingPolicy(str(path), reloaded)
    assert not await standing.reload()
    path.write_text(DENY)
    assert await standing.reload()
    assert told == [standing.current.digest]


async def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """Nobody has to tell the broker that the file changed."""
    path = tmp_path / "p.yaml"
    path.write_text(ALLOW)
    noticed = anyio.Event()

    async def reloaded() -> None:
        noticed.set()

    standing = StandingPolicy(str(path), reloaded)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(standing.watch)
            path.write_text(DENY)
            await noticed.wait()
            tasks.cancel_scope.cancel()


def test_no_policy_no_start(tmp_path: Path) -> None:
    """A broker without the policy it was given does not fall back to another one."""
    with pytest.raises(ConfigurationError):
        StandingPolicy(str(tmp_path / "missing.yaml"))
    assert StandingPolicy(STARTER).current.digest
