"""The tasks extension of MCP 2026-07-28 (SEP-2663): what a call looks like that goes on without its request.

Only modern callers have it, and only those that declare it, request by request. A task is flat, its times are integers
of milliseconds, and its end is told by `tasks/get` alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from interposer.errors import INVALID_PARAMS, BadMessage
from interposer.model import JsonObject

from .mcp import MISSING_CAPABILITY, PREFIX

EXTENSION = PREFIX + "tasks"
METHODS = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})


class Status(StrEnum):
    """Of a task. Denied and failed tools are `completed`: `failed` is for JSON-RPC errors."""

    WORKING = "working"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class MissingCapability(BadMessage):
    """-32021: the request does not declare the extension that its method belongs to."""

    def __init__(self) -> None:
        super().__init__(MISSING_CAPABILITY, "Missing required client capability")
        self.data: JsonObject = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


def declared(capabilities: JsonObject) -> bool:
    """Whether these capabilities of a client name the extension."""
    extensions = capabilities.get("extensions")
    return isinstance(extensions, dict) and isinstance(extensions.get(EXTENSION), dict)


def task_id(params: JsonObject) -> str:
    """Raises `BadMessage`."""
    found = params.get("taskId")
    if not isinstance(found, str):
        raise BadMessage(INVALID_PARAMS, "taskId must be a string")
    return found


def check_update(params: JsonObject) -> None:
    """What `tasks/update` brings; a task that asks for no input takes nothing of it. Raises `BadMessage`."""
    if not isinstance(params.get("inputResponses"), dict):
        raise BadMessage(INVALID_PARAMS, "inputResponses must be an object")


def task(
    id: str, status: Status, *, created_at: float, updated_at: float, ttl_ms: int, poll_ms: int, said: str = ""
) -> JsonObject:
    """A Task. Times in seconds since 1970; `ttl_ms` counts from `created_at`; `said` is its statusMessage."""
    found: JsonObject = {
        "taskId": id,
        "status": status.value,
        "createdAt": _written(created_at),
        "lastUpdatedAt": _written(updated_at),
        "ttlMs": ttl_ms,
        "pollIntervalMs": poll_ms,
    }
    return {**found, "statusMessage": said} if said else found


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
