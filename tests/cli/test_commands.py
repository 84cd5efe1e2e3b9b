"""The command line: exit codes, help with examples, and errors that say what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
import pytest

from interposer.cli import COMMANDS
from tests.e2e.daemon import interposer

ROOT = Path(__file__).parents[2]
UPSTREAM = f"{sys.executable} {ROOT / 'tests/fakes/upstream.py'}"
ALLOW = 'version: 1\nrules:\n  - {id: a, effect: allow, skills: ["*"]}\n'
DEADLINE_S = 60


async def run(home: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, answer and talk of one command."""
    import os

    env = {**os.environ, "INTERPOSER_HOME": str(home)}
    with anyio.fail_after(DEADLINE_S):
        done = await anyio.run_process(
            [sys.executable, "-m", "interposer", *words], env=env, check=False, cwd=home.parent
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_help_ends_with_an_example(tmp_path: Path, command: str) -> None:
    """A newcomer can copy the last lines of any help text."""
    code, said, _ = await run(tmp_path / "h", command, "--help")
    assert code == 0
    assert "interposer " + command in said[said.index("Example") :]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "No such command"),
        (["stdio"], "name a command after --"),
        (["serve"], "no configuration"),
        (["stdio", "--config", "missing.yaml"], "no such file"),
        (["stdio", "--policy", "missing.yaml", "--", "true"], "cannot be read"),
        (["call", "x", "notapair", "--upstream", "true"], "KEY=VALUE"),
        (["call", "x", "--arguments", "[]", "--upstream", "true"], "JSON object"),
    ],
)
async def test_usage_errors_exit_2_and_say_what_to_do(tmp_path: Path, words: list[str], said: str) -> None:
    """Bad input is refused before anything starts."""
    code, _, talk = await run(tmp_path / "h", *words)
    assert code == 2, talk
    assert said in talk


async def test_a_call_by_hand_goes_through_the_whole_pipeline(tmp_path: Path) -> None:
    """Allowed, denied, waiting and failed calls have their exit codes."""
    home, policy = tmp_path / "h", tmp_path / "p.yaml"
    policy.write_text(
        "version: 1\nrules:\n"
        '  - {id: a, effect: allow, skills: ["*"]}\n'
        '  - {id: d, effect: deny, skills: ["*.echo"], arguments: {properties: {text: {const: "no"}}}}\n'
        '  - {id: q, effect: ask, skills: ["*.echo"], arguments: {properties: {text: {const: ask}}}}\n'
    )
    chosen = ["--policy", str(policy), "--upstream", UPSTREAM]
    code, answer, talk = await run(home, "call", "upstream.echo", "text=hi", *chosen)
    assert (code, answer.strip()) == (0, "hi"), talk
    assert (await run(home, "call", "echo", "text=no", *chosen))[0] == 3
    code, answer, _ = await run(home, "call", "echo", "text=ask", "--json", *chosen)
    assert code == 4
    assert json.loads(answer)["_meta"]["interposer/pending"]["approval_id"]
    assert (await run(home, "call", "nosuch", *chosen))[0] == 2


async def test_skills_are_listed_and_pinned(tmp_path: Path) -> None:
    """What is on offer, by id; nothing differs from what was pinned on first sight."""
    home = tmp_path / "h"
    code, answer, talk = await run(home, "skills", "--json", "--upstream", UPSTREAM)
    assert code == 0, talk
    assert "upstream.echo" in {skill["skill"] for skill in json.loads(answer)["skills"]}
    code, answer, _ = await run(home, "skills", "--upstream", UPSTREAM, "pin", "--diff")
    assert (code, answer.strip()) == (0, "every skill is as it was pinned")


async def test_without_a_broker_questions_cannot_be_answered(tmp_path: Path) -> None:
    """Exit code 5 and a hint, not a traceback."""
    code, _, talk = await run(tmp_path / "h", "approvals", "list")
    assert code == 5
    assert "no broker is running" in talk


async def test_the_record_can_be_read_after_the_broker_has_gone(tmp_path: Path) -> None:
    """Sessions and verification need no running broker."""
    home = tmp_path / "h"
    policy = tmp_path / "p.yaml"
    policy.write_text(ALLOW)
    await run(home, "call", "echo", "text=hi", "--policy", str(policy), "--upstream", UPSTREAM)
    listed = json.loads(await interposer(home, "sessions", "list", "--json"))
    assert listed
    assert (await run(home, "record", "verify"))[0] == 0
