"""An agent's end of a broker, for calls made by hand: one request at a time over stdio or a Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from interposer.presented import presented

ANSWER_S = 330.0
VERSION = "2025-11-25"


class NoAnswer(Exception):
    """The broker went away, or did not answer in time."""


class CallRefused(Exception):
    """The broker answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class AgentClient:
    """A legacy MCP client, as small as it can be. `notified` is given every notification that comes in between."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._held = b""
        self._next = 0
        self.progress: list[str] = []
        self.token: str | None = None
        """Who asks, for every request from now on."""

    def open(self) -> dict[str, Any]:
        said = {
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": {"name": "interposer-cli", "version": "1"},
        }
        answer = self.request("initialize", said)
        self._write({"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}})
        return answer

    def request(self, method: str, params: dict[str, Any], *, wait_s: float = ANSWER_S) -> dict[str, Any]:
        """The result. Raises `CallRefused` and `NoAnswer`."""
        self._next += 1
        if self.token is not None:
            params = {**params, "_meta": {"interposer/token": self.token}}
        self._write({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        until = time.monotonic() + wait_s
        while True:
            message = self._line(until)
            error = message.get("error")
            if message.get("id") != self._next and not (message.get("id") is None and isinstance(error, dict)):
                continue
            if isinstance(error, dict):
                raise CallRefused(int(error.get("code", 0)), str(error.get("message", "")))
            result = message.get("result")
            if isinstance(result, dict):
                return result

    def tools(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.request("tools/list", {"cursor": cursor} if cursor else {})
            found += page.get("tools", [])
            cursor = page.get("nextCursor")
            if cursor is None:
                return found

    def _write(self, message: dict[str, Any]) -> None:
        line = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._write_fd, line) :]
        except OSError as error:
            raise NoAnswer(f"the broker went away ({error.strerror})") from None

    def _line(self, until: float) -> dict[str, Any]:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._read_fd, selectors.EVENT_READ)
            while b"\n" not in self._held:
                if not waiting.select(max(0.0, until - time.monotonic())):
                    raise NoAnswer("the broker did not answer in time")
                piece = os.read(self._read_fd, 262144)
                if not piece:
                    raise NoAnswer("the broker ended the conversation; what it said is above")
                self._held += piece
        line, self._held = self._held.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.contextmanager
def agent(
    home: Path, *, config: str | None, policy: str | None, command: Sequence[str], token_file: str | None = None
) -> Iterator[tuple[AgentClient, int | None]]:
    """A conversation with the running daemon, or with a broker started for this one (then also its process id).

    A daemon is used when nothing says which broker is meant. Raises `NoAnswer`.
    """
    path = Path(os.environ.get("INTERPOSER_SOCKET") or home / "broker.sock")
    token = presented(os.environ, token_file)
    if not (config or policy or command) and path.is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            try:
                peer.connect(str(path))
            except OSError as error:
                raise NoAnswer(f"{path}: {error.strerror}; is the broker still running?") from None
            client = AgentClient(peer.fileno(), peer.fileno())
            client.open()
            client.token = token()
            yield client, None
        return
    chosen = [*(("--config", config) if config else ()), *(("--policy", policy) if policy else ())]
    words = [sys.executable, "-m", "interposer", "stdio", *chosen, *(("--", *command) if command else ())]
    process = subprocess.Popen(  # noqa: S603  # the operator's own words, and no shell
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise NoAnswer("the broker was started without pipes")
        client = AgentClient(process.stdout.fileno(), process.stdin.fileno())
        try:
            client.open()
        except NoAnswer:
            process.stdin.close()
            if (code := process.wait(10)) in (2, 78):
                sys.exit(code)
            raise
        client.token = token()
        yield client, process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
