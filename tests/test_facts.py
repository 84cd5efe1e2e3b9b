"""Facts in memory: labels stay, rates are exact, memory is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from interposer.facts import MemoryFacts
from interposer.model import Principal, Rate
from interposer.ports import PolicyInformationPoint

ANNA, BOB = Principal("local", "anna"), Principal("local", "bob")


class HandClock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return 1_700_000_000.0 + self.at

    def monotonic(self) -> float:
        return self.at


def facts(clock: HandClock | None = None, **limits: int) -> MemoryFacts:
    return MemoryFacts(clock or HandClock(), **limits)


def test_labels_and_counters_belong_to_their_session() -> None:
    """What is put on one session is not on another, and ends with it."""
    point: PolicyInformationPoint = facts()
    point.count("s")
    point.count("s")
    point.label("s", frozenset({"untrusted"}))
    point.label("s", frozenset({"private"}))
    assert point.facts("s").labels == {"untrusted", "private"}
    assert point.facts("s").calls == 2
    assert point.facts("t").labels == frozenset()
    point.forget("s")
    assert point.facts("s").calls == 0


def test_now_is_the_wall_clock() -> None:
    """The time that policy sees is the time of day."""
    assert facts().facts("s").now == 1_700_001_000.0


def test_the_call_after_the_last_waits_until_the_first_is_over() -> None:
    """The answer is the time until there is room, and waiting so long is enough."""
    clock = HandClock()
    point = facts(clock)
    rates = [Rate("r", 2, 10.0)]
    assert point.admit(ANNA, rates) == 0.0
    clock.at += 4
    assert point.admit(ANNA, rates) == 0.0
    assert point.admit(ANNA, rates) == 6.0
    clock.at += 6
    assert point.admit(ANNA, rates) == 0.0
    assert point.admit(ANNA, rates) == 4.0


def test_a_refused_call_takes_nothing() -> None:
    """Where one of two rates has no room, the other keeps its units."""
    clock = HandClock()
    point = facts(clock)
    tight, wide = Rate("tight", 1, 10.0), Rate("wide", 2, 10.0)
    assert point.admit(ANNA, [tight, wide]) == 0.0
    assert point.admit(ANNA, [tight, wide]) == 10.0
    assert point.admit(ANNA, [wide]) == 0.0
    assert point.admit(ANNA, [wide]) == 10.0


def test_principals_have_rates_of_their_own() -> None:
    """One caller's calls leave another's room alone."""
    point = facts()
    rates = [Rate("r", 1, 10.0)]
    assert point.admit(ANNA, rates) == 0.0
    assert point.admit(BOB, rates) == 0.0
    assert point.admit(Principal("token", "anna"), rates) == 0.0
    assert point.admit(ANNA, rates) > 0.0


def test_no_rate_admits() -> None:
    """Where nothing is limited, nothing waits."""
    assert facts().admit(ANNA, []) == 0.0
    assert facts().room(ANNA, []) == 0.0


@given(st.integers(1, 4), st.sampled_from([0.1, 1.0, 7.3]), st.lists(st.floats(0, 3), max_size=60))
def test_no_window_ever_holds_more_than_its_count(count: int, per_s: float, pauses: list[float]) -> None:
    """Whatever the times of the calls, at most `count` of those admitted lie within any `per_s` seconds."""
    clock = HandClock()
    point = facts(clock)
    rates = [Rate("r", count, per_s)]
    admitted: list[float] = []
    for pause in pauses:
        clock.at += pause
        if point.admit(ANNA, rates) == 0.0:
            admitted.append(clock.at)
    for first, last in zip(admitted, admitted[count:], strict=False):
        assert last - first >= per_s


@given(st.integers(1, 4), st.lists(st.floats(0, 3), min_size=1, max_size=40))
def test_a_call_that_waits_as_told_is_admitted(count: int, pauses: list[float]) -> None:
    """The answer is never too short by more than rounding."""
    clock = HandClock()
    point = facts(clock)
    rates = [Rate("r", count, 1.7)]
    for pause in pauses:
        clock.at += pause
        wait = point.admit(ANNA, rates)
        if wait:
            clock.at += wait + 1e-9
            assert point.admit(ANNA, rates) == 0.0


def test_sessions_without_labels_go_first() -> None:
    """Memory is bounded, and a label is not the first thing forgotten."""
    point = facts(max_sessions=3)
    point.label("marked", frozenset({"untrusted"}))
    for n in range(20):
        point.count(f"s{n}")
    assert point.facts("marked").labels == {"untrusted"}
    assert point.facts("s19").calls == 1
    assert point.facts("s0").calls == 0


def test_a_window_that_still_counts_is_never_pushed_out() -> None:
    """Where every window is in use, a new caller waits rather than an old one being freed."""
    clock = HandClock()
    point = facts(clock, max_windows=2)
    rates = [Rate("r", 1, 10.0)]
    assert [point.admit(Principal("local", name), rates) for name in "abc"] == [0.0, 0.0, 1.0]
    assert point.admit(Principal("local", "a"), rates) == 10.0
    clock.at += 10
    assert [point.admit(Principal("local", name), rates) for name in "cd"] == [0.0, 0.0]
