"""The table of what may follow what."""

from __future__ import annotations

from interposer.lifecycle import ENDS, GRANT, INVOCATION, QUESTION, TABLE, allowed, mermaid
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


def test_a_grant_carries_nothing_once_it_has_ended() -> None:
    """Spent, expired and revoked are ends, and a grant is used only while it stands."""
    for end in (Kind.GRANT_SPENT, Kind.GRANT_EXPIRED, Kind.GRANT_REVOKED):
        assert TABLE[end] == frozenset()
    using = {kind for kind, following in TABLE.items() if Kind.GRANT_USED in following}
    assert using == {Kind.GRANT_GIVEN, Kind.GRANT_USED}


def test_glass_is_broken_only_to_grant() -> None:
    """Who overrides the terms says yes, at once; there is no other way on."""
    assert TABLE[Kind.BROKE_GLASS] == {Kind.GRANTED}


def test_the_three_lives_do_not_cross() -> None:
    """No kind belongs to two of a call, a question and a grant."""
    kinds = [kind for table in (INVOCATION, QUESTION, GRANT) for kind in table if kind]
    assert len(kinds) == len(set(kinds))
    assert allowed(None, Kind.INTENDED)
    assert not allowed(None, Kind.ANSWERED)
    assert not allowed(Kind.SESSION_OPENED, Kind.INTENDED)
    assert not allowed(Kind.GRANTED, Kind.INTENDED)


def test_every_life_can_end() -> None:
    """From every state an end can be reached."""
    for table in (INVOCATION, QUESTION, GRANT):
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
    arrows = sum(max(len(following), 1) for table in (INVOCATION, QUESTION, GRANT) for following in table.values())
    assert len(drawn) == arrows
