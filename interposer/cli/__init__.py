"""The `interposer` command. Each command group is a file of its own, imported when it is asked for.

`connect` never gets here: it is the shim, and starts on the standard library alone.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from interposer import __version__
from interposer.errors import ConfigurationError, InterposerError

if TYPE_CHECKING:
    from interposer.boundary.launch import Launched

# command -> (module, attribute, line in the overview)
COMMANDS = {
    "demo": ("demo", "demo", "The whole story on real processes, in under a minute."),
    "stdio": ("serve", "stdio", "What an agent runtime spawns: MCP on standard input and output."),
    "serve": ("serve", "serve", "The daemon: Unix socket and TCP."),
    "run": ("run", "run", "Start an agent in a sandbox, with the broker outside of it."),
    "connect": ("serve", "connect", "The shim an agent runtime spawns when the broker is a daemon."),
    "skills": ("skills", "skills", "What is on offer, to whom; pin definitions."),
    "call": ("call", "call", "One call through the whole pipeline, by hand."),
    "approvals": ("approvals", "approvals", "List, show and answer the open questions."),
    "console": ("console", "console", "An address of the web console, where calls are answered in a browser."),
    "sessions": ("sessions", "sessions", "List, show and replay recorded sessions."),
    "record": ("record", "record", "Verify the record."),
    "policy": ("policy", "policy", "Check, explain and try policies."),
    "token": ("token", "token", "Verify access tokens as the broker does."),
    "doctor": ("doctor", "doctor", "Prove the boundary level by attacking it; find what is amiss."),
    "mask": ("mask", "mask", "Mask standard input."),
}


class Lazy(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found: click.Command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, _, said) in COMMANDS.items()])


@click.command(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  interposer stdio -- npx -y @modelcontextprotocol/server-filesystem ~/notes",
)
@click.version_option(__version__, prog_name="interposer")
def cli() -> None:
    """The policy enforcement point for AI-agent tool calls."""


def main(launched: Launched | None = None) -> None:
    """Run the command line; exit codes are those of the reference (docs/reference/cli.md). `launched` is what a broker
    has from its start (boundary/launch.py); commands that serve take it as their object."""
    try:
        # Without standalone mode click returns the code of `ctx.exit`, `--help` and `--version`.
        code = cli.main(standalone_mode=False, prog_name="interposer", obj=launched)
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(f"interposer: {problem}", err=True)
        sys.exit(error.exit_code)
    except InterposerError as error:
        click.echo(f"interposer: {error}", err=True)
        sys.exit(5)
    except BrokenPipeError:
        # The reader of our output has gone; what it read was right.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        click.echo(f"interposer: {error.strerror or error}", err=True)
        sys.exit(5)
