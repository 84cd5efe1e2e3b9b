"""Credentials that a program prints: a password store's, a cloud's, a vault's own client.

The program is named by its whole path and no shell reads the line. It gets the environment that upstreams get and no
descriptor of ours; what it prints goes nowhere but here, and what it was given is in no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import anyio

from interposer.errors import ConfigurationError, Problem
from interposer.ownership import require_ours
from interposer.ports import Secret

from .reading import LIMIT_BYTES, credential, problem

WITHIN_S = 10.0
AGAIN_AFTER_S = 60.0
"""How often it is asked whether the credential changed: there is no cheaper way to tell."""
_PASSED_ON = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")


@dataclass(slots=True)
class _Command:
    words: list[str]
    alone: anyio.Lock = field(default_factory=anyio.Lock)
    """One run at a time: some sources count."""


class CommandSecrets:
    """`Secrets` from a table of name -> command line."""

    def __init__(self, lines: Mapping[str, str], *, within_s: float = WITHIN_S) -> None:
        """Raises `ConfigurationError` for what is no command."""
        self._within_s = within_s
        self._commands: dict[str, _Command] = {}
        problems = []
        for name, line in lines.items():
            words = _words(line)
            if words is None:
                wrong = "its command is not PROGRAM ARGUMENTS with the program's whole path (/usr/bin/pass show crm)"
                problems.append(Problem(f"credential {name}", 0, 0, wrong))
            else:
                self._commands[name] = _Command(words)
        if problems:
            raise ConfigurationError(problems)

    async def reveal(self, name: str) -> Secret:
        """Raises `ConfigurationError` when the program may not be run, fails, or prints no credential."""
        place = f"credential {name}"
        command = self._commands.get(name)
        if command is None:
            raise problem(place, "no command is configured for it; name one")
        require_ours(command.words[0])
        async with command.alone:
            try:
                with anyio.fail_after(self._within_s):
                    raw, status = await _output(command.words)
            except TimeoutError:
                raise problem(place, f"its command took longer than {self._within_s:g} s; it was ended") from None
            except OSError as error:
                raise problem(place, f"its command cannot be run: {os.strerror(error.errno or 0)}") from None
        if status:
            raise problem(place, f"its command ended with status {status}; run it by hand as this user to see why")
        return Secret(credential(f"{place}: the output of its command", raw))

    def stamp(self, name: str) -> Hashable:
        return int(time.monotonic() // AGAIN_AFTER_S)


def _words(line: str) -> list[str] | None:
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    return words if words and words[0].startswith("/") and "\0" not in line else None


async def _output(words: list[str]) -> tuple[bytes, int]:
    """What it printed, at most a byte more than the limit, and its exit status. When this returns or is cancelled,
    nothing of it runs."""
    ours = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("LC_")}
    # A socket and no pipe: another process of this uid cannot open it through /proc.
    near, far = socket.socketpair()
    with near:
        near.setblocking(False)
        with far:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=far.fileno(),
                stderr=asyncio.subprocess.DEVNULL,
                env=ours,
                cwd="/",
                start_new_session=True,
            )
        try:
            raw = await _to_end(near)
            if len(raw) <= LIMIT_BYTES:
                return raw, await process.wait()
            return raw, 0
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.wait()


async def _to_end(near: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    raw = b""
    while len(raw) <= LIMIT_BYTES:
        piece = await loop.sock_recv(near, LIMIT_BYTES + 1 - len(raw))
        if not piece:
            break
        raw += piece
    return raw
