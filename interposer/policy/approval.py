"""The `approval` of an ask rule -> its terms: who may say yes, how many, when, to how much, and how it is asked for.

approvers            {groups, subjects}: who may answer
at_least             {group: people}: so many distinct people of each of these groups
quorum               distinct people in all
expires, read_for    how long the question lives, how long it must have been looked at
grant                once, or {for, uses, session, matching}: the most that approvers may agree to
hours                list of {days, from, to, zone}: when a yes counts
execute_on_approve   whether the call is made when it is approved
confirm              caller: the caller's own user may answer through the client
"""

from __future__ import annotations

from functools import partial
from pkgutil import get_data

from interposer.terms import ApprovalTerms, GrantCap, Window

from . import units
from .reading import Reading, nearest, shown
from .strict_yaml import Node

APPROVAL_KEYS = (
    "approvers",
    "at_least",
    "quorum",
    "expires",
    "grant",
    "hours",
    "execute_on_approve",
    "confirm",
    "read_for",
)
APPROVER_KEYS = ("groups", "subjects")
GRANT_KEYS = ("for", "uses", "session", "matching")
HOURS_KEYS = ("days", "from", "to", "zone")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MAX_QUORUM = 16
MAX_EXPIRES_S = 365 * 86400.0
MAX_GRANT_S = 30 * 86400.0
MAX_USES = 100_000
MAX_READING_S = 300.0

_DEFAULTS = ApprovalTerms()
_DAY_MIN = 24 * 60


def read_approval(reading: Reading, node: Node) -> ApprovalTerms:
    """Every problem goes to `reading`; the terms mean something only without any."""
    members = reading.mapping(node, "`approval`", APPROVAL_KEYS)
    groups, subjects = _approvers(reading, members.get("approvers"))
    minima = _at_least(reading, members.get("at_least"))
    quorum = _quorum(reading, members.get("quorum"), minima)
    if subjects and not groups and not minima and quorum > len(subjects):
        said = f"`quorum` is {quorum} but only {len(subjects)} may approve; name more approvers"
        reading.at(members["quorum"], said)
    expires_s = _duration(reading, members.get("expires"), "`expires`", MAX_EXPIRES_S)
    return ApprovalTerms(
        groups=groups,
        subjects=subjects,
        quorum=quorum,
        expires_s=_DEFAULTS.expires_s if expires_s is None else expires_s,
        minima=minima,
        windows=_hours(reading, members.get("hours")),
        cap=_grant(reading, members.get("grant")),
        execute=_switch(reading, members.get("execute_on_approve"), "`execute_on_approve`"),
        caller=_confirm(reading, members.get("confirm"), quorum, minima),
        reading_s=_read_for(reading, members.get("read_for"), expires_s),
    )


# -- who


def _approvers(reading: Reading, node: Node | None) -> tuple[frozenset[str], frozenset[str]]:
    if node is None:
        return frozenset(), frozenset()
    members = reading.mapping(node, "`approvers`", APPROVER_KEYS)
    if node.value == {}:
        reading.at(node, "`approvers` names nobody: give groups or subjects, or leave it out for any operator")
    groups = reading.names(members.get("groups"), "`groups`") or frozenset()
    return groups, reading.names(members.get("subjects"), "`subjects`") or frozenset()


def _at_least(reading: Reading, node: Node | None) -> tuple[tuple[str, int], ...]:
    if node is None:
        return ()
    if not isinstance(node.value, dict):
        reading.at(node, f"`at_least`: expected a mapping such as {{dba: 1}}, found {shown(node)}")
        return ()
    if not node.value:
        reading.at(node, "`at_least` is empty: write GROUP: NUMBER, or leave it out")
    minima = {}
    for group, child in node.value.items():
        if not group or "*" in group:
            reading.refuse(*node.keys[group], f"{group!r} is not a group's name: names match exactly")
        elif type(child.value) is not int or not 1 <= child.value <= MAX_QUORUM:
            reading.at(child, f"`{group}` is {shown(child)}: expected a number of people from 1 to {MAX_QUORUM}")
        else:
            minima[group] = child.value
    if sum(minima.values()) > MAX_QUORUM:
        reading.at(node, f"`at_least` demands {sum(minima.values())} people; lower it to {MAX_QUORUM} in all")
    return tuple(sorted(minima.items()))


def _quorum(reading: Reading, node: Node | None, minima: tuple[tuple[str, int], ...]) -> int:
    least = max(1, sum(count for _, count in minima))
    if node is None:
        return least
    if type(node.value) is not int or not 1 <= node.value <= MAX_QUORUM:
        reading.at(node, f"`quorum` is {shown(node)}: expected a number from 1 to {MAX_QUORUM}")
        return least
    if node.value < least:
        said = f"`at_least` demands {least} people, and nobody stands for two groups; write {least}, or leave it out"
        reading.at(node, f"`quorum` is {node.value} but {said}")
    return max(node.value, least)


def _confirm(reading: Reading, node: Node | None, quorum: int, minima: tuple[tuple[str, int], ...]) -> bool:
    if node is None:
        return False
    if node.value != "caller":
        reading.at(node, f"unknown confirm {shown(node)}: expected caller, or leave it out")
    elif minima:
        reading.at(node, "`confirm: caller` proves no group, so it cannot stand beside `at_least`; remove one of them")
    elif quorum != 1:
        said = "`confirm: caller` is the yes of one person, so it cannot stand beside"
        reading.at(node, f"{said} `quorum: {quorum}`; remove one of them")
    return True


# -- when


def _hours(reading: Reading, node: Node | None) -> tuple[tuple[Window, ...], ...]:
    if node is None:
        return ()
    windows = [_window(reading, child) for child in reading.items(node, "`hours`", empty=False)]
    return (tuple(window for window in windows if window is not None),)


def _window(reading: Reading, node: Node) -> Window | None:
    members = reading.mapping(node, "an entry of `hours`", HOURS_KEYS)
    if not isinstance(node.value, dict):
        return None
    missing = [f"`{key}`" for key in HOURS_KEYS[1:] if key not in node.value]
    if missing:
        said = 'write {from: "08:00", to: "18:00", zone: Europe/Berlin}'
        reading.at(node, f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: {said}")
    days = _days(reading, members.get("days"))
    opens = reading.unit(members.get("from"), "`from`", units.minute)
    closes = reading.unit(members.get("to"), "`to`", units.minute)
    zone = _zone(reading, members.get("zone"))
    if opens == _DAY_MIN:
        reading.at(members["from"], '`from` is "24:00": write "00:00", the beginning of the next day')
    if opens is None or closes is None or zone is None:
        return None
    return Window(days, opens, closes % _DAY_MIN, zone)


def _days(reading: Reading, node: Node | None) -> frozenset[int]:
    if node is None:
        return frozenset(range(len(DAYS)))
    found = reading.strings(node, "`days`")
    for child, day in found:
        if day not in DAYS:
            reading.at(child, f"unknown day {shown(child)}: {nearest(day, DAYS)}")
    return frozenset(DAYS.index(day) for _, day in found if day in DAYS)


def _zone(reading: Reading, node: Node | None) -> str | None:
    name = reading.text(node, "`zone`", limit=100)
    if node is None or name is None:
        return None
    known = _zones()
    if name not in known:
        reading.at(node, f"unknown zone {shown(node)}: {_zone_like(name, sorted(known))}")
        return None
    return name


def _zones() -> frozenset[str]:
    """The names that IANA gives: zoneinfo opens files that are none (`localtime`, `right/Europe/Berlin`)."""
    listed = get_data("tzdata", "zones")
    if listed is not None:
        return frozenset(listed.decode("ascii").split())
    from zoneinfo import available_timezones

    return frozenset(available_timezones()) - {"localtime"}


def _zone_like(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    folded = name.casefold().replace(" ", "_")
    same = [zone for zone in known if folded in (zone.casefold(), zone.casefold().rpartition("/")[2])]
    near = same or get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else "expected an IANA name such as Europe/Berlin"


# -- to how much


def _grant(reading: Reading, node: Node | None) -> GrantCap | None:
    if node is None or node.value == "once":
        return None
    if not isinstance(node.value, dict):
        reading.at(node, f"unknown grant {shown(node)}: expected once, or a mapping such as {{for: 8h, uses: 20}}")
        return None
    members = reading.mapping(node, "`grant`", GRANT_KEYS)
    if "for" not in members:
        reading.at(node, "`for` is missing: say how long a grant may last, such as `for: 8h`")
    for_s = _duration(reading, members.get("for"), "`for`", MAX_GRANT_S)
    return GrantCap(
        for_s=0.0 if for_s is None else for_s,
        uses=_uses(reading, members.get("uses")),
        session=_switch(reading, members.get("session"), "`session`"),
        matching=_switch(reading, members.get("matching"), "`matching`"),
    )


def _uses(reading: Reading, node: Node | None) -> int | None:
    if node is None:
        return None
    if type(node.value) is not int or not 1 <= node.value <= MAX_USES:
        reading.at(node, f"`uses` is {shown(node)}: expected a number from 1 to {MAX_USES}, or leave it out for any")
        return None
    return node.value


# -- values


def _read_for(reading: Reading, node: Node | None, expires_s: float | None) -> float:
    reading_s = _duration(reading, node, "`read_for`", MAX_READING_S)
    if node is None or reading_s is None:
        return 0.0
    if reading_s >= (_DEFAULTS.expires_s if expires_s is None else expires_s):
        reading.at(node, "`read_for` is not shorter than `expires`, so nobody could answer in time; shorten it")
    return reading_s


def _duration(reading: Reading, node: Node | None, what: str, most_s: float) -> float | None:
    return reading.unit(node, what, partial(_at_most, most_s))


def _at_most(most_s: float, text: str) -> float:
    found = units.seconds(text)
    if found > most_s:
        days = most_s / 86400
        raise ValueError(f"expected at most {days:g}d" if days >= 1 else f"expected at most {most_s / 60:g}m")
    return found


def _switch(reading: Reading, node: Node | None, what: str) -> bool:
    if node is None or isinstance(node.value, bool):
        return node is not None and node.value
    reading.at(node, f"{what} is {shown(node)}: expected true or false")
    return False
