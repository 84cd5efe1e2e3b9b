"""What a broker is started with: a configuration, or a command line in its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import config
from .config import Config, UpstreamConfig


@dataclass(frozen=True, slots=True)
class Settings:
    """What a broker is started with: a configuration, or a command line in its place."""

    config: Config
    base: Path
    """What relative paths in the configuration are relative to."""
    policy: str
    """A path, or `builtin:starter`."""
    home: Path
    upstreams: dict[str, UpstreamConfig] = field(default_factory=dict)

    def sources(self) -> dict[str, str]:
        """Where each credential and token comes from, paths made absolute."""
        named = {name: found.credential.source for name, found in self.upstreams.items() if found.credential}
        tcp = self.config.listen.tcp
        if tcp is not None:
            named.update({token_name(number): token.source for number, token in enumerate(tcp.tokens)})
        return {
            name: f"file:{self.base / source.removeprefix('file:')}" if source.startswith("file:") else source
            for name, source in named.items()
        }


def token_name(number: int) -> str:
    """What a TCP token is called among the secrets, and the label of callers who present it."""
    return f"tcp-token-{number}"


def settings(config_file: str | None, policy: str | None, command: list[str]) -> Settings:
    """Raises `ConfigurationError`."""
    path = config.find(config_file)
    found = config.load(path) if path else Config(version=1)
    base = path.parent if path else Path.cwd()
    standing = policy or (found.policy if found.policy == config.STARTER else str(base / found.policy))
    home = base / found.state if found.state else config.home()
    # A command stands in for the configured upstreams, and for nothing else: policy, callers and limits hold.
    given = {_name(command): UpstreamConfig(command=command, cwd=str(Path.cwd()))} if command else {}
    upstreams = given or dict(found.upstreams)
    return Settings(found, base, standing, home, upstreams)


def _name(command: list[str]) -> str:
    """A name for the upstream of a bare command: the last word of it that says what it is."""
    for word in command:
        stem = word.rsplit("/", 1)[-1].removesuffix(".py").removesuffix(".js")
        if stem and not stem.startswith("-") and stem not in {"npx", "uvx", "python", "python3", "node", "env"}:
            kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in stem).strip("-")
            return kept[:32] if kept and kept[0].isalpha() else f"u{kept[:31]}"
    return "upstream"
