"""Hours in which an approval counts: what the clocks of the place show decides, on every night of the year."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interposer.terms import Window
from interposer.windows import is_open

MON, TUE, WED, THU, FRI, SAT, SUN = range(7)
WEEKDAYS = frozenset(range(5))
DAILY = frozenset(range(7))
BERLIN, NEW_YORK, LORD_HOWE, KIRITIMATI = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
)


def window(days: frozenset[int] | set[int], hours: str, zone: str) -> Window:
    """`22:00-06:00`"""
    opens, closes = (int(time[:2]) * 60 + int(time[3:]) for time in hours.split("-"))
    return Window(frozenset(days), opens, closes % 1440, zone)


def utc(moment: str) -> float:
    return datetime.fromisoformat(f"{moment}+00:00").timestamp()


TABLE = [
    # An ordinary week: Berlin is an hour ahead in winter, 2026-01-05 is a Monday.
    (WEEKDAYS, "08:00-18:00", BERLIN, "2026-01-05 06:59:59.999", False),
    (WEEKDAYS, "08:00-18:00", BERLIN, "2026-01-05 07:00", True),
    (WEEKDAYS, "08:00-18:00", BERLIN, "2026-01-05 16:59:59.999999", True),
    (WEEKDAYS, "08:00-18:00", BERLIN, "2026-01-05 17:00", False),
    (WEEKDAYS, "08:00-18:00", BERLIN, "2026-01-04 12:00", False),
    # The same hours on the same clocks in summer.
    (WEEKDAYS, "08:00-18:00", BERLIN, "2026-07-06 06:00", True),
    (WEEKDAYS, "08:00-18:00", BERLIN, "2026-07-06 16:00", False),
    # Across midnight: it belongs to the day on which it opens.
    (DAILY, "22:00-06:00", BERLIN, "2026-01-06 01:00", True),
    ({FRI}, "22:00-06:00", BERLIN, "2026-01-10 01:00", True),
    ({FRI}, "22:00-06:00", BERLIN, "2026-01-10 04:59:59", True),
    ({FRI}, "22:00-06:00", BERLIN, "2026-01-10 05:00", False),
    ({FRI}, "22:00-06:00", BERLIN, "2026-01-09 01:00", False),
    ({SUN}, "22:00-06:00", BERLIN, "2026-01-12 01:00", True),
    ({MON}, "22:00-06:00", BERLIN, "2026-01-12 01:00", False),
    # Midnight itself, and the whole day.
    ({MON}, "00:00-24:00", BERLIN, "2026-01-04 23:00", True),
    ({MON}, "00:00-24:00", BERLIN, "2026-01-05 22:59:59", True),
    ({MON}, "00:00-24:00", BERLIN, "2026-01-05 23:00", False),
    ({MON}, "18:00-24:00", BERLIN, "2026-01-05 22:59", True),
    ({MON}, "18:00-24:00", BERLIN, "2026-01-05 23:00", False),
    ({MON}, "08:00-08:00", BERLIN, "2026-01-06 06:59", True),
    ({MON}, "08:00-08:00", BERLIN, "2026-01-06 07:00", False),
    ({MON}, "08:00-08:00", BERLIN, "2026-01-05 06:59", False),
    # Berlin, 2026-03-29: 02:00 becomes 03:00 at 01:00 UTC.
    (DAILY, "02:00-03:00", BERLIN, "2026-03-29 00:59:59", False),
    (DAILY, "02:00-03:00", BERLIN, "2026-03-29 01:00", False),
    (DAILY, "01:00-02:30", BERLIN, "2026-03-29 00:59:59", True),
    (DAILY, "01:00-02:30", BERLIN, "2026-03-29 01:00", False),
    (DAILY, "02:30-04:00", BERLIN, "2026-03-29 01:00", True),
    ({SAT}, "22:00-06:00", BERLIN, "2026-03-29 03:59:59", True),
    ({SAT}, "22:00-06:00", BERLIN, "2026-03-29 04:00", False),
    # Berlin, 2026-10-25: 03:00 becomes 02:00 at 01:00 UTC.
    (DAILY, "02:00-02:30", BERLIN, "2026-10-25 00:15", True),
    (DAILY, "02:00-02:30", BERLIN, "2026-10-25 00:45", False),
    (DAILY, "02:00-02:30", BERLIN, "2026-10-25 01:15", True),
    (DAILY, "02:00-02:30", BERLIN, "2026-10-25 01:30", False),
    ({SAT}, "22:00-06:00", BERLIN, "2026-10-25 04:59:59", True),
    ({SAT}, "22:00-06:00", BERLIN, "2026-10-25 05:00", False),
    # New York, 2026-03-08 (07:00 UTC) and 2026-11-01 (06:00 UTC).
    (DAILY, "02:00-03:00", NEW_YORK, "2026-03-08 06:59:59", False),
    (DAILY, "02:00-03:00", NEW_YORK, "2026-03-08 07:00", False),
    (DAILY, "03:00-04:00", NEW_YORK, "2026-03-08 07:00", True),
    (DAILY, "01:00-02:00", NEW_YORK, "2026-11-01 05:30", True),
    (DAILY, "01:00-02:00", NEW_YORK, "2026-11-01 06:30", True),
    (DAILY, "01:00-02:00", NEW_YORK, "2026-11-01 07:00", False),
    ({SUN}, "20:00-24:00", NEW_YORK, "2026-03-09 03:59", True),
    # Lord Howe changes by half an hour: 2026-10-04 at 02:00 (15:30 UTC the day before), back on 2026-04-05.
    (DAILY, "02:00-02:30", LORD_HOWE, "2026-10-03 15:29:59", False),
    (DAILY, "02:00-02:30", LORD_HOWE, "2026-10-03 15:30", False),
    (DAILY, "02:30-03:00", LORD_HOWE, "2026-10-03 15:30", True),
    ({SUN}, "01:30-02:00", LORD_HOWE, "2026-04-04 14:30", True),
    ({SUN}, "01:30-02:00", LORD_HOWE, "2026-04-04 15:00", True),
    ({SUN}, "01:30-02:00", LORD_HOWE, "2026-04-04 15:30", False),
    # Kiritimati is fourteen hours ahead: it is tomorrow there.
    ({TUE}, "00:00-06:00", KIRITIMATI, "2026-01-05 10:00", True),
    ({TUE}, "00:00-06:00", KIRITIMATI, "2026-01-05 09:59:59", False),
    ({MON}, "08:00-18:00", KIRITIMATI, "2026-01-04 18:00", True),
    # Santiago puts midnight back to 23:00: the last hour of Saturday 2026-04-04 comes twice.
    ({SAT}, "23:00-24:00", "America/Santiago", "2026-04-05 02:30", True),
    ({SAT}, "23:00-24:00", "America/Santiago", "2026-04-05 03:30", True),
    ({SUN}, "00:00-01:00", "America/Santiago", "2026-04-05 03:30", False),
    ({SUN}, "00:00-01:00", "America/Santiago", "2026-04-05 04:00", True),
    # Quarters of an hour.
    (DAILY, "12:00-13:00", "Asia/Kathmandu", "2026-01-05 06:14:59", False),
    (DAILY, "12:00-13:00", "Asia/Kathmandu", "2026-01-05 06:15", True),
]


@pytest.mark.parametrize(("days", "hours", "zone", "moment", "open_"), TABLE)
def test_windows_open_and_close_by_local_clocks(
    days: frozenset[int], hours: str, zone: str, moment: str, open_: bool
) -> None:
    """To the second, across midnight, and on the nights on which clocks are changed."""
    assert is_open([[window(days, hours, zone)]], utc(moment)) is open_


def test_nothing_opens_or_closes_early() -> None:
    """A fraction of a second before the hour is before the hour."""
    office = [[window(DAILY, "08:00-18:00", "UTC")]]
    assert not is_open(office, utc("2026-01-05 08:00") - 2.4e-7)
    assert is_open(office, utc("2026-01-05 18:00") - 2.4e-7)


def test_one_of_each_must_be_open() -> None:
    """Alternatives of one rule widen, those of several rules narrow, and no rule's hours mean any hour."""
    morning, evening = window(DAILY, "06:00-12:00", "UTC"), window(DAILY, "18:00-22:00", "UTC")
    office = window(WEEKDAYS, "08:00-20:00", "UTC")
    assert is_open([], utc("2026-01-05 03:00"))
    assert not is_open([[]], utc("2026-01-05 03:00"))
    for moment, one, both in [("07:00", True, False), ("09:00", True, True), ("13:00", False, False)]:
        assert is_open([[morning, evening]], utc(f"2026-01-05 {moment}")) is one
        assert is_open([[morning, evening], [office]], utc(f"2026-01-05 {moment}")) is both
    assert is_open([[morning, evening], [office]], utc("2026-01-05 19:00"))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "America", "/etc/passwd", "../UTC", "a\0b"])
def test_an_unknown_zone_is_never_open(zone: str) -> None:
    """A question of a broker that knew more zones is not answered by mistake, and stops nothing."""
    assert not is_open([[Window(DAILY, 0, 0, zone)]], utc("2026-01-05 12:00"))


_zones = st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, KIRITIMATI, "America/Santiago", "Asia/Kathmandu", "UTC"])
_windows = st.builds(
    Window, st.frozensets(st.integers(0, 6), min_size=1), st.integers(0, 1439), st.integers(0, 1439), _zones
)
# The nights of both changes, and any other moment of two years.
_moments = st.one_of(
    st.integers(int(utc("2026-01-01 00:00")), int(utc("2027-12-31 00:00"))),
    st.builds(
        lambda night, second: int(utc(night)) + second,
        st.sampled_from(["2026-03-28", "2026-10-24", "2026-03-07", "2026-10-31", "2026-04-04", "2026-10-03"]).map(
            lambda night: f"{night} 00:00"
        ),
        st.integers(0, 2 * 86400),
    ),
)


def shown_in(of: Window) -> set[tuple[int, int]]:
    """The slow oracle: every minute of the week that a window is open, walked one by one."""
    found = set()
    for day in of.days:
        minute = day * 1440 + of.opens_min
        while True:
            found.add((minute // 1440 % 7, minute % 1440))
            minute += 1
            if minute % 1440 == of.closes_min:
                break
    return found


@settings(max_examples=80, deadline=None)
@given(_windows, st.lists(_moments, min_size=1, max_size=20))
def test_windows_agree_with_a_walk_through_the_week(of: Window, moments: list[int]) -> None:
    """At any moment, it is open exactly when the local clock shows a minute of the window."""
    week = shown_in(of)
    for moment in moments:
        local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=moment)).astimezone(ZoneInfo(of.zone))
        assert is_open([[of]], moment) is ((local.weekday(), local.hour * 60 + local.minute) in week)
