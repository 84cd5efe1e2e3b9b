"""`interposer console`: an address of the web console that logs this operator in, once."""

from __future__ import annotations

import os
import webbrowser
from html import escape
from pathlib import Path

import click

from .admin_client import AdminClient, AdminError, home
from .approvals import connected, find, speaks
from .display import printable

_NO, _METHOD_NOT_FOUND = 1, -32601


@click.command(epilog="\b\nExample:\n  interposer console\n  interposer console --open q_7F3K\n")
@click.argument("id", required=False, default="")
@click.option("--open", "open_", is_flag=True, help="Open it in this machine's browser.")
@speaks
def console(id: str, open_: bool) -> None:
    """An address of the web console, at the question ID where one is given.

    It logs in whoever opens it, as you, once, within two minutes: give it to nobody. With several brokers, one address
    of each that has a console.
    """
    with connected() as clients:
        if id:
            client, found = find(clients, id)
            addresses = [_address(client, found)]
        else:
            addresses = [_address(client, "") for client in clients]
    known = [address for address in addresses if address]
    if not known:
        click.echo("interposer: no broker here has a console; set `console: {}` in its configuration", err=True)
        raise SystemExit(_NO)
    for address in known:
        click.echo(printable(address))
    if open_ and not webbrowser.open(_leading_to(known[0], home()).as_uri()):
        click.echo("interposer: no browser could be started here; open the address yourself", err=True)


def _address(client: AdminClient, id: str) -> str:
    """Empty where the broker has no console."""
    try:
        return str(client.request("console/login", {"id": id})["url"])
    except AdminError as error:
        if error.code == _METHOD_NOT_FOUND:
            return ""
        raise


def _leading_to(address: str, folder: Path) -> Path:
    """A page that only this user can read: a command line, where everybody can read it, never holds the token."""
    path = folder / "console.html"
    path.unlink(missing_ok=True)
    page = f'<!doctype html><meta http-equiv="refresh" content="0;url={escape(address)}">\n'
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(page)
    return path
