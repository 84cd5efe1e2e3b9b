"""From MCP content blocks to what a LangChain tool message may hold.

A tool message with a block type that LangChain does not know is turned into one long JSON string, and model APIs refuse
media that they do not take; so what has no clean counterpart becomes a short note, and the block itself is kept for the
artifact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

Block: TypeAlias = dict[str, Any]
Content: TypeAlias = str | list[str | Block]


def to_content(blocks: Sequence[Any], structured: object = None) -> tuple[Content, list[Block]]:
    """The message content, a plain string where everything is text, and the blocks that only a note stands for."""
    kept: list[Block] = []
    mapped = [_block(block, kept) for block in blocks if isinstance(block, dict)]
    if not mapped:
        return ("(no content)" if structured is None else json.dumps(structured, ensure_ascii=False)), kept
    if all(block["type"] == "text" for block in mapped):
        return "\n".join(block["text"] for block in mapped), kept
    return list(mapped), kept


def text_of(blocks: Sequence[Any]) -> str:
    """The text blocks alone."""
    return "\n".join(str(block["text"]) for block in blocks if isinstance(block, dict) and "text" in block)


def _block(block: Block, kept: list[Block]) -> Block:
    kind, data, mime = block.get("type"), block.get("data"), block.get("mimeType")
    if kind == "text" and isinstance(block.get("text"), str):
        return _text(block["text"])
    if kind == "image" and isinstance(data, str) and isinstance(mime, str):
        return _base64("image", data, mime)
    if kind == "resource" and isinstance(block.get("resource"), dict):
        return _resource(block, block["resource"], kept)
    if kind == "resource_link":
        label = block.get("title") or block.get("name") or "resource"
        return _text(f"[{label}: {block.get('uri', '')}]")
    kept.append(block)
    return _text(f"[{kind} content{f', {mime}' if isinstance(mime, str) else ''}: not shown, see the artifact]")


def _resource(block: Block, resource: Block, kept: list[Block]) -> Block:
    text, blob, mime = resource.get("text"), resource.get("blob"), resource.get("mimeType")
    if isinstance(text, str):
        return _text(text)
    if isinstance(blob, str) and isinstance(mime, str):
        return _base64("image" if mime.startswith("image/") else "file", blob, mime)
    kept.append(block)
    return _text(f"[resource {resource.get('uri', '')}: not shown, see the artifact]")


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _base64(kind: str, data: str, mime: str) -> Block:
    return {"type": kind, "base64": data, "mime_type": mime}
