"""What the adapter's tests share: the scripted broker, and its log of what reached it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ADAPTER = Path(__file__).resolve().parents[1]
if str(ADAPTER) not in sys.path:
    sys.path.insert(0, str(ADAPTER))

from langchain_interposer import InterposerClient, InterposerToolkit  # noqa: E402 - needs the path above

FAKE_BROKER = Path(__file__).with_name("fake_broker.py")


@pytest.fixture
def anyio_backend() -> str:
    """LangChain runs its tools on asyncio only."""
    return "asyncio"


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], list[str]]:
    """What the scripted broker saw, in order."""
    file = tmp_path / "broker.log"
    return lambda: file.read_text().split("\n")[:-1] if file.exists() else []


@pytest.fixture
def ended() -> Callable[[int], bool]:
    """Whether a process ends within 5 s, be it as an orphan that still waits for the system's first process to reap it.

    Asked every 10 ms: the death of a stranger's child sends us no event.
    """

    def now(pid: int) -> bool:
        line = ["ps", "-o", "stat=", "-p", str(pid)]
        state = subprocess.run(line, capture_output=True, text=True, check=False).stdout
        return not state or state.startswith("Z")

    def within_5_s(pid: int) -> bool:
        pause, until = threading.Event(), time.monotonic() + 5
        while not now(pid):
            if time.monotonic() > until:
                return False
            pause.wait(0.01)
        return True

    return within_5_s


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    return [sys.executable, "-S", str(FAKE_BROKER), str(tmp_path / "broker.log")]


@pytest.fixture
def client(command: list[str]) -> Iterator[InterposerClient]:
    client = InterposerClient.spawn(command, stderr="inherit", timeout_s=5)
    yield client
    client.close()


@pytest.fixture
def toolkit(command: list[str]) -> Iterator[InterposerToolkit]:
    with InterposerToolkit.from_command(command, stderr="inherit", timeout_s=5) as toolkit:
        yield toolkit


@pytest.fixture
def socket_path(tmp_path: Path, command: list[str]) -> Iterator[Path]:
    """A scripted broker that listens."""
    path = tmp_path / "broker.sock"
    with subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield path
        process.kill()
