"""The adapter against the broker itself, as processes: allowed, masked, denied, asked; over stdio and the socket."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_interposer import InterposerToolkit

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("interposer") is None, reason="needs the broker: pip install -e . at the repository's root"
)

BROKER = [sys.executable, "-m", "interposer"]
POLICY = """\
version: 1
rules:
  - {id: reads, effect: allow, skills: [shop.echo, shop.fails, shop.crm.get_customer]}
  - {id: no-sql, effect: deny, skills: [shop.db.query], message: SQL is not for agents.}
  - id: lead
    effect: ask
    skills: [shop.big]
    approval: {approvers: {groups: [leads]}, expires: 5m}
"""


@pytest.fixture
def config(tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A broker in front of the scripted service. The one uid is both agent and operator: this is no boundary."""
    monkeypatch.setenv("INTERPOSER_HOME", str(tmp_path / "home"))
    (tmp_path / "policy.yaml").write_text(POLICY)
    me = f"uid: {os.getuid()}"
    file = tmp_path / "interposer.yaml"
    file.write_text(
        "version: 1\npolicy: policy.yaml\n"
        f"upstreams: {{shop: {{command: {json.dumps(command)}}}}}\n"
        f"callers: [{{{me}, subject: alice}}]\n"
        f"operators: [{{{me}, subject: bob, groups: [leads]}}]\n"
        "approvals: {hold: 200ms}\n"
    )
    return file


@pytest.fixture
def serving(config: Path, tmp_path: Path) -> Iterator[Path]:
    """The broker as a daemon; its agents' socket."""
    line = [*BROKER, "serve", "--config", str(config)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = []
        for told in process.stdout:
            said.append(told)
            if told.strip() == "ready":
                break
        else:
            pytest.fail("".join(said))
        rest = threading.Thread(target=process.stdout.read)
        rest.start()
        yield tmp_path / "home" / "broker.sock"
        process.terminate()
        process.wait(10)
        rest.join()


def tool_call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": "call-1", "name": name, "args": arguments}


async def test_tools_of_a_spawned_broker(config: Path, log: Callable[[], list[str]]) -> None:
    """Allowed is answered and masked, denied is said to the model, and what may not be called is not on offer."""
    mail = "someone" + "@" + "example.org"
    async with InterposerToolkit.from_command([*BROKER, "stdio", "--config", str(config)], stderr="inherit") as toolkit:
        tools = {tool.name: tool for tool in await toolkit.aget_tools()}
        allowed = await tools["echo"].ainvoke(tool_call("echo", to=mail))
        failed = await asyncio.to_thread(tools["fails"].invoke, tool_call("fails"))
        pending = await tools["big"].ainvoke(tool_call("big", size=3))
    assert "db_query" not in tools
    assert allowed.status == "success"
    assert mail not in allowed.text
    assert "[REDACTED:" in allowed.text
    assert (failed.status, failed.text) == ("error", "the ledger is closed")
    assert pending.artifact["status"] == "pending_approval"
    assert pending.artifact["pending"]["approval_id"] in pending.text
    assert "call big" not in log()


async def test_call_waits_over_the_socket_for_its_approval(serving: Path, log: Callable[[], list[str]]) -> None:
    """A patient call gets its ticket, an operator approves that, and the call is executed exactly once."""
    async with InterposerToolkit.from_socket(serving, wait_for_approval_s=30) as toolkit:
        tools = {tool.name: tool for tool in await toolkit.aget_tools()}
        waiting = asyncio.ensure_future(tools["big"].ainvoke({"size": 3}))
        question = await asyncio.to_thread(_first_question)
        await asyncio.to_thread(_approve, question)
        async with asyncio.timeout(30):
            assert await waiting == "xxx"
    assert log().count("call big") == 1


def _first_question() -> str:
    for _ in range(200):
        listed = json.loads(_approvals("list", "--json"))
        if listed:
            return str(listed[0]["id"])
        threading.Event().wait(0.05)
    raise AssertionError("nobody asked")


def _approve(question: str) -> None:
    """What may destroy has to be looked at, and read for a second and a half."""
    shown = json.loads(_approvals("show", question, "--json"))
    threading.Event().wait(1.6)
    _approvals("approve", question, "--digest", shown["version"])


def _approvals(*words: str) -> str:
    line = [*BROKER, "approvals", *words]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout


def test_real_brokers_come_and_go(config: Path, tmp_path: Path) -> None:
    """After eight cycles, half of them with `kill -9` of the broker, neither a broker nor its service is left."""
    for n in range(8):
        with InterposerToolkit.from_command([*BROKER, "stdio", "--config", str(config)]) as toolkit:
            assert toolkit.get_tools()
            if n % 2:
                for pid in processes(str(config)):
                    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    mark = str(tmp_path)
    while (left := processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


def processes(mark: str) -> list[int]:
    """Processes whose command line holds the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line:
                found.append(int(entry.name))
    return found
