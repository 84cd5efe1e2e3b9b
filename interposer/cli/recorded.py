"""Where the records of this home are, and how they are shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import click

from interposer import canonical
from interposer.errors import RecordFault
from interposer.model import Json

from .admin_client import home
from .display import printable, printable_json

P = ParamSpec("P")
R = TypeVar("R")

NO, USAGE, UNAVAILABLE = 1, 2, 5

record_option = click.option(
    "--record",
    "chosen",
    type=click.Path(path_type=Path, dir_okay=False),
    help="One record file. Default: record.db of $INTERPOSER_HOME, and of every further broker under its slots/.",
)
json_option = click.option("--json", "json_", is_flag=True, help="Data instead of text.")


def fail(code: int, message: str) -> NoReturn:
    click.echo(f"interposer: {printable(message)}", err=True)
    raise SystemExit(code)


def reads(command: Callable[P, R]) -> Callable[P, R]:
    """Turns a record that cannot be read into a message and exit code 5."""

    @wraps(command)
    def reading(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except RecordFault as error:
            fail(UNAVAILABLE, str(error))

    return reading


def records(chosen: Path | None) -> list[Path]:
    """The record that was named, or all of this home. Ends with code 2 where there is none."""
    if chosen is not None:
        if not chosen.is_file():
            fail(USAGE, f"{chosen}: no such record")
        return [chosen]
    under = home()
    found = [path for path in (under / "record.db", *sorted(under.glob("slots/*/record.db"))) if path.is_file()]
    if not found:
        fail(USAGE, f"no record under {under}: start a broker, or name one with --record or INTERPOSER_HOME")
    return found


def as_json(value: Json) -> str:
    """One line of ASCII JSON; numbers keep every digit they were recorded with."""
    return printable_json(canonical.encode(value))


def moment(at: float) -> str:
    """Local time, to the millisecond."""
    try:
        return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(at)


def clock(at: float) -> str:
    """The time of day of `moment`."""
    return moment(at)[11:23]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: by rich on a terminal, in aligned columns everywhere else. Cells are escaped here."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich(head, cells)
        return
    lines = [list(head), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for row in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rich(head: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for name in head:
        drawn.add_column(name, overflow="fold")
    for row in cells:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)
