"""`interposer skills`: what is on offer, what is withheld and why; `skills pin` agrees to what is there now."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from interposer.config import home

from .admin_client import AdminClient, AdminError, BrokerUnavailable, sockets
from .agent_client import NoAnswer, agent
from .display import as_json, printable
from .serve import CONFIG, POLICY, words

UPSTREAM = click.option("--upstream", metavar="CMD", help="Start this stdio MCP server instead.")
START_S = 30.0


@contextlib.contextmanager
def administration(config: str | None, policy: str | None, upstream: str | None) -> Iterator[AdminClient]:
    """The administration of the running broker, or of one started for this command. Raises `NoAnswer`."""
    command = words(upstream)
    under = home()
    if not (config or policy or command):
        for path in sockets(under):
            with contextlib.suppress(BrokerUnavailable), AdminClient(path) as client:
                yield client
                return
    with agent(under, config=config, policy=policy, command=command) as (_, pid):
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            for path in sockets(under):
                with contextlib.suppress(BrokerUnavailable):
                    client = AdminClient(path)
                    status = client.request("broker/status")
                    if pid is None or pid in (status["pid"], status["keeper"]):
                        with client:
                            yield client
                        return
                    client.close()
            time.sleep(0.02)
        raise NoAnswer("the broker that was started does not answer on its administration socket")


def _ask(config: str | None, policy: str | None, upstream: str | None, method: str, params: dict[str, Any]) -> Any:
    try:
        with administration(config, policy, upstream) as client:
            return client.request(method, params, wait_s=90.0)
    except (NoAnswer, BrokerUnavailable) as error:
        click.echo(f"interposer: {error}", err=True)
        sys.exit(5)
    except AdminError as error:
        click.echo(f"interposer: {error}", err=True)
        sys.exit(1)


@click.group(
    invoke_without_command=True,
    epilog='\b\nExample:\n  interposer skills --upstream "npx -y @modelcontextprotocol/server-filesystem /tmp"',
)
@CONFIG
@POLICY
@UPSTREAM
@click.option("--json", "json_out", is_flag=True, help="Print JSON.")
@click.pass_context
def skills(ctx: click.Context, config: str | None, policy: str | None, upstream: str | None, json_out: bool) -> None:
    """List what is on offer, and what is withheld and why.

    Asks the running broker; with --config or --upstream, starts one for the question.
    """
    ctx.obj = (config, policy, upstream)
    if ctx.invoked_subcommand is not None:
        return
    found = _ask(config, policy, upstream, "skills/list", {})
    if json_out:
        click.echo(as_json(found))
        return
    for skill in found["skills"]:
        hint = "read-only" if skill["annotations"].get("readOnlyHint") is True else ""
        first = str(skill["description"]).strip().splitlines()[:1]
        click.echo(f"{printable(skill['skill']):40} {hint:10} {printable(first[0])[:70] if first else ''}".rstrip())
    for row in found["withheld"]:
        name = f"{row['upstream']}.{row['name']}" if row["name"] else row["upstream"]
        click.echo(f"{printable(name):40} withheld: {printable(row['why'])}")


@skills.command(epilog="\b\nExample:\n  interposer skills pin --diff")
@click.option("--diff", is_flag=True, help="Only show what pinning would change.")
@click.option("--json", "json_out", is_flag=True, help="Print JSON.")
@click.argument("upstreams", nargs=-1)
@click.pass_obj
def pin(
    chosen: tuple[str | None, str | None, str | None], diff: bool, json_out: bool, upstreams: tuple[str, ...]
) -> None:
    """Agree to the definitions that the upstreams (all, or those named) give now."""
    found = _ask(*chosen, "skills/list", {})
    known = {s["skill"].split(".", 1)[0] for s in found["skills"]} | {row["upstream"] for row in found["withheld"]}
    if set(upstreams) - known:
        raise click.UsageError(
            f"no upstream {', '.join(sorted(set(upstreams) - known))}; there are: {', '.join(sorted(known))}"
        )
    rows = [r for r in found["differences"] if not upstreams or r["skill"].split(".", 1)[0] in upstreams]
    changed: Any = {}
    if not diff:
        changed = _ask(*chosen, "skills/pin", {"upstreams": list(upstreams)})["changed"]
    if json_out:
        click.echo(as_json({"differences": rows, "changed": changed}))
        return
    for row in rows:
        click.echo(f"{printable(row['skill'])}: {_kind(row)}")
        if diff:
            for sign, side in (("-", row["was"]), ("+", row["now"])):
                if side is not None:
                    click.echo(
                        "\n".join(f"  {sign} {printable(line)}" for line in json.dumps(side, indent=2).splitlines())
                    )
    if not rows:
        click.echo("every skill is as it was pinned")
    elif not diff:
        click.echo(f"pinned {sum(map(len, changed.values()))} changed definitions")


def _kind(row: dict[str, Any]) -> str:
    if row["was"] is None:
        return "new"
    return "gone" if row["now"] is None else "changed"
