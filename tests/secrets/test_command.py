"""Credentials that a program prints."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import pytest

from interposer.errors import ConfigurationError
from interposer.secrets.command import CommandSecrets

VALUE = "-".join(["not", "a", "real", "credential"])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def shell(script: str) -> str:
    return f"/bin/sh -c '{script}'"


async def revealed(line: str, **options: float) -> str:
    with anyio.fail_after(10):
        return (await CommandSecrets({"crm": line}, **options).reveal("crm")).reveal()


async def test_what_it_prints_is_the_credential() -> None:
    """Words are split as a shell would, without one; a newline at the end is no part of it; each use runs it anew."""
    assert await revealed(f"/bin/echo {VALUE}") == VALUE
    assert await revealed("/bin/echo 'two  words' $HOME") == "two  words $HOME"
    secrets = CommandSecrets({"crm": shell("cat /proc/sys/kernel/random/uuid")})
    assert (await secrets.reveal("crm")).reveal() != (await secrets.reveal("crm")).reveal()


async def test_it_gets_nothing_that_it_need_not_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its environment is an allow list, its standard input empty, and it has no descriptor of ours."""
    monkeypatch.setenv("BROKER_OWN", "x")
    monkeypatch.setenv("INTERPOSER_TOKEN", "y")
    script = tmp_path / "about.py"
    script.write_text(
        "import json, os, sys\n"
        "fds = [n for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)]\n"
        "print(json.dumps([sorted(os.environ), sys.stdin.read(), sorted(map(int, fds)), os.getcwd()]))\n"
    )
    held = os.open("/dev/null", os.O_RDONLY)
    names, stdin, fds, folder = json.loads(await revealed(f"{sys.executable} -I {script}"))
    os.close(held)
    assert not {"BROKER_OWN", "INTERPOSER_TOKEN"} & set(names)
    assert "PATH" in names
    assert (stdin, fds, folder) == ("", [0, 1, 2], "/")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f"echo {VALUE}; echo {VALUE} >&2; exit 3", "status 3"),
        (f"echo {VALUE}; kill -9 $$", "status -9"),
        (f"echo {VALUE} >&2", "is empty"),
        ("yes | head -c 100000", "more than 65536"),
        (r"printf \\377", "not UTF-8"),
    ],
)
async def test_one_that_fails_is_told_of_without_what_it_said(script: str, said: str) -> None:
    """Status and size are named; output, errors and arguments are not."""
    with pytest.raises(ConfigurationError, match=said) as raised:
        await revealed(shell(script))
    assert VALUE not in str(raised.value)
    assert "echo" not in str(raised.value)


async def test_one_that_hangs_is_ended_with_all_of_its_children(tmp_path: Path) -> None:
    """After the deadline nothing of its process group runs."""
    mark = tmp_path / "pid"
    with pytest.raises(ConfigurationError, match="took longer than"):
        await revealed(shell(f"sleep 600 & echo $! > {mark}; wait"), within_s=0.5)
    with anyio.fail_after(5):
        while Path(f"/proc/{mark.read_text().strip()}").exists():
            await anyio.sleep(0.01)


async def test_one_that_floods_is_ended() -> None:
    """It is not waited for once it has printed too much."""
    with pytest.raises(ConfigurationError, match="more than 65536"):
        await revealed("/usr/bin/yes")


@pytest.mark.parametrize("line", ["hunter2", "./pass show hunter2", "pass show hunter2", "/bin/echo 'open", "''", " "])
def test_a_program_is_named_by_its_whole_path(line: str) -> None:
    """Nothing is looked for in $PATH, and what is written is not repeated: it may be the credential."""
    with pytest.raises(ConfigurationError, match="whole path") as raised:
        CommandSecrets({"crm": line})
    assert "hunter2" not in str(raised.value)


async def test_a_program_that_others_may_change_is_not_run(tmp_path: Path) -> None:
    """Neither is one that is not there."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho {VALUE}\n")
    program.chmod(0o755)
    assert await revealed(str(program)) == VALUE
    program.chmod(0o757)
    with pytest.raises(ConfigurationError, match="writable by everybody"):
        await revealed(str(program))
    with pytest.raises(ConfigurationError):
        await revealed(str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError):
        await CommandSecrets({}).reveal("crm")


async def test_one_runs_at_a_time(tmp_path: Path) -> None:
    """Several who want it at once do not start it side by side."""
    script = shell(f"mkdir {tmp_path}/alone && sleep 0.05 && rmdir {tmp_path}/alone && echo {VALUE}")
    secrets = CommandSecrets({"crm": script})
    found: list[str] = []

    async def one() -> None:
        found.append((await secrets.reveal("crm")).reveal())

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(one)
    assert found == [VALUE] * 4


async def test_a_cancelled_wait_leaves_nothing_running(tmp_path: Path) -> None:
    """Whoever no longer wants it takes the program with him."""
    mark = tmp_path / "pid"
    with anyio.move_on_after(0.5):
        await revealed(shell(f"echo $$ > {mark}; exec sleep 600"))
    with anyio.fail_after(5):
        while Path(f"/proc/{mark.read_text().strip()}").exists():
            await anyio.sleep(0.01)
