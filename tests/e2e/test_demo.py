"""The demo says yes only when its story is true, and it leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from interposer.cli.proof import NotProved, prove, spellings
from interposer.cli.stage import Stage, StageFault, end, service_folder

NAMES = [
    "direct",
    "allowed",
    "masked",
    "blocked",
    "approved",
    "denied",
    "untrusted",
    "langchain",
    "keyless",
    "replayed",
    "verified",
]


@pytest.fixture
def room() -> Iterator[Path]:
    """A short path: the demo's socket has to fit into 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    yield folder
    shutil.rmtree(folder)


def start(room: Path, *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TMPDIR": str(room), "SKILL_SERVICE_KEY": "from-outside"}
    command = [sys.executable, "-m", "interposer", "demo", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def living(room: Path) -> list[str]:
    """Command lines of processes that still work in the room."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            try:
                words = f"{(place / 'cwd').readlink()} {(place / 'cmdline').read_text()}"
            except OSError:
                continue
            if str(room) in words:
                found.append(words)
    return found


def children(pid: int) -> list[int]:
    """Who would clear up after it is among them."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_every_step_proves_its_claim_and_nothing_is_left(room: Path) -> None:
    """`interposer demo --json` proves all of its steps in under a minute and leaves no process and no file."""
    demo = start(room, "--json")
    out, complaints = demo.communicate(timeout=60)
    *steps, verdict = [json.loads(line) for line in out.splitlines()]
    assert demo.returncode == 0, (verdict, complaints)
    assert verdict["ok"] is True
    assert [step["name"] for step in steps] == NAMES
    assert [step["step"] for step in steps] == list(range(1, len(NAMES) + 1))
    assert all(step["ok"] for step in steps)
    assert complaints == b""
    check_facts({step["name"]: step for step in steps})
    assert living(room) == []
    assert list(room.iterdir()) == []


def check_facts(step: dict[str, Any]) -> None:
    assert step["masked"]["card"] == "[REDACTED:credit_card]"
    assert step["masked"]["ssn"] == "[REDACTED:us_ssn]"
    assert step["blocked"]["rule"] == "no-schema-changes"
    assert (step["approved"]["new_lines"], step["denied"]["new_lines"]) == (1, 0)
    assert step["approved"]["question"] != step["denied"]["question"]
    assert step["keyless"]["bytes_received"] > 5000
    assert step["verified"]["tampered_exit"] == 1
    installed = find_spec("langchain_core") is not None
    assert step["langchain"].get("skipped", False) is not installed


def test_text_fits_a_terminal_of_80_columns(room: Path) -> None:
    """Piped, the demo prints plain text of at most 80 columns, without any control character."""
    demo = start(room)
    out, complaints = demo.communicate(timeout=60)
    text = out.decode()
    assert demo.returncode == 0, (text, complaints)
    assert max(map(len, text.splitlines())) <= 80
    assert all(character == "\n" or character.isprintable() for character in text)


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_clears_up(room: Path, sign: signal.Signals, code: int) -> None:
    """Ctrl-C in the middle of the story ends every process and removes the directory."""
    demo = start(room, "--json")
    assert demo.stdout is not None
    for _ in range(3):
        assert json.loads(demo.stdout.readline())["ok"] is True
    assert living(room)
    demo.send_signal(sign)
    demo.communicate(timeout=30)
    assert demo.returncode == code
    assert living(room) == []
    assert list(room.iterdir()) == []


def test_a_killed_demo_leaves_nothing(room: Path) -> None:
    """After `kill -9` of the demo, its broker, its agent and its directory are gone within seconds."""
    demo = start(room, "--json")
    assert demo.stdout is not None
    for _ in range(3):
        assert json.loads(demo.stdout.readline())["ok"] is True
    started = [os.pidfd_open(pid) for pid in children(demo.pid)]
    demo.kill()
    demo.communicate(timeout=30)
    deadline = time.monotonic() + 20
    for descriptor in started:
        assert select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]
        os.close(descriptor)
    assert living(room) == []
    assert list(room.iterdir()) == []


def test_a_failed_proof_ends_the_demo_with_no(room: Path) -> None:
    """A stage that is left through an exception is cleared as well, strays included."""

    def play() -> None:
        with Stage() as stage:
            stray = [sys.executable, "-c", "import signal; signal.alarm(60); signal.pause()"]
            strays.append(subprocess.Popen(stray, cwd=stage.root, start_new_session=True))
            assert stage.processes() == [strays[0].pid]
            roots.append(stage.root)
            prove(2 + 2 == 5, "arithmetic")

    strays: list[subprocess.Popen[bytes]] = []
    roots: list[Path] = []
    with pytest.raises(NotProved, match="arithmetic"):
        play()
    assert strays[0].wait(5) == -signal.SIGKILL
    assert not roots[0].exists()


def test_a_broker_that_cannot_start_is_a_fault_with_its_last_words() -> None:
    """Where the daemon does not come up, the demo says what it said."""
    with Stage() as stage:
        (stage.service / "interposer.yaml").write_text("version: 1\nno_such_key: true\n")
        with pytest.raises(StageFault, match="no_such_key"):
            stage.open_broker()


def test_a_process_that_ignores_the_signal_is_ended() -> None:
    """`end` does not leave before the process is gone, whether it listens or not."""
    code = (
        "import signal; signal.alarm(60); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('deaf', flush=True); signal.pause()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"deaf\n"
    end(process, patience_s=0.2)
    assert process.returncode == -signal.SIGKILL


def test_the_service_is_found_in_a_checkout() -> None:
    """The demo finds the example service that it plays with."""
    assert (service_folder() / "skills.json").is_file()


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "service:"])
def test_the_search_finds_a_key_in_base64(before: str) -> None:
    """At each of the three positions of Base64, one spelling is a part of what is sent."""
    import base64

    key = "k3y-" + "0123456789abcdefghijklmnopqrstuvwxyz_XY"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        sent = encode(f"{before}{key};and more".encode())
        assert any(spelling in sent for spelling in spellings(key))


def test_the_search_looks_for_parts_of_the_key() -> None:
    """Twelve characters of the key in a row are a find."""
    key = "k3y-" + "0123456789abcdefghijklmnopqrstuvwxyz_XY"
    assert any(spelling in b"..." + key[20:32].encode() + b"..." for spelling in spellings(key))
