"""Real brokers for tests: started, awaited, and gone afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream


@asynccontextmanager
async def daemon(config: Path, env: Mapping[str, str]) -> AsyncIterator[list[str]]:
    """`interposer serve`, ready; yields the lines that it printed before. Its log goes to `stderr` beside the
    configuration."""
    words = [sys.executable, "-m", "interposer", "serve", "--config", str(config)]
    with config.with_name("stderr").open("ab") as log:
        process = await anyio.open_process(words, stderr=log, env={**os.environ, **env})
    try:
        if process.stdout is None:
            raise RuntimeError("the daemon has no output")
        said = BufferedByteReceiveStream(process.stdout)
        lines: list[str] = []
        with anyio.fail_after(20):
            while "ready" not in lines:
                lines.append((await said.receive_until(b"\n", 4096)).decode())
        yield lines
        process.terminate()
        with anyio.fail_after(15):
            assert await process.wait() == 0
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


@asynccontextmanager
async def doomed(config: Path, env: Mapping[str, str]) -> AsyncIterator[Process]:
    """`interposer serve`, ready, for a test that kills it; whoever still lives at the end is killed then."""
    words = [sys.executable, "-m", "interposer", "serve", "--config", str(config)]
    with config.with_name("stderr").open("ab") as log:
        process = await anyio.open_process(words, stderr=log, env={**os.environ, **env})
    try:
        if process.stdout is None:
            raise RuntimeError("the daemon has no output")
        said = BufferedByteReceiveStream(process.stdout)
        with anyio.fail_after(20):
            while await said.receive_until(b"\n", 4096) != b"ready":
                pass
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.aclose()


async def interposer(home: Path, *words: str, check: bool = True) -> str:
    """The output of one command."""
    env = {**os.environ, "INTERPOSER_HOME": str(home)}
    done = await anyio.run_process([sys.executable, "-m", "interposer", *words], env=env, check=check)
    return done.stdout.decode()


async def operator(home: Path, *words: str) -> str:
    return await interposer(home, "approvals", *words)
