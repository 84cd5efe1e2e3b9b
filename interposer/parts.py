"""What a broker is made of, as its configuration says: with `app.py` the only file that names concrete classes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from .callers.local import Callers, KnownCaller
from .clock import SystemClock
from .config import UpstreamConfig, duration_s
from .masking.engine import Engine
from .model import Era
from .ports import Secret, Secrets, Transport
from .secrets.sources import SourcedSecrets
from .settings import Settings, token_name
from .transports.link import Limits as LinkLimits
from .transports.sockets import TcpSocket, UnixSocket
from .upstreams.mcp_stdio import McpStdio
from .upstreams.server import Command, Credential
from .upstreams.server import Limits as UpstreamLimits

log = logging.getLogger("interposer")


def credentials(chosen: Settings) -> Secrets:
    """Raises `ConfigurationError`."""
    return SourcedSecrets(chosen.sources(), insecure_env=chosen.config.insecure_env)


def callers(chosen: Settings) -> Callers:
    """Raises `ConfigurationError`."""
    found = chosen.config
    people = [KnownCaller(p.subject or "", tuple(p.groups), uid=p.uid) for p in found.callers]
    tokens = found.listen.tcp.tokens if found.listen.tcp else []
    labels = [KnownCaller(t.subject, tuple(t.groups), label=token_name(number)) for number, t in enumerate(tokens)]
    unmapped = found.unmapped_callers or ("refuse" if found.issuers else "uid")
    return Callers(people + labels, unmapped=unmapped)


async def listeners(
    chosen: Settings, folder: Path, secrets: Secrets, guard: Callable[[Secret], None]
) -> list[Transport]:
    """Where agents find the daemon. Raises `ConfigurationError`."""
    listen, limits = chosen.config.listen, link_limits(chosen)
    path = chosen.base / listen.socket.path if listen.socket.path else folder / "broker.sock"
    found: list[Transport] = [UnixSocket(str(path), group=listen.socket.group, limits=limits)]
    if listen.tcp is not None:
        tokens = []
        for name in map(token_name, range(len(listen.tcp.tokens))):
            token = await secrets.reveal(name)
            guard(token)
            tokens.append((token, name))
        found.append(TcpSocket(listen.tcp.host, listen.tcp.port, tokens, limits=limits))
    return found


def upstream(
    name: str,
    found: UpstreamConfig,
    chosen: Settings,
    *,
    secrets: Secrets,
    clock: SystemClock,
    masker: Engine,
    on_notice: Callable[[str, str], None],
) -> McpStdio:
    credential = found.credential
    command = Command(
        argv=tuple(found.command),
        cwd=str(chosen.base / found.cwd) if found.cwd else str(chosen.base),
        variables=found.env,
        inherit=tuple(found.inherit),
        credential=Credential(credential.env, name, secrets) if credential else None,
    )
    return McpStdio(
        name,
        command,
        clock=clock,
        mask=lambda text: masked_text(masker, text),
        log=lambda line: log.warning("%s: %s", name, line),
        on_notice=on_notice,
        guard=masker.guard,
        limits=UpstreamLimits(start_s=duration_s(found.start_timeout)),
        era=None if found.era == "auto" else Era(found.era),
    )


def masked_text(masker: Engine, text: str) -> str:
    return str(masker.mask(text, frozenset({"pii", "secrets"})).value)


def link_limits(chosen: Settings) -> LinkLimits:
    return LinkLimits(connections=chosen.config.limits.connections)
