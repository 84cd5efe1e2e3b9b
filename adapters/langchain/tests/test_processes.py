"""Broker processes: none is left behind, however its agent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from langchain_interposer import InterposerClient, InterposerToolkit, NotExecuted

ADAPTER = Path(__file__).resolve().parents[1]
AGENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from langchain_interposer import InterposerToolkit
toolkit = InterposerToolkit.from_command(sys.argv[3:])
tools = toolkit.get_tools()
print("ready", flush=True)
sys.stdin.readline() if sys.argv[2] == "wait" else None
"""
DEAF = """
import json, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
id = json.loads(sys.stdin.readline())["id"]
print(json.dumps({"jsonrpc": "2.0", "id": id, "result": {"protocolVersion": "2025-11-25"}}), flush=True)
time.sleep(1000)
"""


def gone(pid: int) -> bool:
    """Whether no such process is left, not even unreaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def started(log: Callable[[], list[str]]) -> list[int]:
    return [int(line.split()[1]) for line in log() if line.startswith("start")]


def test_twenty_brokers_come_and_go(command: list[str], log: Callable[[], list[str]]) -> None:
    """After 20 cycles, half of them with the broker killed while it is in use, no process and no thread is left."""
    before = set(threading.enumerate())
    for n in range(20):
        with InterposerToolkit.from_command(command) as toolkit:
            assert toolkit.get_tools()
            if n % 2:
                os.kill(started(log)[-1], signal.SIGKILL)
    pids = started(log)
    assert len(pids) == 20
    assert all(gone(pid) for pid in pids)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_broker_ends_with_its_agent(
    end: str, command: list[str], log: Callable[[], list[str]], ended: Callable[[int], bool]
) -> None:
    """An agent that leaves without closing, or dies by kill -9, takes its broker with it."""
    line = [sys.executable, "-c", AGENT, str(ADAPTER), "wait" if end == "kill" else "leave", *command]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"ready\n"
        if end == "kill":
            agent.kill()
        agent.wait(10)
    (pid,) = started(log)
    assert ended(pid)
    assert log()[-1] == "end"


def test_broker_that_ignores_everything_is_killed() -> None:
    """End of input and SIGTERM ignored: SIGKILL ends it, within seconds."""
    client = InterposerClient.spawn([sys.executable, "-c", DEAF])
    client.open()
    client.close()
    with pytest.raises(NotExecuted, match="closed"):
        client.open()


def test_forgotten_client_lets_its_broker_go(
    command: list[str], log: Callable[[], list[str]], ended: Callable[[int], bool]
) -> None:
    """A client that nobody holds any more ends its broker without being closed."""
    client = InterposerClient.spawn(command)
    client.open()
    (pid,) = started(log)
    del client
    assert ended(pid)


def test_broker_words_go_where_they_were_sent(tmp_path: Path) -> None:
    """A broker that cannot start leaves its reason in the file named for it."""
    words = tmp_path / "stderr.txt"
    client = InterposerClient.spawn(["sh", "-c", "echo no configuration >&2"], stderr=words)
    with pytest.raises(NotExecuted, match="did not start"):
        client.open()
    client.close()
    assert words.read_text() == "no configuration\n"
