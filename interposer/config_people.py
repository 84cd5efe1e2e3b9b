"""interposer.yaml, the parts that several of its sections use: who is meant, and what an issuer's tokens say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from .checked import Checked, Claim, Duration, address, duration_between

STRICT: dict[str, Any] = {"extra": "forbid"}
"""What pydantic is to make of the classes of a configuration. It is imported only when a file is read: a broker that is
given a command instead of a file starts without it."""


@dataclass(frozen=True, slots=True)
class WhoConfig:
    """Principals: all lists that are given must match, as in policy."""

    __pydantic_config__ = STRICT

    groups: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    issuers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class GroupsConfig:
    """A claim that says groups."""

    __pydantic_config__ = STRICT

    claim: Claim
    shape: Literal["list", "words", "one"] = "list"
    """A list of strings, one string of words between spaces, or one string; another shape refuses the token."""
    prefix: str = ""
    """Put before each group."""


@dataclass(frozen=True, slots=True)
class KeysConfig:
    """Where an issuer's public keys come from; without either, from its discovery document."""

    __pydantic_config__ = STRICT

    uri: Annotated[str, Checked(address(query=True))] | None = None
    """A JWKS over https (http on loopback only)."""
    file: str | None = None
    """A JWKS in a file, read again when it changes."""
    cache: Annotated[Duration, Checked(duration_between("1s", "300s"))] = "300s"
    """How long keys are believed without having been fetched again; at most 300s."""

    def __post_init__(self) -> None:
        if self.uri is not None and self.file is not None:
            raise ValueError("give either the uri or the file of the keys")
