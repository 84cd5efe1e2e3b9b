"""JSON-RPC 2.0 as MCP uses it: bytes in, messages out, and the other way.

Every byte string either parses to one message or is refused with `BadMessage`, which carries the code and, where the
message had a usable one, the id to answer with. Ids keep their type and every digit: `1` and `"1"` are different, and
`1.0`, `null` and `true` are no ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from interposer import canonical
from interposer.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, BadMessage
from interposer.model import Json, JsonObject

MAX_ID_CHARS = 256
MAX_METHOD_CHARS = 256
BATCH_LIMIT = 100

_MEMBERS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_CONTROLS = frozenset(map(chr, (*range(32), *range(127, 160))))
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Request:
    id: int | str
    method: str
    params: JsonObject = field(repr=False)


@dataclass(frozen=True, slots=True)
class Notification:
    method: str
    params: JsonObject = field(repr=False)


@dataclass(frozen=True, slots=True)
class Response:
    """Exactly one of `result` and `error` is there."""

    id: int | str
    result: JsonObject | None = field(repr=False)
    error: JsonObject | None = field(repr=False)


Message: TypeAlias = Request | Notification | Response


def parse(frame: bytes) -> Message:
    """One frame -> one message. Raises `BadMessage`; a batch is refused (MCP 2025-06-18 and later)."""
    return _message(_json(frame))


def parse_answer(frame: bytes) -> Message:
    """As `parse`, for what an upstream sends: see `canonical.parse_answer`."""
    try:
        return _message(canonical.parse_answer(frame))
    except canonical.Malformed:
        raise BadMessage(PARSE_ERROR, "The message is not valid JSON.") from None


def parse_batch(frame: bytes, limit: int = BATCH_LIMIT) -> list[Message | BadMessage]:
    """One frame of MCP 2025-03-26 -> its messages, each judged for itself (JSON-RPC 2.0 §6).

    Raises `BadMessage` where the frame as a whole is refused: not JSON, an empty array, more than `limit` messages.
    """
    value = _json(frame)
    if type(value) is not list:
        return [_judged(value)]
    if not value:
        raise BadMessage(INVALID_REQUEST, "An empty batch is not a request.")
    if len(value) > limit:
        raise BadMessage(INVALID_REQUEST, "The batch holds too many messages.")
    return [_judged_in_batch(element) for element in value]


def _json(frame: bytes) -> Json:
    try:
        return canonical.parse(frame)
    except canonical.Malformed:
        raise BadMessage(PARSE_ERROR, "The message is not valid JSON.") from None


def _judged(value: Json) -> Message | BadMessage:
    try:
        return _message(value)
    except BadMessage as refusal:
        return refusal


def _judged_in_batch(value: Json) -> Message | BadMessage:
    message = _judged(value)
    # MCP 2025-03-26, lifecycle: the initialize request must not be part of a batch.
    if type(message) is Request and message.method == "initialize":
        return BadMessage(INVALID_REQUEST, "initialize must not be part of a batch.", id=message.id)
    return message


def _message(value: Json) -> Message:
    if type(value) is not dict:
        public = "Batches are not accepted." if type(value) is list else "The message is not an object."
        raise BadMessage(INVALID_REQUEST, public)
    id = _id(value) if "id" in value else None
    if value.get("jsonrpc") != "2.0":
        raise BadMessage(INVALID_REQUEST, 'jsonrpc must be "2.0".', id=id)
    if not value.keys() <= _MEMBERS:
        _refuse_shadows(value, id)
    if "method" not in value:
        return _response(value, id)
    method = value["method"]
    if type(method) is not str or len(method) > MAX_METHOD_CHARS:
        raise BadMessage(INVALID_REQUEST, "The method must be a short string.", id=id)
    if "result" in value or "error" in value:
        raise BadMessage(INVALID_REQUEST, "A message is a request or a response, not both.", id=id)
    params = value.get("params", _ABSENT)
    if params is _ABSENT:
        params = {}
    elif type(params) is not dict:
        raise BadMessage(INVALID_PARAMS, "params must be an object.", id=id)
    return Notification(method, params) if id is None else Request(id, method, params)


def _id(value: JsonObject) -> int | str:
    id = value["id"]
    if type(id) is int:
        return id
    if type(id) is not str:
        raise BadMessage(INVALID_REQUEST, "The id must be a string or an integer.")
    if len(id) > MAX_ID_CHARS or not (id.isprintable() or _CONTROLS.isdisjoint(id)):
        raise BadMessage(INVALID_REQUEST, "The id must be a short string without control characters.")
    return id


def _refuse_shadows(value: JsonObject, id: int | str | None) -> None:
    """Some readers match member names without case: `Method` beside `method` would be two messages in one."""
    for name in value:
        if name not in _MEMBERS and name.casefold() in _MEMBERS:
            raise BadMessage(INVALID_REQUEST, "A member differs from a known one only in case.", id=id)


def _response(value: JsonObject, id: int | str | None) -> Response:
    if "result" not in value and "error" not in value:
        raise BadMessage(INVALID_REQUEST, "The message has no method.", id=id)
    if id is None:
        raise BadMessage(INVALID_REQUEST, "A response needs an id.")
    if "result" in value and "error" in value:
        raise BadMessage(INVALID_REQUEST, "A response has a result or an error, not both.", id=id)
    if "result" in value:
        result = value["result"]
        if type(result) is not dict:
            raise BadMessage(INVALID_REQUEST, "The result must be an object.", id=id)
        return Response(id, result, None)
    error = value["error"]
    if type(error) is not dict or type(error.get("code")) is not int or type(error.get("message")) is not str:
        raise BadMessage(INVALID_REQUEST, "The error must be an object with a code and a message.", id=id)
    return Response(id, None, error)


def request(id: int | str, method: str, params: JsonObject) -> bytes:
    """One request, as a line."""
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}\n' % (
        _scalar(id),
        canonical.encode(method),
        canonical.encode(params),
    )


def notification(method: str, params: JsonObject) -> bytes:
    """One notification, as a line."""
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}\n' % (canonical.encode(method), canonical.encode(params))


def result(id: int | str, result: JsonObject) -> bytes:
    """One answer, as a line."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (_scalar(id), canonical.encode(result))


def error(id: int | str | None, code: int, message: str, data: Json = None) -> bytes:
    """One error, as a line; `id` is None where the request's own could not be read (JSON-RPC 2.0 §5)."""
    body: JsonObject = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}\n' % (_scalar(id), canonical.encode(body))


def batch(lines: Sequence[bytes]) -> bytes:
    """The answers to a batch, as one line (MCP 2025-03-26)."""
    return b"[%b]\n" % b",".join(line.rstrip(b"\n") for line in lines)


def splice_call(id: int | str, name: str, canonical_arguments: bytes, meta: JsonObject | None) -> bytes:
    """One `tools/call` around arguments that are canonical JSON already: the bytes that were decided on are sent."""
    tail = b"" if meta is None else b',"_meta":' + canonical.encode(meta)
    return b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":%b,"arguments":%b%b}}\n' % (
        _scalar(id),
        canonical.encode(name),
        canonical_arguments,
        tail,
    )


def _scalar(id: int | str | None) -> bytes:
    if type(id) is int:
        return b"%d" % id
    return canonical.encode(id)
