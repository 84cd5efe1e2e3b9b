"""The command hook: a program of the operator's is run for each notice, with the generic JSON on its standard input.

No shell reads the line. The program gets PATH, HOME and LANG of our environment and no descriptor of ours; what it says
goes nowhere, only its exit status counts: 0 is delivered, everything else is tried again. When an attempt is over, by
itself or by its time-out, nothing of its process group runs; what left the group (setsid(1)) is the operator's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

import anyio

from .bodies import generic
from .notice import Notice
from .sender import Answer

PASSED_ON = ("PATH", "HOME", "LANG")


class CommandHook:
    """Runs one program, one attempt at a time, in `cwd`. Its time-out is the sender's."""

    def __init__(self, argv: Sequence[str], *, cwd: str = "/") -> None:
        self._argv = tuple(argv)
        self._cwd = cwd

    async def tell(self, notice: Notice) -> Answer:
        """One run. Raises `OSError` where the program cannot be started."""
        # Not a pipe: whoever writes to one fails in many ways, by event loop and moment, when nobody reads it any more.
        with os.fdopen(os.memfd_create("notice"), "wb") as told:
            told.write(generic(notice) + b"\n")
            told.seek(0)
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=told.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in PASSED_ON if name in os.environ},
                cwd=self._cwd,
                start_new_session=True,
            )
        try:
            await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.wait()
        status = process.returncode
        return Answer("delivered" if status == 0 else "again", f"exit {status}")
