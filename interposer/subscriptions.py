"""What modern callers listen to (MCP 2026-07-28, subscriptions): of all notices, changes of the tool list."""

from __future__ import annotations

from collections.abc import Iterator

from .errors import INVALID_PARAMS, INVALID_REQUEST
from .model import JsonObject
from .wire import jsonrpc
from .wire.jsonrpc import Request
from .wire.mcp import META_SUBSCRIPTION

Key = tuple[type, int | str]


class Subscriptions:
    """The open `subscriptions/listen` requests of one peer, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[Key, Request] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._open

    def open(self, key: Key, request: Request) -> bytes:
        """The acknowledgement, which says what is honoured; or the refusal."""
        wanted = request.params.get("notifications")
        if not isinstance(wanted, dict):
            return jsonrpc.error(request.id, INVALID_PARAMS, "subscriptions/listen needs notifications")
        if len(self._open) >= self._limit:
            return jsonrpc.error(request.id, INVALID_REQUEST, "Too many subscriptions")
        honoured = {"toolsListChanged": True} if wanted.get("toolsListChanged") is True else {}
        self._open[key] = request
        params = _tagged(request, {"notifications": honoured})
        return jsonrpc.notification("notifications/subscriptions/acknowledged", params)

    def close(self, key: Key) -> bytes | None:
        """The final result of a subscription that its peer cancelled; None where there is none."""
        request = self._open.pop(key, None)
        return jsonrpc.result(request.id, _tagged(request, {"resultType": "complete"})) if request else None

    def list_changed(self) -> Iterator[bytes]:
        """One notification for each subscription that asked for it."""
        for request in self._open.values():
            if request.params["notifications"].get("toolsListChanged") is True:
                yield jsonrpc.notification("notifications/tools/list_changed", _tagged(request, {}))

    def clear(self) -> None:
        self._open.clear()


def _tagged(request: Request, params: JsonObject) -> JsonObject:
    return {**params, "_meta": {META_SUBSCRIPTION: request.id}}
