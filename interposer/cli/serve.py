"""`interposer stdio`, `serve` and `connect`: the broker as a process."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from interposer.records.lock import RecordHeld

if TYPE_CHECKING:
    from interposer.boundary.launch import Launched

CONFIG = click.option(
    "--config",
    metavar="FILE",
    help="Configuration (default: $INTERPOSER_CONFIG, ./interposer.yaml, ~/.config/interposer/interposer.yaml).",
)
POLICY = click.option("--policy", metavar="FILE", help="Policy file or builtin:starter (default: the configuration's).")


def words(upstream: str | None) -> list[str]:
    """The words of an `--upstream` option."""
    try:
        return shlex.split(upstream or "")
    except ValueError as error:
        raise click.UsageError(f"--upstream cannot be split into words: {error}") from None


@click.command(epilog="\b\nExample:\n  interposer stdio -- npx -y @modelcontextprotocol/server-filesystem ~/notes")
@CONFIG
@POLICY
@click.option("--client", metavar="NAME", hidden=True, help="Accepted for symmetry; the client names itself.")
@click.option(
    "--token-file",
    metavar="FILE",
    help="The agent's access token, read again when it changes ($INTERPOSER_TOKEN_FILE).",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def stdio(
    launched: Launched | None,
    config: str | None,
    policy: str | None,
    client: str | None,
    token_file: str | None,
    command: tuple[str, ...],
) -> None:
    """Serve one agent on standard input and output.

    With `-- COMMAND`, that stdio MCP server is the upstream and no configuration is needed. $INTERPOSER_TOKEN and
    $INTERPOSER_TOKEN_FILE, or --token-file, say who the agent acts for; without them it is whom the kernel says.
    """
    from interposer.spawned import stdio as serve_one

    sys.exit(serve_one(config, policy, list(command), token_file, launched=_required(launched)))


@click.command(epilog="\b\nExample:\n  interposer serve --config /etc/interposer/interposer.yaml")
@CONFIG
@POLICY
@click.pass_obj
def serve(launched: Launched | None, config: str | None, policy: str | None) -> None:
    """Serve agents on a Unix socket (and TCP, if configured) until a signal.

    Prints one line per listener, then `ready`.
    """
    from interposer import app
    from interposer.boundary.footing import require_firm
    from interposer.settings import settings

    sockets = _required(launched).sockets
    chosen = settings(config, policy, [])
    if not chosen.upstreams:
        raise click.UsageError("no configuration with upstreams; write an interposer.yaml and name it by --config")
    require_firm(chosen.stands_on(), chosen.passes(), whole=True)
    if len(sockets) > 1:
        raise click.UsageError(f"{len(sockets)} sockets were passed; the broker takes one, for its agents")
    try:
        sys.exit(app.run(partial(app.serve_daemon, passed=sockets[0][0] if sockets else None), chosen))
    except RecordHeld as held:
        click.echo(f"interposer: {held}", err=True)
        sys.exit(5)


def _required(launched: Launched | None) -> Launched:
    if launched is None:
        raise click.UsageError("a broker starts as a process of its own; use the `interposer` command")
    return launched


@click.command(
    epilog="\b\nExample:\n  interposer connect /run/interposer/broker.sock",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", metavar="[SOCKET]", nargs=-1, type=click.UNPROCESSED)
def connect(arguments: tuple[str, ...]) -> None:
    """Join standard input and output to a running broker.

    SOCKET is a path or tcp://127.0.0.1:PORT; by default $INTERPOSER_SOCKET, else broker.sock under $INTERPOSER_HOME.

    `--token-file FILE`, $INTERPOSER_TOKEN_FILE or $INTERPOSER_TOKEN say who calls; the file is read again when it
    changes. TCP needs a token; on a Unix socket the caller without one is whom the kernel says.
    """
    from interposer.shim import main

    sys.exit(main(list(arguments)))
