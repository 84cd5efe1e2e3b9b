"""Credentials from descriptors that the broker inherited: a pipe, a socket or a file that whoever starts it opened.

Each is read to its end once, before any child is started, and closed. What was read stays: it cannot be had again.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Hashable, Mapping

from interposer.errors import ConfigurationError, Problem
from interposer.ports import Secret

from .reading import LIMIT_BYTES, credential, problem

WITHIN_S = 10.0
_STANDARD = 2
_MOST = 2**31 - 1


class DescriptorSecrets:
    """`Secrets` from a table of name -> number."""

    def __init__(self, numbers: Mapping[str, str], *, within_s: float = WITHIN_S) -> None:
        """Reads them all, each number once. Raises `ConfigurationError` with everything that is wrong."""
        self._secrets: dict[str, Secret] = {}
        read: dict[int, Secret] = {}
        problems: list[Problem] = []
        for name, written in numbers.items():
            try:
                number = _number(written)
                if number not in read:
                    read[number] = Secret(_drained(number, within_s))
                self._secrets[name] = read[number]
            except ConfigurationError as error:
                problems += [Problem(f"credential {name}", 0, 0, each.message) for each in error.problems]
        if problems:
            raise ConfigurationError(problems)

    async def reveal(self, name: str) -> Secret:
        if name not in self._secrets:
            raise problem(f"credential {name}", "no descriptor is configured for it; name one")
        return self._secrets[name]

    def stamp(self, name: str) -> Hashable:
        """Nothing: it cannot be read twice."""
        return None


def _number(written: str) -> int:
    if not (written.isascii() and written.isdigit() and len(written) < 11 and _STANDARD < int(written) <= _MOST):
        raise problem("fd", "is not the number of an inherited descriptor; write fd:NUMBER with 3 or more")
    return int(written)


def _drained(number: int, within_s: float) -> str:
    try:
        # Ours are all closed on exec (PEP 446), and whatever came across an exec is not: a number that is given wrongly
        # closes no file of our own.
        inherited = os.get_inheritable(number)
    except OSError:
        inherited = False
    if not inherited:
        raise problem("fd", f"descriptor {number} was not inherited; open it where the broker is started")
    try:
        os.set_inheritable(number, False)
        return credential("fd", _to_end(number, within_s))
    except OSError as error:
        raise problem("fd", f"descriptor {number} cannot be read: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(number)


def _to_end(number: int, within_s: float) -> bytes:
    poll = select.poll()
    poll.register(number, select.POLLIN | select.POLLHUP)
    deadline = time.monotonic() + within_s
    raw = b""
    while len(raw) <= LIMIT_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise problem("fd", f"descriptor {number} did not end within {within_s:g} s; close it after writing")
        piece = os.read(number, LIMIT_BYTES + 1 - len(raw))
        if not piece:
            break
        raw += piece
    return raw
