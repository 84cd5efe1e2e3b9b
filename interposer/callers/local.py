"""From what a transport knows of its peer to a principal: a table, and no guessing.

The kernel's word (a uid) and a token's label are looked up apart from each other: a caller that came with a token is
never taken for a local user.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from interposer.errors import ConfigurationError, Problem, Unauthenticated
from interposer.model import Caller, Principal


@dataclass(frozen=True, slots=True)
class KnownCaller:
    """One row: a uid or a token's label, exactly one of them, and who that is."""

    subject: str
    groups: tuple[str, ...] = ()
    uid: int | None = None
    label: str | None = None


class Callers:
    """An `Authenticator` for local peers. `unmapped="uid"` lets any uid in as `uid:N`, without groups."""

    def __init__(self, known: Iterable[KnownCaller] = (), *, unmapped: Literal["uid", "refuse"] = "uid") -> None:
        rows = tuple(known)
        _check(rows)
        self._by_uid = {
            row.uid: Principal("local", row.subject, row.groups, uid=row.uid) for row in rows if row.uid is not None
        }
        self._by_label = {
            row.label: Principal("token", row.subject, row.groups) for row in rows if row.label is not None
        }
        self._unmapped = unmapped

    async def authenticate(self, caller: Caller) -> Principal:
        """Raises `Unauthenticated` for whoever is not in the table, save an unmapped uid where those are let in."""
        if caller.token is not None:
            # Tables know no bearer tokens, and whoever shows one asks to be judged by it alone.
            raise Unauthenticated("a bearer token, and no issuer is configured", why="no_issuer")
        if caller.label is not None:
            found = self._by_label.get(caller.label)
        elif caller.uid is not None:
            found = self._by_uid.get(caller.uid) or self._admit(caller.uid)
        else:
            raise Unauthenticated(f"a {caller.transport} peer without an identity")
        if found is None:
            raise Unauthenticated(f"a {caller.transport} peer that is not among the configured callers")
        return found

    def _admit(self, uid: int) -> Principal | None:
        if self._unmapped != "uid":
            return None
        # A machine has few uids; the table cannot grow without bound.
        return self._by_uid.setdefault(uid, Principal("local", f"uid:{uid}", uid=uid))


def _check(rows: tuple[KnownCaller, ...]) -> None:
    problems = []
    seen: set[tuple[int | None, str | None]] = set()
    for number, row in enumerate(rows, 1):
        message = _fault(row)
        if not message and (row.uid, row.label) in seen:
            message = "the same uid or token as an earlier row; merge them"
        if message:
            problems.append(Problem(f"callers row {number}", 0, 0, message))
        seen.add((row.uid, row.label))
    if problems:
        raise ConfigurationError(problems)


def _fault(row: KnownCaller) -> str:
    if (row.uid is None) == (row.label is None):
        return "give either a uid or a token's label"
    if row.label == "" or not row.subject:
        return "the subject and the token's label must not be empty"
    # Otherwise this caller would be the same principal as another uid that is let in without a row.
    if row.uid is not None and row.subject.startswith("uid:") and row.subject != f"uid:{row.uid}":
        return f"the subject {row.subject!r} is the name of another uid; choose another one"
    return ""
