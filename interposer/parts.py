"""What a broker is made of, as its configuration says: with `app.py` the only file that names concrete classes."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .callers.everyone import Everyone
from .callers.local import Callers, KnownCaller
from .callers.revocation import Revocations
from .checked import duration_s
from .clock import SystemClock
from .config import STARTER, IssuerConfig, UpstreamConfig
from .config_approvals import ApprovalsConfig, ClientConfig
from .config_people import KeysConfig, WhoConfig
from .docket import DeskLimits
from .echoes import Echoes, echoed
from .errors import ConfigurationError, InterposerError, Problem
from .identity.trust import GroupsFrom, Trust
from .masking.engine import PROFILES, Engine
from .model import Caller, Era, JsonObject
from .policy.units import rate
from .ports import Authenticator, Clock, Secret, Secrets, Transport
from .reach import Profile
from .seal import KEY_BYTES
from .secrets.sources import SourcedSecrets
from .settings import Settings, credential_name, token_name
from .settings import credentials as credentials_of
from .transports.link import Limits as LinkLimits
from .transports.places import path_of, taken_over
from .transports.sockets import TcpSocket, UnixSocket
from .upstreams.choice import Choice, Who
from .upstreams.mcp_stdio import McpStdio
from .upstreams.server import Command, Credential
from .upstreams.server import Limits as UpstreamLimits

if TYPE_CHECKING:
    from .boundary import targets as targeted
    from .callers.fetch import Fetcher
    from .callers.issuers import Issuers
    from .callers.jwks import Keys

log = logging.getLogger("interposer")


def credentials(chosen: Settings) -> Secrets:
    """Raises `ConfigurationError`."""
    return SourcedSecrets(chosen.sources(), insecure_env=chosen.config.insecure_env)


def callers(chosen: Settings, clock: Clock | None = None) -> Everyone:
    """Raises `ConfigurationError`."""
    found = chosen.config
    people = [KnownCaller(p.subject or "", tuple(p.groups), uid=p.uid, gid=p.gid) for p in found.callers]
    tokens = found.listen.tcp.tokens if found.listen.tcp else []
    labels = [KnownCaller(t.subject, tuple(t.groups), label=token_name(number)) for number, t in enumerate(tokens)]
    unmapped = found.unmapped_callers or ("refuse" if found.issuers else "uid")
    return Everyone(
        Callers(people + labels, unmapped=unmapped),
        issuers(found.issuers, chosen.base, clock or SystemClock()) if found.issuers else None,
        Revocations(str(chosen.base / found.revoked)) if found.revoked else None,
    )


def issuers(trusted: Sequence[IssuerConfig], base: Path, clock: Clock) -> Issuers:
    """Raises `ConfigurationError`."""
    # Cryptography and HTTP take a third of a second to load: a broker without issuers starts without them.
    from .callers.fetch import Fetcher
    from .callers.issuers import Issuers

    fetcher = Fetcher() if any(found.keys.file is None for found in trusted) else None
    return Issuers(
        [(trust_of(found), keys(found.issuer, found.keys, base, clock, fetcher)) for found in trusted], clock
    )


def keys(issuer: str, found: KeysConfig, base: Path, clock: Clock, fetcher: Fetcher | None = None) -> Keys:
    """Where an issuer's keys come from."""
    from .callers.fetch import Fetcher
    from .callers.jwks import RemoteKeys, discovery, located
    from .callers.keyfile import FileKeys

    cache_s = duration_s(found.cache)
    if found.file is not None:
        return FileKeys(str(base / found.file), clock, cache_s=cache_s)
    fetcher = fetcher or Fetcher()
    source = discovery(issuer, fetcher) if found.uri is None else located(found.uri, fetcher)
    return RemoteKeys(issuer, source, clock, cache_s=cache_s)


def trust_of(found: IssuerConfig) -> Trust:
    """What tokens of a configured issuer are held to."""
    return Trust(
        issuer=found.issuer,
        audiences=frozenset([found.audience] if isinstance(found.audience, str) else found.audience),
        algorithms=frozenset(found.algorithms),
        authorized_parties=frozenset(found.authorized_parties),
        subject=keys_of(found.subject),
        groups=tuple(GroupsFrom(keys_of(one.claim), one.shape, one.prefix) for one in found.groups),
        claims=tuple((keys_of(one.claim), tuple(one.values)) for one in found.require),
        leeway_s=duration_s(found.leeway),
        max_lifetime_s=duration_s(found.max_lifetime),
        id_tokens=found.id_tokens,
        machine=found.machine,
    )


def keys_of(claim: str | list[str]) -> tuple[str, ...]:
    return tuple(claim.split(".") if isinstance(claim, str) else claim)


async def listeners(
    chosen: Settings,
    folder: Path,
    secrets: Secrets,
    guard: Callable[[Secret], None],
    authenticator: Authenticator,
    on_refused: Callable[[str], None] | None = None,
    passed: int | None = None,
) -> list[Transport]:
    """Where agents find the daemon. Raises `ConfigurationError`. `on_refused` is given a short constant, at most once a
    second for each listener and reason. `passed` is a descriptor that listens already, in the Unix socket's place."""
    listen, limits = chosen.config.listen, link_limits(chosen)
    path = chosen.base / listen.socket.path if listen.socket.path else folder / "broker.sock"
    taken = None if passed is None else taken_over(passed)
    unix = UnixSocket(
        str(path) if taken is None else path_of(taken),
        group=listen.socket.group,
        uids=listen.socket.uids,
        limits=limits,
        on_refused=on_refused,
        taken=taken,
    )
    found: list[Transport] = [unix]
    if listen.tcp is not None:
        tokens = []
        for name in map(token_name, range(len(listen.tcp.tokens))):
            token = await secrets.reveal(name)
            guard(token)
            tokens.append((token, name))
        judge = _judge(authenticator) if chosen.config.issuers else None
        found.append(
            TcpSocket(listen.tcp.host, listen.tcp.port, tokens, judge=judge, limits=limits, on_refused=on_refused)
        )
    return found


def _judge(authenticator: Authenticator) -> Callable[[str], Awaitable[bool]]:
    """Whether a token at the gate is somebody's; every call is asked about again."""

    async def judge(token: str) -> bool:
        try:
            await authenticator.authenticate(Caller("tcp", token=token))
        except InterposerError:
            return False
        return True

    return judge


def upstream(
    name: str,
    found: UpstreamConfig,
    chosen: Settings,
    *,
    secrets: Secrets,
    clock: SystemClock,
    masker: Engine,
    on_notice: Callable[[str, str], None],
    on_echo: Callable[[str, str], None] | None = None,
) -> McpStdio | Choice:
    """`on_echo(upstream, place)` hears of a credential that stood on standard error."""
    on_echo = on_echo or Echoes(lambda _, kind, detail: on_notice(kind, detail), clock).told

    def mask(text: str) -> str:
        masked = masker.mask(text, PROFILES)
        if echoed(masked):
            on_echo(name, "stderr")
        return str(masked.value)

    def process(label: str, credential: Credential | None) -> McpStdio:
        return McpStdio(
            name,
            Command(
                argv=tuple(found.command),
                cwd=str(chosen.base / found.cwd) if found.cwd else str(chosen.base),
                variables=found.env,
                inherit=tuple(found.inherit),
                credential=credential,
            ),
            clock=clock,
            mask=mask,
            log=lambda line: log.warning("%s: %s", label, line),
            on_notice=lambda kind, detail: on_notice(kind, detail if label == name else f"{label}: {detail}"),
            guard=lambda secret: masker.guard(secret, label),
            release=lambda secret: masker.release(secret, label),
            limits=UpstreamLimits(start_s=duration_s(found.start_timeout)),
            era=None if found.era == "auto" else Era(found.era),
        )

    options = [
        (who_of(each.who), process(label, Credential(each.env, label, secrets)))
        for number, each in enumerate(credentials_of(found), 1)
        for label in [credential_name(name, found, number)]
    ]
    if not options:
        return process(name, None)
    return Choice(name, options) if len(options) > 1 or options[0][0] != Who() else options[0][1]


def who_of(who: WhoConfig | None) -> Who:
    return Who(frozenset(who.groups), frozenset(who.subjects), frozenset(who.issuers)) if who else Who()


def desk_limits(chosen: Settings) -> DeskLimits:
    """How much may wait for people, and who may override a rule."""
    found = chosen.config.approvals
    count, per_s = rate(found.rate)
    glass = found.break_glass
    return DeskLimits(
        found.pending_per_session,
        found.pending,
        pending_per_caller=found.pending_per_caller,
        refuse_same_uid=found.refuse_same_uid,
        rate=count,
        rate_s=per_s,
        may_break_glass=who_of(glass).takes if glass else lambda _: False,
    )


def client_profiles(found: ApprovalsConfig) -> dict[str, Profile]:
    """What clients are known to bear, as far as it is configured."""
    usual = Profile(duration_s(found.hold))
    profiles: dict[str, Profile] = {}
    for name, each in found.clients.items():
        if isinstance(each, ClientConfig):
            profiles[name] = Profile(duration_s(each.hold) if each.hold else usual.hold_s, each.rounds, each.tasks)
        else:
            profiles[name] = Profile(duration_s(each))
    return profiles


def seal_key(folder: Path) -> bytes:
    """The key of what clients bring back, made once: what was sealed before a restart is good after it. Raises
    `ConfigurationError`."""
    path, fresh = folder / "seal.key", folder / "seal.key.new"
    if not path.exists():
        # Whoever holds the record of this folder is alone here; a start that is cut short leaves no half a key.
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(os.urandom(KEY_BYTES))
        fresh.replace(path)
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigurationError([Problem(str(path), 0, 0, f"cannot be read ({error.strerror})")]) from None
    if len(key) != KEY_BYTES:
        raise ConfigurationError([Problem(str(path), 0, 0, "is not a key of ours; remove it and start again")])
    return key


def masked_text(masker: Engine, text: str) -> str:
    return str(masker.mask(text, frozenset({"pii", "secrets"})).value)


def link_limits(chosen: Settings) -> LinkLimits:
    return LinkLimits(connections=chosen.config.limits.connections)


def _commands(chosen: Settings, *, ours: bool) -> list[targeted.Command]:
    """Whatever a broker runs: upstreams, and programs that print a credential."""
    from .boundary.targets import Command as Run

    path = os.environ.get("PATH", os.defpath)
    found = [
        Run(name, up.command, str(chosen.base / (up.cwd or ".")), up.env.get("PATH", path), "PATH" in up.env or ours)
        for name, up in chosen.upstreams.items()
    ]
    for name, source in chosen.sources().items():
        if source.startswith("command:"):
            words = shlex.split(source.removeprefix("command:"))
            found.append(Run(f"the source of {name}", words, str(chosen.base), path, ours))
    for number, each in enumerate(chosen.config.approvals.notify, 1):
        if each.command is not None:
            found.append(Run(f"the notice command {number}", each.command, str(chosen.base), path, ours))
    return found


def targets(chosen: Settings, folder: Path, broker: int | None = None) -> JsonObject:
    """What a thief would go for in a broker, ours if none is named; and for whom it has to hold. `interposer doctor`
    attacks it."""
    from .boundary import targets as found

    pid = os.getpid() if broker is None else broker
    config, policy, base = chosen.config, chosen.policy, chosen.base
    tls = config.console.tls if config.console else None
    sockets = [str(folder / "admin.sock")]
    agents = base / config.listen.socket.path if config.listen.socket.path else folder / "broker.sock"
    if agents.is_socket():
        sockets.append(str(agents))
    places = found.kept(
        config=chosen.file,
        policy=None if policy == STARTER else Path(policy),
        revoked=base / config.revoked if config.revoked else None,
        folder=folder,
        credentials=[(name, s.removeprefix("file:")) for name, s in chosen.sources().items() if s.startswith("file:")],
        sockets=sockets,
        keys=chosen.key_files(),
        tls=(base / tls.certificate, base / tls.key) if tls else None,
        commands=_commands(chosen, ours=broker is None),
    )
    allowed = config.listen.socket.uids or []
    callers = {*allowed, *(person.uid for person in config.callers if person.uid is not None)}
    for person in config.callers:
        callers |= set(found.members(person.gid)) if person.gid is not None else set()
    return {
        "pid": pid,
        "uid": found.uid_of(pid),
        "processes": found.processes(pid, found.watcher(pid)),
        "places": [place.shown() for place in places],
        "operator": [{"target": "administration", "socket": sockets[0], "key": str(folder / "admin.key")}],
        "agents": sockets[1] if len(sockets) > 1 else None,
        "folder": str(folder),
        "configuration": str(chosen.file) if chosen.file else None,
        "callers": sorted(callers),
        "claim": config.boundary,
        "path": os.environ.get("PATH", os.defpath) if broker is None else None,
        "cwd": os.getcwd() if broker is None else None,
        "given": os.environ.get("CREDENTIALS_DIRECTORY") if broker is None else None,
    }
