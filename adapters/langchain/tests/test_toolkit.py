"""The toolkit: which tools there are, and when that is asked anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.tools import BaseToolkit

from langchain_interposer import InterposerTool, InterposerToolkit, InterposerUnavailable


def test_every_skill_of_every_page_is_a_tool(toolkit: InterposerToolkit) -> None:
    """An empty cursor is a cursor; names are what model APIs accept."""
    tools = toolkit.get_tools()
    assert isinstance(toolkit, BaseToolkit)
    assert {"crm_get_customer", "db_query", "payments_refund", "echo", "offers_nothing"} <= {
        tool.name for tool in tools
    }
    assert all(isinstance(tool, InterposerTool) for tool in tools)


def test_list_is_asked_for_once(toolkit: InterposerToolkit) -> None:
    """While nothing has changed the same tools are handed out."""
    first, second = toolkit.get_tools(), toolkit.get_tools()
    assert all(a is b for a, b in zip(first, second, strict=True))


async def test_changed_list_is_asked_for_anew(toolkit: InterposerToolkit) -> None:
    """After `tools/list_changed` the next list has the new skill, and the old tools still work."""
    tools = {tool.name: tool for tool in await toolkit.aget_tools()}
    assert "grown" not in tools
    assert await tools["grow"].ainvoke({}) == "grown"
    assert "grown" in {tool.name for tool in await toolkit.aget_tools()}
    assert await tools["echo"].ainvoke({}) == "{}"


def test_nothing_starts_before_the_first_use(command: list[str], log: Callable[[], list[str]]) -> None:
    """A toolkit that is only constructed starts no process."""
    toolkit = InterposerToolkit.from_command(command)
    toolkit.close()
    assert log() == []


async def test_context_managers_close(command: list[str], log: Callable[[], list[str]]) -> None:
    """Both kinds end the broker."""
    with InterposerToolkit.from_command(command) as toolkit:
        assert toolkit.get_tools()
    async with InterposerToolkit.from_command(command) as toolkit:
        assert await toolkit.aget_tools()
    assert log().count("end") == 2
    with pytest.raises(InterposerUnavailable, match="closed"):
        await toolkit.aget_tools()


def test_broker_that_is_down_is_raised(tmp_path: Path) -> None:
    """No broker is an error of the program, never an empty list of tools."""
    with pytest.raises(InterposerUnavailable, match=r"none\.sock"):
        InterposerToolkit.from_socket(tmp_path / "none.sock").get_tools()


def test_toolkit_reads_the_environment(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With INTERPOSER_SOCKET set, no argument is needed."""
    monkeypatch.setenv("INTERPOSER_SOCKET", str(socket_path))
    with InterposerToolkit.from_env() as toolkit:
        assert toolkit.get_tools()
