"""How a call that waits for a human can be shown to whoever made it: chosen per request, from what it declares.

Pure. Nothing is sent to a client that did not say that it understands it: one that is given an answer it does not know
raises, and its user sees neither link nor ticket. The ticket is what everybody understands.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .model import Era, JsonObject
from .wire import elicitation, tasks

ROUNDS = 8
"""Answers `input_required` to one call; clients give up after ten, and the upstream may need some."""
DIALOG_S = 50.0
"""How long a legacy call waits at least while its own user is asked: TypeScript clients give up after 60 s."""
RETENTION_S = 600.0
"""How long a task can be looked at after its question would have expired."""
_POLL_MS = (2_000, 10_000)
_FORM_VERSIONS = ("2025-06-18", "2025-11-25")


class Way(StrEnum):
    """How a pending call is answered."""

    TICKET = "ticket"
    """A result that says: call again after it is approved."""
    DIALOG = "dialog"
    """Legacy: the call stays open while its own user is asked."""
    FORM = "form"
    """Modern: `input_required` with a yes or no for its own user."""
    LINK = "link"
    """Modern: `input_required` with a link to the console, then rounds of patience."""
    TASK = "task"
    """Modern: a task to be polled."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one client is known to bear (`approvals.clients`)."""

    hold_s: float = 4.0
    rounds: str = "auto"
    """`auto`: the link once, then state alone; `ask_again`: the link in every round; `never`: no `input_required`."""
    tasks: bool = True


@dataclass(frozen=True, slots=True)
class Reach:
    """What the sender of one request can be shown."""

    profile: Profile
    task: bool = False
    link: bool = False
    form: bool = False
    dialog: bool = False

    def way(self, *, caller_confirms: bool, round: int, form_done: bool) -> Way:
        """For a call in its `round` (0: it came without a state). `form_done`: a form was answered, or another way was
        taken; it is not shown again."""
        if caller_confirms and self.dialog:
            return Way.DIALOG
        if caller_confirms and self.form and round < ROUNDS and not form_done:
            return Way.FORM
        if self.task:
            return Way.TASK
        return Way.LINK if self.link and round < ROUNDS else Way.TICKET

    def hold_s(self, way: Way, *, first: bool) -> float:
        """How long to wait for a human before it is answered in this way. `first`: it was not answered so before."""
        if way is Way.DIALOG:
            return max(self.profile.hold_s, DIALOG_S)
        # What the user is to see is shown at once; whoever comes back is held.
        shown = way is Way.TASK or (first and way in (Way.FORM, Way.LINK))
        return 0.0 if shown else self.profile.hold_s

    def links(self, *, first: bool, answered: bool) -> bool:
        """Whether this round shows the link; once a human has answered there is no need."""
        return self.profile.rounds == "ask_again" or (first and not answered)


def reach(era: Era, version: str, capabilities: JsonObject, profile: Profile, *, linked: bool) -> Reach:
    """`capabilities` as declared by the request (modern) or for the connection (legacy). `linked`: there is a console
    to point to."""
    form = elicitation.declared(capabilities, "form")
    if era is Era.LEGACY:
        return Reach(profile, dialog=form and version in _FORM_VERSIONS)
    rounds = profile.rounds != "never"
    return Reach(
        profile,
        task=profile.tasks and tasks.declared(capabilities),
        link=linked and rounds and elicitation.declared(capabilities, "url"),
        form=form and rounds,
    )


def poll_ms(age_s: float) -> int:
    """How long to leave a task alone that was created so long ago."""
    shortest, longest = _POLL_MS
    return int(max(shortest, min(longest, age_s * 1000 / 6)))
