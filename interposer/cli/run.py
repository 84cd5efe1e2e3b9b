"""`interposer run`: an agent in a sandbox that makes a boundary of one user's uid, with the broker outside of it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from interposer.display import printable

from .serve import POLICY

if TYPE_CHECKING:
    from interposer.boundary.sandbox import Kernel, Sandbox
    from interposer.settings import Settings

    from .joined import Joined
    from .supervision import Broker, Supervision

SHOWN = 12
"""The most services that are listed."""


@click.command(
    epilog="\b\nExample:\n  interposer run --write ~/.claude -- claude --permission-mode plan",
    context_settings={"allow_interspersed_args": False},
)
@click.option(
    "--config",
    metavar="FILE",
    help="Configuration (default: $INTERPOSER_CONFIG, ~/.config/interposer/interposer.yaml; not ./interposer.yaml).",
)
@POLICY
@click.option("--write", multiple=True, metavar="DIR", help="Writable besides the working directory; may be repeated.")
@click.option("--read-only", is_flag=True, help="The working directory is not writable.")
@click.option("--allow-weaker", is_flag=True, help="Start even where the kernel cannot give the whole sandbox.")
@click.option("--quiet", is_flag=True, help="Do not say what the sandbox is.")
@click.option("--dry-run", is_flag=True, help="Say what the sandbox would be, and start nothing.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    config: str | None,
    policy: str | None,
    write: tuple[str, ...],
    read_only: bool,
    allow_weaker: bool,
    quiet: bool,
    dry_run: bool,
    command: tuple[str, ...],
) -> None:
    """Start an agent in a sandbox, with the broker outside of it (boundary level L2).

    The agent writes beneath the working directory, a TMPDIR of its own and --write; it reads everything but the
    broker's state and credentials. It finds the broker at $INTERPOSER_SOCKET: let it spawn `interposer connect`.
    A broker that is not running is started, and stopped at the end. The exit code is the agent's.
    """
    from interposer.boundary.sandbox import Kernel, prepared
    from interposer.settings import settings

    from .enclosure import enclosure, handed_down, of, searched
    from .supervision import CANNOT_EXECUTE, NOT_FOUND, BrokerFailed, Supervision

    kernel = Kernel.here()
    _require(kernel, allow_weaker)
    program = shutil.which(command[0])
    if program is None:
        _say(f"there is no program {command[0]!r}")
        sys.exit(NOT_FOUND)
    chosen = settings(config, policy, [], here=False)
    _mention_ignored(config, quiet)
    with _temporary() as temporary, Supervision(_say) as children:
        try:
            standing = _standing(chosen)
        except BrokerFailed as failed:
            _say(str(failed))
            sys.exit(failed.code)
        report = standing.report if standing else None
        box = enclosure(
            chosen, temporary=temporary, write=write, read_only=read_only, environment=os.environ, report=report
        )
        concerned = [chosen, of(report)] if report else [chosen]
        notes = _notes(concerned)
        search, taken = searched(os.environ, box.writable)
        notes += [] if standing else taken
        if dry_run:
            told = _told(standing) if standing else "not started"
            click.echo(_described(kernel, box, told, notes, standing.address if standing else ""))
            return
        with prepared(box, kernel) as entrance:
            address, told = "", ""
            if standing:
                address, told = standing.address, _told(standing)
            else:
                try:
                    broker = _started(children, chosen, policy, search)
                except BrokerFailed as failed:
                    _say(str(failed))
                    sys.exit(failed.code)
                address, told = broker.address, f"started for this run, its log is {broker.log}"
            if not quiet:
                click.echo(_described(kernel, box, told, notes, address), err=True)
            environment = handed_down(concerned, os.environ) | {
                "INTERPOSER_SOCKET": address.removeprefix("unix:"),
                "TMPDIR": temporary,
            }
            agent, failure = children.start_agent(program, command, environment, entrance)
            if agent:
                code = children.follow(agent)
            else:
                _say(f"{program} cannot be started: {failure}")
                code = CANNOT_EXECUTE
    sys.exit(code)


def _require(kernel: Kernel, allow_weaker: bool) -> None:
    """Exit with 2 where the sandbox would not be whole, unless that is accepted; then it is said all the same."""
    missing = kernel.missing()
    for each in missing:
        _say(f"{'WEAKER' if allow_weaker else 'this kernel does not give'} {each}")
    if missing and not allow_weaker:
        _say("the sandbox would not hold; use a newer kernel, another uid for the broker, or --allow-weaker")
        sys.exit(2)


def _mention_ignored(config: str | None, quiet: bool) -> None:
    """What stands in the working directory may be an earlier agent's work."""
    from interposer.config import HERE

    if HERE.exists() and not quiet and not config and not os.environ.get("INTERPOSER_CONFIG"):
        _say(f"{HERE.absolute()} is ignored: an agent could have written it; name it by --config if it is meant")


def _standing(chosen: Settings) -> Joined | None:
    """The broker that answers already. Raises `BrokerFailed`."""
    from .joined import joined
    from .supervision import BrokerFailed, answers

    named = os.environ.get("INTERPOSER_SOCKET")
    configured = chosen.config.listen.socket.path
    address = named or str(chosen.base / configured if configured else chosen.home / "broker.sock")
    if answers(address):
        return joined(address, named=bool(named or configured), states=[chosen.home])
    if named:
        raise BrokerFailed(f"no broker answers at {named} ($INTERPOSER_SOCKET); start it, or unset the variable", 5)
    return None


def _started(children: Supervision, chosen: Settings, policy: str | None, search: dict[str, str]) -> Broker:
    """A broker of our own. Raises `BrokerFailed`."""
    from interposer.state import private

    if not chosen.upstreams:
        raise click.UsageError("no configuration with upstreams; write an interposer.yaml and name it by --config")
    private(chosen.home)
    words = [*(["--config", str(chosen.file)] if chosen.file else []), *(["--policy", policy] if policy else [])]
    sources = chosen.sources().values()
    passed = [int(source[3:]) for source in sources if source.startswith("fd:") and source[3:].isdecimal()]
    return children.start_broker(words, chosen.home / "broker.log", passed, {**os.environ, **search})


def _told(standing: Joined) -> str:
    at = f"the one at {standing.address}, which was running"
    if standing.report is not None:
        return at
    if standing.uid is None:
        return f"{at}; who it belongs to cannot be told, and nothing of its is hidden here"
    return f"{at} as uid {standing.uid} (L4: its files are not yours, so none needs to be hidden)"


def _notes(concerned: list[Settings]) -> list[str]:
    """What the sandbox cannot keep from the agent, of how the broker is configured."""
    commands = {
        source.removeprefix("command:").split()[0]
        for each in concerned
        for source in each.sources().values()
        if source.removeprefix("command:").strip() and source.startswith("command:")
    }
    return [
        f"! a credential comes from {command}: the agent gets it, too, if it can run that with what is not hidden"
        for command in sorted(commands)
    ]


def _described(kernel: Kernel, box: Sandbox, broker: str, notes: list[str], address: str) -> str:
    """What the sandbox gives and does not give, as one block."""
    from interposer.boundary.reachable import reachable

    level = "L1, because of what is missing" if kernel.missing() else "L2, a kernel sandbox around the agent"
    lines = [
        f"interposer: boundary {level} (Landlock ABI {kernel.landlock}, seccomp, no_new_privs)",
        f"  broker    {broker}",
        f"  writable  {_list((*box.writable, '/dev/shm'))}",  # noqa: S108
        f"  hidden    {_list(box.hidden)}",
    ]
    lines += [f"  {printable(note)}" for note in notes]
    if os.geteuid() == 0:
        lines.append("  ! you are root: the agent has no capabilities, but services that obey root obey it")
    own = (address.removeprefix("unix:"), os.path.join(os.path.dirname(address.removeprefix("unix:")), "admin.sock"))
    found = reachable(box.writable, own)
    if not found:
        return "\n".join([*lines, "  nothing else that listens was found"])
    lines.append("  not stopped: services outside that answer the agent as they answer you")
    for each in found[:SHOWN]:
        about = ": ".join(filter(None, [f"{each.address} ({each.owner})" if each.owner else each.address, each.danger]))
        lines.append(f"    {'! ' if each.danger else '  '}{printable(about)}")
    if len(found) > SHOWN:
        lines.append(f"    … and {len(found) - SHOWN} more")
    return "\n".join(lines)


def _list(places: tuple[str, ...]) -> str:
    return printable("  ".join(places) or "nothing")


@contextmanager
def _temporary() -> Iterator[str]:
    """A folder of this run's own; what cannot be removed is left, and said."""
    folder = os.path.realpath(tempfile.mkdtemp(prefix="interposer-run-"))
    try:
        yield folder
    finally:
        # A tree that the agent made may be deeper than Python's stack.
        with suppress(RecursionError):
            shutil.rmtree(folder, ignore_errors=True)
        if Path(folder).exists():
            _say(f"{folder} could not be removed")


def _say(line: str) -> None:
    click.echo(f"interposer: {line}", err=True)
