"""The command hook: no shell, no environment, no leftovers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import anyio
import pytest

from interposer.channels.command import CommandHook
from interposer.channels.notice import notice
from interposer.channels.sender import Answer, Delivery, Sender

from .questions import QUESTION, HandTurned, link

WRITES = """
import json, os, sys
seen = {"stdin": json.load(sys.stdin), "env": dict(os.environ), "argv": sys.argv[2:],
        "group": os.getpgrp() == os.getpid(), "fds": sorted(os.listdir("/proc/self/fd"))}
open(sys.argv[1], "w").write(json.dumps(seen))
print("noise", file=sys.stderr); print("noise")
"""
LINGERS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1] + ".part", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


async def test_program_gets_the_notice_and_nothing_else_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The generic JSON on standard input, PATH, HOME and LANG, its words as they stand, and no descriptor of ours."""
    monkeypatch.setenv("INTERPOSER_TOKEN", "planted")
    monkeypatch.setenv("LD_PRELOAD_NOT", "planted")
    seen = tmp_path / "seen"
    hook = CommandHook([sys.executable, "-c", WRITES, str(seen), "$HOME; touch x", "`id`"])
    with (tmp_path / "ours").open("w") as ours, anyio.fail_after(20):
        os.set_inheritable(ours.fileno(), True)
        assert await hook.tell(notice(QUESTION, link)) == Answer("delivered", "exit 0")
    said = json.loads(seen.read_text())
    assert said["stdin"] == notice(QUESTION, link).payload
    assert set(said["env"]) <= {"PATH", "HOME", "LANG", "LC_CTYPE"}  # Python sets LC_CTYPE itself (PEP 538)
    assert said["argv"] == ["$HOME; touch x", "`id`"]
    assert said["group"] is True
    assert set(said["fds"]) <= {"0", "1", "2", "3"}  # 3 is the listing's own
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("code", "verdict"), [(0, "delivered"), (1, "again"), (75, "again")])
async def test_exit_code_is_the_answer(code: int, verdict: str) -> None:
    """0 is delivered; everything else is tried again. Input that is not read is no failure."""
    with anyio.fail_after(20):
        answer = await CommandHook(["/bin/sh", "-c", f"exit {code}"]).tell(notice(QUESTION, link))
    assert (answer.verdict, answer.status) == (verdict, f"exit {code}")


@pytest.mark.parametrize("use_uvloop", [True, False])
def test_program_that_reads_nothing_is_no_fault(use_uvloop: bool) -> None:
    """A program that is gone before anything could be written to it answers with its exit code, on both event loops."""

    async def tell() -> set[str]:
        said = set[str]()
        with anyio.fail_after(20):
            for _ in range(20):
                for program in ("/bin/true", "/bin/false"):
                    said.add((await CommandHook([program]).tell(notice(QUESTION, link))).status)
        return said

    assert anyio.run(tell, backend_options={"use_uvloop": use_uvloop}) == {"exit 0", "exit 1"}


async def test_program_that_is_not_there_is_tried_again() -> None:
    """A program that is being replaced is no end."""
    with pytest.raises(OSError, match="nowhere"):
        await CommandHook(["/nowhere/at-all"]).tell(notice(QUESTION, link))


async def test_program_and_its_children_end_at_the_time_out(tmp_path: Path) -> None:
    """A hook that hangs is killed with everything it started, and tried again."""
    clock, ended, done = HandTurned(), list[Delivery](), anyio.Event()

    async def on_delivery(delivery: Delivery) -> None:
        ended.append(delivery)
        done.set()

    pids = tmp_path / "pids"
    hook = CommandHook([sys.executable, "-c", LINGERS, str(pids)])
    channel = Sender("command-1", hook.tell, link, on_delivery, clock, timeout_s=1.0, give_up_s=0.5, wait=clock.wait)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.run)
            await channel.announce(QUESTION)
            await done.wait()
            tasks.cancel_scope.cancel()
        assert (ended[0].code, ended[0].payload["status"]) == ("gave_up", "timeout")
        for pid in map(int, pids.read_text().split()):
            while alive(pid):
                await anyio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False
