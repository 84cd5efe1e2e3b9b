"""A call that went across: how it ended, what of it may be shown, and what is kept of it for a caller that comes back.

What is kept is masked already. It is masked again before it is told, for `Masked` comes from the masker alone, and a
credential may have been guarded since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .canonical import Malformed, canonical, parse
from .errors import BROKER_UNAVAILABLE, Denied, InterposerError, Refusal, Unavailable
from .grant import Kept, KeptState
from .model import Answered, Failed, InDoubt, Json, JsonObject, Masked, Skill

Ending: TypeAlias = type[Answered] | type[Failed] | type[InDoubt]

_STATES: dict[Ending, KeptState] = {
    Answered: KeptState.ANSWERED,
    Failed: KeptState.FAILED,
    InDoubt: KeptState.IN_DOUBT,
}
_ENDINGS = {state: ending for ending, state in _STATES.items()}
NOT_KEPT = "policy keeps no answers of this skill"


@dataclass(frozen=True, slots=True)
class Carried:
    """A call that went across: how it ended, and what of it may be shown."""

    invocation: str
    skill: Skill
    outcome: Ending
    masked: Masked
    """The result of `Answered`; the error object of `Failed`, or null where the upstream said nothing."""
    withheld: str = ""
    """Why an answer that came may not be shown; then `masked` is null."""
    approval: str = ""
    """The question whose yes it was carried by."""
    amended: Masked | None = None
    """The arguments that were sent in place of the caller's, where approvers changed them."""
    kept: bool = False
    """It was carried earlier; this call was not made, for it is the same one."""

    @property
    def state(self) -> KeptState:
        return _STATES[self.outcome]


def body_of(carried: Carried, *, recorded: bool) -> bytes:
    """What is kept of it: canonical JSON with `result` or `error`, and `arguments` where approvers changed them; empty
    where policy records nothing."""
    if not recorded:
        return b""
    body: JsonObject = {"error" if carried.outcome is Failed else "result": carried.masked.value}
    if carried.amended is not None:
        body["arguments"] = carried.amended.value
    return canonical(body)


def body_of_refusal(refusal: Refusal) -> bytes:
    """What is kept of an approved call that was not made after all: canonical JSON with `refusal`."""
    said: JsonObject = {"code": refusal.code, "name": refusal.name, "public": refusal.public}
    if isinstance(refusal, Denied) and refusal.rule:
        said["rule"] = refusal.rule
    return canonical({"refusal": said})


def retold(kept: Kept, skill: Skill, mask: Callable[[Json], Masked], nothing: Masked) -> Carried:
    """How a call ended whose outcome was kept. Raises the `Refusal` that was kept in its place; a body that cannot be
    read or masked is withheld."""
    ending = _ENDINGS[kept.state]
    body, withheld = _read(kept)
    if "refusal" in body:
        raise _refusal(body["refusal"])
    masked, amended = nothing, None
    try:
        amended = mask(body["arguments"]) if "arguments" in body else None
        masked = mask(body.get("error" if ending is Failed else "result"))
    except InterposerError as fault:
        masked, withheld = nothing, str(fault)
    return Carried(kept.invocation, skill, ending, masked, withheld, kept.question, amended, kept=True)


def _read(kept: Kept) -> tuple[JsonObject, str]:
    """The body, and why its answer may not be shown."""
    if not kept.body:
        return {}, kept.withheld or (NOT_KEPT if kept.state is KeptState.ANSWERED else "")
    try:
        body = parse(kept.body)
    except Malformed:
        body = None
    if isinstance(body, dict):
        return body, kept.withheld
    return {}, kept.withheld or "what was kept of it cannot be read"


def _refusal(said: JsonObject) -> Refusal:
    reason = f"it was approved, and refused when it was to be made: {said['name']}"
    if said["code"] == BROKER_UNAVAILABLE:
        return Unavailable(reason)
    return Denied(reason, name=said["name"], message=said["public"], rule=said.get("rule", ""))
