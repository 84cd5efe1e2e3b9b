"""The hash chain over the record's skeleton: any edit, deletion, insertion, swap or lost payload shows.

    hash n     = SHA-256(0x01 ‖ hash n-1 ‖ canonical row n)        the first row follows 32 zero bytes
    commitment = SHA-256(0x00 ‖ salt of 32 bytes ‖ payload)        inside the row; salt and payload stand beside it

A payload may be missing only where a later `erased` row of the same chain names its sequence number. Without an anchor
elsewhere a chain cannot show that its whole tail was cut and its head moved back, or that all of it was written anew:
compare `Verifier.head` with one that was noted in another place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from . import canonical
from .model import Json, Kind

GENESIS = bytes(32)
SALT_BYTES = 32


class Row(NamedTuple):
    """One row of the skeleton, in the order in which it is hashed. No free text, no plain digest of a payload."""

    seq: int
    kind: str
    at: float
    """Wall clock, seconds since 1970."""
    boottime: float
    """Seconds since the machine started, sleep included: shows a wall clock that was moved."""
    session: str
    invocation: str
    skill: str
    principal: str
    """Pseudonym: HMAC-SHA-256 of the identity under the record's own key, or empty."""
    effect: str
    rules: str
    """JSON array of rule ids."""
    policy: str
    skill_digest: str
    code: str
    question: str
    size: int
    """Bytes of the payload as it was given."""
    kept: int
    """Bytes of the payload as it is stored; differs from `size` when it was capped, 0 when there is none."""
    commitment: bytes
    """Empty when there is no payload."""


_TYPES = (int, str, float, float, str, str, str, str, str, str, str, str, str, str, int, int, bytes)


class Link(NamedTuple):
    """A row in its place in the chain, with the payload that stands beside it."""

    row: Row
    previous: bytes
    hash: bytes
    salt: bytes | None = None
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class Break:
    """The first row that is not as it was written."""

    seq: int
    what: str
    """A short constant: `edited`, `deleted`, `inserted`, `moved`, `payload_edited`, `payload_missing`,
    `payload_inserted`, `cut`, `head_edited`."""
    text: str


def link(previous: bytes, row: Row) -> bytes:
    """The hash of a row that follows the row with hash `previous`. Raises `canonical.Malformed` on lone surrogates."""
    return hashlib.sha256(b"\x01" + previous + canonical.encode(row)).digest()


def commit(salt: bytes, payload: bytes) -> bytes:
    """What a row says of its payload: nothing, to who has not the salt (RFC 6962 §2.1 keeps 0x00 for leaves)."""
    return hashlib.sha256(b"\x00" + salt + payload).digest()


class Verifier:
    """Takes the links in order and keeps only what is needed, so that a record of any length can be verified."""

    def __init__(self, after: bytes = GENESIS, first: int = 1) -> None:
        self.head = after
        self.rows = 0
        self.erased = 0
        """Payloads that a chained row says were erased."""
        self._next = first
        self._missing: list[int] = []
        self._erasures: list[tuple[int, int, int]] = []

    def take(self, entry: Link) -> Break | None:
        """The break at this row, if there is one. Nothing may be taken after a break."""
        found = self._place(entry) or self._payload(entry)
        if found is None:
            self.head = entry.hash
            self.rows += 1
            self._next += 1
        return found

    def finish(self, head: tuple[int, bytes] | None = None) -> Break | None:
        """The break that only the whole record shows: a payload that no erasure accounts for, a tail that was cut."""
        for seq in self._missing:
            if not any(low <= seq <= high and seq < by for low, high, by in self._erasures):
                return Break(seq, "payload_missing", f"row {seq}: its payload is gone and no chained row erased it")
        self.erased = len(self._missing)
        if head is None or head == (self._next - 1, self.head):
            return None
        if head[0] >= self._next:
            return Break(self._next, "cut", f"row {self._next}: missing; the record went on to row {head[0]}")
        if head[0] < self._next - 1:
            return Break(head[0] + 1, "inserted", f"row {head[0] + 1}: stands after the record's own last row")
        return Break(self._next - 1, "head_edited", f"row {self._next - 1}: is not the record's own last row")

    def _place(self, entry: Link) -> Break | None:
        seq = entry.row.seq
        if type(seq) is not int or seq > self._next:
            return Break(self._next, "deleted", f"row {self._next}: missing")
        if seq < self._next:
            return Break(self._next, "moved", f"row {self._next}: row {seq} stands in its place")
        if not well_formed(entry):
            return Break(seq, "edited", f"row {seq}: a field is not of its type")
        if entry.previous != self.head:
            return Break(seq, "edited", f"row {seq}: does not follow the row before it")
        try:
            expected = link(self.head, entry.row)
        except canonical.Malformed:
            expected = b""
        return None if expected == entry.hash else Break(seq, "edited", f"row {seq}: its content does not fit its hash")

    def _payload(self, entry: Link) -> Break | None:
        row, seq = entry.row, entry.row.seq
        if entry.salt is None or entry.payload is None:
            if row.commitment and row.kind == Kind.ERASED:
                return Break(seq, "payload_missing", f"row {seq}: an erasure must keep its own payload")
            if row.commitment or entry.salt is not None or entry.payload is not None:
                self._missing.append(seq)
            return None
        if not row.commitment:
            return Break(seq, "payload_inserted", f"row {seq}: has a payload that was never written")
        if len(entry.payload) != row.kept or commit(entry.salt, entry.payload) != row.commitment:
            return Break(seq, "payload_edited", f"row {seq}: its payload does not fit its commitment")
        if row.kind == Kind.ERASED:
            self._erasures += [(low, high, seq) for low, high in erased_ranges(canonical.parse(entry.payload))]
        return None


def verify(links: Iterable[Link], *, head: tuple[int, bytes] | None = None) -> Break | None:
    """The first row that is not as it was written, or None. `head` is the sequence number and hash of the last row,
    as they are known from elsewhere."""
    verifier = Verifier()
    for each in links:
        found = verifier.take(each)
        if found is not None:
            return verifier.finish() or found
    return verifier.finish(head)


def well_formed(link: Link) -> bool:
    """Whether every field has the type it was written with: SQLite lets an editor change that."""
    beside = (link.salt, link.payload)
    return (
        all(type(value) is expected for value, expected in zip(link.row, _TYPES, strict=True))
        and type(link.previous) is bytes
        and type(link.hash) is bytes
        and all(value is None or type(value) is bytes for value in beside)
    )


def erased_ranges(payload: Json) -> list[tuple[int, int]]:
    """The sequence numbers that an `erased` row names: `{"rows": [[first, last], …]}`."""
    rows = payload.get("rows") if isinstance(payload, dict) else None
    found = []
    for pair in rows if isinstance(rows, list) else []:
        match pair:
            case [int(first), int(last)]:
                found.append((first, last))
    return found
