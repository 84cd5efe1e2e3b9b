"""`interposer approvals watch`: one thread listens to each broker; lines and answers are the main thread's."""

from __future__ import annotations

import contextlib
import queue
import select
import sys
import threading
from pathlib import Path

import click

from .admin_client import AdminClient, AdminError, BrokerUnavailable, brokers, home, sockets
from .approvals import cast_vote, connected, find
from .display import as_json, printable
from .questions import Question, line, page, verdict, whole

_WAIT_S = 30.0
_TURN_S = 0.25
_LOOK_AROUND_TURNS = 8

_USAGE = (
    "a ID [reason] approves, d ID reason denies, s ID shows, b ID reason breaks the glass, r ID reason revokes; "
    "Ctrl-C ends"
)
_UNREAD = "Not approved: you had not seen all of it. Read it, then say it again."
_LOUD = "*** "
_REASONED = {"b": "approvals/break_glass", "r": "approvals/revoke"}

News = tuple[Path, list[Question] | None]
"""A broker's open questions; None when it has gone."""


def watching(json_: bool) -> None:
    """Until Ctrl-C, or until no broker is left (`BrokerUnavailable`)."""
    asks = not json_ and sys.stdin.isatty() and sys.stdout.isatty()
    if asks:
        click.echo(_USAGE, err=True)
    with contextlib.suppress(KeyboardInterrupt):
        _Watch(json_=json_, asks=asks).run()


class _Watch:
    def __init__(self, *, json_: bool, asks: bool) -> None:
        self._json = json_
        self._asks = asks
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._open: dict[Path, dict[str, Question]] = {}
        self._shown: dict[str, str] = {}
        """Question -> the version that was shown last, all of it, which is what an answer is about."""

    def run(self) -> None:
        for client in brokers():
            self._listen(client)
        turn = 0
        while self._open:
            turn += 1
            with contextlib.suppress(queue.Empty):
                while True:
                    self._hear(*self._news.get(timeout=0 if self._asks else _TURN_S))
            if self._asks:
                self._take_answer()
            if turn % _LOOK_AROUND_TURNS == 0:
                self._look_around()
        raise BrokerUnavailable("the broker has gone")

    def _listen(self, client: AdminClient) -> None:
        self._open[client.path] = {}
        threading.Thread(target=_follow, args=(client, self._news), daemon=True).start()

    def _look_around(self) -> None:
        with contextlib.suppress(OSError):
            for path in sockets(home()):
                if path not in self._open:
                    with contextlib.suppress(BrokerUnavailable):
                        self._listen(AdminClient(path))

    def _hear(self, path: Path, questions: list[Question] | None) -> None:
        before = self._open.get(path, {})
        if questions is None:
            self._open.pop(path, None)
            return
        now = {question["id"]: question for question in questions}
        self._open[path] = now
        for id, question in now.items():
            if id not in before or _news(before[id]) != _news(question):
                self._say(question)
        ended = [id for id in before if id not in now]
        if ended:
            self._tell_ends(path, ended)

    def _tell_ends(self, path: Path, ended: list[str]) -> None:
        with contextlib.suppress(BrokerUnavailable, AdminError), AdminClient(path) as client:
            for id in ended:
                self._say(client.request("approvals/show", {"id": id})["question"])

    def _say(self, question: Question) -> None:
        if self._json:
            click.echo(as_json(question))
        elif question["state"] == "open":
            self._shown.pop(question["id"], None)
            if whole(question):
                self._shown[question["id"]] = question["version"]
            link = f"\n    {printable(question['link'])}" if question["link"] else ""
            click.echo(line(question) + link)
        else:
            self._shown.pop(question["id"], None)
            click.echo(f"{_LOUD if _broke_glass(question) else ''}{verdict(question)}")
        sys.stdout.flush()

    def _take_answer(self) -> None:
        if not select.select([sys.stdin], [], [], _TURN_S)[0]:
            return
        text = sys.stdin.readline()
        if not text:
            raise KeyboardInterrupt  # The terminal was closed: as Ctrl-C.
        if text.strip():
            try:
                click.echo(answer(text, self._shown))
            except click.ClickException as error:
                click.echo(printable(error.message), err=True)
            except (AdminError, BrokerUnavailable) as error:
                click.echo(printable(str(error)), err=True)
            except SystemExit:
                pass  # The reason has been said.


def _news(question: Question) -> tuple[object, object]:
    return question["version"], question["votes"]


def _broke_glass(question: Question) -> bool:
    return any(vote["broke_glass"] for vote in question["votes"])


def answer(text: str, shown: dict[str, str]) -> str:
    """Do what one line typed at `watch` says. A yes is to the version that was `shown`, all of it; what was not, is
    shown instead. Raises `click.UsageError`, `AdminError`, `BrokerUnavailable`."""
    verb, _, rest = text.strip().partition(" ")
    id, _, reason = (part.strip() for part in rest.strip().partition(" "))
    if verb not in ("a", "d", "s", *_REASONED) or not id or (verb not in ("a", "s") and not reason):
        raise click.UsageError(_USAGE)
    with connected() as clients:
        client, found = find(clients, id, grants=verb == "r")
        if verb == "s":
            return _show(client, found, shown)
        if verb == "r":
            client.request(_REASONED[verb], {"id": found, "reason": reason})
            return f"{printable(found)}: revoked"
        if verb == "d":
            return verdict(cast_vote(client, found, yes=False, reason=reason))
        if found not in shown:
            return f"{_show(client, found, shown)}\n\n{_UNREAD}"
        try:
            return verdict(_agree(client, verb, found, reason, shown[found]))
        except AdminError as error:
            if error.name != "unread":
                raise
            return f"{_show(client, found, shown)}\n\n{printable(str(error))}\n{_UNREAD}"


def _show(client: AdminClient, id: str, shown: dict[str, str]) -> str:
    question = client.request("approvals/show", {"id": id})["question"]
    shown[id] = question["version"]
    return page(question)


def _agree(client: AdminClient, verb: str, id: str, reason: str, digest: str) -> Question:
    if verb == "a":
        return cast_vote(client, id, yes=True, reason=reason, digest=digest)
    question: Question = client.request(_REASONED[verb], {"id": id, "reason": reason, "digest": digest})["question"]
    return question


def _follow(client: AdminClient, news: queue.SimpleQueue[News]) -> None:
    """What one broker says, until it has gone."""
    since = -1
    with client:
        try:
            while True:
                heard = client.request("approvals/watch", {"since": since, "wait_s": _WAIT_S}, wait_s=_WAIT_S + 10.0)
                since = heard["revision"]
                news.put((client.path, heard["questions"]))
        except (AdminError, BrokerUnavailable):
            news.put((client.path, None))
