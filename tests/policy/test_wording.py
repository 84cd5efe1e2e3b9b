"""Terms in words and as JSON: everything that must be so is said, and nothing that is not asked for."""

from __future__ import annotations

import pytest

from interposer import canonical
from interposer.policy.wording import as_json, in_words
from interposer.terms import ApprovalTerms, GrantCap, Window

DAILY = frozenset(range(7))
ALL = ApprovalTerms(
    groups=frozenset({"leads"}),
    subjects=frozenset({"ann"}),
    quorum=4,
    expires_s=7200.0,
    minima=(("dba", 2), ("security", 1)),
    windows=((Window(frozenset({0, 1, 4}), 480, 1080, "Europe/Berlin"), Window(DAILY, 1320, 360, "UTC")),),
    cap=GrantCap(28800.0, 20, session=True, matching=True),
    execute=True,
    reading_s=5.0,
)


def test_plain_terms_take_one_line() -> None:
    """The default terms of an ask are said in a sentence."""
    assert in_words(ApprovalTerms()) == ["1 yes from any operator, within 1800 s"]


def test_everything_is_said() -> None:
    """Each further term has its line."""
    assert in_words(ALL) == [
        "4 yes from group dba or group leads or group security or subject ann, with at least 2 of group dba and "
        "1 of group security, within 7200 s",
        "given and used mon-tue, fri 08:00-18:00 Europe/Berlin or every day 22:00-06:00 the day after UTC",
        "each of them has had the call before them for 5 s",
        "a standing grant is possible: at most 20 calls in at most 28800 s, or for one session only, or for "
        "arguments that match a stated schema",
        "the call is made when it is approved, also if its caller has left",
    ]
    assert in_words(ApprovalTerms(caller=True))[1] == "the caller's own user may answer through the client"
    assert "any number of calls" in in_words(ApprovalTerms(cap=GrantCap(1.0)))[1]


@pytest.mark.parametrize(
    ("opens", "closes", "said"),
    [
        (0, 0, "00:00-24:00 UTC"),
        (480, 0, "08:00-24:00 UTC"),
        (480, 480, "08:00-08:00 the day after UTC"),
        (480, 1080, "08:00-18:00 UTC"),
    ],
)
def test_hours_are_said_as_they_are_written(opens: int, closes: int, said: str) -> None:
    """Midnight at the end of a day is 24:00."""
    (_, line) = in_words(ApprovalTerms(windows=((Window(DAILY, opens, closes, "UTC"),),)))
    assert line == f"given and used every day {said}"


def test_as_json_in_the_words_of_the_language() -> None:
    """Programs read what the policy says, with durations in seconds."""
    assert as_json(ALL) == {
        "groups": ["leads"],
        "subjects": ["ann"],
        "at_least": {"dba": 2, "security": 1},
        "quorum": 4,
        "expires_s": 7200.0,
        "hours": [
            [
                {"days": ["mon", "tue", "fri"], "from": "08:00", "to": "18:00", "zone": "Europe/Berlin"},
                {
                    "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
                    "from": "22:00",
                    "to": "06:00",
                    "zone": "UTC",
                },
            ]
        ],
        "grant": {"for_s": 28800.0, "uses": 20, "session": True, "matching": True},
        "execute_on_approve": True,
        "confirm": None,
        "read_for_s": 5.0,
    }
    plain = as_json(ApprovalTerms(caller=True))
    assert (plain["grant"], plain["hours"], plain["confirm"]) == (None, [], "caller")
    assert canonical.parse(canonical.encode(as_json(ALL))) == as_json(ALL)
