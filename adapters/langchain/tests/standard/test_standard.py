"""LangChain's own test suites for tools, on a tool of ours. They need `langchain-tests`, in an environment of its own.

python -m venv VENV && VENV/bin/pip install langchain-tests -e adapters/langchain
VENV/bin/python -m pytest -c adapters/langchain/tests/standard/pytest.ini adapters/langchain/tests/standard
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "langchain_tests", reason="needs langchain-tests: pip install langchain-tests, in its own environment"
)

from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from langchain_interposer import InterposerToolkit

FAKE_BROKER = Path(__file__).parents[1] / "fake_broker.py"
LOG = Path(tempfile.mkdtemp()) / "broker.log"
TOOLKIT = InterposerToolkit.from_command([sys.executable, "-S", str(FAKE_BROKER), str(LOG)])
TOOL = {tool.name: tool for tool in TOOLKIT.get_tools()}["crm_get_customer"]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """LangChain runs its tools on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Any:
    yield
    TOOLKIT.close()


class TestUnit(ToolsUnitTests):  # type: ignore[misc] # untyped where it is not installed
    """The unit suite."""

    @property
    def tool_constructor(self) -> BaseTool:
        return TOOL

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"customer": "c1"}


class TestIntegration(ToolsIntegrationTests):  # type: ignore[misc]
    """The integration suite: every call goes to a broker process."""

    @property
    def tool_constructor(self) -> BaseTool:
        return TOOL

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"customer": "c1"}
