"""Which way a pending call is shown: by era, capabilities and profile, and never one that was not declared."""

from __future__ import annotations

import pytest

from interposer.model import Era, JsonObject
from interposer.reach import DIALOG_S, ROUNDS, Profile, Reach, Way, poll_ms, reach
from interposer.wire.tasks import EXTENSION

TASKS: JsonObject = {"extensions": {EXTENSION: {}}}
URL: JsonObject = {"elicitation": {"url": {}}}
FORM: JsonObject = {"elicitation": {"form": {}}}
BOTH: JsonObject = {"elicitation": {"form": {}, "url": {}}}
ANY: JsonObject = {**BOTH, **TASKS}
M, L = Era.MODERN, Era.LEGACY


def way(
    era: Era,
    capabilities: JsonObject,
    profile: Profile | None = None,
    *,
    version: str = "2025-11-25",
    linked: bool = True,
    confirms: bool = False,
    round: int = 0,
    form_done: bool = False,
) -> Way:
    found = reach(era, version, capabilities, profile or Profile(), linked=linked)
    return found.way(caller_confirms=confirms, round=round, form_done=form_done)


@pytest.mark.parametrize(
    ("era", "capabilities", "expected"),
    [
        (M, {}, Way.TICKET),
        (M, FORM, Way.TICKET),
        (M, {"elicitation": {}}, Way.TICKET),
        (M, {"sampling": {}, "roots": {}}, Way.TICKET),
        (M, URL, Way.LINK),
        (M, BOTH, Way.LINK),
        (M, TASKS, Way.TASK),
        (M, ANY, Way.TASK),
        (M, {"elicitation": True, "extensions": [EXTENSION]}, Way.TICKET),
        (M, {"elicitation": {"url": None}, "extensions": {EXTENSION: True}}, Way.TICKET),
        (L, {}, Way.TICKET),
        (L, ANY, Way.TICKET),
    ],
)
def test_only_what_was_declared_is_used(era: Era, capabilities: JsonObject, expected: Way) -> None:
    """A task needs the extension, a link needs elicitation by URL; whoever declared neither is given a ticket."""
    assert way(era, capabilities) is expected


@pytest.mark.parametrize(
    ("era", "capabilities", "expected"),
    [
        (M, FORM, Way.FORM),
        (M, {"elicitation": {}}, Way.FORM),
        (M, ANY, Way.FORM),
        (M, URL, Way.LINK),
        (M, TASKS, Way.TASK),
        (M, {}, Way.TICKET),
        (L, FORM, Way.DIALOG),
        (L, {"elicitation": {}}, Way.DIALOG),
        (L, URL, Way.TICKET),
        (L, {}, Way.TICKET),
    ],
)
def test_the_callers_own_user_is_asked_where_policy_lets_them(
    era: Era, capabilities: JsonObject, expected: Way
) -> None:
    """A form for those who declared forms; a connection with state is asked inside of the call."""
    assert way(era, capabilities, confirms=True) is expected


def test_without_a_console_there_is_nothing_to_point_to() -> None:
    """A link needs an address."""
    assert way(M, URL, linked=False) is Way.TICKET
    assert way(M, ANY, linked=False) is Way.TASK


def test_profile_takes_ways_away() -> None:
    """A client that is known to choke on something that it declares is spared it."""
    assert way(M, ANY, Profile(tasks=False)) is Way.LINK
    assert way(M, BOTH, Profile(rounds="never")) is Way.TICKET
    assert way(M, BOTH, Profile(rounds="never"), confirms=True) is Way.TICKET
    assert way(M, ANY, Profile(rounds="never")) is Way.TASK


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26"])
def test_a_revision_without_elicitation_is_sent_none(version: str) -> None:
    """Whatever capabilities an old client names."""
    assert way(L, FORM, version=version, confirms=True) is Way.TICKET


def test_a_form_that_had_its_chance_is_not_shown_again() -> None:
    """Asked again while it is unanswered, never after another way was taken; and rounds end."""
    assert way(M, BOTH, confirms=True, round=1) is Way.FORM
    assert way(M, BOTH, confirms=True, round=1, form_done=True) is Way.LINK
    assert way(M, ANY, confirms=True, round=1, form_done=True) is Way.TASK
    assert way(M, BOTH, confirms=True, round=ROUNDS) is Way.TICKET
    assert way(M, BOTH, round=ROUNDS - 1) is Way.LINK
    assert way(M, BOTH, round=ROUNDS) is Way.TICKET


def test_what_a_user_is_to_see_is_shown_at_once() -> None:
    """The first answer does not wait; those who come back do, and a dialog has time to be answered."""
    found = Reach(Profile(4.0))
    assert all(found.hold_s(way, first=True) == 0.0 for way in (Way.LINK, Way.FORM, Way.TASK))
    assert all(found.hold_s(way, first=False) == 4.0 for way in (Way.LINK, Way.FORM, Way.TICKET))
    assert found.hold_s(Way.TICKET, first=True) == 4.0
    assert found.hold_s(Way.TASK, first=False) == 0.0
    assert found.hold_s(Way.DIALOG, first=True) == DIALOG_S
    assert Reach(Profile(300.0)).hold_s(Way.DIALOG, first=True) == 300.0


def test_the_link_is_shown_once_or_in_every_round() -> None:
    """`auto` asks for patience only; `ask_again` is for clients that cannot come back without a question."""
    once, again = Reach(Profile()), Reach(Profile(rounds="ask_again"))
    assert [once.links(first=first, answered=False) for first in (True, False)] == [True, False]
    assert not once.links(first=True, answered=True)
    assert all(again.links(first=first, answered=answered) for first in (True, False) for answered in (True, False))


def test_polling_slows_down() -> None:
    """From two seconds to ten, in whole milliseconds."""
    assert [poll_ms(age_s) for age_s in (0, 12, 30.5, 60, 6000)] == [2000, 2000, 5083, 10000, 10000]
