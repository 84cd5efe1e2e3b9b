"""The example agent, as a newcomer runs it: against the broker, with the example's skill service behind it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
ADAPTER = Path(__file__).resolve().parents[1]
AGENT = EXAMPLES / "langchain_agent" / "agent.py"
SERVICE = EXAMPLES / "react_service"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("interposer") is None or not SERVICE.exists(),
    reason="needs the broker and its examples: a checkout of the repository, and pip install -e . at its root",
)


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A copy of the example service, with its own key, for the uid that runs the tests."""
    folder = tmp_path / "react_service"
    shutil.copytree(SERVICE, folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    config = folder / "interposer.yaml"
    config.write_text(config.read_text().replace("uid: 1000", f"uid: {os.getuid()}"))
    subprocess.run([sys.executable, "service.py", "init", "data"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("way", [[], ["--async"]], ids=["sync", "async"])
def test_example_agent_sees_masked_denied_and_pending(way: list[str], service: Path, tmp_path: Path) -> None:
    """The agent reads a masked record, is denied, is given a ticket, and concludes; the key is nowhere."""
    broker = [sys.executable, "-m", "interposer", "stdio", "--config", "interposer.yaml"]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ADAPTER), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "INTERPOSER_HOME": str(tmp_path / "home"),
    }
    line = [sys.executable, str(AGENT), *way, "--", *broker]
    done = subprocess.run(line, cwd=service, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "[success, ok]" in done.stdout
    assert "[REDACTED:credit_card]" in done.stdout
    assert "[error, denied]" in done.stdout
    assert "[error, pending_approval]" in done.stdout
    assert "agent: This is what I was told." in done.stdout
    assert (service / "data" / "service.key").read_text().strip() not in done.stdout + done.stderr
