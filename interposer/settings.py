"""What a broker is started with: a configuration, or a command line in its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import config
from .config import Config, CredentialConfig, UpstreamConfig


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
    file: Path | None = None
    """The configuration's own; None where a command line stands in its place."""

    def stands_on(self) -> list[str]:
        """Every file and folder that nobody else may change, there or not: what decides, what is secret, what is
        written."""
        found = self.config
        tls = found.console.tls if found.console else None
        files = self.key_files()
        files += [self.base / found.revoked] if found.revoked else []
        files += [self.base / tls.certificate, self.base / tls.key] if tls else []
        files += [self.file] if self.file else []
        files += [Path(self.policy)] if self.policy != config.STARTER else []
        files += [Path(s.removeprefix("file:")) for s in self.sources().values() if s.startswith("file:")]
        records = [f"record.db{suffix}" for suffix in ("", "-wal", "-shm")]
        if self.home.exists():
            kept = ["slots", "pins", "seal.key", *records]
            files += [self.home, *(self.home / name for name in kept)]
        return [str(file) for file in files]

    def key_files(self) -> list[Path]:
        """The keys that tokens are checked by: of callers, and of people who log in to the console."""
        login = self.config.console.login if self.config.console else None
        named = [issuer.keys.file for issuer in self.config.issuers] + ([login.keys.file] if login else [])
        return [self.base / name for name in named if name]

    def passes(self) -> list[str]:
        """Folders on the way to what is made at start, by those who look at it again when they have made it."""
        socket = self.config.listen.socket.path
        return [str(self.home), *([str((self.base / socket).parent)] if socket else [])]

    def sources(self) -> dict[str, str]:
        """Where each credential and token comes from, paths made absolute."""
        named = {
            credential_name(name, found, number): each.source
            for name, found in self.upstreams.items()
            for number, each in enumerate(credentials(found), 1)
        }
        tcp, login = self.config.listen.tcp, self.config.console.login if self.config.console else None
        if tcp is not None:
            named.update({token_name(number): token.source for number, token in enumerate(tcp.tokens)})
        for number, each in enumerate(self.config.approvals.notify, 1):
            for what, source in (("key", each.secret), ("address", each.webhook_from)):
                if source is not None:
                    named[notice_name(number, what)] = source
        if login is not None and login.client_secret is not None:
            named[LOGIN_SECRET] = login.client_secret
        return {
            name: f"file:{self.base / source.removeprefix('file:')}" if source.startswith("file:") else source
            for name, source in named.items()
        }


def credentials(found: UpstreamConfig) -> list[CredentialConfig]:
    """All that one upstream may be given, in the order in which they are tried."""
    return [found.credential] if found.credential else found.credentials


def credential_name(upstream: str, found: UpstreamConfig, number: int) -> str:
    """What a credential is called among the secrets; they are counted from 1 where there are several."""
    return upstream if found.credential else f"{upstream}#{number}"


def token_name(number: int) -> str:
    """What a TCP token is called among the secrets, and the label of callers who present it."""
    return f"tcp-token-{number}"


LOGIN_SECRET = "console-login"  # noqa: S105 - what the console's client secret is called among the secrets


def notice_name(number: int, what: str) -> str:
    """What the `key` or the `address` of a webhook is called among the secrets; webhooks are counted from 1."""
    return f"notify-{number}-{what}"


def settings(config_file: str | None, policy: str | None, command: list[str], *, here: bool = True) -> Settings:
    """Without `here`, no configuration is taken from the working directory. Raises `ConfigurationError`."""
    path = config.find(config_file, here=here)
    found = config.load(path) if path else Config(version=1)
    base = path.resolve().parent if path else Path.cwd()
    standing = policy or (found.policy if found.policy == config.STARTER else str(base / found.policy))
    home = base / found.state if found.state else config.home()
    # A command stands in for the configured upstreams, and for nothing else: policy, callers and limits hold.
    given = {_name(command): UpstreamConfig(command=command, cwd=str(Path.cwd()))} if command else {}
    upstreams = given or dict(found.upstreams)
    return Settings(found, base, standing, home, upstreams, path)


def _name(command: list[str]) -> str:
    """A name for the upstream of a bare command: the last word of it that says what it is."""
    for word in command:
        stem = word.rsplit("/", 1)[-1].removesuffix(".py").removesuffix(".js")
        if stem and not stem.startswith("-") and stem not in {"npx", "uvx", "python", "python3", "node", "env"}:
            kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in stem).strip("-")
            return kept[:32] if kept and kept[0].isalpha() else f"u{kept[:31]}"
    return "upstream"
