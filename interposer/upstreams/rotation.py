"""A credential that changes while its process runs: when that is seen, and the process that takes over.

The new process is started and introduced before the old one is let go of, so no call waits for it and none fails. A
credential that is of no use, or that the service does not start with, leaves the old process where it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from interposer.errors import ConfigurationError, UpstreamFault
from interposer.model import Era
from interposer.ports import Clock

from .server import Credential, Limits, Server, fingerprint
from .settled import fault_of, settled, told

MOST_RETIRING = 4
"""So many processes may be finishing their calls at once; further changes wait."""
UNUSABLE = "credential_unusable"


class Rotation:
    """Watches the credential of one upstream, for one running process after the other."""

    def __init__(
        self,
        credential: Credential,
        *,
        limits: Limits,
        clock: Clock,
        fresh: Callable[[], Server],
        retiring: Callable[[], int],
        let_go: Callable[[Server], Awaitable[None]],
        on_notice: Callable[[str, str], None],
    ) -> None:
        self._name = credential.name
        self._secrets = credential.secrets
        self._limits = limits
        self._clock = clock
        self._fresh = fresh
        self._retiring = retiring
        self._let_go = let_go
        self._on_notice = on_notice
        self._refused: Hashable = None
        self._again_at = 0.0
        self._complained = False

    async def successor(self, running: Server, era: Era | None) -> Server:
        """Waits until the credential is another than the one of the running process, and a process with it answers:
        that one. Waits for ever where the credential cannot change."""
        seen = running.stamp
        if seen is None:
            await asyncio.get_running_loop().create_future()
        while True:
            await asyncio.sleep(self._limits.watch_s)
            before, seen = seen, await self._look(seen)
            # One that is still being written holds still a moment later.
            if seen == before and self._due(seen, running) and await self._changed(seen, running):
                found = await self._started(seen, era)
                if found is not None:
                    return found

    def _due(self, stamp: Hashable, running: Server) -> bool:
        if stamp == running.stamp or self._retiring() >= MOST_RETIRING:
            return False
        return stamp != self._refused or self._clock.monotonic() >= self._again_at

    async def _look(self, before: Hashable) -> Hashable:
        """The stamp as it is now; as it was, where it cannot be had."""
        look = await settled(self._stamp())
        fault = fault_of(look)
        if fault is None:
            return look.result()
        await self._refuse(before, UNUSABLE, f"{_words(fault)}; the process goes on with the one it has")
        return before

    async def _stamp(self) -> Hashable:
        return self._secrets.stamp(self._name)

    async def _fingerprint(self) -> bytes:
        return fingerprint(await self._secrets.reveal(self._name))

    async def _changed(self, stamp: Hashable, running: Server) -> bool:
        reading = await settled(self._fingerprint())
        fault = fault_of(reading)
        if fault is not None:
            await self._refuse(stamp, UNUSABLE, f"{_words(fault)}; the process goes on with the one it has")
            return False
        if reading.result() != running.fingerprint:
            return True
        running.stamp = stamp
        self._complained = False
        return False

    async def _started(self, stamp: Hashable, era: Era | None) -> Server | None:
        server = self._fresh()
        usable = False
        try:
            start = await settled(server.introduced(era))
            fault = fault_of(start)
            usable = fault is None
        finally:
            if not usable:
                await self._let_go(server)
        if isinstance(fault, UpstreamFault | OSError):
            await self._refuse(stamp, "start_failed", f"with the new credential: {fault}; the old process goes on")
        elif fault is not None:
            await self._refuse(stamp, UNUSABLE, f"{_words(fault)}; the process goes on with the one it has")
        if not usable:
            return None
        self._refused, self._complained = None, False
        return server

    async def _refuse(self, stamp: Hashable, kind: str, why: str) -> None:
        """Said once, and again only after it was of use in between."""
        self._refused, self._again_at = stamp, self._clock.monotonic() + self._limits.retry_s
        if not self._complained:
            self._complained = True
            await told(self._on_notice, kind, why)


def _words(fault: BaseException) -> str:
    """What may be shown of it: an exception that nobody expected may hold anything."""
    return str(fault) if isinstance(fault, ConfigurationError) else f"unexpected {type(fault).__name__}"
