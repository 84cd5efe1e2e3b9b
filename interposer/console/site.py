"""The console's pages, put together. Imported when the first visitor comes."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .answering import Answering
from .console import Console
from .entering import Entering
from .frame import FAULTS, Act, Frame, Page
from .gate import Asgi, Gate
from .live import Streams
from .reading import Reading

_STATIC = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def site(console: Console) -> Asgi:
    """The whole of it, behind its gate."""
    frame = Frame(console)
    reading, streams, entering = Reading(frame), Streams(console), Entering(frame)
    answering = Answering(frame, reading)

    async def events(request: Request) -> Response:
        login = frame.login(request)
        return Response(status_code=401) if login is None else streams.join(login)

    def read(path: str, page: Page) -> Route:
        return Route(path, frame.for_people(page), methods=["GET"])

    def act(path: str, does: Act, *, bounded: bool = True) -> Route:
        return Route(path, frame.by_form(does, bounded=bounded), methods=["POST"])

    routes = [
        read("/", reading.inbox),
        read("/q/{id}", reading.question),
        read("/q/{id}/arguments", reading.arguments),
        read("/grants", reading.grants),
        read("/history", reading.history),
        read("/sessions", reading.sessions),
        act("/q/{id}/seen", reading.seen, bounded=False),
        act("/q/{id}/opened", reading.opened, bounded=False),
        act("/q/{id}/approve", answering.approve),
        act("/q/{id}/deny", answering.deny),
        act("/q/{id}/break-glass", answering.break_glass),
        act("/q/{id}/compare", answering.compare),
        act("/q/{id}/revoke", answering.revoke),
        act("/grants/{id}/revoke", answering.revoke_grant),
        act("/logout", entering.leave),
        Route("/events", events, methods=["GET"]),
        Route("/login", entering.page, methods=["GET"]),
        Route("/login", entering.redeem, methods=["POST"]),
        Route("/login/start", entering.start, methods=["GET"]),
        Route("/login/callback", entering.back, methods=["GET"]),
        Route("/login/callback", entering.finish, methods=["POST"]),
        *(_static(path) for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES),
    ]
    faults = {**dict.fromkeys(FAULTS, frame.turned), HTTPException: frame.missing}
    inside = Starlette(routes=routes, exception_handlers=faults)
    inside.router.redirect_slashes = False
    return Gate(inside, console.listener.hosts, console.listener.origins)


def _static(path: Path) -> Route:
    body = path.read_bytes()

    async def answer(request: Request) -> Response:
        return Response(body, media_type=_TYPES[path.suffix])

    return Route(f"/static/{path.name}", answer, methods=["GET"])
