"""The public keys of one issuer in a file, for issuers that cannot be reached: what it holds counts at the next call.

A file that is gone or broken leaves the last good keys standing for as long as fetched ones would, and says so once.
"""

from __future__ import annotations

import logging
from math import inf

import anyio

from interposer.errors import ConfigurationError, Problem
from interposer.identity.keys import KeySet
from interposer.ports import Clock

from .fetch import LIMIT_BYTES
from .jwks import CACHE_S, KeysStatus, usable
from .watched import Watched

log = logging.getLogger(__name__)


class FileKeys:
    """Keys that an operator puts into a file."""

    def __init__(self, path: str, clock: Clock, *, cache_s: float = CACHE_S) -> None:
        """Raises `ConfigurationError` for a file without keys."""
        self._file = Watched(path, limit_bytes=LIMIT_BYTES)
        self._clock = clock
        self._cache_s = min(cache_s, CACHE_S)
        self._found: KeySet | None = None
        self._found_at = -inf
        self._error = ""
        self.current()
        if self._error:
            raise ConfigurationError([Problem(path, 0, 0, self._error)])

    def current(self) -> KeySet | None:
        now = self._clock.monotonic()
        stamp = self._file.stamp()
        if stamp is not None:
            error = self._read()
            self._file.note(stamp)
            if error and error != self._error:
                log.error("the keys in %s were not read again, the old ones stand for now: %s", self._file.path, error)
            self._error = error
        if not self._error:
            self._found_at = now
        return self._found if now - self._found_at < self._cache_s else None

    async def refreshed(self) -> KeySet | None:
        return self.current()

    async def run(self) -> None:
        await anyio.sleep_forever()

    def status(self) -> KeysStatus:
        loaded = self.current() is not None
        return KeysStatus(loaded, self._clock.monotonic() - self._found_at, self._error)

    def _read(self) -> str:
        """Take what the file holds; returns what is wrong with it instead."""
        try:
            self._found = usable(self._file.read())
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        except ValueError as error:
            return str(error)
        return ""
