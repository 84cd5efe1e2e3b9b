"""From what a transport knows of its peer to a principal: a table, and no guessing.

The kernel's word (a uid and its primary gid) and a static token's label are looked up apart from each other: a caller
that came with a token is never taken for a local user.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from interposer.errors import ConfigurationError, Problem, Unauthenticated
from interposer.model import Caller, Principal

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class KnownCaller:
    """One row: a uid or a static token's label and who that is, or a gid and the groups that it brings."""

    subject: str = ""
    """Empty with a gid, which is many people's."""
    groups: tuple[str, ...] = ()
    uid: int | None = None
    label: str | None = None
    gid: int | None = None


class Callers:
    """An `Authenticator` for local peers. `unmapped="uid"` lets any uid in as `uid:N`, without groups.

    A peer whose primary gid has a row is let in too, and is a member of that row's groups beside those of its uid's.
    """

    def __init__(self, known: Iterable[KnownCaller] = (), *, unmapped: Literal["uid", "refuse"] = "uid") -> None:
        rows = tuple(known)
        _check(rows)
        self._by_uid = {row.uid: row for row in rows if row.uid is not None}
        self._by_gid = {row.gid: row for row in rows if row.gid is not None}
        self._by_label = {
            row.label: Principal("token", row.subject, row.groups) for row in rows if row.label is not None
        }
        self._unmapped = unmapped
        self._peers: dict[tuple[int, int | None], Principal] = {}

    async def authenticate(self, caller: Caller) -> Principal:
        """Raises `Unauthenticated` for whoever is not in the table, save an unmapped uid where those are let in."""
        if caller.label is not None:
            found = self._by_label.get(caller.label)
        elif caller.uid is not None:
            found = self._peers.get((caller.uid, caller.gid)) or self._admit(caller.uid, caller.gid)
        else:
            raise Unauthenticated(f"a {caller.transport} peer without an identity")
        if found is None:
            raise Unauthenticated(f"a {caller.transport} peer that is not among the configured callers")
        return found

    def now(self, principal: Principal) -> Principal | None:
        """Somebody who has left, as the table of this run makes them; None for whom it does not know.

        Nobody remembers which gid they came with: a gid's row counts if this run has seen such a peer, or if it is the
        user's primary group and what it brings was theirs when they asked.
        """
        if principal.issuer == "token":
            found = [known for known in self._by_label.values() if known.subject == principal.subject]
            return principal if principal in found else _common(found)
        if principal.issuer != "local" or principal.uid is None:
            return None
        if principal in self._peers.values():
            return principal
        gid = _primary_gid(principal.uid) if self._by_gid else None
        club = None if gid is None else self._by_gid.get(gid)
        if club is not None and not {*club.groups} <= {*principal.groups}:
            gid = None
        current = self._admit(principal.uid, gid)
        return current if current is not None and current.subject == principal.subject else None

    def _admit(self, uid: int, gid: int | None) -> Principal | None:
        person = self._by_uid.get(uid)
        club = None if gid is None else self._by_gid.get(gid)
        if person is None and club is None and self._unmapped != "uid":
            return None
        groups = (*(person.groups if person else ()), *(club.groups if club else ()))
        subject = person.subject if person else f"uid:{uid}"
        if len(self._peers) >= _REMEMBERED:
            self._peers.clear()
        found = self._peers[uid, gid] = Principal("local", subject, tuple(dict.fromkeys(groups)), uid=uid)
        return found


def _common(found: list[Principal]) -> Principal | None:
    """Of one subject with several tokens: what they all say."""
    if not found:
        return None
    groups = set(found[0].groups).intersection(*(each.groups for each in found))
    return replace(found[0], groups=tuple(group for group in found[0].groups if group in groups))


def _primary_gid(uid: int) -> int | None:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return None


def _check(rows: tuple[KnownCaller, ...]) -> None:
    problems = []
    seen: set[tuple[int | None, int | None, str | None]] = set()
    for number, row in enumerate(rows, 1):
        key = (row.uid, row.gid, row.label)
        message = _fault(row)
        if not message and key in seen:
            message = "the same uid, gid or token as an earlier row; merge them"
        if message:
            problems.append(Problem(f"callers row {number}", 0, 0, message))
        seen.add(key)
    if problems:
        raise ConfigurationError(problems)


def _fault(row: KnownCaller) -> str:
    if (row.uid, row.gid, row.label).count(None) != 2:
        return "give either a uid, a gid or a token's label"
    if row.gid is not None:
        return "a gid has no subject, for it is many people's" if row.subject else ""
    if row.label == "" or not row.subject:
        return "the subject and the token's label must not be empty"
    # Otherwise this caller would be the same principal as another uid that is let in without a row.
    if row.uid is not None and row.subject.startswith("uid:") and row.subject != f"uid:{row.uid}":
        return f"the subject {row.subject!r} is the name of another uid; choose another one"
    return ""
