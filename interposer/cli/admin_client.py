"""The operator's end of the administration sockets: one request, one answer, every wait with a deadline.

Standard library only. A broker listens at `admin.sock` under the home, and one at `slots/<name>/admin.sock` for each
further broker that shares it. Beside each socket stands `admin.key`, which goes before the first request: whoever
cannot read it is no operator.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

CONNECT_S = 2.0
ANSWER_S = 10.0
_KEY_ID = 0
LIMIT_BYTES = 64 * 1024 * 1024
"""The longest answer that is read."""


class AdminError(Exception):
    """The broker refused the request. `name` is its short constant, `problems` what is wrong where."""

    def __init__(self, code: int, message: str, name: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        self.problems = problems


class BrokerUnavailable(Exception):
    """No broker answers; the text says where it was looked for."""


class AdminClient:
    """One connection to one broker. Use it in a `with`."""

    def __init__(self, path: Path) -> None:
        """Raises `BrokerUnavailable`."""
        self.path = path
        self._ids = itertools.count(1)
        self._held = bytearray()
        key = _key(path.with_name("admin.key"))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_S)
        try:
            self._socket.connect(os.fspath(path))
            # Not waited for: a refusal is what the first answer says.
            self._socket.sendall(_line(_KEY_ID, "operator/key", {"key": key}))
        except OSError as error:
            self._socket.close()
            raise BrokerUnavailable(f"{path}: {error.strerror or error}") from error

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def peer(self) -> tuple[int, int]:
        """(pid, uid) of who listens at the other end of this very connection, told by the kernel (SO_PEERCRED)."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("iII", raw)
        return pid, uid

    def close(self) -> None:
        self._socket.close()

    def request(self, method: str, params: dict[str, Any] | None = None, *, wait_s: float = ANSWER_S) -> dict[str, Any]:
        """The result. Raises `AdminError`, and `BrokerUnavailable` when no answer came within `wait_s` seconds."""
        id = next(self._ids)
        until = time.monotonic() + wait_s
        try:
            self._socket.settimeout(wait_s)
            with suppress(BrokenPipeError, ConnectionResetError):  # what it said before it hung up is still to be read
                self._socket.sendall(_line(id, method, params or {}))
            while True:
                answer = self._answer(until)
                if answer.get("id") == _KEY_ID and "error" in answer:
                    raise ConnectionRefusedError("the broker does not take this admin.key; has it just been restarted?")
                if answer.get("id") in (id, None):
                    return _result(answer)
        except (OSError, ValueError) as error:
            raise BrokerUnavailable(f"{self.path}: {error or 'no answer'}") from error

    def _answer(self, until: float) -> dict[str, Any]:
        while (end := self._held.find(b"\n")) < 0:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            self._socket.settimeout(left)
            piece = self._socket.recv(256 * 1024)
            if not piece:
                raise ConnectionResetError("the broker hung up")
            self._held += piece
            if len(self._held) > LIMIT_BYTES:
                raise ValueError("the answer is too long")
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("the answer is not an object")
        return answer


def home() -> Path:
    """Where state lives: `$INTERPOSER_HOME`, else `~/.local/state/interposer`."""
    given = os.environ.get("INTERPOSER_HOME")
    return Path(given) if given else Path.home() / ".local" / "state" / "interposer"


def sockets(under: Path) -> list[Path]:
    """Where brokers may listen, the first one first."""
    main = under / "admin.sock"
    return [
        *([main] if main.is_socket() else []),
        *sorted(p for p in under.glob("slots/*/admin.sock") if p.is_socket()),
    ]


def brokers(under: Path | None = None) -> list[AdminClient]:
    """A connection to every broker that runs. Raises `BrokerUnavailable` when there is none."""
    under = under or home()
    reached: list[AdminClient] = []
    silent: list[str] = []
    try:
        for path in sockets(under):
            try:
                reached.append(AdminClient(path))
            except BrokerUnavailable as error:
                silent.append(str(error))
    except OSError as error:
        silent.append(f"{under}: {error.strerror}")
    if not reached:
        looked = "; ".join(silent) or f"there is no admin.sock under {under}"
        raise BrokerUnavailable(f"no broker is running here: {looked}. Start one, or set INTERPOSER_HOME to its home.")
    return reached


def _key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise BrokerUnavailable(f"{path}: no such file; is the broker of an older version?") from None
    except OSError as error:
        why = f"{path}: cannot be read ({error.strerror}); operators need it, and agents in a sandbox have none"
        raise BrokerUnavailable(why) from None
    except UnicodeDecodeError:
        raise BrokerUnavailable(f"{path}: holds no key") from None


def _line(id: int, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\n"


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    error = answer.get("error")
    if isinstance(error, dict):
        data = error.get("data")
        known = data if isinstance(data, dict) else {}
        problems = tuple(str(problem) for problem in known.get("problems", ()))
        raise AdminError(int(error.get("code", 0)), str(error.get("message", "")), str(known.get("name", "")), problems)
    result = answer.get("result")
    if not isinstance(result, dict):
        raise ValueError("the answer has no result")
    return result
