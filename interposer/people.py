"""How people hear of questions and where they answer them, as the configuration says: channels and the console."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from . import parts
from .callers.addresses import fault
from .callers.everyone import Everyone
from .catalogue import Catalogue
from .checked import duration_s
from .clock import SystemClock
from .config_approvals import ConsoleConfig, LoginConfig, NotifyConfig
from .desk import Desk
from .errors import ConfigurationError, Problem
from .identity.trust import GroupsFrom, Trust
from .masking.engine import Engine
from .model import JsonObject, Principal
from .ports import Clock, Secret, Secrets
from .records.reader import RecordReader
from .secrets.reading import read_file
from .settings import LOGIN_SECRET, Settings, notice_name
from .standing import StandingPolicy

if TYPE_CHECKING:
    from .channels.notice import Link
    from .channels.sender import OnDelivery, Sender
    from .console.console import Console, OidcLogin

_SESSIONS = 200
_DESCRIPTION_CHARS = 500


def senders(
    chosen: Settings, *, secrets: Secrets, masker: Engine, link: Link, on_delivery: OnDelivery, clock: Clock
) -> list[Sender]:
    """One for each entry of `approvals.notify`. Raises `ConfigurationError`."""
    return [
        _sender(number, each, chosen, secrets, masker, link, on_delivery, clock)
        for number, each in enumerate(chosen.config.approvals.notify, 1)
    ]


def _sender(
    number: int,
    found: NotifyConfig,
    chosen: Settings,
    secrets: Secrets,
    masker: Engine,
    link: Link,
    on_delivery: OnDelivery,
    clock: Clock,
) -> Sender:
    """Whom a `notify` entry tells, counted from 1. Raises `ConfigurationError`."""
    # A broker that tells nobody starts without TLS and HTTP.
    from .channels.bodies import generic, slack
    from .channels.command import CommandHook
    from .channels.sender import Sender
    from .channels.webhook import Webhook

    timeout_s, give_up_s = duration_s(found.timeout), duration_s(found.give_up)
    if found.command is not None:
        hook = CommandHook(found.command, cwd=str(chosen.base))
        name, tell = f"command-{number}", hook.tell
    else:
        key = _revealed(notice_name(number, "key"), secrets, masker) if found.secret else None
        body = slack if found.format == "slack" else generic
        webhook = Webhook(_address(number, found, secrets, masker), body, clock, key=key)
        name, tell = f"{'slack' if found.format == 'slack' else 'webhook'}-{number}", webhook.tell
    return Sender(name, tell, link, on_delivery, clock, timeout_s=timeout_s, give_up_s=give_up_s)


def _address(number: int, found: NotifyConfig, secrets: Secrets, masker: Engine) -> Callable[[], Awaitable[str]]:
    """Where a webhook goes now; one that is a secret is held to what one in the configuration is."""
    reveal = _revealed(notice_name(number, "address"), secrets, masker)

    async def address() -> str:
        if found.webhook is not None:
            return found.webhook
        url = (await reveal()).reveal()
        wrong = fault(url)
        if wrong:
            raise ConfigurationError([Problem(f"credential {notice_name(number, 'address')}", 0, 0, wrong)])
        return url

    return address


def _revealed(name: str, secrets: Secrets, masker: Engine) -> Callable[[], Awaitable[Secret]]:
    """This secret as it is now; the masker knows it before anybody else does."""
    held: list[tuple[Hashable, Secret]] = []

    async def reveal() -> Secret:
        stamp = secrets.stamp(name)
        if held and held[0][0] == stamp:
            return held[0][1]
        fresh = await secrets.reveal(name)
        if not held or held[0][1].reveal() != fresh.reveal():
            await anyio.to_thread.run_sync(masker.guard, fresh, name)
            if held:
                masker.release(held[0][1], name)
        held[:] = [(stamp, fresh)]
        return fresh

    return reveal


async def require_notice_secrets(chosen: Settings, secrets: Secrets) -> None:
    """A receiver that could never be told stops the start. Raises `ConfigurationError`."""
    for number, found in enumerate(chosen.config.approvals.notify, 1):
        if found.command is not None and not runs(found.command[0], chosen.base):
            wrong = f"there is no program {found.command[0]}; install it, or name one with its whole path"
            raise ConfigurationError([Problem(f"approvals.notify[{number - 1}].command", 0, 0, wrong)])
        for what, source in (("key", found.secret), ("address", found.webhook_from)):
            if source is None:
                continue
            secret = await secrets.reveal(notice_name(number, what))
            wrong = fault(secret.reveal()) if what == "address" else ""
            if wrong:
                raise ConfigurationError([Problem(f"credential {notice_name(number, what)}", 0, 0, wrong)])


def runs(program: str, folder: Path) -> bool:
    """Whether it is found where the hook starts it: execvp(3), from that folder."""
    around = [""] if "/" in program else os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(shutil.which(os.path.join(folder, each, program)) for each in around)


def console(
    chosen: Settings,
    found: ConsoleConfig,
    *,
    desk: Desk,
    clock: SystemClock,
    masker: Engine,
    policy: StandingPolicy,
    catalogue: Catalogue,
    callers: Everyone,
    secrets: Secrets,
    record: Path,
) -> Console:
    """Bound and listening; it serves when somebody comes. Raises `ConfigurationError`."""
    from .console.console import Console, Surroundings
    from .console.place import Place

    tls = found.tls
    if tls:
        read_file(str(chosen.base / tls.key))  # as a credential: others who can read it can be the console
    viewers = parts.who_of(found.viewers) if found.viewers else None
    return Console(
        desk,
        clock,
        masker,
        Surroundings(
            obligations=lambda skill: policy.current.obligations(skill),
            rule_text=policy.text_of,
            description=partial(_description, catalogue),
            sessions=partial(_sessions, record),
            may_break_glass=parts.desk_limits(chosen).may_break_glass,
            sees_all=viewers.takes if viewers else lambda _: False,
            still=callers.still_identity,
        ),
        Place(
            found.host,
            found.port,
            found.url or "",
            str(chosen.base / tls.certificate) if tls else "",
            str(chosen.base / tls.key) if tls else "",
        ),
        session_s=duration_s(found.session),
        login=_login(found.login, chosen, clock, secrets, masker) if found.login else None,
    )


def where(console: Console, operator: Principal, *, token: bool) -> str:
    """What `serve` says of the console; without the token where what it says is kept and others read it."""
    if token or console.oidc is not None:
        return console.address(operator)
    return f"{console.listener.link()} (`interposer console` prints an address that logs in)"


def _login(found: LoginConfig, chosen: Settings, clock: SystemClock, secrets: Secrets, masker: Engine) -> OidcLogin:
    from .console.console import OidcLogin

    async def secret() -> Secret:
        revealed = await secrets.reveal(LOGIN_SECRET)
        masker.guard(revealed)
        return revealed

    return OidcLogin(
        found.issuer,
        found.client_id,
        Trust(
            issuer=found.issuer,
            audiences=frozenset({found.client_id}),
            algorithms=frozenset(found.algorithms),
            subject=parts.keys_of(found.subject),
            groups=tuple(GroupsFrom(parts.keys_of(one.claim), one.shape, one.prefix) for one in found.groups),
            id_tokens=True,
        ),
        parts.keys(found.issuer, found.keys, chosen.base, clock),
        tuple(found.scopes),
        secret if found.client_secret is not None else None,
    )


def _description(catalogue: Catalogue, skill: str, digest: str) -> str:
    for offer in catalogue.offers():
        if (offer.skill.id, offer.skill.digest) == (skill, digest):
            return str(offer.shown.get("description") or "")[:_DESCRIPTION_CHARS]
    return ""


async def _sessions(record: Path) -> Sequence[JsonObject]:
    return await anyio.to_thread.run_sync(_read_sessions, record)


def _read_sessions(record: Path) -> Sequence[JsonObject]:
    with RecordReader(record) as reader:
        clients, callers, people = reader.clients(), reader.callers(), reader.subjects()
        newest = reader.sessions()[::-1][:_SESSIONS]
    return [
        {
            **each,
            "client": clients.get(each["id"], ""),
            "callers": [people.get(name, {}).get("subject", name) for name in callers.get(each["id"], [])],
        }
        for each in newest
    ]
