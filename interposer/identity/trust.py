"""What a token of one issuer is held to. Everything here comes from our configuration, nothing from a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from interposer.model import Json, Principal

Path: TypeAlias = tuple[str, ...]
"""The keys that lead to a claim, outermost first: `("realm_access", "roles")`."""

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"},
)
"""The most that can be configured: signatures with a public key only."""


@dataclass(frozen=True, slots=True)
class GroupsFrom:
    """A claim that says groups, and the shape that it must have; another shape refuses the token."""

    claim: Path
    shape: Literal["list", "words", "one"] = "list"
    """A list of strings, one string of words between spaces (`scope`), or one string that is one group."""
    prefix: str = ""
    """Put before each group, so that two claims cannot be taken for each other."""


@dataclass(frozen=True, slots=True)
class Trust:
    """One issuer, and what its tokens must be like."""

    issuer: str
    """Compared byte for byte."""
    audiences: frozenset[str]
    """One of these must be in `aud`."""
    algorithms: frozenset[str] = frozenset({"RS256", "ES256"})
    authorized_parties: frozenset[str] = frozenset()
    """Where given, `azp` (or `client_id`, RFC 9068) must be one of them."""
    subject: Path = ("sub",)
    groups: tuple[GroupsFrom, ...] = (GroupsFrom(("groups",)),)
    required: tuple[str, ...] = ("exp", "iat", "iss", "aud", "sub")
    claims: tuple[tuple[Path, tuple[Json, ...]], ...] = ()
    """Claims that must be there with one of the values (a list claim must contain one of them)."""
    leeway_s: float = 30.0
    max_lifetime_s: float = 86_400.0
    max_bytes: int = 8_192
    id_tokens: bool = False
    """Whether OIDC ID tokens are taken. They are meant for the client that logged in, not for us."""
    machine: bool = False
    """Its tokens are workloads', not people's."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified token says."""

    principal: Principal
    token_id: str
    """`jti`, or empty."""
    session: str
    """`sid`, or empty."""
    not_before: float
    expires_at: float
    """Seconds since 1970, leeway included: the token speaks from the one and no longer at the other."""
    sub: str = ""
    """The claim of that name, also where another claim names the subject: the deny list may go by either."""
