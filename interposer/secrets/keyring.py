"""Credentials from the desktop's keyring (Secret Service, KWallet, macOS Keychain), by the package `keyring`.

The package is an extra and is imported when a credential is wanted. Backends that keep nothing, or keep it readable,
are refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import anyio.to_thread

from interposer.errors import ConfigurationError, Problem
from interposer.ports import Secret

from .reading import credential, problem

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

WITHIN_S = 10.0
AGAIN_AFTER_S = 60.0
"""How often it is asked whether the credential changed."""
_INSECURE = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")


class KeyringSecrets:
    """`Secrets` from a table of name -> `SERVICE/USER`; the user is what stands behind the last slash."""

    def __init__(self, entries: Mapping[str, str], *, within_s: float = WITHIN_S) -> None:
        """Raises `ConfigurationError` for what names no entry."""
        self._within_s = within_s
        self._entries = {name: tuple(entry.rpartition("/")[::2]) for name, entry in entries.items()}
        problems = [
            Problem(f"credential {name}", 0, 0, "names no entry of a keyring; write keyring:SERVICE/USER")
            for name, both in self._entries.items()
            if not all(both)
        ]
        if problems:
            raise ConfigurationError(problems)

    async def reveal(self, name: str) -> Secret:
        """Raises `ConfigurationError` without the package, a safe backend, or the entry."""
        place = f"credential {name}"
        if name not in self._entries:
            raise problem(place, "no entry of a keyring is configured for it; name one")
        service, user = self._entries[name]
        # In a task whose end is looked at: backends speak to other programs and raise whatever those libraries raise.
        asking = asyncio.create_task(_asked(place, service, user))
        try:
            await asyncio.wait([asking], timeout=self._within_s)
        finally:
            answered = asking.done()
            asking.cancel()
        if not answered:
            raise problem(place, f"the keyring did not answer within {self._within_s:g} s; is it locked?")
        fault = asking.exception()
        if isinstance(fault, ConfigurationError):
            raise fault
        if fault is not None:
            # Its text may hold anything.
            raise problem(place, f"the keyring failed ({type(fault).__name__}); is it there and unlocked?")
        found = asking.result()
        if found is None:
            raise problem(place, "the keyring has no such entry; add it with `keyring set SERVICE USER`")
        return Secret(credential(f"{place}: its entry in the keyring", found.encode("utf-8", "surrogatepass")))

    def stamp(self, name: str) -> Hashable:
        return int(time.monotonic() // AGAIN_AFTER_S)


async def _asked(place: str, service: str, user: str) -> str | None:
    # A locked keyring may ask somebody; the thread is left to it, and the wait is not.
    return await anyio.to_thread.run_sync(_found, place, service, user, abandon_on_cancel=True)


def _found(place: str, service: str, user: str) -> str | None:
    try:
        import keyring
    except ImportError:
        raise problem(place, "the package keyring is missing; pip install 'interposer[keyring]'") from None
    backend = keyring.get_keyring()
    if _insecure(backend):
        raise problem(place, f"the keyring's backend {type(backend).__name__} is not safe; configure another")
    return backend.get_password(service, user)


def _insecure(backend: KeyringBackend) -> bool:
    """Also one of several that are asked in turn (keyring's chainer)."""
    module = type(backend).__module__
    if module == "keyring.backends.chainer":
        several = list(getattr(backend, "backends", ()))
        return not several or any(_insecure(each) for each in several)
    return any(module == known or module.startswith(f"{known}.") for known in _INSECURE)
