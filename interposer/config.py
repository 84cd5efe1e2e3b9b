"""interposer.yaml: which upstreams there are, who may connect, where state lives.

Read strictly: every unknown key, wrong type and missing file is reported at once, with its line, and nothing starts.
Relative paths are relative to the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from .checked import (
    Algorithm,
    Checked,
    Claim,
    Duration,
    Inherited,
    Source,
    UpstreamName,
    Variable,
    Words,
    address,
    between,
    duration_between,
    matching,
    not_empty,
    problems_of,
)
from .config_approvals import ApprovalsConfig, ConsoleConfig
from .config_people import STRICT, GroupsConfig, KeysConfig, WhoConfig
from .errors import ConfigurationError, Problem

STARTER = "builtin:starter"


def _distinct_issuers(issuers: list[IssuerConfig]) -> list[IssuerConfig]:
    names = [found.issuer for found in issuers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        # Its tokens would be held to either entry, whichever is the weaker.
        raise ValueError(f"the same issuer is there twice; merge the entries: {', '.join(twice)}")
    return issuers


@dataclass(frozen=True, slots=True)
class CredentialConfig:
    """A private credential of one upstream, given to its process only."""

    __pydantic_config__ = STRICT

    env: Variable
    """The variable of the child's environment that holds it."""
    source: Source = field(repr=False)
    """Where it is taken from when it is needed: `file:PATH` (mode 0400, own uid), `systemd:NAME`
    ($CREDENTIALS_DIRECTORY), `command:PROGRAM ARGUMENTS` (standard output), `keyring:SERVICE/USER`, `fd:NUMBER`
    (inherited), or `env:NAME` (insecure)."""
    who: WhoConfig | None = None
    """Whose calls it is for; among several credentials the first that matches."""


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One MCP server that the broker starts."""

    __pydantic_config__ = STRICT

    command: Annotated[list[str], Checked(not_empty)]
    """Program and arguments; no shell."""
    cwd: str | None = None
    """Where it runs; this file's folder if absent."""
    env: dict[Variable, str] = field(default_factory=dict)
    """Literal variables, not secret."""
    inherit: list[Inherited] = field(default_factory=list)
    """Variables taken over from the broker's own environment."""
    credential: CredentialConfig | None = None
    credentials: list[CredentialConfig] = field(default_factory=list)
    """Several, chosen by who calls: the first that matches, each with a process of its own. A caller whom none matches
    is refused. The first one's process says what the tools are."""
    era: Literal["auto", "legacy", "modern"] = "auto"
    """Which family of MCP it speaks; `auto` finds out."""
    start_timeout: Duration = "60s"

    def __post_init__(self) -> None:
        if self.credential and self.credentials:
            raise ValueError("`credential` and `credentials` are both given; put all of them into `credentials`")
        for number, each in enumerate([self.credential] if self.credential else self.credentials, 1):
            if each.who and not (each.who.groups or each.who.subjects or each.who.issuers):
                raise ValueError(f"`who` of credential {number} names nobody; leave it out where it is for everybody")
            if not each.who and number < len(self.credentials):
                raise ValueError(
                    f"credential {number} is for everybody, so those after it are never used; put it last, or say `who`"
                )


@dataclass(frozen=True, slots=True)
class SocketConfig:
    """The Unix socket that agents connect to."""

    __pydantic_config__ = STRICT

    path: str | None = None
    """Default: $INTERPOSER_HOME/broker.sock."""
    group: str | None = None
    """The group that may connect (mode 0660)."""
    uids: list[int] | None = None
    """Nobody else may connect, whatever the file's mode says; without it, whoever the mode lets in."""


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """A static token for TCP, and who presents it."""

    __pydantic_config__ = STRICT

    source: Source = field(repr=False)
    subject: str
    groups: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TcpConfig:
    """Loopback TCP; callers authenticate before anything else, with a static token or one of a configured issuer."""

    __pydantic_config__ = STRICT

    tokens: list[TokenConfig] = field(default_factory=list)
    host: str = "127.0.0.1"
    port: Annotated[int, Checked(between(0, 65535))] = 0


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Where agents find the daemon."""

    __pydantic_config__ = STRICT

    socket: SocketConfig = SocketConfig()
    tcp: TcpConfig | None = None


@dataclass(frozen=True, slots=True)
class RequiredClaimConfig:
    """A claim that must be there, with one of these values."""

    __pydantic_config__ = STRICT

    claim: Claim
    values: Annotated[list[str | int | bool], Checked(not_empty)]


@dataclass(frozen=True, slots=True)
class IssuerConfig:
    """An OIDC issuer whose tokens say who calls, and what they are held to."""

    __pydantic_config__ = STRICT

    issuer: Annotated[str, Checked(address(query=False))]
    """Exactly as in `iss`."""
    audience: Words
    algorithms: Annotated[list[Algorithm], Checked(not_empty)] = field(default_factory=lambda: ["RS256", "ES256"])
    authorized_parties: list[str] = field(default_factory=list)
    """Where given, `azp` must be one of them."""
    subject: Claim = "sub"
    groups: list[GroupsConfig] = field(default_factory=lambda: [GroupsConfig("groups")])
    require: list[RequiredClaimConfig] = field(default_factory=list)
    leeway: Annotated[Duration, Checked(duration_between("0s", "5m"))] = "30s"
    """For clocks that differ; at most 5m."""
    max_lifetime: Annotated[Duration, Checked(duration_between("1s", "366d"))] = "24h"
    keys: KeysConfig = field(default_factory=KeysConfig)
    id_tokens: bool = False
    """Take ID tokens, which are meant for the client that logged in."""
    machine: bool = False
    """Its tokens are workloads' (CI jobs, service accounts): they never approve."""


@dataclass(frozen=True, slots=True)
class CallerConfig:
    """A kernel identity of callers: one uid and its name, or a primary gid and the groups that it brings."""

    __pydantic_config__ = STRICT

    uid: Annotated[int, Checked(between(0, 2**32 - 2))] | None = None
    gid: Annotated[int, Checked(between(0, 2**32 - 2))] | None = None
    subject: Annotated[str, Checked(matching(r"(?s).+", "a name"))] | None = None
    """With `uid` only."""
    groups: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (self.uid is None) == (self.gid is None):
            raise ValueError("give either a uid and its subject, or a gid and the groups that it brings")
        if self.uid is not None and self.subject is None:
            raise ValueError("the subject of this uid is missing; add it")
        if self.gid is not None and self.subject is not None:
            raise ValueError("a gid has no subject, for it is many people's; remove it")


@dataclass(frozen=True, slots=True)
class PersonConfig:
    """A kernel identity, and the name and groups that it goes by."""

    __pydantic_config__ = STRICT

    uid: Annotated[int, Checked(between(0, 2**32 - 2))]
    subject: Annotated[str, Checked(matching(r"(?s).+", "a name"))]
    groups: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What one caller may take up."""

    __pydantic_config__ = STRICT

    frame: Annotated[int, Checked(between(1024, 64 * 1024 * 1024))] = 4 * 1024 * 1024
    """Bytes of one message."""
    in_flight: Annotated[int, Checked(between(1, 10_000))] = 256
    connections: Annotated[int, Checked(between(1, 10_000))] = 256


@dataclass(frozen=True, slots=True)
class Config:
    """interposer.yaml."""

    __pydantic_config__ = STRICT

    version: Annotated[int, Checked(between(1, 1))]
    policy: str = STARTER
    """A policy file, or builtin:starter."""
    state: str | None = None
    """Default: $INTERPOSER_HOME."""
    upstreams: dict[UpstreamName, UpstreamConfig] = field(default_factory=dict)
    listen: ListenConfig = ListenConfig()
    issuers: Annotated[list[IssuerConfig], Checked(_distinct_issuers)] = field(default_factory=list)
    revoked: str | None = None
    """A deny list of subjects, tokens and sessions, read again when it changes."""
    callers: list[CallerConfig] = field(default_factory=list)
    unmapped_callers: Literal["uid", "refuse"] | None = None
    """Default: `uid` (known as uid:N, without groups); `refuse` where issuers are configured."""
    boundary: Literal["L1", "L2", "L4", "L5"] | None = None
    """The level that this deployment claims; `interposer doctor` fails when it proves another one."""
    operators: list[PersonConfig] = field(default_factory=list)
    approvals: ApprovalsConfig = field(default_factory=ApprovalsConfig)
    console: ConsoleConfig | None = None
    """Where people answer in a browser; `serve` has one on loopback without this, `stdio` only with it."""
    limits: LimitsConfig = LimitsConfig()
    insecure_env: bool = False
    """Allow `env:NAME` sources: whoever has the broker's uid can read them."""


def home() -> Path:
    """Where state lives: `$INTERPOSER_HOME`, else `~/.local/state/interposer`."""
    return Path(os.environ.get("INTERPOSER_HOME") or Path.home() / ".local/state/interposer")


HERE = Path("interposer.yaml")


def find(named: str | None = None, *, here: bool = True) -> Path | None:
    """The configuration file: the named one, `$INTERPOSER_CONFIG`, `./interposer.yaml`, or the user's; None if there
    is none. A link is not followed: whoever can turn it says what is read. Raises `ConfigurationError` when one was
    named and is not there. Without `here`, the working directory is not looked in: an agent may have written there."""
    for wanted, said in ((named, "--config"), (os.environ.get("INTERPOSER_CONFIG"), "$INTERPOSER_CONFIG")):
        if wanted:
            if not Path(wanted).is_file():
                raise _problem(wanted, f"no such file (named by {said}); create it or name another")
            return Path(wanted).absolute()
    places = [HERE] if here else []
    for path in (*places, Path.home() / ".config/interposer/interposer.yaml"):
        if path.is_file():
            return path.absolute()
    return None


def load(path: Path) -> Config:
    """The configuration in a file. Raises `ConfigurationError` with every problem found."""
    from pydantic import ValidationError

    from .canonical import encode
    from .policy.strict_yaml import read

    root, problems = read(read_text(path), str(path))
    if root is None or problems:
        raise ConfigurationError(problems)
    try:
        # As JSON, for that is where pydantic is strict and still takes objects for dataclasses.
        found: Config = reader().validate_json(encode(root.plain()), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise ConfigurationError(problems_of(errors, root, str(path))) from None
    return found


def reader() -> Any:
    """The pydantic adapter that reads a configuration."""
    from pydantic import TypeAdapter

    return TypeAdapter(Config)


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration, described by the docstrings above."""
    # Reading the docstrings out of the source takes 200 ms, which no start should wait for.
    STRICT["use_attribute_docstrings"] = True
    try:
        found: dict[str, Any] = reader().json_schema()
    finally:
        del STRICT["use_attribute_docstrings"]
    return found


def policy_text(named: str | None, config: str | None) -> tuple[str, str]:
    """The policy in force as (text, file name): the named file, else the configuration's, else `("", builtin:starter)`.
    Raises `ConfigurationError`."""
    if named is None:
        path = find(config)
        if path is None:
            return "", STARTER
        named = load(path).policy
        if named != STARTER:
            named = str(path.resolve().parent / named)
    return ("", STARTER) if named == STARTER else (read_text(Path(named)), named)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise _problem(str(path), "not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise _problem(str(path), f"cannot be read ({error.strerror}); check the path and its permissions") from None


def _problem(file: str, message: str) -> ConfigurationError:
    return ConfigurationError([Problem(file, 0, 0, message)])
