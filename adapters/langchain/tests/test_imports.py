"""What the adapter needs: langchain-core and the standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "langchain_interposer"
ALLOWED = sys.stdlib_module_names | {"langchain_core", "langchain_interposer"}
LOADED = """
import sys
sys.path.insert(0, sys.argv[1])
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseToolkit, StructuredTool
before = set(sys.modules)
import langchain_interposer
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def test_every_import_is_allowed() -> None:
    """No file names a third-party module other than langchain-core, even lazily."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= ALLOWED, file.name


def test_importing_loads_nothing_else() -> None:
    """Beyond what langchain-core's messages and tools load by themselves, only ours and the standard library."""
    line = [sys.executable, "-c", LOADED, str(PACKAGE.parent)]
    loaded = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    assert "langchain_interposer" in loaded
    assert set(loaded) <= ALLOWED
