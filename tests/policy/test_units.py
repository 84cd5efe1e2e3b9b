"""Skill patterns: what fits, what overlaps, what contains what. And times of day."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interposer.policy.units import check_pattern, contains, fits, minute, overlap

_part = st.text("ab*", min_size=1, max_size=5).filter(lambda text: "**" not in text)
_pattern = st.just("*") | st.builds("{}.{}".format, _part, _part)
_id = st.builds("{}.{}".format, st.text("ab", min_size=1, max_size=4), st.text("ab.", min_size=1, max_size=5))


def _slow(pattern: str, id: str) -> bool:
    if pattern == "*":
        return True
    upstream, name = (re.escape(part).replace(r"\*", ".*") for part in pattern.split(".", 1))
    of_skill, of_name = id.split(".", 1)
    return bool(re.fullmatch(upstream, of_skill) and re.fullmatch(name, of_name))


@given(_pattern, _id)
def test_fits_agrees_with_regular_expressions(pattern: str, id: str) -> None:
    """A pattern means what its plainest translation means."""
    assert fits(pattern, id) is _slow(pattern, id)


@given(_pattern, _pattern, _id)
def test_contains_and_overlap_are_never_wrong_about_a_skill(wide: str, narrow: str, id: str) -> None:
    """`contains` claims no more than is true, and `overlap` misses nothing."""
    if contains(wide, narrow) and fits(narrow, id):
        assert fits(wide, id)
    if fits(wide, id) and fits(narrow, id):
        assert overlap(wide, narrow)


@pytest.mark.parametrize(
    ("left", "right", "meet"),
    [("a.b*", "a.*c", True), ("a.b*", "a.c*", False), ("*", "a.b", True), ("a.x", "*.x", True), ("a.*", "b.*", False)],
)
def test_overlap_is_exact_on_plain_cases(left: str, right: str, meet: bool) -> None:
    """Two patterns meet where some name fits both."""
    assert overlap(left, right) is meet


@pytest.mark.parametrize(
    "bad", ["", "a", "a.", ".b", "a.**", "a.b?", "a.[b]", "{a}.b", " a.b", "a.b\n", "a.\u202eb", "!a.b"]
)
def test_odd_patterns_are_refused(bad: str) -> None:
    """A pattern that looks like another language's glob is an error, not a name."""
    with pytest.raises(ValueError, match=r"expected|allowed|pattern"):
        check_pattern(bad)


def test_matching_is_linear_in_hostile_names() -> None:
    """Many stars on a long name that nearly fits cost no more than the name is long."""
    assert not fits("a." + "*a" * 30 + "*b", "a." + "a" * 20_000)


def test_times_of_day_are_two_digits_each() -> None:
    """Minutes after midnight; the end of the day has a time of its own."""
    assert [minute(text) for text in ("00:00", "08:30", "23:59", "24:00")] == [0, 510, 1439, 1440]
    for text in ("", "8:00", "08:0", "24:01", "25:00", "08:60", "08:00:00", " 08:00", "08:00\n", "08.00", "٠٨:٠٠"):
        with pytest.raises(ValueError, match="time of day"):
            minute(text)
