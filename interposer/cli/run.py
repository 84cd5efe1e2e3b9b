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

from .serve import CONFIG, POLICY

if TYPE_CHECKING:
    from interposer.boundary.sandbox import Kernel, Sandbox
    from interposer.settings import Settings

    from .supervision import Broker, Supervision

SHOWN = 12
"""The most services that are listed."""


@click.command(
    epilog="\b\nExample:\n  interposer run --write ~/.cache -- claude --permission-mode plan",
    context_settings={"allow_interspersed_args": False},
)
@CONFIG
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

    from .enclosure import enclosure, handed_down
    from .supervision import CANNOT_EXECUTE, NOT_FOUND, BrokerFailed, Supervision

    kernel = Kernel.here()
    _require(kernel, allow_weaker)
    program = shutil.which(command[0])
    if program is None:
        _say(f"there is no program {command[0]!r}")
        sys.exit(NOT_FOUND)
    chosen = settings(config, policy, [])
    with _temporary() as temporary, Supervision(_say) as children:
        box = enclosure(chosen, temporary=temporary, write=write, read_only=read_only, environment=os.environ)
        if dry_run:
            click.echo(_described(kernel, box, "not started"))
            return
        with prepared(box, kernel) as entrance:
            try:
                broker = _broker(children, chosen, policy)
            except BrokerFailed as failed:
                _say(str(failed))
                sys.exit(failed.code)
            if not quiet:
                click.echo(_described(kernel, box, _told(broker), broker.address), err=True)
            environment = handed_down(chosen, os.environ) | {
                "INTERPOSER_SOCKET": broker.address.removeprefix("unix:"),
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


def _broker(children: Supervision, chosen: Settings, policy: str | None) -> Broker:
    """The one that stands, or one of our own. Raises `BrokerFailed`."""
    from interposer.state import private

    from .supervision import Broker, BrokerFailed, answers

    named = os.environ.get("INTERPOSER_SOCKET")
    configured = chosen.config.listen.socket.path
    address = named or str(chosen.base / configured if configured else chosen.home / "broker.sock")
    if answers(address):
        return Broker(address)
    if named:
        raise BrokerFailed(f"no broker answers at {named} ($INTERPOSER_SOCKET); start it, or unset the variable", 5)
    if not chosen.upstreams:
        raise click.UsageError("no configuration with upstreams; write an interposer.yaml and name it by --config")
    private(chosen.home)
    words = [*(["--config", str(chosen.file)] if chosen.file else []), *(["--policy", policy] if policy else [])]
    sources = chosen.sources().values()
    passed = [int(source[3:]) for source in sources if source.startswith("fd:") and source[3:].isdecimal()]
    return children.start_broker(words, chosen.home / "broker.log", passed)


def _told(broker: Broker) -> str:
    if broker.process is None:
        return f"the one at {broker.address}, which was running"
    return f"started for this run, its log is {broker.log}"


def _described(kernel: Kernel, box: Sandbox, broker: str, address: str = "") -> str:
    """What the sandbox gives and does not give, as one block."""
    from interposer.boundary.reachable import reachable

    level = "L1, because of what is missing" if kernel.missing() else "L2, a kernel sandbox around the agent"
    lines = [
        f"interposer: boundary {level} (Landlock ABI {kernel.landlock}, seccomp, no_new_privs)",
        f"  broker    {broker}",
        f"  writable  {_list((*box.writable, '/dev/shm'))}",  # noqa: S108
        f"  hidden    {_list(box.hidden)}",
    ]
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
