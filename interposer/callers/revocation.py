"""The deny list: subjects, tokens and sessions that are refused from the next call on, whatever else speaks for them.

The file is looked at before every call and read when it has changed. One that is broken or gone leaves the old list
standing and says so once; a broker does not start with one.

A long list is best written as JSON, which is YAML as well and is read a hundred times faster.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import anyio
import anyio.to_thread

from interposer.canonical import Malformed, parse
from interposer.errors import ConfigurationError, Problem
from interposer.model import Json
from interposer.policy.strict_yaml import Node, read

from .watched import Watched

log = logging.getLogger(__name__)

LIMIT_BYTES = 32 * 1024 * 1024
_KINDS = ("subject", "jti", "session")
_MEMBERS = frozenset({*_KINDS, "issuer", "reason"})
_Path = list[str | int]


@dataclass(frozen=True, slots=True)
class DenyList:
    """Who and what is refused: kind, value, issuer (empty for any)."""

    rows: frozenset[tuple[str, str, str]] = frozenset()

    def names(self, kind: str, value: str, issuer: str) -> bool:
        return (kind, value, "") in self.rows or (kind, value, issuer) in self.rows


def deny_list(raw: bytes, file: str) -> DenyList:
    """Raises `ConfigurationError` with every problem in the text."""
    try:
        found = parse(raw)
        if not _faults(found):
            return DenyList(_rows(found))
    except Malformed:
        pass
    # YAML, or JSON of which it has to be said where it is wrong.
    root, problems = _nodes(raw, file)
    if root is None or problems:
        raise ConfigurationError(problems)
    found = root.plain()
    faults = [_problem(file, root, path, said) for path, said in _faults(found)]
    if faults:
        raise ConfigurationError(faults)
    return DenyList(_rows(found))


def _nodes(raw: bytes, file: str) -> tuple[Node | None, list[Problem]]:
    try:
        return read(raw.decode("utf-8"), file)
    except UnicodeDecodeError:
        return None, [Problem(file, 0, 0, "not UTF-8 text; save it as UTF-8")]


def _rows(found: Any) -> frozenset[tuple[str, str, str]]:
    return frozenset(
        (kind, row[kind], row.get("issuer", "")) for row in found["revoked"] for kind in _KINDS if kind in row
    )


def _faults(found: Json) -> list[tuple[_Path, str]]:
    if not isinstance(found, dict):
        return [([], "expected a mapping with `version: 1` and a list `revoked`")]
    faults: list[tuple[_Path, str]] = [
        ([key], f"unknown key {key}; remove it or correct its name")
        for key in found
        if key not in ("version", "revoked")
    ]
    version, revoked = found.get("version"), found.get("revoked")
    if type(version) is not int or version != 1:
        faults.append((["version"], "version: expected 1"))
    if not isinstance(revoked, list):
        return [*faults, (["revoked"], "revoked: expected a list (an empty one: [])")]
    for number, row in enumerate(revoked):
        faults += [(["revoked", number, *path], said) for path, said in _row_faults(row)]
    return faults


def _row_faults(row: Json) -> list[tuple[_Path, str]]:
    if not isinstance(row, dict):
        return [([], "expected an entry such as {subject: alice}")]
    faults: list[tuple[_Path, str]] = [
        ([key], f"unknown key {key}; remove it or correct its name") for key in row if key not in _MEMBERS
    ]
    faults += [
        ([key], f"{key}: expected text that is not empty; write it in quotes")
        for key, value in row.items()
        if key in _MEMBERS and (not isinstance(value, str) or not value)
    ]
    if sum(kind in row for kind in _KINDS) != 1:
        faults.append(([], f"expected one of {', '.join(_KINDS)}"))
    return faults


def _problem(file: str, root: Node, path: _Path, said: str) -> Problem:
    above = root.at(path[:-1])
    line, column = above.keys.get(str(path[-1]), (0, 0)) if path else (0, 0)
    if not line:
        node = root.at(path)
        line, column = node.line, node.column
    return Problem(file, line, column, said)


class Revocations:
    """The deny list in a file, as it is now."""

    def __init__(self, path: str) -> None:
        """Raises `ConfigurationError`."""
        self._file = Watched(path, limit_bytes=LIMIT_BYTES)
        self._turn = anyio.Lock()
        self.error = ""
        """Why the list that stands is an old one, or empty."""
        stamp = self._file.stamp()
        try:
            raw = self._file.read()
        except OSError as error:
            raise ConfigurationError([Problem(path, 0, 0, f"cannot be read ({error.strerror})")]) from None
        except ValueError as error:
            raise ConfigurationError([Problem(path, 0, 0, str(error))]) from None
        self._list = deny_list(raw, path)
        self._digest = sha256(raw).digest()
        if stamp is not None:
            self._file.note(stamp)

    async def latest(self) -> DenyList:
        """The list; one that has just changed is read first, and everyone waits for it."""
        if self._file.stamp() is not None:
            async with self._turn:
                await self._read_again()
        return self._list

    async def _read_again(self) -> None:
        stamp = self._file.stamp()
        if stamp is None:
            return
        try:
            raw = self._file.read()
            digest = sha256(raw).digest()
            if digest != self._digest:
                self._list = await anyio.to_thread.run_sync(deny_list, raw, self._file.path)
                self._digest = digest
                log.warning("the deny list %s is in force, %d entries", self._file.path, len(self._list.rows))
            self._said("")
        except (OSError, ValueError, ConfigurationError) as error:
            self._said(error.strerror or "cannot be read" if isinstance(error, OSError) else str(error))
        self._file.note(stamp)

    def _said(self, error: str) -> None:
        if error and error != self.error:
            log.error("the deny list %s was not read again, the old one stands:\n%s", self._file.path, error)
        self.error = error
