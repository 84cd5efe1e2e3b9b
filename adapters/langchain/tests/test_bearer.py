"""The access token: with every request, the token of now, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_interposer import InterposerClient, InterposerToolkit, NotExecuted

MIRROR = Path(__file__).with_name("mirror_broker.py")


@pytest.fixture
def seen(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """The requests that reached the broker: method and `_meta`, in order."""
    file = tmp_path / "seen"
    return lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def mirror(tmp_path: Path) -> list[str]:
    return [sys.executable, "-S", str(MIRROR), str(tmp_path / "seen")]


@pytest.fixture
def opened() -> Iterator[Callable[[InterposerClient], InterposerClient]]:
    clients: list[InterposerClient] = []

    def keep(client: InterposerClient) -> InterposerClient:
        clients.append(client)
        return client

    yield keep
    for client in clients:
        client.close()


Opened = Callable[[InterposerClient], InterposerClient]
Seen = Callable[[], list[dict[str, Any]]]


async def test_every_request_has_the_token_of_now(mirror: list[str], seen: Seen, opened: Opened) -> None:
    """A refreshed token speaks from the next request on, sync and async, for lists and calls."""
    tokens = iter(["one", "two", "three", "four"])
    client = opened(InterposerClient.spawn(mirror, timeout_s=5, token=lambda: next(tokens)))
    await asyncio.to_thread(client.tools)
    await asyncio.to_thread(client.call, "echo", {})
    await client.acall("echo", {})
    await client.acall("echo", {}, on_progress=lambda _: None)
    asked = [request for request in seen() if request["method"].startswith("tools/")]
    assert [request["_meta"]["interposer/token"] for request in asked] == ["one", "two", "three", "four"]
    assert "progressToken" in asked[3]["_meta"]


def test_a_file_is_read_for_each_request(mirror: list[str], seen: Seen, opened: Opened, tmp_path: Path) -> None:
    """Whoever replaces the file has replaced the token."""
    file = tmp_path / "token"
    client = opened(InterposerClient.spawn(mirror, timeout_s=5, token_file=file))
    for token in ("one", "two"):
        file.write_text(token + "\n")
        client.call("echo", {})
    assert [r["_meta"]["interposer/token"] for r in seen() if r["method"] == "tools/call"] == ["one", "two"]


def test_without_a_token_nothing_is_added(mirror: list[str], seen: Seen, opened: Opened) -> None:
    """The broker judges by other means who calls."""
    opened(InterposerClient.spawn(mirror, timeout_s=5)).call("echo", {})
    assert [request["_meta"] for request in seen()] == [None, None]


@pytest.mark.parametrize("kind", ["missing file", "empty file", "failing", "not text", "not ASCII", "empty"])
async def test_a_token_that_cannot_be_had_is_a_call_that_is_not_made(
    mirror: list[str], seen: Seen, opened: Opened, tmp_path: Path, kind: str
) -> None:
    """Nothing goes out in somebody else's name, and no text holds what the function said."""

    def failing() -> str:
        raise RuntimeError("client_secret=hunter2")

    (tmp_path / "empty").touch()
    given: dict[str, dict[str, Any]] = {
        "missing file": {"token_file": tmp_path / "none"},
        "empty file": {"token_file": tmp_path / "empty"},
        "failing": {"token": failing},
        "not text": {"token": lambda: None},
        "not ASCII": {"token": "\ud800"},
        "empty": {"token": ""},
    }
    client = opened(InterposerClient.spawn(mirror, timeout_s=5, **given[kind]))
    with pytest.raises(NotExecuted, match="Nothing was executed") as sync:
        await asyncio.to_thread(client.call, "echo", {})
    with pytest.raises(NotExecuted, match="token could not be had"):
        await client.acall("echo", {})
    assert "hunter2" not in str(sync.value)
    assert [request["method"] for request in seen()] == ["initialize"]


async def test_a_slow_token_does_not_block_the_loop(mirror: list[str], opened: Opened) -> None:
    """A function that asks an identity provider waits in a thread."""
    go = threading.Event()
    client = opened(InterposerClient.spawn(mirror, timeout_s=5, token=lambda: "late" if go.wait(5) else ""))
    async with asyncio.timeout(5):
        await asyncio.to_thread(client.open)
        call = asyncio.ensure_future(client.acall("echo", {}))
        await asyncio.sleep(0)
        go.set()
        assert "result" in await call


def test_a_token_is_shown_to_the_broker_only(mirror: list[str], seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a log line at any level nor a `repr` holds it."""
    token = "-".join(["do", "not", "show"])
    with caplog.at_level(logging.DEBUG), InterposerToolkit.from_command(mirror, timeout_s=5, token=token) as toolkit:
        tools = toolkit.get_tools()
        tools[0].invoke({})
        shown = [repr(toolkit), str(toolkit), repr(toolkit.client), repr(vars(toolkit.client)), repr(tools)]
        shown.append(repr(tools[0].metadata))
    assert token not in "".join(shown) + caplog.text
    assert [r["_meta"]["interposer/token"] for r in seen() if r["_meta"]] == [token, token]


def test_a_misspelt_option_is_not_ignored(mirror: list[str]) -> None:
    """A toolkit that was meant to have a token does not work without one."""
    with pytest.raises(ValueError, match="tokn"):
        InterposerToolkit.from_command(mirror, tokn="x")


def test_two_sources_are_a_mistake(mirror: list[str]) -> None:
    """Nobody has to guess which of them speaks."""
    with pytest.raises(ValueError, match="not both"):
        InterposerClient.spawn(mirror, token="a", token_file="b")


def test_the_environment_brings_a_token(mirror: list[str], seen: Seen, opened: Opened, tmp_path: Path) -> None:
    """INTERPOSER_TOKEN_FILE wins over INTERPOSER_TOKEN, and an argument over both."""
    (tmp_path / "token").write_text("file")
    environ = {"INTERPOSER_COMMAND": " ".join(mirror), "INTERPOSER_TOKEN": "variable"}
    opened(InterposerClient.from_env(environ, timeout_s=5)).call("echo", {})
    environ["INTERPOSER_TOKEN_FILE"] = str(tmp_path / "token")
    opened(InterposerClient.from_env(environ, timeout_s=5)).call("echo", {})
    opened(InterposerClient.from_env(environ, timeout_s=5, token="argument")).call("echo", {})
    tokens = [r["_meta"]["interposer/token"] for r in seen() if r["method"] == "tools/call"]
    assert tokens == ["variable", "file", "argument"]
