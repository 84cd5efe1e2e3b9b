"""What some tests need beyond Python: skipped with the command to get it, or failed where nothing may be skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
NODE_BIN = ROOT / ".node/node_modules/.bin"


def node_server(name: str) -> str:
    """The path of an MCP server from npm."""
    path = NODE_BIN / name
    if not path.exists():
        missing(f"{name} is not installed; run `make servers` (needs Node 20 or newer)")
    return str(path)


def missing(reason: str) -> NoReturn:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("INTERPOSER_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)
