"""Elicitation: asking a client's own user, inside of a call (legacy) or between its rounds (2026-07-28, SEP-2322).

What is asked is fixed here: a link to the console, or one yes or no about a whole call. Nothing of an upstream's is in
it, and arguments are ASCII, so that they cannot look like something else. An answer is what it says, and nothing more:
whether it counts is for the desk.
"""

from __future__ import annotations

from enum import StrEnum

from interposer.display import printable, printable_json
from interposer.errors import INVALID_PARAMS, BadMessage
from interposer.model import Json, JsonObject

METHOD = "elicitation/create"
KEY = "interposer.approval"
"""What our one request is called among `inputRequests`."""
FIELD = "approve"
_SHOWN_CHARS = 2_000
_NAME_CHARS = 200


class Answer(StrEnum):
    """What a client says that its user did. For a link, `YES` is that it was opened."""

    NONE = "none"
    YES = "yes"
    NO = "no"
    CANCELLED = "cancelled"


def declared(capabilities: JsonObject, mode: str) -> bool:
    """Whether a client can show requests of this mode, `form` or `url`; `{}` means forms (2025-11-25)."""
    found = capabilities.get("elicitation")
    if not isinstance(found, dict):
        return False
    return isinstance(found.get(mode), dict) or (mode == "form" and not found)


def fits(skill: str, arguments: bytes) -> bool:
    """Whether a form can show all of a call: nobody says yes to what they were not shown."""
    return len(skill) <= _NAME_CHARS and len(printable_json(arguments)) <= _SHOWN_CHARS


def form(skill: str, arguments: bytes) -> JsonObject:
    """The parameters of one yes or no about a call that `fits`; `arguments` are canonical JSON."""
    field = {"type": "boolean", "title": "Run it", "description": "Yes runs exactly this call, once."}
    return {
        "message": f"May this call be made? {_named(skill)} with the arguments {printable_json(arguments)}",
        "requestedSchema": {"type": "object", "properties": {FIELD: field}, "required": [FIELD]},
    }


def link(skill: str, question: str, url: str) -> JsonObject:
    """The parameters of a link to a question's page."""
    return {
        "mode": "url",
        "message": f"A human has to approve a call of {_named(skill)} first (approval {question}). "
        "This page shows the call; who may approve it can do so there.",
        "url": url,
    }


def _named(skill: str) -> str:
    return printable(skill[:_NAME_CHARS])


def input_required(request: JsonObject | None, state: str) -> JsonObject:
    """An InputRequiredResult with our request, or with the state alone: then the client only comes back."""
    result: JsonObject = {"requestState": state}
    if request is not None:
        result["inputRequests"] = {KEY: {"method": METHOD, "params": request}}
    return result


def answered(responses: Json, *, form: bool) -> Answer:
    """What `inputResponses` say to our request; others are ignored. Raises `BadMessage`."""
    if responses is None:
        return Answer.NONE
    if not isinstance(responses, dict):
        raise BadMessage(INVALID_PARAMS, "inputResponses must be an object")
    if KEY not in responses:
        return Answer.NONE
    found = read_form(responses[KEY]) if form else read(responses[KEY])
    if found is Answer.NONE:
        raise BadMessage(INVALID_PARAMS, f"inputResponses.{KEY} is no ElicitResult")
    return found


def read(result: Json) -> Answer:
    """What an ElicitResult says; `NONE` for what is none. A yes to a form is one that says so."""
    action = result.get("action") if isinstance(result, dict) else None
    if action == "accept":
        return Answer.YES
    if action == "decline":
        return Answer.NO
    return Answer.CANCELLED if action == "cancel" else Answer.NONE


def read_form(result: Json) -> Answer:
    """As `read`, for a form: accepted with the box ticked is yes, with it clear is no, without it is nothing."""
    found = read(result)
    if found is not Answer.YES:
        return found
    content = result.get("content")
    ticked = content.get(FIELD) if isinstance(content, dict) else None
    if ticked is True:
        return Answer.YES
    return Answer.NO if ticked is False else Answer.CANCELLED
