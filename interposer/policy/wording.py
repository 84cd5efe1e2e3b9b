"""The terms of an approval for people and programs: one line for each thing that must be so, or one JSON object."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from interposer.model import Json, JsonObject
from interposer.terms import ApprovalTerms, GrantCap, Window

from .approval import DAYS


def in_words(terms: ApprovalTerms) -> list[str]:
    """What is needed, the people first."""
    lines = [f"{terms.quorum} yes from {_people(terms)}, within {terms.expires_s:g} s"]
    lines += [f"given and used {_either(alternatives)}" for alternatives in terms.windows]
    if terms.caller:
        lines.append("the caller's own user may answer through the client")
    if terms.reading_s:
        lines.append(f"each of them has had the call before them for {terms.reading_s:g} s")
    if terms.cap is not None:
        lines.append(f"a standing grant is possible: {_most(terms.cap)}")
    if terms.execute:
        lines.append("the call is made when it is approved, also if its caller has left")
    return lines


def as_json(terms: ApprovalTerms) -> JsonObject:
    """The same, in the words of the policy language; durations in seconds."""
    return {
        "groups": sorted(terms.groups),
        "subjects": sorted(terms.subjects),
        "at_least": dict(terms.minima),
        "quorum": terms.quorum,
        "expires_s": terms.expires_s,
        "hours": [[_window(window) for window in alternatives] for alternatives in terms.windows],
        "grant": None if terms.cap is None else _cap(terms.cap),
        "execute_on_approve": terms.execute,
        "confirm": "caller" if terms.caller else None,
        "read_for_s": terms.reading_s,
    }


def _people(terms: ApprovalTerms) -> str:
    groups = sorted(terms.groups.union(group for group, _ in terms.minima))
    named = [f"group {name}" for name in groups] + [f"subject {name}" for name in sorted(terms.subjects)]
    least = " and ".join(f"{count} of group {group}" for group, count in terms.minima)
    return (" or ".join(named) or "any operator") + (f", with at least {least}" if least else "")


def _either(alternatives: Iterable[Window]) -> str:
    return " or ".join(
        f"{_days(window.days)} {_time(window.opens_min)}-{_time(window.closes_min or 1440)}"
        f"{' the day after' if 0 < window.closes_min <= window.opens_min else ''} {window.zone}"
        for window in alternatives
    )


def _days(days: frozenset[int]) -> str:
    if len(days) == len(DAYS):
        return "every day"
    runs = [
        [day for _, day in run] for _, run in groupby(enumerate(sorted(days)), key=lambda placed: placed[1] - placed[0])
    ]
    return ", ".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)


def _most(cap: GrantCap) -> str:
    calls = "any number of calls" if cap.uses is None else f"at most {cap.uses} calls"
    session = ", or for one session only" if cap.session else ""
    matching = ", or for arguments that match a stated schema" if cap.matching else ""
    return f"{calls} in at most {cap.for_s:g} s{session}{matching}"


def _time(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _window(window: Window) -> Json:
    return {
        "days": [DAYS[day] for day in sorted(window.days)],
        "from": _time(window.opens_min),
        "to": _time(window.closes_min or 1440),
        "zone": window.zone,
    }


def _cap(cap: GrantCap) -> Json:
    return {"for_s": cap.for_s, "uses": cap.uses, "session": cap.session, "matching": cap.matching}
