"""`interposer mask`: the masker as a filter, to see what it would do to a text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

import click

if TYPE_CHECKING:
    from interposer.masking.engine import Engine

_EPILOG = """\b
Example:
  printf 'Write to ann.lee@example.com\\n' | interposer mask
"""


@click.command(epilog=_EPILOG)
@click.option("--jsonl", is_flag=True, help='Read {"text": …} per line and write {"text": masked} per line.')
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    type=click.Choice(["pii", "secrets"]),
    help="What to mask; may be given twice.  [default: both]",
)
def mask(jsonl: bool, profiles: tuple[str, ...]) -> None:
    """Mask personal data and secrets in standard input."""
    from interposer.masking.engine import PROFILES, Engine

    engine = Engine()  # a filter may take its time; the broker may not
    chosen = frozenset(profiles) or PROFILES
    source, target = sys.stdin.buffer, sys.stdout.buffer
    if jsonl:
        _lines(engine, chosen, source, target)
    else:
        text = source.read().decode("utf-8", "replace")
        target.write(_masked(engine, chosen, text).encode("utf-8", "replace"))
    target.flush()


def _lines(engine: Engine, profiles: frozenset[str], source: BinaryIO, target: BinaryIO) -> None:
    from interposer.canonical import Malformed, encode, parse

    wrong = False
    for number, line in enumerate(source, start=1):
        if not line.strip():
            continue
        try:
            row = parse(line)
            text = row["text"]
        except (Malformed, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            problem = f'line {number}: expected {{"text": …}}'
            click.echo(problem, err=True)
            target.write(encode({"error": problem}) + b"\n")
            wrong = True
            continue
        target.write(encode({"text": _masked(engine, profiles, text)}) + b"\n")
        target.flush()
    if wrong:
        sys.exit(2)


def _masked(engine: Engine, profiles: frozenset[str], text: str) -> str:
    from interposer.errors import MaskFault

    try:
        return str(engine.mask(text, profiles).value)
    except MaskFault as fault:
        click.echo(f"withheld: {fault}", err=True)
        sys.exit(1)
