"""`interposer doctor`: proves the boundary by attacking it as those who call, and looks for what is amiss."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from interposer.boundary import selfattack
from interposer.boundary.sandbox import Kernel, prepared
from interposer.boundary.selfattack import LEVELS, OTHER_HOST, Attacker, Finding, NotTried, Verdict, verdict, weakest
from interposer.boundary.targets import members
from interposer.errors import ConfigurationError
from interposer.settings import Settings

from .checkup import Check, checks, services
from .display import as_json
from .enclosure import enclosure
from .patients import Patient, RefusedToStart, chosen_by, patients
from .prescription import printed
from .serve import CONFIG

NOBODY = 65534
NOT_YOURS = "What was attacked is a broker of doctor's own; start yours, and run doctor again"


@dataclass(frozen=True, slots=True)
class Attacked:
    """One attacker against one broker."""

    patient: Patient
    attacker: Attacker
    findings: tuple[Finding, ...]
    verdict: Verdict


@click.command(
    epilog="\b\nExamples:\n  interposer doctor\n  sudo interposer doctor --config /etc/interposer/interposer.yaml "
    "--claim L4\n  interposer doctor --sandboxed --json"
)
@CONFIG
@click.option("--socket", metavar="PATH", help="The agents' socket of the broker to attack, seen from outside.")
@click.option("--as", "as_", metavar="USER", help="Attack as this user or uid (root only).")
@click.option("--sandboxed", is_flag=True, help="Attack from inside the sandbox of `interposer run`.")
@click.option("--claim", type=click.Choice(LEVELS), help="The level that is claimed (default: the configuration's).")
@click.option("--json", "json_", is_flag=True, help="Everything as one JSON object.")
def doctor(
    config: str | None, socket: str | None, as_: str | None, sandboxed: bool, claim: str | None, json_: bool
) -> None:
    """Attack the running broker as its callers would, and say which boundary level (L1, L2, L4) that proves.

    Nothing is changed by it. When no broker runs, one is started for the check. Exit code 1 when the level that is
    claimed is not proven, or when something is broken.
    """
    if as_ is not None and os.geteuid() != 0:
        raise click.UsageError("--as needs root: only root can become another user")
    chosen = chosen_by(config)
    try:
        with patients(chosen, socket) as found:
            examined = [(patient, _configuration(patient, chosen)) for patient in found]
            claim = claim or _claimed(examined)
            attacked = [one for patient, own in examined for one in _attacked(patient, own, as_, sandboxed, claim)]
            noted = [check for one in attacked for check in _services(one, chosen)]
            noted = [*noted, *(check for patient, own in examined for check in checks(patient, own))]
    except RefusedToStart as refused:
        click.echo(f"interposer: the broker does not start:\n{refused}", err=True)
        sys.exit(1)
    except NotTried as error:
        click.echo(f"interposer: {error}", err=True)
        sys.exit(5)
    proven = weakest([one.verdict for one in attacked])
    started = any(one.patient.started for one in attacked)
    # One of our own, with our uid, tells nothing of how the deployment's is started.
    covered = claim is None or (proven.covers(claim) and (claim == "L1" or not started))
    if json_:
        click.echo(as_json(_object(attacked, noted, proven, claim, covered)))
    else:
        printed([(_title(one), one.patient.how, one.findings, one.verdict) for one in attacked], noted)
        _conclude(proven, claim, covered, started)
    sys.exit(0 if covered and not any(check.ok is False for check in noted) else 1)


def _configuration(patient: Patient, chosen: Settings) -> Settings:
    """The running broker's own, where we may read it."""
    file, folder = patient.report.get("configuration"), patient.report.get("folder")
    if file and Path(file) != chosen.file:
        with contextlib.suppress(ConfigurationError):
            chosen = chosen_by(file)
    # One that was started for this check has its state elsewhere.
    return replace(chosen, home=Path(folder)) if folder and not Path(folder).is_relative_to(chosen.home) else chosen


def _claimed(examined: list[tuple[Patient, Settings]]) -> str | None:
    """The highest that one of them claims."""
    claims = [claim for patient, own in examined for claim in (own.config.boundary, patient.report.get("claim"))]
    return max((claim for claim in claims if claim), key=LEVELS.index, default=None)


# -- who attacks


def _attacked(
    patient: Patient, chosen: Settings, as_: str | None, sandboxed: bool, claim: str | None
) -> Iterator[Attacked]:
    for attacker in attackers(patient, as_, sandboxed=sandboxed or claim == "L2"):
        with _sandbox(attacker, chosen) as enter:
            found = (*patient.given, *selfattack.attack(patient.job, attacker, enter=enter))
        yield Attacked(patient, attacker, found, verdict(found, attacker, patient.uid))


def attackers(patient: Patient, as_: str | None, *, sandboxed: bool) -> list[Attacker]:
    """Those that the broker must hold against: the named one; for root the configured callers and the members of the
    agents' group, else somebody who is let in by that group; for everybody else, ourselves."""
    if as_ is not None:
        return [replace(selfattack.user(as_, socket=patient.agents), confined=sandboxed)]
    if sandboxed or os.geteuid() != 0:
        return [selfattack.myself(confined=sandboxed)]
    named = [str(uid) for uid in sorted({*patient.report.get("callers", []), *_members(patient)})]
    if not named and patient.uid == 0:
        return [selfattack.myself()]
    return [selfattack.user(name, socket=patient.agents) for name in named or [str(NOBODY)]]


def _members(patient: Patient) -> list[int]:
    """Whom the group of the agents' socket lets in; its owner and root need no group."""
    try:
        found = os.stat(patient.agents) if patient.agents else None
    except OSError:
        return []
    return [uid for uid in members(found.st_gid) if uid not in (0, patient.uid)] if found else []


@contextlib.contextmanager
def _sandbox(attacker: Attacker, chosen: Settings) -> Iterator[Any]:
    """What puts the thief where `interposer run` puts an agent that is started here. Raises `ConfigurationError`."""
    if not attacker.confined:
        yield None
        return
    kernel = Kernel.here()
    if kernel.missing():
        raise NotTried(f"there is no whole sandbox on this kernel: {'; '.join(kernel.missing())}")
    temporary = tempfile.mkdtemp(prefix="interposer-doctor-")
    try:
        inside = enclosure(chosen, temporary=temporary, write=(), read_only=False, environment=os.environ)
        ready = prepared(inside, kernel)
        try:
            yield ready.enter
        finally:
            ready.close()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _services(one: Attacked, chosen: Settings) -> list[Check]:
    return list(services(one.attacker, one.patient, (os.getcwd(),), Path.home()))


# -- what is said


def _title(one: Attacked) -> str:
    return f"broker {one.patient.report['pid']} (uid {one.patient.uid}), attacked as {one.attacker}"


def _conclude(proven: Verdict, claim: str | None, covered: bool, started: bool) -> None:
    click.echo(f"proven: {proven.level} ({selfattack.SAID[proven.level]})")
    click.echo(f"        {proven.why}")
    if proven.level == "L1":
        click.echo("        SOFT GATE: code that runs with the broker's uid gets past it")
    if proven.level == "L2":
        click.echo("        programs of this user outside of the sandbox stand at L1")
    if started:
        click.echo("        of the broker that was started for this check; run doctor beside yours to prove yours")
    if claim is not None:
        why = f". {OTHER_HOST}" * (claim == "L5") + f". {NOT_YOURS}" * started
        click.echo(f"claimed: {claim}" + ("" if covered else f": NOT PROVEN{why}"))


def _object(
    attacked: list[Attacked], noted: list[Check], proven: Verdict, claim: str | None, covered: bool
) -> dict[str, Any]:
    return {
        "ok": covered and not any(check.ok is False for check in noted),
        "proven": proven.level,
        "why": proven.why,
        "claimed": claim,
        "covered": covered,
        "attacked": [
            {
                "broker": one.patient.report["pid"],
                "uid": one.patient.uid,
                "found": one.patient.how,
                "started": one.patient.started,
                "as": {
                    "uid": one.attacker.uid,
                    "groups": list(one.attacker.groups),
                    "sandboxed": one.attacker.confined,
                },
                "level": one.verdict.level,
                "attacks": [
                    {"id": f.id, "target": f.target, "held": f.held, "how": f.how}
                    | ({"remedy": f.remedy(one.attacker.uid == one.patient.uid)} if f.held is False else {})
                    for f in one.findings
                ],
            }
            for one in attacked
        ],
        "checks": [{"name": c.name, "ok": c.ok, "said": c.said, "remedy": c.remedy} for c in noted],
    }
