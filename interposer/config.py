"""interposer.yaml: which upstreams there are, who may connect, where state lives.

Read strictly: every unknown key, wrong type and missing file is reported at once, with its line, and nothing starts.
Relative paths are relative to the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import ConfigurationError, Problem
from .policy.strict_yaml import Node, read

STARTER = "builtin:starter"
_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: Any) -> float:
    """`500ms`, `4s`, `30m`, `12h`, `1d` -> seconds. Raises `ValueError`."""
    if isinstance(text, str):
        for unit in ("ms", "s", "m", "h", "d"):
            number = text.removesuffix(unit)
            if number != text and number.replace(".", "", 1).isdigit():
                return float(number) * _DURATIONS[unit]
    raise ValueError("expected a duration such as 500ms, 4s, 30m, 12h or 1d")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CredentialConfig(_Strict):
    """The private credential of one upstream, given to its process only."""

    env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Variable of the child's environment.")
    source: str = Field(description="`file:PATH` (mode 0400, own uid), or `env:NAME` (insecure).")

    @field_validator("source")
    @classmethod
    def _known(cls, value: str) -> str:
        if not value.startswith(("file:", "env:")) or value.endswith(":"):
            raise ValueError("expected file:PATH or env:NAME")
        return value


class UpstreamConfig(_Strict):
    """One MCP server that the broker starts."""

    command: list[str] = Field(min_length=1, description="Program and arguments; no shell.")
    cwd: str | None = Field(default=None, description="Where it runs; this file's folder if absent.")
    env: dict[str, str] = Field(default_factory=dict, description="Literal variables, not secret.")
    inherit: list[str] = Field(default_factory=list, description="Variables taken over from the broker's own.")
    credential: CredentialConfig | None = None
    start_timeout: str = "60s"

    @field_validator("start_timeout")
    @classmethod
    def _duration(cls, value: str) -> str:
        duration_s(value)
        return value


class SocketConfig(_Strict):
    """The Unix socket that agents connect to."""

    path: str | None = Field(default=None, description="Default: $INTERPOSER_HOME/broker.sock.")
    group: str | None = Field(default=None, description="Group that may connect (mode 0660).")


class TokenConfig(_Strict):
    """A static token for TCP, and who presents it."""

    source: str = Field(pattern=r"^(file|env):.+$")
    subject: str
    groups: list[str] = Field(default_factory=list)


class TcpConfig(_Strict):
    """Loopback TCP; callers authenticate with a token before anything else."""

    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    tokens: list[TokenConfig] = Field(min_length=1)


class ListenConfig(_Strict):
    socket: SocketConfig = SocketConfig()
    tcp: TcpConfig | None = None


class PersonConfig(_Strict):
    """A kernel identity and the name and groups it goes by."""

    uid: int = Field(ge=0)
    subject: str = Field(min_length=1)
    groups: list[str] = Field(default_factory=list)


class ApprovalsConfig(_Strict):
    hold: str = Field(default="4s", description="How long a call waits for a human before it gets a ticket.")
    clients: dict[str, str] = Field(default_factory=dict, description="Client name -> hold, where a client can wait.")
    pending_per_session: int = Field(default=20, ge=1)
    pending: int = Field(default=10_000, ge=1)

    @field_validator("hold")
    @classmethod
    def _duration(cls, value: str) -> str:
        duration_s(value)
        return value

    @field_validator("clients")
    @classmethod
    def _durations(cls, value: dict[str, str]) -> dict[str, str]:
        for wait in value.values():
            duration_s(wait)
        return value


class LimitsConfig(_Strict):
    frame: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 4 * 1024 * 1024
    """Bytes of one message from a caller."""
    in_flight: Annotated[int, Field(ge=1, le=10_000)] = 256
    connections: Annotated[int, Field(ge=1, le=10_000)] = 256


class Config(_Strict):
    """interposer.yaml."""

    version: int
    policy: str = Field(default=STARTER, description="A policy file, or builtin:starter.")
    state: str | None = Field(default=None, description="Default: $INTERPOSER_HOME.")
    upstreams: dict[str, UpstreamConfig] = Field(default_factory=dict)
    listen: ListenConfig = ListenConfig()
    callers: list[PersonConfig] = Field(default_factory=list)
    unmapped_callers: Annotated[str, Field(pattern="^(uid|refuse)$")] = "uid"
    operators: list[PersonConfig] = Field(default_factory=list)
    approvals: ApprovalsConfig = ApprovalsConfig()
    limits: LimitsConfig = LimitsConfig()

    @field_validator("version")
    @classmethod
    def _one(cls, value: int) -> int:
        if value != 1:
            raise ValueError("expected 1, the only version there is")
        return value

    @model_validator(mode="after")
    def _names(self) -> Config:
        import re

        for name in self.upstreams:
            if not re.fullmatch(_NAME, name):
                raise ValueError(f"upstream name {name!r}: expected a letter, then letters, digits, _ or -")
        return self


def home() -> Path:
    """Where state lives: `$INTERPOSER_HOME`, else `~/.local/state/interposer`."""
    return Path(os.environ.get("INTERPOSER_HOME") or Path.home() / ".local/state/interposer")


def find(named: str | None = None) -> Path | None:
    """The configuration file: the named one, `$INTERPOSER_CONFIG`, `./interposer.yaml`, or the user's; None if there
    is none. Raises `ConfigurationError` when one was named and is not there."""
    for wanted, said in ((named, "--config"), (os.environ.get("INTERPOSER_CONFIG"), "$INTERPOSER_CONFIG")):
        if wanted:
            if not Path(wanted).is_file():
                raise _problem(wanted, f"no such file (named by {said}); create it or name another")
            return Path(wanted).resolve()
    for path in (Path("interposer.yaml"), Path.home() / ".config/interposer/interposer.yaml"):
        if path.is_file():
            return path.resolve()
    return None


def load(path: Path) -> Config:
    """The configuration in a file. Raises `ConfigurationError` with every problem found."""
    root, problems = read(read_text(path), str(path))
    if root is None or problems:
        raise ConfigurationError(problems)
    try:
        return Config.model_validate(root.plain())
    except ValidationError as error:
        raise ConfigurationError(list(_problems(error, root, str(path)))) from None


def policy_text(named: str | None, config: str | None) -> tuple[str, str]:
    """The policy in force as (text, file name): the named file, else the configuration's, else `("", builtin:starter)`.
    Raises `ConfigurationError`."""
    if named is None:
        path = find(config)
        if path is None:
            return "", STARTER
        named = load(path).policy
        if named != STARTER:
            named = str(path.parent / named)
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


def _problems(error: ValidationError, root: Node, file: str) -> Iterator[Problem]:
    for fault in error.errors(include_url=False, include_input=False):
        path = list(fault["loc"])
        node = root.at(path)
        line, column = _key_place(root, path) or (node.line, node.column)
        where = ".".join(str(step) for step in path) or "file"
        yield Problem(file, line, column, f"{where}: {_said(fault)}")


def _key_place(root: Node, path: list[str | int]) -> tuple[int, int] | None:
    parent = root.at(path[:-1]) if path else root
    return parent.keys.get(str(path[-1])) if path else None


def _said(fault: Any) -> str:
    kind = fault["type"]
    if kind == "extra_forbidden":
        return "unknown key; remove it or correct its name"
    if kind == "missing":
        return "missing; add it"
    return str(fault["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
