"""The demo's stage: a temporary directory, and the real processes that the story is played with.

Everything lies under one new directory of mode 0700, and every process belongs to a group of its own. Leaving the
stage ends all of them and removes the directory, in whatever way it is left: a watcher sees to it after `kill -9`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

KEY_VARIABLE = "SKILL_SERVICE_KEY"
START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
GRACE_S = 1.0
"""For an agent whose input has ended; one that still waits for an answer is told to go."""
SOCKET_PATH_LIMIT = 100
"""A Unix socket's path has at most 107 bytes."""
_WATCHER = """read -r done && exit
kill -TERM "$BROKER"
for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$BROKER" 2>/dev/null || break; sleep 0.5; done
rm -rf -- "$STAGE"
"""
"""Reads `done`, or the end of a pipe whose other end died with the demo."""


class StageFault(Exception):
    """A process did not do its part; the text says which, and what it last said."""


class Lines:
    """The lines of a pipe, each awaited with a deadline."""

    def __init__(self, stream: IO[bytes], who: str) -> None:
        self._stream = stream
        self._who = who
        self._buffer = b""
        self._ready = selectors.DefaultSelector()
        self._ready.register(stream, selectors.EVENT_READ)

    def next(self, timeout_s: float) -> bytes:
        """The next line. Raises `StageFault` when it does not come in time or the pipe has ended."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            if not self._ready.select(max(0.0, deadline - time.monotonic())):
                raise StageFault(f"{self._who} said nothing for {timeout_s:g} s")
            some = os.read(self._stream.fileno(), 65536)
            if not some:
                raise StageFault(f"{self._who} ended")
            self._buffer += some
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def close(self) -> None:
        self._ready.close()
        self._stream.close()


class Agent:
    """The scripted agent's process, as its operator sees it: steps in, answers out."""

    def __init__(self, process: subprocess.Popen[bytes], received: Path) -> None:
        self.process = process
        self.received_file = received
        self._steps = _pipe(process.stdin)
        self._answers = Lines(_pipe(process.stdout), "the agent")
        self.tools: list[str] = json.loads(self._answers.next(START_TIMEOUT_S))["tools"]

    def begin(self, skill: str, arguments: dict[str, Any]) -> None:
        """Let the agent make a call; `finish` waits for what came of it."""
        self._steps.write(json.dumps({"call": skill, "arguments": arguments}).encode() + b"\n")
        self._steps.flush()

    def finish(self) -> dict[str, Any]:
        """The answer as the agent received it: a JSON-RPC response."""
        answer: dict[str, Any] = json.loads(self._answers.next(ANSWER_TIMEOUT_S))["answer"]
        return answer

    def call(self, skill: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.begin(skill, arguments)
        return self.finish()

    def received(self) -> bytes:
        """Every byte that the broker, and the shim on its way, ever gave to the agent."""
        return self.received_file.read_bytes() + self.received_file.with_suffix(".stderr").read_bytes()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._steps.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        end(self.process)
        self._answers.close()


class Stage:
    """The directory and the processes. Use as a context manager."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self.agent: Agent | None = None
        self._broker: subprocess.Popen[bytes] | None = None
        self._said: Lines | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stage:
        long = len(tempfile.gettempdir()) > SOCKET_PATH_LIMIT - len("/interposer-demo-12345678/home/broker.sock")
        self._root = Path(tempfile.mkdtemp(prefix="interposer-demo-", dir="/tmp" if long else None)).resolve()  # noqa: S108
        try:
            self._furnish()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def root(self) -> Path:
        if self._root is None:
            raise StageFault("the stage was not entered")
        return self._root

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def service(self) -> Path:
        return self.root / "service"

    @property
    def files(self) -> Path:
        """The service's data directory, where its effects can be seen."""
        return self.service / "data"

    @property
    def socket(self) -> Path:
        return self.home / "broker.sock"

    def key(self) -> str:
        """The service's private key; the demo reads it only to search for it."""
        return (self.files / "service.key").read_text()

    def _furnish(self) -> None:
        self.home.mkdir(mode=0o700)
        shutil.copytree(service_folder(), self.service, ignore=shutil.ignore_patterns("__pycache__", "data"))
        self.run([sys.executable, "service.py", "init", "data"], cwd=self.service)
        configuration = self.service / "interposer.yaml"
        text = configuration.read_text()
        # The example's own configuration, with this Python and this user in the places meant for them.
        text = text.replace("[python3, ", f"[{json.dumps(sys.executable)}, ")
        configuration.write_text(re.sub(r"\{uid: \d+,", f"{{uid: {os.getuid()},", text))

    def run(
        self, command: list[str], *, cwd: Path | None = None, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a short process to its end. Raises `StageFault` when it does not end in time."""
        process = self._start(command, cwd=cwd, env=env, stderr=subprocess.PIPE)
        try:
            out, complaints = process.communicate(stdin, ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise StageFault(f"{' '.join(command[:4])} did not end within {ANSWER_TIMEOUT_S:g} s") from None
        finally:
            end(process)
        return subprocess.CompletedProcess(command, process.returncode, out, complaints)

    def interposer(self, *words: str, home: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """One of the broker's own commands, as an operator would give it in a terminal."""
        environment = {**plain_environment(), "INTERPOSER_HOME": str(home or self.home)}
        return self.run([*itself(), *words], env=environment)

    def open_broker(self) -> list[str]:
        """Start the daemon and return the lines it printed until it was ready."""
        self._broker = self._start(
            [*itself(), "serve", "--config", str(self.service / "interposer.yaml")], stderr=self._log("broker.log")
        )
        self._watcher = self._watch(self._broker.pid)
        self._said = Lines(_pipe(self._broker.stdout), "the broker")
        said: list[str] = []
        try:
            while not said or said[-1] != "ready":
                said.append(self._said.next(START_TIMEOUT_S).decode(errors="replace").strip())
        except StageFault as fault:
            raise StageFault(f"{fault}\n{self.complaints('broker.log')}") from None
        return said

    def open_agent(self) -> Agent:
        """Start the agent with the shim as its tool server, and with nothing of ours in its environment."""
        received = self.root / "agent" / "received.bin"
        received.parent.mkdir(mode=0o700)
        command = [sys.executable, str(self.service / "agent.py"), "--received", str(received), "--"]
        process = self._start(
            [*command, *itself(), "connect", str(self.socket)], env=plain_environment(), stderr=self._log("agent.log")
        )
        try:
            self.agent = Agent(process, received)
        except StageFault as fault:
            end(process)
            said = [self.complaints(who) for who in ("agent/received.stderr", "agent.log", "broker.log")]
            raise StageFault("\n".join([str(fault), *filter(None, said)])) from None
        return self.agent

    def close_agent(self) -> None:
        if self.agent is not None:
            self.agent.close()

    def close_broker(self) -> None:
        if self._broker is not None:
            end(self._broker)
            self._broker = None
        if self._said is not None:
            self._said.close()
            self._said = None

    def complaints(self, name: str) -> str:
        """The end of what a process wrote on stderr."""
        log = self.root / name
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.is_file() else ""

    def processes(self) -> list[int]:
        """Ids of living processes that work on this stage, whoever their parent is."""
        return [pid for pid in _own_processes() if str(self.root) in _whereabouts(pid)]

    def close(self) -> None:
        """No process of the stage and no file of it is left."""
        if self._root is None:
            return
        with _uninterrupted():
            self.close_agent()
            self.close_broker()
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self._root, ignore_errors=True)
            self._dismiss()

    def _watch(self, broker: int) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.defpath, "STAGE": str(self.root), "BROKER": str(broker)}
        return self._start(["/bin/sh", "-c", _WATCHER], cwd=Path("/"), env=environment, stderr=subprocess.DEVNULL)

    def _dismiss(self) -> None:
        if self._watcher is not None:
            self._watcher.communicate(b"done\n", STOP_TIMEOUT_S)
            self._watcher = None

    def _start(
        self, command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None, stderr: IO[bytes] | int
    ) -> subprocess.Popen[bytes]:
        environment = {**plain_environment(), "INTERPOSER_HOME": str(self.home)} if env is None else env
        try:
            return subprocess.Popen(  # noqa: S603 our own interpreter, no shell
                command,
                cwd=cwd or self.root,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        finally:
            if not isinstance(stderr, int):
                stderr.close()

    def _log(self, name: str) -> IO[bytes]:
        return (self.root / name).open("ab")


def service_folder() -> Path:
    """Where the example service lies: in the installed package, else in the checkout. Raises `StageFault`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "demo_service", package.parent / "examples" / "react_service"):
        if (folder / "service.py").is_file():
            return folder
    raise StageFault("the example service is not installed; install interposer anew, or run from a checkout")


def itself() -> list[str]:
    """The command that runs this very installation of the broker."""
    return [sys.executable, "-m", "interposer"]


def plain_environment() -> dict[str, str]:
    """What any program needs, and nothing that could hold a credential."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV") if name in os.environ
    }
    checkout = Path(__file__).resolve().parents[2]
    return {**kept, "PYTHONPATH": str(checkout)} if (checkout / "pyproject.toml").is_file() else kept


def end(process: subprocess.Popen[bytes], *, patience_s: float = STOP_TIMEOUT_S) -> None:
    """The process has ended and was waited for: told first, then forced together with its group."""
    for forced in (False, True):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if forced else process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _pipe(end: IO[bytes] | None) -> IO[bytes]:
    if end is None:
        raise StageFault("a process was started without a pipe")
    return end


def _own_processes() -> Iterator[int]:
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid() and entry.stat().st_uid == os.getuid():
                yield int(entry.name)


def _whereabouts(pid: int) -> str:
    """Working directory and command line; empty for a process that is gone or only waits to be collected."""
    try:
        place = Path(f"/proc/{pid}")
        return f"{(place / 'cwd').readlink()} {(place / 'cmdline').read_bytes().decode(errors='replace')}"
    except OSError:
        return ""


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C or a signal to end does not cut the cleaning up short."""
    kept = {sign: signal.signal(sign, signal.SIG_IGN) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, previous in kept.items():
            signal.signal(sign, previous)
