"""How hostile tokens are made: each is the control with one thing changed, a name, and why it is refused.

`header` and `claim` set or drop one member and sign the result properly; `header_bytes` and `payload_bytes` rewrite
the bytes of one part before signing; `text` and `ec_text` rewrite the finished token. Groups are those of the shared
corpus: alg, confusion, header_key, signature, kid, header, encoding, claims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from interposer.identity import refusals as r
from tests.identity.signing import CLAIMS, HEADER, b64, dumps, raw_token, token, unb64

DROP = object()
"""Leave the member out."""


@dataclass(frozen=True)
class Vector:
    """One hostile token."""

    group: str
    name: str
    why: str
    made: Callable[[], str] = field(repr=False)
    part: str = "token"
    member: str = ""
    value: Any = None

    @property
    def id(self) -> str:
        return f"{self.group}:{self.name}"


def header(group: str, name: str, why: str, member: str, value: Any) -> Vector:
    """One member of the header is another, or gone."""
    changed = changed_by(HEADER, member, value)
    return Vector(group, name, why, lambda: token(changed, by="rsa-1"), "header", member, value)


def claim(name: str, why: str, member: str, value: Any) -> Vector:
    """One claim is another, or gone."""
    changed = changed_by(CLAIMS, member, value)
    return Vector("claims", name, why, lambda: token(claims=changed), "claims", member, value)


def header_bytes(group: str, name: str, change: Callable[[bytes], bytes], why: str = r.MALFORMED) -> Vector:
    """The header's bytes are others."""
    return Vector(group, name, why, lambda: raw_token(change(dumps(HEADER)), dumps(CLAIMS)), "header bytes")


def payload_bytes(group: str, name: str, change: Callable[[bytes], bytes], why: str = r.MALFORMED) -> Vector:
    """The payload's bytes are others."""
    return Vector(group, name, why, lambda: raw_token(dumps(HEADER), change(dumps(CLAIMS))), "payload bytes")


def text(group: str, name: str, change: Callable[[str], str], why: str = r.MALFORMED) -> Vector:
    """The finished token's text is another."""
    return Vector(group, name, why, lambda: change(token()))


def ec_text(name: str, change: Callable[[bytes], bytes], why: str = r.SIGNATURE) -> Vector:
    """The signature of an ES256 token is another."""
    good = {**HEADER, "alg": "ES256", "kid": "ec-1"}
    return Vector("signature", name, why, lambda: with_signature(token(good), change))


def changed_by(base: dict[str, Any], member: str, value: Any) -> dict[str, Any]:
    return {name: held for name, held in {**base, member: value}.items() if held is not DROP}


def with_signature(made: str, change: Callable[[bytes], bytes]) -> str:
    signed, _, last = made.rpartition(".")
    return f"{signed}.{b64(change(unb64(last)))}"


def segments(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda made: ".".join(change(made.split(".")))


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found
