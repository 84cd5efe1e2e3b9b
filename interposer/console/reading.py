"""The pages that are read: the inbox, one call, all of its arguments, grants, history, sessions. Nothing is changed
here but what is remembered of a reader: that they have had a version before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote_plus

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from interposer.ballot import may_answer, version_of
from interposer.canonical import parse
from interposer.errors import MaskFault
from interposer.figures import figures
from interposer.grant import Grant
from interposer.model import MatchedRule, Question, QuestionState
from interposer.shown import reading_s
from interposer.windows import is_open

from . import texts
from .frame import Frame, Turned
from .logins import Login, Version, long
from .proposals import Form, suggested

LISTED = 100
"""Questions on one page."""
EDITED_BYTES = 48 * 1024
"""Arguments that are longer, as a form would carry them back, are not offered for editing."""
_SCANNED_BYTES = 16 * 1024
_EARLIER = 5
_LOOKED_AT = 50

TOLD = {
    "approved": "Your approval counts.",
    "denied": "Denied. The identical call is refused until the question would have expired.",
    "broke_glass": "Approved by breaking glass. This is on the record as an alarm.",
    "revoked": "Revoked. Calls under it that were on their way are cut off.",
}


@dataclass(frozen=True, slots=True)
class Earlier:
    """A similar call from before."""

    question: Question
    preview: str
    reasons: tuple[str, ...]


class Reading:
    """See the module."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._desk = frame.desk
        self._console = frame.console

    async def inbox(self, request: Request, login: Login) -> Response:
        seen = [each for each in await self._desk.pending() if self._frame.sees(login.principal, each.terms)]
        rows = [(each, texts.preview(each.amended or each.canonical)) for each in seen[:LISTED]]
        return self._frame.page("inbox.html", login, title="Inbox", rows=rows, more=max(0, len(seen) - LISTED))

    async def question(self, request: Request, login: Login) -> Response:
        question = await self._frame.question(request, login)
        told = TOLD.get(request.query_params.get("told", ""), "")
        return await self.sheet(question, login, told=told, seen=_navigated(request))

    async def arguments(self, request: Request, login: Login) -> Response:
        question = await self._frame.question(request, login)
        version = version_of(question)
        seen = _navigated(request)
        if seen and not login.key:
            login.open((question.id, version), self._console.clock.monotonic())
        return self._frame.page(
            "arguments.html",
            login,
            title="All of the arguments",
            question=question,
            version=version,
            asked=await to_thread.run_sync(texts.whole, question.canonical) if seen else None,
            amended=await to_thread.run_sync(texts.whole, question.amended) if seen and question.amended else None,
        )

    async def seen(self, request: Request, login: Login, form: Form) -> Response:
        """The browser that logged in says that the call's page is before its person; the cookie alone cannot."""
        return await self._mark(login.serve, request, login, form)

    async def opened(self, request: Request, login: Login, form: Form) -> Response:
        """The same of the page with all of the arguments."""
        return await self._mark(login.open, request, login, form)

    async def _mark(
        self, remember: Callable[[Version, float], None], request: Request, login: Login, form: Form
    ) -> Response:
        question = await self._frame.question(request, login)
        if form.get("version") == version_of(question):
            remember((question.id, version_of(question)), self._console.clock.monotonic())
        return Response(status_code=204)

    async def grants(self, request: Request, login: Login) -> Response:
        active = [each for each in await self._desk.grants() if self._frame.sees(login.principal, each.terms)]
        every = await self._desk.grants(active=False)
        over = [each for each in every if each.state != "active" and self._frame.sees(login.principal, each.terms)]
        schemas = await to_thread.run_sync(_schemas, active)
        told = TOLD.get(request.query_params.get("told", ""), "")
        return self._frame.page(
            "grants.html", login, title="Standing grants", active=active, over=over[:LISTED], schemas=schemas, told=told
        )

    async def history(self, request: Request, login: Login) -> Response:
        seen = [each for each in await self._desk.questions() if self._frame.sees(login.principal, each.terms)]
        ended = [each for each in seen if each.state is not QuestionState.OPEN]
        asked = request.query_params.get("page", "1")
        page = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 4 else 1
        start = (max(page, 1) - 1) * LISTED
        return self._frame.page(
            "history.html",
            login,
            title="History",
            rows=ended[start : start + LISTED],
            figures=figures(seen),
            page=max(page, 1),
            pages=max(1, -(-len(ended) // LISTED)),
        )

    async def sessions(self, request: Request, login: Login) -> Response:
        if not self._frame.sees_all(login.principal):
            raise Turned(404, "There is no such page.")
        rows = await self._console.around.sessions()
        return self._frame.page(
            "sessions.html", login, title="Sessions", rows=rows[:LISTED], more=max(0, len(rows) - LISTED)
        )

    async def sheet(
        self,
        question: Question,
        login: Login,
        *,
        alert: str = "",
        told: str = "",
        status: int = 200,
        seen: bool = True,
    ) -> Response:
        """The page of one call. With `seen`, this person has had this version before them from now on (where their
        browser has a key: from when its script says so); without, there are no arguments on it."""
        version, now = version_of(question), self._console.clock.monotonic()
        key = (question.id, version)
        if seen and not login.key:
            login.serve(key, now)
        # Of the page that the script asks for, it takes the state alone.
        effective = (question.amended or question.canonical) if seen else b""
        # A megabyte takes a while, and calls go on beside.
        shown = await to_thread.run_sync(texts.outline if long(question) else texts.whole, effective)
        waited_s = now - (login.served_at(key) or now)
        changes: Sequence[texts.Line] = ()
        if question.amended and seen:
            changes = await to_thread.run_sync(texts.difference, question.canonical, question.amended)
        earlier = await self._earlier(question, login) if seen else []
        return self._frame.page(
            "question.html",
            login,
            status=status,
            title=f"Call {question.id}",
            question=question,
            version=version,
            shown=shown,
            changes=changes,
            rules=[(rule, self._text(rule)) for rule in question.rules],
            says=self._console.around.description(question.skill, question.skill_digest),
            masked=sorted(self._console.around.obligations(question.skill).mask),
            findings=self._findings(effective),
            earlier=earlier,
            since=await to_thread.run_sync(_since, question, earlier),
            wait_s=max(0.0, reading_s(question) - waited_s),
            opened=not long(question) or login.has_opened(key),
            in_hours=is_open(question.terms.windows, self._console.clock.now()),
            answers=may_answer(login.principal, question.terms),
            breaks_glass=self._console.around.may_break_glass(login.principal),
            editable=_editable(effective),
            schema=_schema(question, effective),
            alert=alert,
            told=told,
        )

    async def _earlier(self, question: Question, login: Login) -> list[Earlier]:
        found = await self._desk.earlier(question, limit=_LOOKED_AT)
        before = [
            each
            for each in found
            if each.asked_at <= question.asked_at and self._frame.sees(login.principal, each.terms)
        ]
        return [
            Earlier(
                each,
                texts.preview(each.amended or each.canonical),
                tuple(vote.reason for vote in each.votes if vote.reason),
            )
            for each in before[:_EARLIER]
        ]

    def _text(self, rule: MatchedRule) -> str:
        return self._console.around.rule_text(rule)

    def _findings(self, raw: bytes) -> Sequence[tuple[str, int]] | None:
        """What of the arguments is masked in the record; None where that was not looked at."""
        if len(raw) > _SCANNED_BYTES or not raw:
            return None
        try:
            counts = self._console.masker.mask(parse(raw), frozenset({"pii", "secrets"})).counts
        except MaskFault:
            return None
        return sorted(counts.items())


def _navigated(request: Request) -> bool:
    """Whether somebody goes to this page. The script takes single parts of it: what it fetched, nobody has seen as a
    whole."""
    return "x-part" not in request.headers and request.headers.get("sec-fetch-mode", "navigate") == "navigate"


def _schemas(grants: Sequence[Grant]) -> dict[str, str]:
    return {each.id: texts.whole(each.schema).text for each in grants if each.schema}


def _since(question: Question, earlier: Sequence[Earlier]) -> Sequence[texts.Line]:
    """What is different from the last similar call that was answered, where that is still known."""
    known = [each.question for each in earlier if each.question.canonical]
    last = next((each for each in known if each.state is not QuestionState.OPEN), None)
    return () if last is None else texts.difference(last.canonical, question.canonical)


def _editable(raw: bytes) -> str:
    if not raw or len(raw) > EDITED_BYTES:
        return ""
    text = _laid_out(raw)
    return text if len(quote_plus(text)) <= EDITED_BYTES else ""


def _schema(question: Question, effective: bytes) -> str:
    """The schema that a grant by schema starts from."""
    cap = question.terms.cap
    fits = bool(effective) and len(effective) <= EDITED_BYTES
    return _editable(suggested(effective)) if fits and cap is not None and cap.matching else ""


def _laid_out(raw: bytes) -> str:
    return "\n".join(texts.lines(raw))
