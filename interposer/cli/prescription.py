"""How `doctor` shows what it found: a table in a terminal, plain columns elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from interposer.boundary.selfattack import Finding, Verdict

from .checkup import Check
from .display import printable

TRIED = {
    "environ": "read the environment",
    "maps": "list the memory's regions",
    "memory-read": "read the memory",
    "memory-write": "write to the memory",
    "vm-read": "process_vm_readv",
    "ptrace": "ptrace",
    "descriptors": "list the descriptors",
    "take-descriptor": "take a descriptor (pidfd)",
    "core": "make it leave a core file",
    "limits": "change its limits (prlimit)",
    "signal": "send it signals",
    "stdin": "write to its standard input",
    "read-file": "read",
    "write-file": "write to",
    "replace-file": "replace",
    "operate": "act as an operator",
    "places": "find the files",
    "become": "become root",
    "sandbox": "leave the sandbox around it",
}
HELD, BROKEN, UNTRIED = "held", "BROKEN", "not tried"
_NAMED = 3
_WIDE = 72
_OF_NO_MEANING = ("No such file or directory", "it reads nothing")
Row = tuple[str, str, str, str]


def printed(examined: Iterable[tuple[str, str, Sequence[Finding], Verdict]], noted: Sequence[Check]) -> None:
    for title, how, findings, found in examined:
        click.echo(f"{title}\n({how})\n")
        _table(list(rows(findings)))
        click.echo()
        for line in remedies(found):
            click.echo(f"{line}\n")
    _table([(_mark(check.ok), check.name, printable(check.said), check.remedy) for check in noted])
    click.echo()


def rows(findings: Sequence[Finding]) -> Iterator[Row]:
    """(what came of it, the attack, on what, how): one row for all on which an attack ended alike."""
    for id in dict.fromkeys(finding.id for finding in findings):
        same = [finding for finding in findings if finding.id == id]
        tried = TRIED.get(id, id)
        for mark, held in ((HELD, True), (BROKEN, False), (UNTRIED, None)):
            found = [finding for finding in same if finding.held is held and finding.how not in _OF_NO_MEANING]
            if found:
                # The worst of several is what matters, and it has most to say.
                how = max((finding.how for finding in found), key=len)
                yield mark, tried, _targets(found), "" if held else printable(how)


def _targets(found: Sequence[Finding]) -> str:
    named = [finding.target for finding in found]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return printable(", ".join(named[:_NAMED]) + more)


def remedies(found: Verdict) -> Iterator[str]:
    """One line for each thing to change, with what it mends."""
    said: dict[str, list[str]] = {}
    for finding in found.broken:
        said.setdefault(finding.remedy(found.same_user), []).append(TRIED.get(finding.id, finding.id))
    for remedy, mended in said.items():
        yield f"to change: {remedy} (mends: {', '.join(dict.fromkeys(mended))})"


def _mark(ok: bool | None) -> str:
    return {True: "ok", False: "AMISS", None: "note"}[ok]


def _table(found: list[Row]) -> None:
    if not sys.stdout.isatty():
        widths = [min(_WIDE, max((len(row[column]) for row in found), default=0)) for column in range(3)]
        for row in found:
            click.echo(
                "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
            )
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {
        HELD: "green",
        "ok": "green",
        BROKEN: "bold red",
        "AMISS": "bold red",
        UNTRIED: "yellow",
        "note": "yellow",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in found:
        table.add_row(Text(row[0], style=colours.get(row[0], "")), *(Text(cell) for cell in row[1:]))
    Console().print(table)
