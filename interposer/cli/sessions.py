"""`interposer sessions`: what happened in a session, from the record alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from interposer import canonical
from interposer.lifecycle import GRANT
from interposer.model import JsonObject
from interposer.records.reader import RecordReader
from interposer.replay import Step, name_of, story

from .display import printable, printable_json
from .recorded import USAGE, as_json, clock, fail, json_option, moment, reads, record_option, records, table

_LONGEST_PAUSE_S = 5.0
_COUNTS = ("forwarded", "answered", "failed", "in_doubt", "refused", "ticketed", "withdrawn")


@click.group(
    epilog="""\b
Example:
  interposer sessions list
  interposer sessions replay s_7f3k
"""
)
def sessions() -> None:
    """List, show and replay recorded sessions.

    An ID may be shortened as long as it is unambiguous. Payloads are shown as they were recorded: masked.
    """


@sessions.command("list", epilog="\b\nExample:\n  interposer sessions list --json\n")
@record_option
@json_option
@reads
def list_(chosen: Path | None, json_: bool) -> None:
    """Every session, oldest first."""
    with ExitStack() as stack:
        found = [summary for _, summary in _summaries(stack, chosen)]
    if json_:
        click.echo(as_json(found))
        return
    head = ("SESSION", "OPENED", "CLIENT", "WHO", "SENT", "REFUSED", "IN DOUBT", "STATE")
    table(head, [_line(summary) for summary in found])


@sessions.command(epilog="\b\nExample:\n  interposer sessions show s_7f3k\n")
@click.argument("id")
@record_option
@json_option
@reads
def show(id: str, chosen: Path | None, json_: bool) -> None:
    """The rows of one session: what was asked, decided and done, one line each."""
    summary, steps = _session(id, chosen)
    if json_:
        click.echo(as_json(summary | {"steps": [step.as_json() for step in steps]}))
        return
    for line in _heading(summary):
        click.echo(line)
    head = ("ROW", "TIME", "KIND", "SKILL", "WHO", "RULES", "CODE", "CALL")
    table(
        head,
        [
            (str(s.seq), clock(s.at), s.kind, s.skill, s.principal, ",".join(s.rules), s.code, s.invocation)
            for s in steps
        ],
    )


@sessions.command(epilog="\b\nExample:\n  interposer sessions replay s_7f3k --speed 2\n")
@click.argument("id")
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=0.0,
    help="1: with the pauses there were (at most 5 s each); 2: twice as fast; 0 (default): at once.",
)
@record_option
@json_option
@reads
def replay(id: str, speed: float, chosen: Path | None, json_: bool) -> None:
    """What the agent saw, in order, with decisions and approvals.

    From the record alone: nothing is sent, and nothing is decided again. With --json, one object per line.
    """
    summary, steps = _session(id, chosen)
    if not json_:
        for line in _heading(summary):
            click.echo(line)
    before = steps[0].at if steps else 0.0
    for step in steps:
        if speed:
            time.sleep(min(max(step.at - before, 0.0) / speed, _LONGEST_PAUSE_S))
        before = step.at
        if json_:
            click.echo(as_json(step.as_json()))
        else:
            for line in _scene(step):
                click.echo(line)


def _summaries(stack: ExitStack, chosen: Path | None) -> Iterator[tuple[RecordReader, JsonObject]]:
    for path in records(chosen):
        reader = stack.enter_context(RecordReader(path))
        subjects, callers, clients = reader.subjects(), reader.callers(), reader.clients()
        for row in reader.sessions():
            id = row["id"]
            yield (
                reader,
                {
                    "id": id,
                    "client": _client(clients.get(id)),
                    "principals": sorted(name_of(name, subjects) for name in callers.get(id, ())),
                    "opened_at": row["opened_at"],
                    "last_at": row["last_at"],
                    "open": not row["closed"],
                    **{name: row[name] for name in _COUNTS},
                    "rows": [row["first"], row["last"]],
                    "record": str(reader.path),
                },
            )


def _session(id: str, chosen: Path | None) -> tuple[JsonObject, list[Step]]:
    """The one session whose id this is or begins. Ends with code 2 where there is none, or more than one."""
    with ExitStack() as stack:
        found = [(reader, each) for reader, each in _summaries(stack, chosen) if each["id"].startswith(id)]
        exact = [(reader, each) for reader, each in found if each["id"] == id]
        fitting = exact or found
        if not fitting:
            fail(USAGE, f"no session {id} in the record: `interposer sessions list` has them all")
        if len(fitting) > 1:
            fail(USAGE, f"{id} fits {len(fitting)} sessions: {', '.join(each['id'] for _, each in fitting[:5])}")
        [(reader, summary)] = fitting
        return summary, story(reader.links(session=summary["id"]), reader.subjects())


def _line(summary: JsonObject) -> tuple[str, ...]:
    return (
        summary["id"],
        moment(summary["opened_at"])[:19],
        summary["client"],
        ", ".join(summary["principals"]),
        str(summary["forwarded"]),
        str(summary["refused"]),
        str(summary["in_doubt"]),
        "open" if summary["open"] else "closed",
    )


def _heading(summary: JsonObject) -> Iterator[str]:
    yield f"session {printable(summary['id'])}, opened {moment(summary['opened_at'])}"
    if summary["client"]:
        yield f"client  {printable(summary['client'])}"
    if summary["principals"]:
        yield f"who     {printable(', '.join(summary['principals']))}"
    counts = [f"{summary[name]} {name.replace('_', ' ')}" for name in _COUNTS if summary[name]]
    yield f"calls   {', '.join(counts) or 'none'}"
    yield ""


def _scene(step: Step) -> Iterator[str]:
    yield f"{clock(step.at)}  {printable(step.text)}"
    if step.arguments is not None:
        yield f"                with {_shown(step.arguments)}"
    if step.saw is not None:
        yield f"                the agent saw {_shown(step.saw)}"
    if step.masked:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(step.masked.items()))
        yield f"                masked: {printable(counts)}"
    if step.note:
        yield f"                note: {printable(step.note)}"
    if step.question:
        yield f"                {'grant' if step.kind in GRANT else 'question'} {printable(step.question)}"


def _shown(value: Any) -> str:
    return printable(value) if isinstance(value, str) else printable_json(canonical.encode(value))


def _client(value: Any) -> str:
    """`{"name", "version"}` as SQLite hands it out, or a bare name."""
    if not isinstance(value, str):
        return ""
    try:
        parsed = canonical.parse(value.encode("utf-8", "surrogateescape"))
    except canonical.Malformed:
        return value
    return str(parsed.get("name", "")) if isinstance(parsed, dict) else value
