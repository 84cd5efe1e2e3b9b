"""The terms of an approval: read as they are written, and whatever is wrong with them is said with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from interposer import canonical
from interposer.errors import ConfigurationError, Problem
from interposer.policy.document import parse
from interposer.terms import ApprovalTerms, GrantCap, Window

DAILY = frozenset(range(7))


def rule(approval: str) -> str:
    """A policy whose `approval` has its first member on line 6, column 16."""
    return f"version: 1\nrules:\n  - id: one\n    effect: ask\n    skills: [a.b]\n    approval: {approval}\n"


def terms(approval: str) -> ApprovalTerms:
    found = parse(rule(approval), "p.yaml").rules[0].terms
    assert found is not None
    return found


def problems(approval: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as raised:
        parse(rule(approval), "p.yaml")
    return list(raised.value.problems)


def hours(entry: str) -> str:
    """One entry of `hours`, at column 25."""
    return f"{{hours: [{{{entry}}}]}}"


BERLIN = "from: '08:00', to: '18:00', zone: Europe/Berlin"


def test_all_terms_are_read() -> None:
    """Everything that an approval can say arrives in its terms."""
    text = """
      approvers: {groups: [leads], subjects: [ann]}
      at_least: {security: 1, dba: 2}
      quorum: 4
      expires: 2h
      grant: {for: 8h, uses: 20, session: true, matching: true}
      hours:
        - {days: [mon, fri], from: "08:00", to: "18:00", zone: Europe/Berlin}
        - {from: 22:00, to: 06:00, zone: Australia/Lord_Howe}
      execute_on_approve: true
      read_for: 5s"""
    assert terms(text) == ApprovalTerms(
        groups=frozenset({"leads"}),
        subjects=frozenset({"ann"}),
        quorum=4,
        expires_s=7200.0,
        minima=(("dba", 2), ("security", 1)),
        windows=(
            (Window(frozenset({0, 4}), 480, 1080, "Europe/Berlin"), Window(DAILY, 1320, 360, "Australia/Lord_Howe")),
        ),
        cap=GrantCap(28800.0, 20, session=True, matching=True),
        execute=True,
        reading_s=5.0,
    )


@pytest.mark.parametrize(
    ("approval", "expected"),
    [
        ("{}", ApprovalTerms()),
        ("{grant: once}", ApprovalTerms()),
        ("{execute_on_approve: false}", ApprovalTerms()),
        ("{grant: {for: 30d}}", ApprovalTerms(cap=GrantCap(2_592_000.0))),
        ("{grant: {for: 1s, uses: 100000, session: false}}", ApprovalTerms(cap=GrantCap(1.0, 100_000))),
        ("{confirm: caller, quorum: 1}", ApprovalTerms(caller=True)),
        ("{at_least: {dba: 1}}", ApprovalTerms(minima=(("dba", 1),))),
        ("{at_least: {b: 2, a: 1}}", ApprovalTerms(minima=(("a", 1), ("b", 2)), quorum=3)),
        ("{at_least: {a: 1}, quorum: 2}", ApprovalTerms(minima=(("a", 1),), quorum=2)),
        (
            "{approvers: {subjects: [ann]}, at_least: {a: 1}, quorum: 3}",
            ApprovalTerms(subjects=frozenset({"ann"}), minima=(("a", 1),), quorum=3),
        ),
        ("{read_for: 5m}", ApprovalTerms(reading_s=300.0)),
        ("{expires: 365d}", ApprovalTerms(expires_s=31_536_000.0)),
    ],
)
def test_what_is_left_out_is_the_strict_default(approval: str, expected: ApprovalTerms) -> None:
    """Once, at any hour, not before it is asked again, and by nobody's word but an approver's; a quorum holds all
    minima."""
    assert terms(approval) == expected


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ("from: '00:00', to: '24:00', zone: UTC", Window(DAILY, 0, 0, "UTC")),
        ("from: '09:30', to: '24:00', zone: UTC", Window(DAILY, 570, 0, "UTC")),
        ("from: '09:30', to: '00:00', zone: UTC", Window(DAILY, 570, 0, "UTC")),
        ("from: '08:00', to: '08:00', zone: UTC", Window(DAILY, 480, 480, "UTC")),
        ("from: 23:59, to: 00:01, zone: Pacific/Kiritimati, days: [sun]", Window(frozenset({6}), 1439, 1, "x")),
    ],
)
def test_hours_are_read_to_the_minute(entry: str, window: Window) -> None:
    """Midnight is written either way, and a window may end on the day after."""
    ((found,),) = terms(hours(entry)).windows
    assert (found.days, found.opens_min, found.closes_min) == (window.days, window.opens_min, window.closes_min)


ERRORS = [
    ("5", 15, "expected a mapping"),
    ("{approvers: {}}", 27, "names nobody"),
    ("{approver: {}}", 16, "did you mean 'approvers'"),
    ("{approvers: {caller: true}}", 28, "expected one of groups, subjects"),
    ("{quorum: 0}", 24, "from 1 to"),
    ("{quorum: true}", 24, "from 1 to"),
    ("{quorum: 2, approvers: {subjects: [a]}}", 24, "name more approvers"),
    ("{at_least: dba}", 26, "such as {dba: 1}"),
    ("{at_least: [dba]}", 26, "such as {dba: 1}"),
    ("{at_least: {}}", 26, "write GROUP: NUMBER"),
    ("{at_least: {dba: 0}}", 32, "from 1 to 16"),
    ("{at_least: {dba: 17}}", 32, "from 1 to 16"),
    ("{at_least: {dba: true}}", 32, "from 1 to 16"),
    ("{at_least: {dba: '1'}}", 32, "from 1 to 16"),
    ("{at_least: {'': 1}}", 27, "not a group's name"),
    ("{at_least: {'db*': 1}}", 27, "match exactly"),
    ("{at_least: {a: 9, b: 8}}", 26, "demands 17 people; lower it to 16"),
    ("{quorum: 2, at_least: {a: 1, b: 2}}", 24, "demands 3 people, and nobody stands for two groups; write 3"),
    ("{expires: 30}", 25, "such as 500ms"),
    ("{expires: 0m}", 25, "such as 500ms"),
    ("{expires: 366d}", 25, "at most 365d"),
    ("{grant: always}", 23, "expected once, or a mapping"),
    ("{grant: true}", 23, "expected once, or a mapping"),
    ("{grant: [once]}", 23, "expected once, or a mapping"),
    ("{grant: }", 16, "expected once, or a mapping"),
    ("{grant: {}}", 23, "`for` is missing"),
    ("{grant: {uses: 3}}", 23, "`for` is missing"),
    ("{grant: {until: 8h, for: 8h}}", 24, "unknown key 'until'"),
    ("{grant: {for: 31d}}", 29, "at most 30d"),
    ("{grant: {for: 8}}", 29, "such as 500ms"),
    ("{grant: {for: 8h, uses: 0}}", 39, "from 1 to 100000"),
    ("{grant: {for: 8h, uses: 100001}}", 39, "from 1 to 100000"),
    ("{grant: {for: 8h, uses: many}}", 39, "from 1 to 100000"),
    ("{grant: {for: 8h, uses: true}}", 39, "from 1 to 100000"),
    ("{grant: {for: 8h, session: 1}}", 42, "expected true or false"),
    ("{grant: {for: 8h, matching: yes}}", 43, "expected true or false"),
    ("{hours: always}", 23, "expected a list"),
    ("{hours: []}", 23, "empty"),
    ("{hours: [always]}", 24, "expected a mapping"),
    (hours(""), 24, "`from` and `to` and `zone` are missing: write"),
    (hours("from: '08:00', to: '18:00'"), 24, "`zone` is missing: write"),
    (hours(f"day: [mon], {BERLIN}"), 25, "did you mean 'days'"),
    (hours(f"days: mon, {BERLIN}"), 31, "expected a list"),
    (hours(f"days: [], {BERLIN}"), 31, "empty"),
    (hours(f"days: [Mon], {BERLIN}"), 32, "did you mean 'mon'"),
    (hours(f"days: [monday], {BERLIN}"), 32, "did you mean 'mon'"),
    (hours(f"days: [1], {BERLIN}"), 32, "put it in quotes"),
    (hours(f"days: [xyz], {BERLIN}"), 32, "expected one of mon, tue"),
    (hours("from: '24:00', to: '18:00', zone: UTC"), 31, 'write "00:00"'),
    (hours("from: '8:00', to: '18:00', zone: UTC"), 31, 'such as "08:00"'),
    (hours("from: 8, to: '18:00', zone: UTC"), 31, 'such as "08:00"'),
    (hours("from: '08:00', to: '24:01', zone: UTC"), 44, 'up to "24:00"'),
    (hours("from: '08:00', to: '18:60', zone: UTC"), 44, 'such as "08:00"'),
    (hours("from: '08:00', to: 6pm, zone: UTC"), 44, 'such as "08:00"'),
    (hours("from: '08:00', to: '٠٨:٠٠', zone: UTC"), 44, 'such as "08:00"'),
    (hours("from: '08:00', to: '18:00', zone: Europe/Berln"), 59, "did you mean 'Europe/Berlin'"),
    (hours("from: '08:00', to: '18:00', zone: berlin"), 59, "did you mean 'Europe/Berlin'"),
    (hours("from: '08:00', to: '18:00', zone: America/new york"), 59, "did you mean 'America/New_York'"),
    (hours("from: '08:00', to: '18:00', zone: America"), 59, "unknown zone"),
    (hours("from: '08:00', to: '18:00', zone: ../../etc/passwd"), 59, "unknown zone"),
    (hours("from: '08:00', to: '18:00', zone: right/Europe/Berlin"), 59, "did you mean 'Europe/Berlin'"),
    (hours("from: '08:00', to: '18:00', zone: localtime"), 59, "unknown zone"),
    (hours("from: '08:00', to: '18:00', zone: '+02:00'"), 59, "an IANA name such as Europe/Berlin"),
    (hours("from: '08:00', to: '18:00', zone: 2"), 59, "expected a text"),
    ("{execute_on_approve: 1}", 36, "expected true or false"),
    ("{confirm: true}", 25, "expected caller"),
    ("{confirm: [caller]}", 25, "expected caller"),
    ("{confirm: caller, quorum: 2}", 25, "the yes of one person"),
    ("{confirm: caller, at_least: {dba: 1}}", 25, "proves no group"),
    ("{read_for: 301s}", 26, "at most 5m"),
    ("{read_for: 5}", 26, "such as 500ms"),
    ("{read_for: 10s, expires: 10s}", 26, "nobody could answer in time"),
]


@pytest.mark.parametrize(("approval", "column", "said"), ERRORS)
def test_each_error_has_its_place_and_a_remedy(approval: str, column: int, said: str) -> None:
    """Line and column are where the reader has to look, and the message says what was expected."""
    found = problems(approval)
    assert [(problem.line, problem.column) for problem in found] == [(6, column)], found
    assert said in found[0].message


def test_all_errors_of_an_approval_come_at_once() -> None:
    """One run shows everything, in the order of the file."""
    found = problems("""
      at_least: {dba: 0}
      quorum: 99
      expires: soon
      grant: {uses: 0}
      hours: [{days: [someday], from: "25:00", to: "18:00", zone: Mars/Olympus}]
      execute_on_approve: maybe
      confirm: everybody
      read_for: 1h
""")
    assert [problem.line for problem in found] == [7, 8, 9, 10, 10, 11, 11, 11, 12, 13, 14]


def _members(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of these members, one of them perhaps as something else."""
    odd: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers(-1, 17) | st.sampled_from(["", "*", "once", "08:00", "9d"])
    )
    odd |= st.lists(odd, max_size=2) | st.dictionaries(st.sampled_from(["a", "for", "zone"]), odd, max_size=2)
    good = st.fixed_dictionaries({}, optional=values)
    replaced = st.builds(lambda members, key, value: members | {key: value}, good, st.sampled_from([*values, "x"]), odd)
    return st.integers(0, 4).flatmap(lambda choice: replaced if choice == 0 else good)


_names = st.lists(st.sampled_from(["ann", "leads"]), min_size=1, max_size=2)
_durations = st.sampled_from(["1s", "5m", "8h", "30d", "365d"])
_times = st.sampled_from(["00:00", "08:00", "23:59", "24:00"])
_approval = _members(
    approvers=_members(groups=_names, subjects=_names),
    at_least=st.dictionaries(st.sampled_from(["dba", "a b"]), st.integers(1, 4), min_size=1),
    quorum=st.integers(1, 20).map(lambda n: n % 17),
    expires=_durations,
    grant=st.just("once") | _members(**{"for": _durations}, uses=st.integers(1, 9), session=st.booleans()),
    hours=st.lists(
        _members(
            **{"from": _times}, to=_times, zone=st.sampled_from(["UTC", "Asia/Kathmandu"]), days=st.just(["mon", "sun"])
        ),
        min_size=1,
        max_size=2,
    ),
    execute_on_approve=st.booleans(),
    confirm=st.just("caller"),
    read_for=_durations,
)


@settings(max_examples=120, deadline=None)
@given(_approval)
def test_any_approval_is_read_or_explained(approval: Any) -> None:
    """No shape of `approval` fails in another way than with problems that have places, and what loads is what editors
    do not underline."""
    text = canonical.encode(approval).decode()
    try:
        found = terms(text)
    except ConfigurationError as error:
        places = {(problem.line, problem.column >= 15, problem.message > "") for problem in error.problems}
        assert places == {(6, True, True)}
        return
    EDITORS.validate(approval)
    assert found.quorum >= sum(least for _, least in found.minima)
    assert found.reading_s < found.expires_s
    assert not found.caller or (found.quorum == 1 and not found.minima)


def _editors() -> Draft202012Validator:
    schema = json.loads((Path(__file__).parents[2] / "schemas/policy.schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator({"$ref": "#/$defs/approval", "$defs": schema["$defs"]})


EDITORS = _editors()
