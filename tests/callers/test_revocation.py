"""The deny list: what it names is refused at the next call, and a broken one takes nothing back."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import anyio
import pytest

from interposer.callers.revocation import Revocations, deny_list
from interposer.errors import ConfigurationError

LIST = """\
version: 1
revoked:
  - {subject: alice, issuer: "https://idp.example", reason: left}
  - {subject: mallory}
  - jti: 0f3c
  - {session: s_81a0}
"""

WRONG = """\
version: 2
revoke: []
revoked:
  - {subject: alice, jti: x}
  - {reason: left}
  - {jti: 12345}
  - {subject: ""}
  - {subjekt: bob, session: s}
  - alice
  - {subject: bob, issuer: }
"""


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def names(revoked: Revocations, subject: str) -> bool:
    with anyio.fail_after(5):
        return (await revoked.latest()).names("subject", subject, "https://idp.example")


def test_entries_name_subjects_tokens_and_sessions() -> None:
    """An entry holds for one issuer where it names one, else for all of them."""
    found = deny_list(LIST.encode(), "revoked.yaml")
    assert found.names("subject", "alice", "https://idp.example")
    assert not found.names("subject", "alice", "local")
    assert found.names("subject", "mallory", "local")
    assert found.names("jti", "0f3c", "https://other.example")
    assert found.names("session", "s_81a0", "local")
    assert not found.names("session", "mallory", "local")
    assert not found.names("jti", "", "")


def test_every_problem_is_reported_at_once_with_its_line() -> None:
    """An operator repairs the list in one go."""
    with pytest.raises(ConfigurationError) as refused:
        deny_list(WRONG.encode(), "revoked.yaml")
    found = {(problem.line, problem.message) for problem in refused.value.problems}
    for line, said in {
        (1, "expected 1"),
        (2, "unknown key revoke"),
        (4, "one of subject, jti, session"),
        (5, "one of subject, jti, session"),
        (6, "in quotes"),
        (7, "not empty"),
        (8, "unknown key subjekt"),
        (9, "an entry such as"),
        (10, "issuer: expected text"),
    }:
        assert any(at == line and said in message for at, message in found), (line, said, found)


@pytest.mark.parametrize(
    "text", ["", "[]", "version: 1", "version: 1\nrevoked: {}", "{", "a: *x", "\xff", "version: 1.0\nrevoked: []"]
)
def test_what_is_no_deny_list_is_refused(text: str) -> None:
    """Nothing is guessed of a text that is something else."""
    with pytest.raises(ConfigurationError):
        deny_list(text.encode("latin-1"), "revoked.yaml")


def test_json_is_read_as_well_and_as_strictly() -> None:
    """The same list in JSON is the same list; a key that is there twice refuses it, with its line."""
    rows = [{"subject": "alice", "issuer": "https://idp.example"}, {"jti": "0f3c"}]
    assert deny_list(json.dumps({"version": 1, "revoked": rows}).encode(), "x").rows == {
        ("subject", "alice", "https://idp.example"),
        ("jti", "0f3c", ""),
    }
    with pytest.raises(ConfigurationError, match=r"x:1:.*already there"):
        deny_list(b'{"version": 1, "revoked": [], "revoked": []}', "x")


async def test_a_change_counts_at_the_next_call(tmp_path: Path) -> None:
    """Whoever was put on the list, or taken from it, is that at once."""
    path = put(tmp_path / "revoked.yaml", "version: 1\nrevoked: []\n")
    revoked = Revocations(str(path))
    for _ in range(3):
        assert not await names(revoked, "alice")
        put(path, LIST)
        assert await names(revoked, "alice")
        put(path, "version: 1\nrevoked: []\n")


async def test_all_who_come_while_it_is_read_wait_for_it(tmp_path: Path) -> None:
    """Nobody is judged by the old list once the file has changed, not even while the new one is being read."""
    path = put(tmp_path / "revoked.json", '{"version": 1, "revoked": []}')
    revoked = Revocations(str(path))
    rows = [{"subject": f"user-{number}"} for number in range(20_000)]
    put(path, json.dumps({"version": 1, "revoked": rows}))
    found: list[bool] = []

    async def ask() -> None:
        found.append(await names(revoked, "user-19999"))

    async with anyio.create_task_group() as asking:
        for _ in range(20):
            asking.start_soon(ask)
    assert found == [True] * 20


@pytest.mark.parametrize("broken", ["gone", "wrong", "not yaml", "folder"])
async def test_a_broken_list_leaves_the_old_one_standing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """Nobody is let back in by a mistake in the file; it is said once, and a whole file counts again."""
    path = put(tmp_path / "revoked.yaml", LIST)
    revoked = Revocations(str(path))
    if broken in ("gone", "folder"):
        path.unlink()
        if broken == "folder":
            path.mkdir()
    else:
        put(path, WRONG if broken == "wrong" else "{")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert await names(revoked, "alice")
    assert ["the old one stands" in line for line in caplog.messages] == [True]
    assert revoked.error
    if broken == "folder":
        path.rmdir()
    put(path, "version: 1\nrevoked: []\n")
    assert not await names(revoked, "alice")
    assert revoked.error == ""


@pytest.mark.parametrize("text", [None, WRONG])
def test_there_is_no_start_with_a_broken_list(tmp_path: Path, text: str | None) -> None:
    """A list that was configured and cannot be read is not an empty list."""
    path = tmp_path / "revoked.yaml"
    if text is not None:
        put(path, text)
    with pytest.raises(ConfigurationError, match=r"revoked\.yaml"):
        Revocations(str(path))
