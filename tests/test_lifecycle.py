"""The table of what may follow what."""

from __future__ import annotations

from interposer.lifecycle import ENDS, INVOCATION, QUESTION, TABLE, allowed, mermaid
from interposer.model import Kind


def test_nothing_is_sent_twice_and_nothing_follows_an_end() -> None:
    """No path leads from an intent to another, or from an outcome to anything but a late answer."""
    reachable: set[Kind] = set()
    frontier = set(TABLE[Kind.INTENDED])
    while frontier:
        reachable |= frontier
        frontier = {kind for reached in frontier for kind in TABLE[reached]} - reachable
    assert reachable == {Kind.ANSWERED, Kind.FAILED, Kind.IN_DOUBT, Kind.LATE}


def test_an_approval_is_used_once() -> None:
    """Consumed is an end, and only a granted question gets there."""
    assert TABLE[Kind.CONSUMED] == frozenset()
    assert [kind for kind, following in TABLE.items() if Kind.CONSUMED in following] == [Kind.GRANTED]


def test_the_two_lives_do_not_cross() -> None:
    """No kind belongs to a call and to a question."""
    assert {kind for kind in INVOCATION if kind} & {kind for kind in QUESTION if kind} == set()
    assert allowed(None, Kind.INTENDED)
    assert not allowed(None, Kind.ANSWERED)
    assert not allowed(Kind.SESSION_OPENED, Kind.INTENDED)
    assert not allowed(Kind.GRANTED, Kind.INTENDED)


def test_every_life_can_end() -> None:
    """From every state an end can be reached."""
    for table in (INVOCATION, QUESTION):
        ended = {kind for kind, following in table.items() if not following}
        while more := {kind for kind, following in table.items() if following & ended} - ended:
            ended |= more
        assert ended == set(table)
    assert Kind.IN_DOUBT in ENDS
    assert Kind.INTENDED not in ENDS


def test_the_diagram_is_drawn_from_the_table() -> None:
    """Every arrow of the table is in the diagram, and no other."""
    drawn = {tuple(line.split(" --> ")) for line in map(str.strip, mermaid().splitlines()) if " --> " in line}
    assert ("intended", "in_doubt") in drawn
    arrows = sum(max(len(following), 1) for table in (INVOCATION, QUESTION) for following in table.values())
    assert len(drawn) == arrows
