"""interposer.yaml, the sections about people: how calls wait for them, how they hear of it, and where they answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .checked import Algorithm, Checked, Claim, Duration, Rate, Source, address, between, duration_between, not_empty
from .config_people import STRICT, GroupsConfig, KeysConfig, WhoConfig


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What one client is known to bear."""

    __pydantic_config__ = STRICT

    hold: Duration | None = None
    """How long it can wait for one answer; without it, as everybody else."""
    rounds: Literal["auto", "ask_again", "never"] = "auto"
    """Of `input_required`: `auto` shows the link once and then only asks for patience, for clients that come back by
    themselves; `ask_again` shows it in every round, for clients that ask their user before each; `never` gives a
    ticket."""
    tasks: bool = True
    """Use tasks where it declares them."""


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """Who is told of questions, beside the console and `interposer approvals watch`."""

    __pydantic_config__ = STRICT

    webhook: Annotated[str, Checked(address(query=True))] | None = None
    """https, or http on loopback."""
    webhook_from: Source | None = field(default=None, repr=False)
    """The address, where it is a secret itself (Slack's are)."""
    secret: Source | None = field(default=None, repr=False)
    """The key that deliveries are signed with (HMAC-SHA-256); demanded for the generic format."""
    format: Literal["generic", "slack"] = "generic"
    command: Annotated[list[str], Checked(not_empty)] | None = None
    """A program and its arguments, no shell: it is given the same JSON as a webhook, on standard input."""
    timeout: Annotated[Duration, Checked(duration_between("100ms", "60s"))] = "10s"
    """For one attempt."""
    give_up: Annotated[Duration, Checked(duration_between("1s", "1d"))] = "1h"
    """Attempts go on for so long, further and further apart."""

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.webhook, self.webhook_from, self.command)) != 1:
            raise ValueError("give one of webhook, webhook_from and command")
        if self.command is None and self.format == "generic" and self.secret is None:
            raise ValueError(
                "a webhook needs a `secret` to sign with: its receiver cannot tell it from others otherwise"
            )
        if self.command is not None and self.secret is not None:
            raise ValueError("a command is not signed; remove the secret")


@dataclass(frozen=True, slots=True)
class ApprovalsConfig:
    """How calls wait for a human."""

    __pydantic_config__ = STRICT

    hold: Duration = "4s"
    """How long a call waits before it gets a ticket, and each round of one that comes back by itself."""
    clients: dict[str, Duration | ClientConfig] = field(default_factory=dict)
    """Client name -> its hold, or all that it is known to bear."""
    refuse_same_uid: bool = False
    """Whoever has the kernel uid of the requester cannot answer. Not for L1, where everybody has the same."""
    pending_per_session: Annotated[int, Checked(between(1, 100_000))] = 20
    pending_per_caller: Annotated[int, Checked(between(1, 1_000_000))] = 100
    """Of one caller, in all its sessions."""
    pending: Annotated[int, Checked(between(1, 1_000_000))] = 10_000
    rate: Rate = "60/min"
    """New questions of one caller; identical calls share one."""
    break_glass: WhoConfig | None = None
    """Who may approve alone whatever the rule demands, with a reason, loudly; nobody without it."""
    notify: list[NotifyConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.break_glass is not None and not _names_somebody(self.break_glass):
            raise ValueError("`break_glass` names nobody; give groups, subjects or issuers, or leave it out")


@dataclass(frozen=True, slots=True)
class LoginConfig:
    """Logging in to the console at an OIDC provider: authorization code with PKCE."""

    __pydantic_config__ = STRICT

    issuer: Annotated[str, Checked(address(query=False))]
    client_id: str
    client_secret: Source | None = field(default=None, repr=False)
    """None for a public client."""
    scopes: Annotated[list[str], Checked(not_empty)] = field(default_factory=lambda: ["openid", "profile"])
    algorithms: Annotated[list[Algorithm], Checked(not_empty)] = field(default_factory=lambda: ["RS256", "ES256"])
    subject: Claim = "sub"
    groups: list[GroupsConfig] = field(default_factory=lambda: [GroupsConfig("groups")])
    keys: KeysConfig = field(default_factory=KeysConfig)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """A certificate chain and its key, in PEM files."""

    __pydantic_config__ = STRICT

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class ConsoleConfig:
    """The web console: a listener of its own, never the agents'."""

    __pydantic_config__ = STRICT

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Checked(between(0, 65535))] = 0
    """0: any free one; it is printed."""
    url: Annotated[str, Checked(address(query=False))] | None = None
    """How people reach it, where that is not host and port (a proxy in front). Links and logins use it."""
    tls: TlsConfig | None = None
    login: LoginConfig | None = None
    """Without it: one-time addresses that `serve` and `interposer console` print."""
    viewers: WhoConfig | None = None
    """Who may see every question; others who log in see those that they may answer. Operators see everything."""
    session: Annotated[Duration, Checked(duration_between("1m", "7d"))] = "8h"
    """How long a login lasts at most; never longer than the token it was made with."""

    def __post_init__(self) -> None:
        if self.viewers is not None and not _names_somebody(self.viewers):
            raise ValueError("`viewers` names nobody; give groups, subjects or issuers, or leave it out")
        secure = self.tls is not None or (self.url is not None and self.url.startswith("https:"))
        if self.enabled and self.host not in ("127.0.0.1", "::1", "localhost") and not secure:
            raise ValueError("a console that others can reach needs `tls`, or an https `url` of the proxy before it")
        if self.enabled and self.host in ("0.0.0.0", "::") and self.url is None:  # noqa: S104
            raise ValueError(f"`url` is needed where `host` is {self.host}: say how people reach the console")


def _names_somebody(who: WhoConfig) -> bool:
    return bool(who.groups or who.subjects or who.issuers)
