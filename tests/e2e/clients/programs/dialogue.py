"""What a client program and its test say to each other: JSON lines out, and a line in when the test lets it go on.

Standard library only: it is imported in environments that nobody here made.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


def order() -> dict[str, Any]:
    """What the test wants: `command` that speaks MCP, `arguments` of the call, and more."""
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    return wanted


def say(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


async def told() -> bool:
    """Wait until the test says go on, or no more; the loop runs meanwhile."""
    return bool(await asyncio.to_thread(sys.stdin.readline))
