"""From a `Record` to the row, the commitment and the payload that are kept of it: the same for every store."""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import lru_cache

from interposer import canonical, chain
from interposer.model import Json, Principal, Record

PAYLOAD_LIMIT = 64 * 1024
"""Bytes of a payload that are stored; of a longer one, its digest, its size and its beginning."""
_HEAD_BYTES = 31 * 1024
"""Written as a JSON string these are at most twice as many, so that the whole stays below the limit."""
_KNOWN_PRINCIPALS = 10_000


class Sealer:
    """Makes the links of one chain, in order. Not shared between threads without a lock."""

    def __init__(self, key: bytes, seq: int = 0, head: bytes = chain.GENESIS) -> None:
        self._key = key
        self.seq = seq
        self.head = head
        self._pseudonyms: dict[tuple[str, str], str] = {}

    def seal(self, record: Record, boottime: float) -> chain.Link:
        """The record as the next link. Raises `canonical.Malformed`, and then nothing has moved."""
        principal = "" if record.principal is None else self.pseudonym(record.principal)
        payload = record.payload
        kept: bytes | None = None
        size = record.size
        salt = None
        commitment = b""
        if payload is not None:
            size = size or len(payload)
            kept = payload if len(payload) <= PAYLOAD_LIMIT else _capped(payload)
            salt = os.urandom(chain.SALT_BYTES)
            commitment = chain.commit(salt, kept)
        row = chain.Row(
            self.seq + 1,
            record.kind.value,
            float(record.at),
            boottime,
            record.session,
            record.invocation,
            record.skill,
            principal,
            record.effect,
            _rules_text(record.rules),
            record.policy,
            record.skill_digest,
            record.code,
            record.question,
            size,
            0 if kept is None else len(kept),
            commitment,
        )
        link = chain.Link(row, self.head, chain.link(self.head, row), salt, kept)
        self.seq += 1
        self.head = link.hash
        return link

    def pseudonym(self, principal: Principal) -> str:
        """32 hexadecimal digits that only this record's key ties to the identity."""
        identity = (principal.issuer, principal.subject)
        found = self._pseudonyms.get(identity)
        if found is None:
            found = pseudonym(self._key, principal.identity())
            if len(self._pseudonyms) >= _KNOWN_PRINCIPALS:
                self._pseudonyms.clear()
            self._pseudonyms[identity] = found
        return found


@lru_cache(maxsize=1_024)
def _rules_text(rules: tuple[str, ...]) -> str:
    return canonical.encode(rules).decode()


def pseudonym(key: bytes, identity: Json) -> str:
    """HMAC-SHA-256 of the canonical identity, the first 128 bits."""
    return hmac.new(key, canonical.canonical(identity), hashlib.sha256).hexdigest()[:32]


def _capped(payload: bytes) -> bytes:
    return canonical.encode(
        {
            "capped": True,
            "size": len(payload),
            "sha256": canonical.digest_bytes(payload),
            "head": payload[:_HEAD_BYTES].decode("utf-8", "ignore"),
        }
    )
