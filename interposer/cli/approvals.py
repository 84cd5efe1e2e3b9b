"""`interposer approvals`: the human's side of a question, for every broker that runs under this home."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import click

from .admin_client import AdminClient, AdminError, BrokerUnavailable, brokers
from .display import as_json, duration, printable, printable_json

P = ParamSpec("P")
R = TypeVar("R")

NO, USAGE, DENIED, WAITING, UNAVAILABLE = 1, 2, 3, 4, 5

_PREVIEW_CHARS = 100
_DENIED, _BROKER_UNAVAILABLE, _INTERNAL_ERROR = -31001, -31003, -32603

Question = dict[str, Any]


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
  interposer approvals list
  interposer approvals show q_7F3K
  interposer approvals approve q_7F3K --reason "customer called"
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
    epilog="\b\nExample:\n  interposer approvals approve q_7F3K --reason 'customer called' --digest 3f1a…\n"
)
@click.argument("id")
@click.option("--reason", default="", help="Why; kept with the vote.")
@click.option("--digest", default="", help="The digest that `show` printed: refused unless it is this question's.")
@click.option("--json", "json_", is_flag=True, help="One JSON object.")
@speaks
def approve(id: str, reason: str, digest: str, json_: bool) -> None:
    """Say yes to exactly this call, once.

    Exit code 0: approved. 3: the vote does not count (yours was the call, you are no approver, it came too late, or
    the digest is another one). 4: counted, and more people have to agree.
    """
    with connected() as clients:
        client, found = find(clients, id)
        question = cast_vote(client, found, yes=True, reason=reason, digest=digest)
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
    if not reason.strip():
        raise click.UsageError("--reason must say something.")
    with connected() as clients:
        client, found = find(clients, id)
        question = cast_vote(client, found, yes=False, reason=reason)
    click.echo(as_json(question) if json_ else verdict(question))


@approvals.command(epilog="\b\nExample:\n  interposer approvals watch --json\n")
@click.option("--json", "json_", is_flag=True, help="One JSON object per line: each question as it comes and ends.")
@speaks
def watch(json_: bool) -> None:
    """Questions as they come and end, until Ctrl-C.

    On a terminal it takes answers: `a ID [reason]` approves, `d ID reason` denies, `s ID` shows.
    """
    from .watching import watching

    watching(json_)


def _pages(client: AdminClient, *, everything: bool = False, prefix: str = "") -> list[Question]:
    found: list[Question] = []
    while True:
        params = {"all": everything, "prefix": prefix, "offset": len(found)}
        answer = client.request("approvals/list", params)
        found += answer["questions"]
        if not answer["questions"] or len(found) >= answer["total"]:
            return found


def find(clients: list[AdminClient], id: str) -> tuple[AdminClient, str]:
    """The one question that this id or beginning of an id means, and whose it is. Open ones come first."""
    if not id:
        raise click.UsageError("ID must not be empty.")
    matches = [(client, each) for client in clients for each in _pages(client, everything=True, prefix=id)]
    exact = [match for match in matches if match[1]["id"] == id]
    still_open = [match for match in matches if match[1]["state"] == "open"]
    for some in (exact, still_open, matches):
        if len(some) == 1:
            return some[0][0], some[0][1]["id"]
        if some:
            names = ", ".join(printable(each["id"]) for _, each in some[:5])
            raise click.UsageError(f"{printable(id)} is ambiguous: {names}{', …' if len(some) > 5 else ''}")
    _fail(NO, f"there is no question {id}")


def cast_vote(client: AdminClient, id: str, *, yes: bool, reason: str = "", digest: str = "") -> Question:
    """The question after the vote."""
    params = {"id": id, "reason": reason, "digest": digest}
    question: Question = client.request("approvals/approve" if yes else "approvals/deny", params)["question"]
    return question


def verdict(question: Question) -> str:
    """What a vote made of a question, in one line."""
    id = printable(question["id"])
    if question["state"] == "open":
        agreed = sum(1 for vote in question["votes"] if vote["yes"])
        return f"{id}: {agreed} of {question['quorum']} have approved"
    return f"{id}: approved" if question["state"] in ("granted", "consumed") else f"{id}: {question['state']}"


def line(question: Question) -> str:
    """A question in one line; its own text comes last and cannot imitate what is before it."""
    shown = printable_json(str(question["preview"]).encode())
    if len(shown) > _PREVIEW_CHARS or question["bytes"] > len(str(question["preview"]).encode()):
        shown = f"{shown[:_PREVIEW_CHARS]}… ({question['bytes']} bytes)"
    state = question["state"] if question["state"] != "open" else f"{duration(question['left_s'])} left"
    return "  ".join(
        (printable(question["id"]), state, person(question["requester"]), printable(question["skill"]), shown)
    )


def page(question: Question) -> str:
    """Everything that an approver answers for: fixed lines first, the call last."""
    approvers = question["approvers"]
    wanted = [*(f"group {name}" for name in approvers["groups"]), *approvers["subjects"]]
    fields = [
        ("question", question["id"]),
        ("state", question["state"]),
        ("time left", duration(question["left_s"])),
        ("asked by", f"{question['requester']['issuer']}:{question['requester']['subject']}"),
        ("groups", ", ".join(question["requester"]["groups"])),
        ("session", question["session"]),
        ("skill", question["skill"]),
        ("definition", question["skill_digest"]),
        ("policy", question["policy"]),
        *(("rule", f"{rule['id']} ({rule['effect']})  {rule['file']}:{rule['line']}") for rule in question["rules"]),
        ("approvers", ", ".join(wanted) or "any operator"),
        ("quorum", str(question["quorum"])),
        *(("vote", _vote(vote)) for vote in question["votes"]),
        ("digest", question["digest"]),
        ("arguments", f"{question['bytes']} bytes, SHA-256 {question['arguments_sha256'] or 'gone'}"),
    ]
    lines = [f"{label:<10} {printable(value)}".rstrip() for label, value in fields]
    exact = printable_json(str(question["canonical"]).encode()) or "no longer kept: the question has ended"
    return "\n".join([*lines, "", exact])


def person(principal: dict[str, Any]) -> str:
    return printable(f"{principal['issuer']}:{principal['subject']}")


def _vote(vote: dict[str, Any]) -> str:
    reason = f": {vote['reason']}" if vote["reason"] else ""
    return f"{'yes' if vote['yes'] else 'no'} by {vote['by']['issuer']}:{vote['by']['subject']}{reason}"
