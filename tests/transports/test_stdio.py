"""Standard input and output, as a real process has them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]

SERVER = """
import asyncio, os, sys
from interposer.transports.stdio import Stdio

class Echo:
    def __init__(self, connection):
        self.connection = connection
        print("a stray line", flush=True)
        os.write(1, b"another stray line\\n")
        caller = connection.caller
        assert (caller.transport, caller.uid, caller.pid) == ("stdio", os.getuid(), os.getppid())
    def received(self, data): self.connection.send(data)
    def ended(self): self.connection.close()
    def drained(self): pass

async def main():
    await Stdio().serve(Echo, lambda address: print("ready", address, file=sys.stderr, flush=True))
    print("returned", file=sys.stderr)

{run}
"""
LOOPS = {"asyncio": "asyncio.run(main())", "uvloop": "import uvloop; uvloop.run(main())"}


@pytest.fixture(params=sorted(LOOPS))
def server(request: pytest.FixtureRequest) -> list[str]:
    """A command that echoes its standard input."""
    return [sys.executable, "-W", "error", "-c", SERVER.format(run=LOOPS[request.param])]


@pytest.fixture
def running(server: list[str]) -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def start(stdin: int | IO[bytes], stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(server, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def test_stray_prints_never_reach_the_wire(running: Any) -> None:
    """What is printed inside the broker lands on standard error; the wire carries frames only."""
    process = running(subprocess.PIPE, subprocess.PIPE)
    out, err = process.communicate(b"one\ntwo\n", timeout=10)
    assert out == b"one\ntwo\n"
    assert b"a stray line" in err
    assert b"another stray line" in err
    assert b"returned" in err
    assert process.returncode == 0


def test_a_closed_standard_output_is_the_end(running: Any) -> None:
    """When nobody reads the answers serving returns; it does not crash and does not loop."""
    process = running(subprocess.PIPE, subprocess.PIPE)
    process.stdin.write(b"x\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"x\n"
    process.stdout.close()
    assert process.wait(10) == 0
    assert b"Traceback" not in process.stderr.read()


def test_a_regular_file_is_read_to_its_end(running: Any, tmp_path: Path) -> None:
    """Files in place of pipes work: every byte is read, and every answer is written."""
    given = os.urandom(300_000)
    (tmp_path / "in").write_bytes(given)
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as sink:
        process = running(source, sink)
        assert process.wait(10) == 0
    assert (tmp_path / "out").read_bytes() == given


def test_no_input_at_all_is_the_end(running: Any) -> None:
    """With /dev/null on both sides serving returns at once."""
    process = running(subprocess.DEVNULL, subprocess.DEVNULL)
    assert process.wait(10) == 0
    assert b"Traceback" not in process.stderr.read()


def test_one_socket_may_be_both(running: Any) -> None:
    """A socket as standard input and output, as some runtimes give, works both ways."""
    import socket

    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = running(theirs.fileno(), theirs.fileno())
        ours.settimeout(10)
        ours.sendall(b"hello\n")
        assert ours.recv(100) == b"hello\n"
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""
        assert process.wait(10) == 0


def test_a_terminal_is_read_line_by_line(running: Any) -> None:
    """A terminal works, and keeps the blocking mode that it shares with the shell."""
    ours, theirs = os.openpty()
    process = running(theirs, subprocess.PIPE)
    os.write(ours, b"typed\n")
    assert process.stdout.readline() == b"typed\n"
    assert os.get_blocking(theirs)
    os.write(ours, b"\x04")
    assert process.wait(10) == 0
    os.close(ours)
    os.close(theirs)
