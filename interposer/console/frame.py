"""What every page stands in: templates, the login behind a request, forms that are ours, and how faults are told."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import anyio
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from interposer.ballot import OPERATOR, may_answer, named
from interposer.desk import UnknownQuestion
from interposer.display import printable
from interposer.errors import RecordFault, Unauthenticated
from interposer.model import Principal, Question
from interposer.policy.wording import in_words
from interposer.terms import ApprovalTerms

from .console import Console
from .gate import FOREIGN
from .logins import Login
from .place import is_id
from .proposals import BadForm, Form, read_form

BODY_BYTES = 64 * 1024
BODY_S = 15.0
_HERE = Path(__file__).parent
_TYPE = "application/x-www-form-urlencoded"

Endpoint = Callable[[Request], Awaitable[Response]]
Page = Callable[[Request, Login], Awaitable[Response]]
Act = Callable[[Request, Login, Form], Awaitable[Response]]


class Turned(Exception):
    """The request ends here: `said` is for whoever sent it, and a constant of ours."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


class Frame:
    """See the module."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.desk = console.desk
        self._templates = _templates()

    # -- pages

    def page(self, name: str, login: Login | None = None, *, status: int = 200, **values: Any) -> Response:
        text = self._templates.get_template(name).render(
            login=login,
            now=self.console.clock.now(),
            revision=self.desk.revision,
            operator=OPERATOR,
            all_seen=login is not None and self.sees_all(login.principal),
            **values,
        )
        return HTMLResponse(text, status_code=status)

    def message(self, status: int, said: str, login: Login | None = None) -> Response:
        return self.page("message.html", login, status=status, title="Not done", said=said)

    # -- who asks

    def login(self, request: Request) -> Login | None:
        cookie = request.cookies.get(self.console.listener.cookie, "")
        return self.console.logins.find(cookie) if cookie else None

    def for_people(self, page: Page) -> Endpoint:
        """A page for whoever is logged in; others are sent to log in, and come back."""

        async def answer(request: Request) -> Response:
            id = request.path_params.get("id", "")
            # Strict cookies do not come with the first request that a link in a message leads to, and another page's
            # window must not count as read. The next request is our own page's.
            if request.headers.get("sec-fetch-site") in FOREIGN:
                return self.page("onward.html", title="interposer", to=f"/q/{id}" if is_id(id) else "/")
            login = self.login(request)
            if login is not None:
                return await page(request, login)
            return RedirectResponse(f"/login?to={id}" if is_id(id) else "/login", status_code=303)

        return answer

    def by_form(self, act: Act, *, bounded: bool = True) -> Endpoint:
        """What a form of ours does, for whoever is logged in, after their token was looked at again."""

        async def answer(request: Request) -> Response:
            login = self.login(request)
            if login is None:
                raise Turned(403, "You are not logged in any more. Nothing was done.")
            form = await self.form(request)
            if not login.speaks(form.get("csrf", "")):
                raise Turned(403, "That form is not one that you were given. Nothing was done.")
            if not login.holds(form.get("key", "")):
                raise Turned(403, "This browser is not the one that logged in here, or forgot it. Log in again.")
            # Last: who has the cookie alone uses up nothing of the person's.
            if bounded and not login.posts.take(self.console.clock.monotonic()):
                raise Turned(429, "That was too much at once. Nothing was done; try again in a minute.")
            await self._recheck(login)
            return await act(request, login, form)

        return answer

    async def form(self, request: Request) -> Form:
        """Raises `Turned`."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _TYPE:
            raise Turned(415, "This console reads forms only.")
        body = bytearray()
        with anyio.move_on_after(BODY_S) as late:
            try:
                async for piece in request.stream():
                    body += piece
                    if len(body) > BODY_BYTES:
                        raise Turned(413, f"A form holds at most {BODY_BYTES // 1024} KB. Nothing was done.")
            except ClientDisconnect:
                raise Turned(400, "The form never came whole.") from None
        if late.cancelled_caught:
            raise Turned(408, "The form took too long. Nothing was done.")
        try:
            return read_form(bytes(body))
        except BadForm as wrong:
            raise Turned(400, str(wrong)) from None

    async def _recheck(self, login: Login) -> None:
        """An approver's token is good at the vote, or the vote does not come to be (F21)."""
        if login.identity is None:
            return
        try:
            await self.console.around.still(login.identity)
        except Unauthenticated:
            login.ends_at = self.console.clock.monotonic()
            raise Turned(403, "Your login does not hold any more. Nothing was done.") from None
        if not self.console.logins.lasts(login):  # waiting for the answer may have taken its time
            raise Turned(403, "Your login has ended. Nothing was done.")

    # -- what they may see

    def sees_all(self, person: Principal) -> bool:
        return person.issuer == OPERATOR or self.console.around.sees_all(person)

    def sees(self, person: Principal, terms: ApprovalTerms) -> bool:
        return self.sees_all(person) or may_answer(person, terms)

    async def question(self, request: Request, login: Login) -> Question:
        """The question of the address. Raises `Turned`: one that is not theirs to see is not there."""
        id = request.path_params["id"]
        if not is_id(id):
            raise Turned(404, "There is no such question.")
        try:
            question = await self.desk.get(id)
        except UnknownQuestion:
            raise Turned(404, "There is no such question.") from None
        if not self.sees(login.principal, question.terms):
            raise Turned(404, "There is no such question.")
        return question

    # -- faults

    async def turned(self, request: Request, fault: Exception) -> Response:
        if isinstance(fault, Turned):
            return self.message(fault.status, fault.said, self.login(request))
        return self.message(503, "The record cannot be read or written. Nothing was done.", self.login(request))

    async def missing(self, request: Request, fault: Exception) -> Response:
        return self.message(getattr(fault, "status_code", 404), "There is no such page.", self.login(request))


FAULTS = (Turned, RecordFault)


@cache
def _templates() -> Environment:
    """All of them, compiled: `site` is called beside the event loop."""
    found = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "shown": lambda text: printable(str(text)),
        "moment": moment,
        "utc": lambda at: time.strftime("%Y-%m-%dT%H:%M:%SZ", _utc(at)),
        "duration": duration,
        "words": lambda terms: in_words(terms),
        "person": lambda principal: printable(named(principal)),
    }
    for name in found.list_templates():
        found.get_template(name)
    return found


def moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", _utc(at))


def duration(seconds: float) -> str:
    """`2 d 3 h`, `4 min 10 s`, `9 s`: the two largest units."""
    left = max(0, int(seconds))
    parts = [(left // 86_400, "d"), (left // 3_600 % 24, "h"), (left // 60 % 60, "min"), (left % 60, "s")]
    first = next((at for at, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count or unit == "s")


def _utc(at: float) -> time.struct_time:
    return time.gmtime(min(max(at, 0.0), 253_402_300_799.0))
