"""`interposer approvals`: the human's side of a question, for every broker that runs under this home."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from .admin_client import AdminClient, AdminError, BrokerUnavailable, brokers
from .display import as_json, printable
from .questions import Grant, Question, figures_page, grant_line, line, page, verdict

P = ParamSpec("P")
R = TypeVar("R")

NO, USAGE, DENIED, WAITING, UNAVAILABLE = 1, 2, 3, 4, 5

_DENIED, _BROKER_UNAVAILABLE, _INTERNAL_ERROR = -31001, -31003, -32603


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"interposer: {printable(message)}", err=True)
    raise SystemExit(code)


def speaks(command: Callable[P, R]) -> Callable[P, R]:
    """Turns what a broker refuses, and a broker that is not there, into a message and an exit code."""

    @wraps(command)
    def speaking(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BrokerUnavailable as error:
            _fail(UNAVAILABLE, str(error))
        except AdminError as error:
            _fail(_exit_code(error), str(error))

    return speaking


def _exit_code(error: AdminError) -> int:
    if error.name == "unknown_question":
        return NO
    if error.code in (_BROKER_UNAVAILABLE, _INTERNAL_ERROR):
        return UNAVAILABLE
    return DENIED if error.code == _DENIED else USAGE


@contextlib.contextmanager
def connected() -> Iterator[list[AdminClient]]:
    """Every broker that runs."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(client) for client in brokers()]


@click.group(
    epilog="""\b
Example:
  interposer approvals show q_7F3K
  interposer approvals approve q_7F3K --reason "customer called"
  interposer approvals approve q_7F3K --uses 5 --for 1h
"""
)
def approvals() -> None:
    """Answer the questions that calls are waiting for.

    An ID may be shortened as long as it is unambiguous.
    """


@approvals.command("list", epilog="\b\nExample:\n  interposer approvals list --json\n")
@click.option("--all", "everything", is_flag=True, help="Also those that have ended, newest first.")
@click.option("--json", "json_", is_flag=True, help="One JSON array.")
@speaks
def list_(everything: bool, json_: bool) -> None:
    """The calls that wait for a human, oldest first."""
    with connected() as clients:
        found = [question for client in clients for question in _pages(client, everything=everything)]
    if json_:
        click.echo(as_json(found))
        return
    if not found:
        click.echo("Nothing waits for approval.", err=True)
    for question in found:
        click.echo(line(question))


@approvals.command(epilog="\b\nExample:\n  interposer approvals show q_7F3K\n")
@click.argument("id")
@click.option("--json", "json_", is_flag=True, help="One JSON object.")
@speaks
def show(id: str, json_: bool) -> None:
    """The exact call, who asks for it, and why it needs a human.

    Everything in it that is not plain ASCII is escaped, so nothing can hide or rearrange it.
    """
    with connected() as clients:
        client, found = find(clients, id)
        question = client.request("approvals/show", {"id": found})["question"]
    click.echo(as_json(question) if json_ else page(question))


@approvals.command(
    epilog="""\b
Example:
  interposer approvals approve q_7F3K --reason 'customer called' --digest 3f1a…
  interposer approvals approve q_7F3K --uses 20 --for 2h --session
  interposer approvals approve q_7F3K --arguments '{"order": "A-17", "amount": 20}'
"""
)
@click.argument("id")
@click.option("--reason", default="", help="Why; kept with the vote.")
@click.option("--digest", default="", help="The digest that `show` printed: refused unless that is still on the table.")
@click.option("--uses", type=click.IntRange(1), help="For so many calls, this one included.")
@click.option("--for", "for_", metavar="TIME", help="For so long: 30m, 2h, 1d. Without it, as long as policy lets.")
@click.option("--until", metavar="TIME", help="Until then: 2026-11-22T18:00, by this machine's clocks.")
@click.option("--session", is_flag=True, help="For calls of this session only.")
@click.option("--matching", metavar="SCHEMA", help="For arguments that match this JSON Schema: a file, or JSON.")
@click.option("--arguments", metavar="JSON", help="With these arguments instead of the caller's: a file, or JSON.")
@click.option("--once", is_flag=True, help="Only this call, though others have agreed to more.")
@click.option("--json", "json_", is_flag=True, help="One JSON object.")
@speaks
def approve(
    id: str,
    reason: str,
    digest: str,
    uses: int | None,
    for_: str | None,
    until: str | None,
    session: bool,
    matching: str | None,
    arguments: str | None,
    once: bool,
    json_: bool,
) -> None:
    """Say yes to exactly this call, once; with options, to more than this call, or to other arguments.

    What is long, or has a `read_for`, has to have been before you: `show` it and read it first. Otherwise this prints
    the call instead, and approves nothing.

    More than once goes as far as policy lets (`show` prints how far). Who changes what is on the table makes a new
    version: others who agreed before have to agree again.

    Exit code 0: approved. 3: the vote does not count (the call has not been read, it was yours, you are no approver,
    it came too late, the digest is another one, or it is more than policy allows). 4: counted, and more people have to
    agree.
    """
    for_s = _seconds(for_, until)
    given = {"uses": uses, "for_s": for_s, "schema": _object(matching, "--matching"), "session": session or None}
    if once and any(value is not None for value in given.values()):
        raise click.UsageError("--once does not go with --uses, --for, --until, --session and --matching.")
    given |= {"arguments": _object(arguments, "--arguments"), "once": once or None}
    with connected() as clients:
        client, found = find(clients, id)
        with _unread(client, found):
            question = cast_vote(client, found, yes=True, reason=reason, digest=digest, more=given)
    click.echo(as_json(question) if json_ else verdict(question))
    if question["state"] == "open":
        raise SystemExit(WAITING)


@approvals.command(epilog="\b\nExample:\n  interposer approvals deny q_7F3K --reason 'not without a ticket'\n")
@click.argument("id")
@click.option("--reason", required=True, help="Why; kept with the vote.")
@click.option("--json", "json_", is_flag=True, help="One JSON object.")
@speaks
def deny(id: str, reason: str, json_: bool) -> None:
    """Say no. One no is final for this call until the question would have expired."""
    _require_reason(reason)
    with connected() as clients:
        client, found = find(clients, id)
        question = cast_vote(client, found, yes=False, reason=reason)
    click.echo(as_json(question) if json_ else verdict(question))


@approvals.command(
    "break-glass", epilog="\b\nExample:\n  interposer approvals break-glass q_7F3K --reason 'INC-4711, on-call alone'\n"
)
@click.argument("id")
@click.option("--reason", required=True, help="Why; kept with the vote and the alarm.")
@click.option("--digest", default="", help="The digest that `show` printed: refused unless that is still on the table.")
@click.option("--json", "json_", is_flag=True, help="One JSON object.")
@speaks
def break_glass(id: str, reason: str, digest: str, json_: bool) -> None:
    """Approve this call alone, once, whatever the rule demands.

    Only for those whom `approvals.break_glass` of the configuration names, never for the own call. It is an alarm, and
    is recorded and announced as what it is. What has to be read has to have been shown to you here too.
    """
    _require_reason(reason)
    with connected() as clients:
        client, found = find(clients, id)
        params = {"id": found, "reason": reason, "digest": digest}
        with _unread(client, found):
            question = client.request("approvals/break_glass", params)["question"]
    click.echo(as_json(question) if json_ else verdict(question))


@approvals.command(epilog="\b\nExample:\n  interposer approvals revoke g_9C2M --reason 'the incident is over'\n")
@click.argument("id")
@click.option("--reason", required=True, help="Why; recorded.")
@click.option("--json", "json_", is_flag=True, help="One JSON object.")
@speaks
def revoke(id: str, reason: str, json_: bool) -> None:
    """Take a yes back: a standing grant by its id, or by a question's all that came of it.

    Calls that are under way under it are cut. Exit code 3: nothing of it is left.
    """
    _require_reason(reason)
    with connected() as clients:
        client, found = find(clients, id, grants=True)
        revoked = client.request("approvals/revoke", {"id": found, "reason": reason})
    click.echo(as_json(revoked) if json_ else f"{printable(found)}: revoked")


@approvals.command(epilog="\b\nExample:\n  interposer approvals grants --all --json\n")
@click.option("--all", "everything", is_flag=True, help="Also those that have ended, newest first.")
@click.option("--json", "json_", is_flag=True, help="One JSON array.")
@speaks
def grants(everything: bool, json_: bool) -> None:
    """The standing grants: whose, for what, how much is left, and who gave them."""
    with connected() as clients:
        found = [grant for client in clients for grant in _pages(client, "grants", everything=everything)]
    if json_:
        click.echo(as_json(found))
        return
    if not found:
        click.echo("There are no standing grants.", err=True)
    for grant in found:
        click.echo(grant_line(grant))


@approvals.command(epilog="\b\nExample:\n  interposer approvals figures --days 7\n")
@click.option("--days", type=click.IntRange(1, 3650), default=1, show_default=True, help="Of the last so many days.")
@click.option("--json", "json_", is_flag=True, help="One JSON array: an object for each broker.")
@speaks
def figures(days: int, json_: bool) -> None:
    """How many questions were asked, how they ended, and how long people took: in all, by skill and by person.

    People who say yes to everything within seconds have stopped reading.
    """
    with connected() as clients:
        found = [client.request("approvals/figures", {"days": days}) for client in clients]
    click.echo(as_json(found) if json_ else "\n".join(figures_page(each) for each in found))


@approvals.command(epilog="\b\nExample:\n  interposer approvals watch --json\n")
@click.option("--json", "json_", is_flag=True, help="One JSON object per line: each question as it comes and ends.")
@speaks
def watch(json_: bool) -> None:
    """Questions as they come, change and end, until Ctrl-C.

    On a terminal it takes answers: `a ID [reason]` approves what was shown last, once or as others proposed it, or
    shows it first where the line was not all of it; `d ID reason` denies, `s ID` shows, `b ID reason` breaks the
    glass, `r ID reason` revokes.
    """
    from .watching import watching

    watching(json_)


@contextlib.contextmanager
def _unread(client: AdminClient, id: str) -> Iterator[None]:
    """Prints the call to whoever would have answered for it unseen."""
    try:
        yield
    except AdminError as error:
        if error.name == "unread":
            question = client.request("approvals/show", {"id": id})["question"]
            click.echo(page(question) + "\n", err=True)
            again = f"read it above, then say so again with --digest {question['version']}"
            _fail(DENIED, f"{error}; {again}")
        raise


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise click.UsageError("--reason must say something.")


def _seconds(for_: str | None, until: str | None) -> float | None:
    """How long from now; None where nothing is said."""
    if for_ is not None and until is not None:
        raise click.UsageError("Give --for or --until, not both.")
    try:
        if for_ is not None:
            from interposer.checked import duration_s

            return duration_s(for_)
        if until is None:
            return None
        left_s = datetime.fromisoformat(until).astimezone().timestamp() - time.time()
    except (ValueError, OverflowError) as wrong:
        expected = "such as 30m, 2h or 1d" if for_ is not None else "such as 2026-11-22T18:00"
        raise click.UsageError(f"--{'for' if for_ is not None else 'until'}: expected a time {expected}.") from wrong
    if left_s <= 0:
        raise click.UsageError("--until is over already.")
    return left_s


def _object(given: str | None, option: str) -> dict[str, Any] | None:
    """A JSON object, read as strictly as a call's arguments are, from the words themselves or from the file that they
    name."""
    if given is None:
        return None
    from interposer.canonical import Malformed, canonical, parse

    try:
        raw = given.encode() if given.lstrip().startswith("{") else Path(given).read_bytes()
        found = parse(raw)
        if isinstance(found, dict) and canonical(parse(json.dumps(found).encode())) == canonical(found):
            return found
    except OSError as error:
        raise click.UsageError(f"{option}: {printable(given)}: {error.strerror}") from error
    except Malformed as wrong:
        raise click.UsageError(f"{option}: {wrong}") from wrong
    except (TypeError, ValueError):
        raise click.UsageError(f"{option}: a number in it has more digits than can be sent from here") from None
    raise click.UsageError(f"{option}: expected a JSON object")


def _pages(client: AdminClient, of: str = "approvals", *, everything: bool = False, prefix: str = "") -> list[Any]:
    found: list[Any] = []
    while True:
        params = {"all": everything, "prefix": prefix, "offset": len(found)}
        answer = client.request(f"{of}/list", params)
        page = answer["questions" if of == "approvals" else of]
        found += page
        if not page or len(found) >= answer["total"]:
            return found


def find(clients: list[AdminClient], id: str, *, grants: bool = False) -> tuple[AdminClient, str]:
    """The one question that this id or beginning of an id means, and whose it is; with `grants`, the one question or
    grant. What can still be answered or used comes first."""
    if not id:
        raise click.UsageError("ID must not be empty.")
    kinds = ("approvals", "grants") if grants else ("approvals",)
    matches: list[tuple[AdminClient, Question | Grant]] = [
        (client, each) for client in clients for of in kinds for each in _pages(client, of, everything=True, prefix=id)
    ]
    exact = [match for match in matches if match[1]["id"] == id]
    live = [match for match in matches if match[1]["state"] in (("granted", "active") if grants else ("open",))]
    for some in (exact, live, matches):
        if len(some) == 1:
            return some[0][0], some[0][1]["id"]
        if some:
            names = ", ".join(printable(each["id"]) for _, each in some[:5])
            raise click.UsageError(f"{printable(id)} is ambiguous: {names}{', …' if len(some) > 5 else ''}")
    _fail(NO, f"there is no question {'or grant ' if grants else ''}{id}")


def cast_vote(
    client: AdminClient,
    id: str,
    *,
    yes: bool,
    reason: str = "",
    digest: str = "",
    more: dict[str, Any] | None = None,
) -> Question:
    """The question after the vote."""
    params = {"id": id, "reason": reason, "digest": digest}
    params |= {name: value for name, value in (more or {}).items() if value is not None}
    question: Question = client.request("approvals/approve" if yes else "approvals/deny", params)["question"]
    return question
