"""What `doctor` looks at besides the boundary: whether a broker can do its work, and what its clients will wait for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from interposer.boundary import reachable
from interposer.boundary.selfattack import Attacker
from interposer.checked import duration_s
from interposer.config import Config
from interposer.config_approvals import ConsoleConfig, NotifyConfig
from interposer.model import JsonObject
from interposer.parts import client_profiles
from interposer.people import runs
from interposer.settings import Settings

from .patients import Patient

CLIENTS = (
    ("openai-agents", 5.0, "client_session_timeout_seconds"),
    ("google-adk", 5.0, "StdioConnectionParams.timeout"),
    ("crewai", 30.0, "the server's timeout"),
    ("llama-index", 30.0, "BasicMCPClient(timeout=…)"),
    ("claude-desktop", 60.0, ""),
    ("codex", 60.0, "tool_timeout_sec"),
)
"""(client, seconds that it waits for a tool unless told otherwise, the setting that says so)."""
SKEW_S = 5.0
CONNECT_S = 3.0
_LISTED = 12


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool | None
    """None: worth knowing, no fault."""
    said: str
    remedy: str = ""


def checks(patient: Patient, chosen: Settings) -> list[Check]:
    """Of one broker. What only its operators may know is left out for others."""
    status = patient.status
    told = [] if status is None else [_record(status), *_issuers(status), *_upstreams(patient, chosen)]
    return [
        *told,
        *holds(chosen.config),
        *console(status, chosen.config.console),
        *receivers(chosen),
        *_sources(chosen),
    ]


def _record(status: JsonObject) -> Check:
    healthy = status.get("healthy") is True
    said = f"{status.get('record')} takes rows" if healthy else f"{status.get('record')} cannot be written"
    remedy = "look at the log, the disk, and whether the file was moved; nothing is forwarded meanwhile"
    return Check("record", healthy, said, "" if healthy else remedy)


def _issuers(status: JsonObject) -> Iterator[Check]:
    """`{"issuers": [{"issuer", "loaded", "age_s", "error", "skew_s"}]}`, where some are configured."""
    for found in status.get("issuers") or []:
        issuer = found["issuer"]
        skew_s, usable = found.get("skew_s"), found.get("loaded", True)
        if not usable:
            yield Check(
                f"issuer {issuer}", False, f"no keys: {found.get('error')}", "its callers are refused until then"
            )
        elif skew_s is not None and abs(skew_s) > SKEW_S:
            yield Check(f"issuer {issuer}", False, f"clocks differ by {skew_s:.0f} s", "synchronise this host's clock")
        else:
            yield Check(f"issuer {issuer}", True, "keys are there" + ("" if skew_s is None else ", clocks agree"))


def _upstreams(patient: Patient, chosen: Settings) -> Iterator[Check]:
    offered = patient.skills
    if offered is None:
        yield Check("upstreams", False, "they did not answer in time", "start them by hand and look at the log")
        return
    count: dict[str, int] = {}
    for skill in offered.get("skills", []):
        name = str(skill["skill"]).partition(".")[0]
        count[name] = count.get(name, 0) + 1
    for name in sorted({*count, *chosen.upstreams}):
        number = count.get(name, 0)
        remedy = "" if number else "it did not start, or everything is withheld: `interposer skills`"
        yield Check(f"upstream {name}", number > 0, f"{number} skills" if number else "offers nothing", remedy)


def holds(config: Config) -> Iterator[Check]:
    """Clients that give up a call before the broker answers it with a ticket."""
    usual = duration_s(config.approvals.hold)
    named = {name: profile.hold_s for name, profile in client_profiles(config.approvals).items()}
    short = [
        (client, wait_s, setting, held)
        for client, wait_s, setting in CLIENTS
        if (held := named.get(client, usual)) >= wait_s
    ]
    if not short:
        yield Check("client time-outs", True, f"calls are held {usual:g} s, less than any known client waits")
    for client, wait_s, setting, held in short:
        remedy = f"approvals.clients: {{{client}: {max(1, int(wait_s) - 1)}s}}" + (
            f", or raise {setting}" * bool(setting)
        )
        yield Check(f"client {client}", None, f"gives up after {wait_s:g} s, and calls are held {held:g} s", remedy)


def console(status: JsonObject | None, found: ConsoleConfig | None) -> Iterator[Check]:
    """Whether those who answer questions can get to where they do."""
    if found is not None and not found.enabled:
        yield Check("console", None, "none (`enabled: false`): only its own uid and root can answer questions")
        return
    if status is not None and "console" in status:
        address = status["console"]
    else:
        address = _configured(found) if found is not None else None
    if address is None:
        serves = (
            "its port is told to its operators alone" if status is None else "none: `stdio` has one with `console: {}`"
        )
        yield Check("console", None, serves, "")
        return
    fault = _unreachable(address)
    remedy = "nobody can answer there; look at the log, and at the proxy where `console.url` names one" if fault else ""
    said = f"{address} does not answer ({fault})" if fault else f"{address} answers, {_kept(found, address)}"
    yield Check("console", not fault, said, remedy)
    if found is not None and found.login is not None:
        issuer = found.login.issuer
        fault = _unreachable(issuer)
        remedy = "nobody can log in to the console until it does" if fault else ""
        yield Check(f"login {issuer}", not fault, f"does not answer ({fault})" if fault else "answers", remedy)


def _configured(found: ConsoleConfig) -> str | None:
    host = f"[{found.host}]" if ":" in found.host else found.host
    return found.url or (f"{'https' if found.tls else 'http'}://{host}:{found.port}/" if found.port else None)


def _kept(found: ConsoleConfig | None, address: str) -> str:
    """What keeps others from reading along, and how people log in."""
    if found is not None and found.tls is not None:
        how = "with TLS"
    else:
        how = "with TLS of the proxy before it" if address.startswith("https:") else "on this machine alone"
    return f"{how}; people log in {'at their provider' if found and found.login else 'with one-time addresses'}"


def receivers(chosen: Settings) -> Iterator[Check]:
    """Those who are told of questions, by the names that they have in the log. Nothing is told to them here."""
    for number, found in enumerate(chosen.config.approvals.notify, 1):
        if found.command is not None:
            there = runs(found.command[0], chosen.base)
            said = f"{found.command[0]} is there" if there else f"there is no program {found.command[0]}"
            yield Check(f"command-{number}", there, said, "" if there else "install it, or name it with its whole path")
        else:
            yield _webhook(f"{'slack' if found.format == 'slack' else 'webhook'}-{number}", found)


def _webhook(name: str, found: NotifyConfig) -> Check:
    if found.webhook is None:
        return Check(name, None, "its address is a secret, and was not looked at")
    # The host alone: what follows it may be a secret.
    host, fault = urlsplit(found.webhook).hostname, _unreachable(found.webhook)
    remedy = "nobody is told of questions there; correct the address, or let this host connect to it" if fault else ""
    return Check(name, not fault, f"{host} does not answer ({fault})" if fault else f"{host} answers", remedy)


def _unreachable(url: str) -> str:
    """Why nobody can connect to it; nothing is sent."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), CONNECT_S).close()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ""


def _sources(chosen: Settings) -> Iterator[Check]:
    taken = [name for name, source in chosen.sources().items() if source.startswith("env:")]
    if taken or chosen.config.insecure_env:
        remedy = "use file:, systemd:, command: or keyring:, and remove insecure_env"
        said = f"taken from the environment: {', '.join(taken)}" if taken else "insecure_env is on, and not used"
        yield Check("credentials", False if taken else None, said, remedy)


def services(attacker: Attacker, patient: Patient, writable: tuple[str, ...], home: Path) -> Iterator[Check]:
    """What a sandbox does not stop: others of the same user that act for whoever asks."""
    meant = [path for path in (patient.agents, *(one["socket"] for one in patient.report["operator"])) if path]
    if not attacker.confined:
        return
    found = reachable.reachable(writable, meant, home)
    for each in found[:_LISTED]:
        if each.danger:
            yield Check(f"{each.kind} {each.address}", None, each.danger, "stop it, or keep it from this user")
    others = sum(not each.danger for each in found)
    if others:
        yield Check("other services", None, f"{others} sockets and ports of this user answer the agent too", "")
