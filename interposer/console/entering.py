"""Logging in and out: a one-time token that a form redeems, or a provider that sends people back to a form of ours.

No address logs anybody in by being opened: mail scanners, previews and histories open addresses too.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from .frame import Frame, Turned
from .logins import Login
from .oidc import LoginFailed, Oidc
from .place import is_id
from .proposals import Form

_WRONG = "This address was used already, or is too old. Ask for another one: `interposer console` prints it."
_TOO_MANY = "Too many logins were tried. Try again in a minute."


class Entering:
    """See the module."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._console = frame.console
        self._oidc = Oidc(frame.console) if frame.console.oidc is not None else None

    async def page(self, request: Request) -> Response:
        token, to = request.query_params.get("token", ""), request.query_params.get("to", "")
        if not token and self._frame.login(request) is not None:
            return RedirectResponse("/", status_code=303)
        provider = self._console.oidc.issuer if self._console.oidc is not None else ""
        return self._frame.page(
            "login.html", title="Log in", token=token, to=to if is_id(to) else "", provider=provider
        )

    async def redeem(self, request: Request) -> Response:
        form = await self._frame.form(request)
        found = self._console.logins.redeem(form.get("token", ""), form.get("key", ""))
        if found is None:
            raise self._failed(request, _WRONG)
        return self._entered(request, found[0], form.get("to", ""))

    async def start(self, request: Request) -> Response:
        """Off to the provider."""
        if self._oidc is None:
            raise Turned(404, "There is no such page.")
        to = request.query_params.get("to", "")
        try:
            url, cookie = await self._oidc.begin(to if is_id(to) else "")
        except LoginFailed as failed:
            raise self._failed(request, str(failed)) from None
        answer = RedirectResponse(url, status_code=303)
        self._set(answer, self._pending, cookie)
        return answer

    async def back(self, request: Request) -> Response:
        """Back from the provider: a form of ours brings what it sent."""
        if self._oidc is None:
            raise Turned(404, "There is no such page.")
        sent = {name: request.query_params.get(name, "") for name in ("code", "state", "iss", "error")}
        return self._frame.page("callback.html", title="Log in", sent=sent)

    async def finish(self, request: Request) -> Response:
        if self._oidc is None:
            raise Turned(404, "There is no such page.")
        self._require_room(request)
        form = await self._frame.form(request)
        try:
            identity, to = await self._oidc.finish(form, request.cookies.get(self._pending, ""))
        except LoginFailed as failed:
            raise self._failed(request, str(failed)) from None
        cookie, _ = self._console.logins.begin(identity.principal, identity, key=form.get("key", ""))
        answer = self._entered(request, cookie, to)
        self._set(answer, self._pending, "", age_s=0)
        return answer

    async def leave(self, request: Request, login: Login, form: Form) -> Response:
        self._console.logins.end(request.cookies.get(self._console.listener.cookie, ""))
        answer = RedirectResponse("/login", status_code=303)
        self._set(answer, self._console.listener.cookie, "", age_s=0)
        return answer

    @property
    def _pending(self) -> str:
        return f"{self._console.listener.cookie}-login"

    def _entered(self, request: Request, cookie: str, to: str) -> Response:
        self._console.logins.end(request.cookies.get(self._console.listener.cookie, ""))
        answer = RedirectResponse(f"/q/{to}" if is_id(to) else "/", status_code=303)
        self._set(answer, self._console.listener.cookie, cookie)
        return answer

    def _require_room(self, request: Request) -> None:
        if not self._console.logins.may_try(_address(request)):
            raise Turned(429, _TOO_MANY)

    def _failed(self, request: Request, said: str) -> Turned:
        return Turned(403, said) if self._console.logins.may_fail(_address(request)) else Turned(429, _TOO_MANY)

    def _set(self, answer: Response, name: str, value: str, *, age_s: int | None = None) -> None:
        answer.set_cookie(
            name,
            value,
            max_age=age_s,
            path="/",
            secure=self._console.listener.secure,
            httponly=True,
            samesite="strict",
        )


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
