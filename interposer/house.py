"""What every conversation of this broker shares, whatever it is carried by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .broker import Broker
from .catalogue import Catalogue
from .desk import Desk
from .errands import Errands
from .journal import Journal
from .pages import Pages
from .ports import Authenticator, Clock, Masker, PolicyInformationPoint
from .reach import Profile
from .wire.mcp import ServerFace


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one peer may have going on."""

    frame_bytes: int = 4 * 1024 * 1024
    in_flight: int = 256
    backlog_bytes: int = 1024 * 1024
    grace_s: float = 1.0
    """How long calls may go on after their peer has hung up."""
    hold_s: float = 4.0
    """How long a call waits for a human where no profile says otherwise; less than any client waits by default."""


@dataclass(frozen=True, slots=True)
class House:
    """The parts, made by the assembly."""

    broker: Broker
    desk: Desk
    catalogue: Catalogue
    journal: Journal
    masker: Masker
    authenticator: Authenticator
    facts: PolicyInformationPoint
    pages: Pages
    face: ServerFace
    clock: Clock
    limits: Limits
    errands: Errands
    link: Callable[[str], str | None]
    """A question's address in the console; None without one."""
    profiles: Mapping[str, Profile]
    """Client name -> what it is known to bear."""
    seal_key: bytes = field(repr=False)
    """Of task ids and request states; they outlive this run where the key does."""
