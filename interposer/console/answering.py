"""What forms do: approve, deny, break glass, revoke. Each says which version its sender saw, and the desk judges it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from interposer.ballot import VoteRefused, version_of
from interposer.model import Question

from . import texts
from .frame import Frame, Turned
from .logins import Login, unread
from .place import is_id
from .proposals import BadForm, Form, arguments_of, proposal_of
from .reading import Reading

_REASON_CHARS = 2_000


class Answering:
    """See the module."""

    def __init__(self, frame: Frame, reading: Reading) -> None:
        self._frame = frame
        self._reading = reading
        self._desk = frame.desk

    async def approve(self, request: Request, login: Login, form: Form) -> Response:
        async def act(question: Question, version: str, reason: str) -> None:
            self._refuse_unread(login, question, version)
            proposal = proposal_of(form, question)
            if proposal is not None and proposal.spec is not None and not reason:
                raise BadForm("A standing grant needs a reason.")
            await self._desk.vote(question.id, login.principal, True, reason, version=version, proposal=proposal)

        return await self._act(request, login, form, act, "approved")

    async def deny(self, request: Request, login: Login, form: Form) -> Response:
        async def act(question: Question, version: str, reason: str) -> None:
            await self._desk.vote(question.id, login.principal, False, reason, version=version)

        return await self._act(request, login, form, act, "denied")

    async def break_glass(self, request: Request, login: Login, form: Form) -> Response:
        async def act(question: Question, version: str, reason: str) -> None:
            self._refuse_unread(login, question, version)
            await self._desk.break_glass(question.id, login.principal, reason, version=version)

        return await self._act(request, login, form, act, "broke_glass")

    async def revoke(self, request: Request, login: Login, form: Form) -> Response:
        async def act(question: Question, version: str, reason: str) -> None:
            await self._desk.revoke(question.id, login.principal, reason)

        return await self._act(request, login, form, act, "revoked")

    async def compare(self, request: Request, login: Login, form: Form) -> Response:
        """Both versions side by side, before anything is agreed to."""
        question = await self._frame.question(request, login)
        try:
            amended = arguments_of(form, question) or question.canonical
            if form.get("version") != version_of(question):
                raise BadForm("The question has changed since you opened it. Look at it again.")
        except BadForm as wrong:
            return await self._reading.sheet(question, login, alert=str(wrong), status=409)
        return self._frame.page(
            "compare.html",
            login,
            title="Other arguments",
            question=question,
            version=version_of(question),
            changes=await to_thread.run_sync(texts.difference, question.canonical, amended),
            amended=await to_thread.run_sync(texts.whole, amended),
            same=amended == question.canonical,
            reason=form.get("reason", ""),
        )

    async def revoke_grant(self, request: Request, login: Login, form: Form) -> Response:
        id = request.path_params["id"]
        known = [each for each in await self._desk.grants() if each.id == id]
        if not is_id(id) or not known or not self._frame.sees(login.principal, known[0].terms):
            raise Turned(404, "There is no such active grant.")
        try:
            await self._desk.revoke(id, login.principal, _reason(form))
        except (VoteRefused, BadForm) as refused:
            raise Turned(409, f"{refused}") from None
        return RedirectResponse("/grants?told=revoked", status_code=303)

    async def _act(
        self,
        request: Request,
        login: Login,
        form: Form,
        act: Callable[[Question, str, str], Awaitable[None]],
        told: str,
    ) -> Response:
        question = await self._frame.question(request, login)
        try:
            version = form.get("version", "")
            if not version:
                raise BadForm("The form does not say which version you saw.")
            await act(question, version, _reason(form))
        except (VoteRefused, BadForm) as refused:
            current = await self._frame.question(request, login)
            return await self._reading.sheet(current, login, alert=str(refused), status=409)
        return RedirectResponse(f"/q/{question.id}?told={told}", status_code=303)

    def _refuse_unread(self, login: Login, question: Question, version: str) -> None:
        wrong = unread(login, question, version, self._frame.console.clock.monotonic())
        if wrong:
            raise VoteRefused("unread", wrong)


def _reason(form: Form) -> str:
    reason = form.get("reason", "").strip()
    if len(reason) > _REASON_CHARS:
        raise BadForm(f"A reason has at most {_REASON_CHARS} characters.")
    return reason
