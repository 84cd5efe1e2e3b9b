"""`interposer record`: is the record as it was written?"""

from __future__ import annotations

from pathlib import Path

import click

from interposer.records.reader import RecordReader

from .display import printable
from .recorded import NO, as_json, json_option, reads, record_option, records


@click.group(epilog="\b\nExample:\n  interposer record verify\n")
def record() -> None:
    """Check the record of what was asked, decided, done and answered."""


@record.command(epilog="\b\nExample:\n  interposer record verify --record ./record.db --json\n")
@record_option
@json_option
@reads
def verify(chosen: Path | None, json_: bool) -> None:
    """Recompute the chain of every row, and compare all that stands beside it.

    Works offline and beside a running broker. Exit code 0: everything is as it was written; prints the number of rows
    and the hash of the last one. 1: it is not; names the first row that differs.

    A chain cannot show that it was written anew from some row to its end. Note the head hash in another place, and
    compare it.
    """
    for path in records(chosen):
        with RecordReader(path) as reader:
            verdict = reader.verify()
        found = verdict.found
        if json_:
            answer = {"record": str(path), "ok": found is None, "rows": verdict.rows, "head": verdict.head.hex()}
            if found is not None:
                answer["break"] = {"row": found.seq, "what": found.what, "text": found.text}
            click.echo(as_json(answer | {"erased": verdict.erased}))
        elif found is not None:
            click.echo(f"{printable(str(path))}: BROKEN at {printable(found.text)}")
            click.echo(f"  {verdict.rows} rows before it are as they were written")
        else:
            click.echo(f"{printable(str(path))}: {verdict.rows} rows, all as they were written")
            click.echo(f"  head {verdict.head.hex()}")
            if verdict.erased:
                click.echo(f"  {verdict.erased} payloads erased, each named by a chained row")
        if found is not None:
            raise SystemExit(NO)
