"""However it ends, nothing of a child is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest

from interposer.model import InDoubt
from interposer.upstreams.server import Limits
from tests.upstreams.rig import FAKE, processes, running, until_there_are

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Processes and pipes are each loop's own affair, so both are tried."""
    return ("asyncio", {"use_uvloop": request.param})


async def test_ten_lives_leave_no_process() -> None:
    """Start, serve, close, ten times: no process, no zombie, no descriptor."""
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        async with running() as rig:
            await rig.call("echo")
            await until_there_are(2, rig.token)
        assert processes(rig.token) == []
    await anyio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1


@pytest.mark.parametrize("detached", [False, True])
async def test_grandchildren_end_with_the_child(detached: bool) -> None:
    """A grandchild is ended too, even one that left the session and lost its parent."""
    async with running() as rig:
        await rig.call("spawn", {"detached": detached})
        await until_there_are(3, rig.token)
    assert processes(rig.token) == []


async def test_a_dead_child_leaves_no_grandchildren() -> None:
    """When the server dies, what it started goes with it before the next one starts."""
    async with running() as rig:
        await rig.call("spawn", {"detached": True})
        old = set(processes(rig.token))
        await rig.call("die")
        await rig.call("echo")
        assert old.isdisjoint(processes(rig.token))


async def test_a_stubborn_child_is_killed() -> None:
    """Neither the end of stdin nor SIGTERM moves it; SIGKILL does, in bounded time."""
    async with running(limits=Limits(close_s=0.2)) as rig:
        await rig.call("echo")
        with anyio.move_on_after(0.3):
            await rig.call("stubborn")
        with anyio.fail_after(4):
            await rig.upstream.aclose()
        assert processes(rig.token) == []


async def test_a_close_that_is_cancelled_still_ends_the_child() -> None:
    """The leash is let go of even if nobody waits for the end."""
    async with running(limits=Limits(close_s=5)) as rig:
        with anyio.move_on_after(0.5):
            await rig.call("stubborn")
        with anyio.move_on_after(0.1):
            await rig.upstream.aclose()
        await until_there_are(0, rig.token)


async def test_a_killed_leash_takes_the_child_with_it() -> None:
    """Whoever kills the process in between gains nothing."""
    async with running(limits=Limits(backoff_s=(5, 5))) as rig:
        await rig.call("echo")
        [leash] = [pid for pid in processes(rig.token) if b"leash.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(leash, signal.SIGKILL)
        await until_there_are(0, rig.token)


BROKER = """
    import asyncio, sys
    from tests.upstreams.rig import intent, SystemClock
    from interposer.upstreams.mcp_stdio import McpStdio
    from interposer.upstreams.server import Command

    async def main():
        upstream = McpStdio("fake", Command(tuple(sys.argv[1:])), clock=SystemClock(), mask=str, log=print,
                            on_notice=print)
        await upstream.call(intent("spawn", {"detached": False}), None)
        await upstream.call(intent("spawn", {"detached": True}), None)
        print("ready", flush=True)
        await upstream.call(intent("stubborn", timeout_s=600), None)

    asyncio.run(main())
"""


async def test_kill_9_of_the_broker_leaves_no_grandchild() -> None:
    """However the broker dies, its upstreams and what they started die within a second or two."""
    token = f"orphan-{os.getpid()}"
    broker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BROKER), sys.executable, str(FAKE), "--token", token],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert broker.stdout is not None
    try:
        assert await anyio.to_thread.run_sync(broker.stdout.readline) == b"ready\n"
        # The broker's own command line has the token as well, the leash, the server and two grandchildren.
        await until_there_are(5, token)
    finally:
        broker.kill()
        broker.wait()
        broker.stdout.close()
    await until_there_are(0, token)


async def test_a_child_has_three_descriptors_and_nobody_can_write_to_its_stdin() -> None:
    """No descriptor of the broker is inherited, and stdin cannot be opened by another process of the same user."""
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        async with running() as rig:
            about = await rig.about()
            # The fourth is the listing of the directory itself.
            assert about["fds"][:3] == [0, 1, 2]
            assert len(about["fds"]) == 4
            for fd in (0, 1):
                with pytest.raises(OSError, match="No such device"):
                    os.open(f"/proc/{about['pid']}/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(leaked)


async def test_a_child_runs_in_its_directory(tmp_path: Path) -> None:
    """The leash passes on directory, arguments and exit status."""
    script = "import os,sys; sys.stderr.write(os.getcwd() + repr(sys.argv)); sys.exit(7)"
    from interposer.upstreams.child import Child

    lines: list[str] = []
    with anyio.fail_after(10):
        ended = anyio.Event()
        status: list[int] = []

        def over(code: int) -> None:
            status.append(code)
            ended.set()

        child = Child(received=lambda data: None, ended=over, mask=str, log=lines.append)
        await child.start([sys.executable, "-c", script, "a b", "é"], {}, str(tmp_path))
        await ended.wait()
        await child.stop(1)
    assert status == [7]
    assert lines == [f"{tmp_path}['-c', 'a b', 'é']"]


async def test_floods_of_stderr_are_cut() -> None:
    """At most 64 KiB a second reach the log, and what was dropped is said."""
    lines: list[str] = []
    script = "import sys\nfor i in range(40000): sys.stderr.write('e' * 100 + '\\n')\nsys.stderr.write('E' * 100000)"
    async with running(argv=(sys.executable, "-c", script), limits=Limits(backoff_s=(9, 9))) as rig:
        with anyio.fail_after(20):
            await rig.call("echo")
        await rig.until_told("start_failed")
        lines = rig.log
    assert sum(map(len, lines)) < 500_000
    assert any("dropped" in line for line in lines)


async def test_a_process_that_does_not_read_fails_calls_unsent() -> None:
    """What piles up in front of a deaf process is bounded."""
    limits = Limits(backlog_bytes=1_000_000, close_s=0.1)
    async with running(limits=limits) as rig:
        await rig.call("echo")
        with anyio.move_on_after(0.2):
            await rig.call("stubborn")
        for _ in range(3):
            outcome = await rig.call("echo", {"text": "x" * 900_000}, timeout_s=0.05)
        assert not isinstance(outcome, InDoubt)
