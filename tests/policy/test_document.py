"""Policy files: everything wrong is reported at once, each with its place and with what to do."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interposer.errors import ConfigurationError, Problem
from interposer.model import Facts, Principal, Skill
from interposer.policy.approval import APPROVAL_KEYS, GRANT_KEYS, HOURS_KEYS
from interposer.policy.document import KEYS, OBLIGATION_KEYS, RULE_KEYS, WHO_KEYS, parse
from interposer.policy.engine import load

CORPUS = Path(__file__).parents[2] / "../shared/corpora/redos.jsonl.gz"


def problems(text: str) -> list[Problem]:
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "p.yaml")
    return list(raised.value.problems)


def rule(line: str) -> str:
    """A policy whose rule's own member stands on line 6."""
    return f"version: 1\nrules:\n  - id: one\n    effect: ask\n    skills: [a.b]\n    {line}\n"


ERRORS = [
    ("", 1, 1, "`version: 1`"),
    ("rules: []\n", 1, 1, "`version` is missing"),
    ("version: 2\n", 1, 10, "unknown version"),
    ("version: true\n", 1, 10, "unknown version"),
    ("- 1\n", 1, 1, "expected a mapping"),
    ("version: 1\nrule: []\n", 2, 1, "did you mean 'rules'"),
    ("version: 1\nrules: {}\n", 2, 8, "expected a list"),
    ("version: 1\nrules:\n", 2, 1, "expected a list"),
    ("version: 1\nrules:\n  - allow\n", 3, 5, "expected a mapping"),
    ("version: 1\nrules:\n  - {effect: allow, skills: [a.b]}\n", 3, 5, "`id` is missing"),
    ("version: 1\nrules:\n  - {id: a, skills: [a.b]}\n", 3, 5, "`effect` is missing"),
    ("version: 1\nrules:\n  - {id: a, effect: allow}\n", 3, 5, "`skills` is missing"),
    ("version: 1\nrules:\n  - {id: a, effect: permit, skills: [a.b]}\n", 3, 21, "expected allow, ask or deny"),
    ("version: 1\nrules:\n  - {id: a, effect: Allow, skills: [a.b]}\n", 3, 21, "expected allow, ask or deny"),
    ("version: 1\nrules:\n  - {id: 7, effect: allow, skills: [a.b]}\n", 3, 10, "expected a text"),
    ("version: 1\nrules:\n  - {id: a, effect: allow, skills: a.b}\n", 3, 36, "expected a list"),
    ("version: 1\nrules:\n  - {id: a, effect: allow, skills: []}\n", 3, 36, "empty"),
    ("version: 1\nrules:\n  - {id: a, effect: allow, skills: [ab]}\n", 3, 37, "expected <upstream>.<name>"),
    ("version: 1\nrules:\n  - {id: a, effect: allow, skills: [a.b?]}\n", 3, 37, "only wildcard"),
    ("version: 1\nrules:\n  - {id: a, effect: allow, skills: [a.**]}\n", 3, 37, "only wildcard"),
    ("version: 1\nrules:\n  - {id: a, effect: allow, skills: [.b]}\n", 3, 37, "expected <upstream>.<name>"),
    ("version: 1\nrules:\n  - {id: a, effect: allow, skills: [1]}\n", 3, 37, "put it in quotes"),
    (
        "version: 1\nrules:\n  - {id: a, effect: allow, skills: [a.b]}\notherwise:\n"
        "  - {id: a, effect: ask, skills: [a.b]}\n",
        5,
        10,
        "already taken on line 3",
    ),
    (rule("whom: {groups: [a]}"), 6, 5, "did you mean 'who'"),
    (rule("who: {group: [a]}"), 6, 11, "did you mean 'groups'"),
    (rule("who: {}"), 6, 10, "names nobody"),
    (rule("who:"), 6, 5, "expected a mapping"),
    (rule("who: {groups: []}"), 6, 19, "empty"),
    (rule("who: {groups: support}"), 6, 19, "expected a list"),
    (rule('who: {groups: ["sup*"]}'), 6, 20, "no wildcard"),
    (rule("who: {uids: [root]}"), 6, 18, "not a uid"),
    (rule("who: {uids: [true]}"), 6, 18, "not a uid"),
    (rule("hints: {readOnlyHint: true}"), 6, 13, "did you mean 'readOnly'"),
    (rule("hints: {readOnly: yes}"), 6, 23, "expected true or false"),
    (rule("arguments: 5"), 6, 16, "expected a JSON Schema"),
    (rule("arguments: {properties: {a: {maxium: 5}}}"), 6, 34, "did you mean maximum"),
    (rule("arguments: {properties: {a: {type: strin}}}"), 6, 40, "not a JSON Schema"),
    (rule("arguments: {properties: {a: {format: nope}}}"), 6, 42, "unknown format"),
    (rule("arguments: {minimum: a}"), 6, 26, "not a JSON Schema"),
    (rule("arguments: {$ref: 'http://example.org/x'}"), 6, 17, "nothing is fetched"),
    (rule("arguments: {$ref: '#/$defs/a'}"), 6, 16, "not a JSON Schema"),
    (rule("arguments: {$ref: '#/properties/a'}"), 6, 17, "nothing is fetched"),
    (rule("arguments: {$ref: '#/$defs/a', $defs: {a: {allOf: [{$ref: '#/$defs/a'}]}}}"), 6, 44, "leads back to itself"),
    (rule("arguments: {definitions: {}}"), 6, 17, "$defs"),
    (rule("arguments: {properties: {a: {pattern: '(?=a)'}}}"), 6, 43, "linear-time"),
    (rule(r"arguments: {properties: {a: {pattern: '(a)\1'}}}"), 6, 43, "linear-time"),
    (rule("arguments: {properties: {1: true}}"), 6, 30, "not a string"),
    (rule("arguments: {maximum: .nan}"), 6, 26, "not a number that JSON has"),
    (rule("match: [{sql: {argument: /q}}]"), 6, 14, "unknown matcher"),
    (rule("match: [sql]"), 6, 13, "one key"),
    (rule("when: 1 +"), 6, 11, "not a CEL expression"),
    (rule("when: true"), 6, 11, "expected a text"),
    (rule("when: argument.x == 1"), 6, 11, "unknown variable 'argument'"),
    (rule("when: lower(skill.id) == 'a'"), 6, 11, "unknown function 'lower'"),
    (rule("message: [no]"), 6, 14, "expected a text"),
    (
        "version: 1\nrules:\n  - {id: a, effect: deny, skills: [a.b], approval: {quorum: 1}}\n",
        3,
        42,
        "belongs to ask rules",
    ),
    ("version: 1\nobligations:\n  - {skills: [a.b]}\n", 3, 5, "nothing is demanded"),
    ("version: 1\nobligations:\n  - {mask: [pii]}\n", 3, 5, "`skills` is missing"),
    ("version: 1\nobligations:\n  - {skills: [a.b], timeout: 1 min}\n", 3, 30, "such as 500ms"),
    ("version: 1\nobligations:\n  - {skills: [a.b], max_result: 4M}\n", 3, 33, "such as 64KiB"),
    ("version: 1\nobligations:\n  - {skills: [a.b], rate: 60/m}\n", 3, 27, "such as 5/s"),
    ("version: 1\nobligations:\n  - {skills: [a.b], rate: 0/s}\n", 3, 27, "such as 5/s"),
    ("version: 1\nobligations:\n  - {skills: [a.b], rate: 999999999/s}\n", 3, 27, "at most"),
    ("version: 1\nobligations:\n  - {skills: [a.b], record: raw}\n", 3, 29, "expected masked or none"),
    ("version: 1\nobligations:\n  - {skills: [a.b], mask: pii}\n", 3, 27, "expected a list"),
    ("version: 1\nobligations:\n  - {skills: [a.b], mask: [secret]}\n", 3, 28, "did you mean 'secrets'"),
    ("version: 1\nobligations:\n  - {skills: [a.b], labels: []}\n", 3, 29, "empty"),
]


@pytest.mark.parametrize("key", APPROVAL_KEYS)
def test_terms_beside_their_approval_are_told_where_they_belong(key: str) -> None:
    """A key that is indented one step too little is named with the key that it belongs under."""
    (problem,) = problems(rule(f"{key}: caller"))
    assert (problem.line, problem.message) == (6, f"unknown key {key!r} in a rule: `{key}` belongs inside `approval`")


@pytest.mark.parametrize(("text", "line", "column", "said"), ERRORS)
def test_each_error_has_its_place_and_a_remedy(text: str, line: int, column: int, said: str) -> None:
    """Line and column are where the reader has to look, and the message says what was expected."""
    found = problems(text)
    assert [(problem.line, problem.column) for problem in found] == [(line, column)], found
    assert said in found[0].message


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    """One run shows everything: syntax of values, unknown keys, schemas, expressions and duplicates alike."""
    text = """version: 1
rules:
  - id: one
    effect: allw
    skills: [crm]
    arguments: {properties: {a: {maxium: 1}}}
    when: "1 +"
  - id: one
    effect: ask
    skils: [a.b]
    skills: [a.b]
    skills: [a.c]
obligations:
  - {skills: ["*"], timeout: soon, timeout: 4s, record: &r masked}
"""
    found = problems(text)
    assert [problem.line for problem in found] == [4, 5, 6, 7, 8, 10, 12, 14, 14, 14]
    assert all(problem.file == "p.yaml" and problem.column for problem in found)


def test_errors_print_as_places() -> None:
    """`file:line:column: message`, one a line."""
    with pytest.raises(ConfigurationError, match=r"(?m)^p\.yaml:1:10: unknown version"):
        parse("version: 3\n", "p.yaml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("4s", 4.0), ("30m", 1800.0), ("12h", 43200.0), ("1d", 86400.0)]
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are a number and a unit."""
    terms = parse(rule(f"approval: {{expires: {text}}}"), "p").rules[0].terms
    assert terms is not None
    assert terms.expires_s == seconds


@pytest.mark.parametrize(("text", "size"), [("64KiB", 65536), ("4MiB", 4194304), ("1MB", 1000000), ("9B", 9)])
def test_sizes(text: str, size: int) -> None:
    """Binary and decimal units are what they say."""
    text = f"version: 1\nobligations: [{{skills: [a.b], max_result: {text}}}]\n"
    assert parse(text, "p").obligations[0].max_result_bytes == size


@pytest.mark.parametrize(
    ("text", "count", "per_s"), [("5/s", 5, 1.0), ("60/min", 60, 60.0), ("7/h", 7, 3600.0), ("1/d", 1, 86400.0)]
)
def test_rates(text: str, count: int, per_s: float) -> None:
    """A rate is a count in a time."""
    found = parse(f"version: 1\nobligations: [{{skills: [a.b], rate: {text}}}]\n", "p").obligations[0].rate
    assert found is not None
    assert (found.count, found.per_s) == (count, per_s)


def test_a_rate_keeps_its_name_over_a_reload() -> None:
    """Counters go on when a reload leaves a rate as it is, wherever it stands."""
    one = "  - {skills: [a.b], rate: 5/s}\n"
    first = parse(f"version: 1\nobligations:\n{one}", "p").obligations[0].rate
    moved = parse(f"version: 1\nobligations:\n  - {{skills: [x.y], rate: 5/s}}\n{one}", "p").obligations
    assert first == moved[1].rate
    assert first != moved[0].rate


ALL_KEYS = [*KEYS, *RULE_KEYS, *OBLIGATION_KEYS, *APPROVAL_KEYS, *GRANT_KEYS, *HOURS_KEYS, *WHO_KEYS]
ALL_KEYS += ["$ref", "type", "odd"]
_loose = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 3)
    | st.sampled_from(["allow", "ask", "a.b", "*", "1 +", "30m", "5/s", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(ALL_KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_loose, max_size=3), st.lists(_loose, max_size=2), _loose)
def test_any_document_loads_or_is_explained(rules: object, obligations: object, otherwise: object) -> None:
    """No shape of document makes the reader fail in another way than with problems that have places."""
    text = json.dumps({"version": 1, "rules": rules, "obligations": obligations, "otherwise": otherwise})
    try:
        load(text, "p.yaml")
    except ConfigurationError as error:
        places = [(problem.line, problem.column > 0, problem.message > "") for problem in error.problems]
        assert set(places) == {(1, True, True)}


def test_a_recursive_schema_that_goes_deeper_is_fine() -> None:
    """Trees can be described."""
    tree = "{$ref: '#/$defs/t', $defs: {t: {type: object, additionalProperties: {$ref: '#/$defs/t'}}}}"
    assert parse(rule(f"arguments: {tree}"), "p").rules[0].conditions


def test_numbers_in_schemas_keep_their_digits() -> None:
    """A limit that a double cannot hold is compared exactly."""
    text = """version: 1
rules:
  - id: a
    effect: allow
    skills: ["*"]
    arguments: {required: [n], properties: {n: {maximum: 9007199254740993}}}
"""
    policy = load(text, "p")
    skill = Skill("a.b", "a", "b", "b", {}, "")

    def effect(n: int) -> str:
        return str(policy.decide(Principal("local", "x"), skill, {"n": n}, "s", Facts()).effect)

    assert effect(9007199254740993) == "allow"
    assert effect(9007199254740994) == "deny"


REDOS = ["(a+)+$", "^(a|aa)+$", r"^(\w+\s?)*$", "^(.*a){20}$", "(x+x+)+y", "^(a*)*b$", "(a{1,1000}){1,1000}"]


def _refused_or_fast(pattern: str, text: str) -> None:
    policy_text = json.dumps(
        {
            "version": 1,
            "rules": [
                {"id": "a", "effect": "deny", "skills": ["*"], "arguments": {"properties": {"t": {"pattern": pattern}}}}
            ],
        }
    )
    parse(policy_text.replace(json.dumps(pattern), '"a"'), "p")  # imports are not what is timed
    took = min(_seconds_to_refuse_or_decide(policy_text, text) for _ in range(3))
    assert took < 0.1, pattern


def _seconds_to_refuse_or_decide(policy_text: str, text: str) -> float:
    started = time.perf_counter()
    try:
        policy = load(policy_text, "p")
    except ConfigurationError as error:
        assert "linear-time" in str(error)  # noqa: PT017 - either outcome is right, and both are timed
    else:
        policy.decide(Principal("local", "x"), Skill("a.b", "a", "b", "b", {}, ""), {"t": text}, "s", Facts())
    return time.perf_counter() - started


@pytest.mark.parametrize("pattern", REDOS)
def test_no_pattern_stalls_the_broker(pattern: str) -> None:
    """A pattern that stalls backtracking engines is evaluated in linear time, or refused at load."""
    _refused_or_fast(pattern, "a" * 5000 + "!")


def test_the_corpus_of_stalling_patterns_does_not_stall() -> None:
    """Every pattern of the corpus is refused, or loaded and matched within 100 ms."""
    if not CORPUS.exists():
        pytest.skip("needs ../shared/corpora/redos.jsonl.gz")
    with gzip.open(CORPUS, "rt") as rows:
        for row in map(json.loads, rows):
            _refused_or_fast(row["pattern"], row["prefix"] + row["unit"] * row["count"] + row["suffix"])
