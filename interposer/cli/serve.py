"""`interposer stdio`, `serve` and `connect`: the broker as a process."""

from __future__ import annotations

import shlex
import sys

import click

from interposer.records.lock import RecordHeld

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
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def stdio(config: str | None, policy: str | None, client: str | None, command: tuple[str, ...]) -> None:
    """Serve one agent on standard input and output.

    With `-- COMMAND`, that stdio MCP server is the upstream and no configuration is needed.
    """
    from interposer.spawned import stdio as serve_one

    sys.exit(serve_one(config, policy, list(command)))


@click.command(epilog="\b\nExample:\n  interposer serve --config /etc/interposer/interposer.yaml")
@CONFIG
@POLICY
def serve(config: str | None, policy: str | None) -> None:
    """Serve agents on a Unix socket (and TCP, if configured) until a signal.

    Prints one line per listener, then `ready`.
    """
    from interposer import app
    from interposer.settings import settings

    chosen = settings(config, policy, [])
    if not chosen.upstreams:
        raise click.UsageError("no configuration with upstreams; write an interposer.yaml and name it by --config")
    try:
        sys.exit(app.run(app.serve_daemon, chosen))
    except RecordHeld as held:
        click.echo(f"interposer: {held}", err=True)
        sys.exit(5)


@click.command(
    epilog="\b\nExample:\n  interposer connect /run/interposer/broker.sock",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("arguments", metavar="[SOCKET]", nargs=-1, type=click.UNPROCESSED)
def connect(arguments: tuple[str, ...]) -> None:
    """Join standard input and output to a running broker.

    SOCKET is a path or tcp://127.0.0.1:PORT (with --token-file FILE); by default $INTERPOSER_SOCKET, else
    broker.sock under $INTERPOSER_HOME.
    """
    from interposer.shim import main

    sys.exit(main(list(arguments)))
