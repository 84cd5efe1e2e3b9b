"""From MCP content to message content."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_interposer.content import to_content

PNG = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}


def resource(**fields: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": "file:///r", **fields}}


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([resource(text="read me")], "read me"),
        ([{"type": "resource_link", "uri": "https://e.org/x", "name": "x"}], "[x: https://e.org/x]"),
        ([{"type": "image", "data": "aGk=", "mimeType": "image/png"}], [PNG]),
        ([resource(blob="aGk=", mimeType="image/png")], [PNG]),
        ([resource(blob="aGk=", mimeType="a/b")], [{"type": "file", "base64": "aGk=", "mime_type": "a/b"}]),
    ],
)
def test_block_has_its_counterpart(blocks: list[Any], content: object) -> None:
    """Text alone is a string; the rest are LangChain's standard blocks."""
    assert to_content(blocks) == (content, [])


@pytest.mark.parametrize(
    "block", [{"type": "hologram"}, {"type": "image"}, {"type": "text", "text": 1}, resource(blob="aGk="), {}]
)
def test_block_without_counterpart_is_noted_and_kept(block: dict[str, Any]) -> None:
    """Nothing is lost and nothing crashes."""
    content, kept = to_content([block])
    assert "not shown" in content
    assert kept == [block]


def test_structured_result_without_text_is_shown_as_json() -> None:
    """A model reads the content only: it gets the structure there."""
    assert to_content([], {"a": "é"}) == ('{"a": "é"}', [])
