"""The engine: strictest wins, total, nothing is allowed that no rule allows."""

from __future__ import annotations

import subprocess
import sys
import time
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interposer import canonical
from interposer.model import Decision, Effect, Facts, Principal, Skill
from interposer.policy.engine import Policy, load, starter
from interposer.terms import ApprovalTerms

ANNA = Principal("local", "anna", ("support",), uid=1000, client_id="desk")
NOW = Facts(now=1_700_000_000.0)


def skill(id: str, **annotations: Any) -> Skill:
    upstream, _, name = id.partition(".")
    return Skill(id, upstream, name, name, {"name": name, "annotations": annotations}, "digest")


def policy(*rules: dict[str, Any], **more: Any) -> Policy:
    """A policy from JSON, which is YAML."""
    named = [{"id": f"rule-{place}", "skills": ["*"], **rule} for place, rule in enumerate(rules)]
    return load(canonical.encode({"version": 1, "rules": named, **more}).decode(), "policy.yaml")


def decide(of: Policy, arguments: Any = None, who: Principal = ANNA, facts: Facts = NOW, id: str = "a.b") -> Decision:
    return of.decide(who, skill(id), {} if arguments is None else arguments, "s", facts)


def effect(*rules: dict[str, Any], **call: Any) -> str:
    return str(decide(policy(*rules), **call).effect)


def test_empty_policy_denies() -> None:
    """Where no rule speaks, the answer is no."""
    decision = decide(policy())
    assert decision.effect is Effect.DENY
    assert decision.rules == ()
    assert decision.terms is None


@pytest.mark.parametrize("order", list(permutations(["allow", "ask", "deny"])))
def test_strictest_wins_in_any_order(order: tuple[str, ...]) -> None:
    """Deny beats ask, ask beats allow, wherever they stand."""
    assert effect(*({"effect": each} for each in order)) == "deny"
    assert effect(*({"effect": each} for each in order if each != "deny")) == "ask"


def test_every_matched_rule_is_named_with_its_place() -> None:
    """A decision names all rules that matched, with file and line, the deciding one's message among them."""
    text = """version: 1
rules:
  - {id: one, effect: allow, skills: [a.b]}
  - id: two
    effect: deny
    skills: [a.*]
    message: Not here.
  - {id: three, effect: deny, skills: [c.d]}
"""
    decision = decide(load(text, "p.yaml"))
    assert [(rule.id, rule.file, rule.line) for rule in decision.rules] == [("one", "p.yaml", 3), ("two", "p.yaml", 4)]
    assert decision.message == "Not here."
    assert "two (p.yaml:4)" in decision.reason


def test_otherwise_speaks_only_where_no_rule_matched() -> None:
    """A rule that matched silences `otherwise`, even a laxer one."""
    of = policy(
        {"effect": "allow", "arguments": {"required": ["known"]}},
        otherwise=[{"id": "rest", "effect": "ask", "skills": ["*"]}],
    )
    assert decide(of, {"known": 1}).effect is Effect.ALLOW
    assert [rule.id for rule in decide(of, {}).rules] == ["rest"]


@pytest.mark.parametrize(
    ("who", "matches"),
    [
        ({"groups": ["support", "other"]}, True),
        ({"groups": ["Support"]}, False),
        ({"subjects": ["anna"]}, True),
        ({"subjects": ["ann"]}, False),
        ({"issuers": ["local"]}, True),
        ({"issuers": ["token"]}, False),
        ({"clients": ["desk"]}, True),
        ({"clients": [" desk"]}, False),
        ({"uids": [1000]}, True),
        ({"uids": [0]}, False),
        ({"groups": ["support"], "subjects": ["anna"], "uids": [1000]}, True),
        ({"groups": ["support"], "subjects": ["bob"]}, False),
    ],
)
def test_all_that_who_gives_must_match(who: dict[str, Any], matches: bool) -> None:
    """`who` is a conjunction of exact names."""
    assert (effect({"effect": "allow", "who": who}) == "allow") is matches


@pytest.mark.parametrize(
    ("pattern", "id", "matches"),
    [
        ("crm.search", "crm.search", True),
        ("crm.search", "crm.Search", False),
        ("crm.search", "crm.search2", False),
        ("crm.get_*", "crm.get_", True),
        ("crm.get_*", "crm.get_user", True),
        ("crm.*", "crm2.x", False),
        ("crm.*", "crm.a.b/c", True),
        ("crm.a", "crm.a.b", False),
        ("*.get", "crm.get", True),
        ("*.get", "a.b.get", False),
        ("c*m.s*r*h", "crm.search", True),
        ("*", "anything", True),
        ("*.*", "anything", False),
        ("crm.ſearch", "crm.search", False),
        ("crm.a*a", "crm.a", False),
    ],
)
def test_skills_are_named_exactly(pattern: str, id: str, matches: bool) -> None:
    """`*` covers a part of one name, case and code points count, and only the first dot separates."""
    assert (effect({"effect": "allow", "skills": [pattern]}, id=id) == "allow") is matches


UNEVALUABLE: list[tuple[dict[str, Any], Any]] = [
    ({"when": "arguments.amount > 5"}, {}),
    ({"when": "arguments.amount > 5"}, {"amount": "9"}),
    ({"when": "arguments.amount"}, {"amount": 9}),
    ({"when": "arguments.amount == 1.0"}, {"amount": Decimal("1.00000000000000000000001")}),
    ({"when": "arguments.amount > 5"}, {"amount": 2**70}),
    ({"when": "arguments.amount / 0 == 1"}, {"amount": 9}),
    ({"when": "arguments.text.matches('(?=a)')"}, {"text": "a"}),
    ({"when": "skill.annotations.readOnlyHint"}, {}),
    ({"when": "arguments.text == 'a'"}, {"text": "\ud800"}),
    ({"arguments": {"properties": {"text": {"pattern": "^a"}}}}, {"text": "\ud800"}),
    ({"hints": {"readOnly": True}}, {}),
]


@pytest.mark.parametrize(("condition", "arguments"), UNEVALUABLE)
def test_what_cannot_be_evaluated_counts_against_the_caller(condition: dict[str, Any], arguments: Any) -> None:
    """An allow rule does not match, an ask or deny rule does."""
    assert effect({"effect": "allow", **condition}, arguments=arguments) == "deny"
    assert effect({"effect": "allow"}, {"effect": "ask", **condition}, arguments=arguments) == "ask"
    assert effect({"effect": "allow"}, {"effect": "deny", **condition}, arguments=arguments) == "deny"


def test_doubt_is_told_to_operators() -> None:
    """The reason says which rule could not be judged, and holds no argument."""
    decision = decide(policy({"effect": "deny", "when": "arguments.x > 1"}), {"x": "hunter2"})
    assert "could not be evaluated" in decision.reason
    assert "hunter2" not in decision.reason


def test_a_plainly_false_condition_settles_a_doubtful_rule() -> None:
    """A guard in `arguments` that does not hold keeps a rule silent, whatever its `when` would do."""
    rule = {"effect": "deny", "arguments": {"required": ["x"]}, "when": "arguments.x > 1"}
    assert effect({"effect": "allow"}, rule) == "allow"


@pytest.mark.parametrize(
    ("expression", "arguments", "holds"),
    [
        ("arguments.a == 1 && principal.subject == 'anna'", {"a": 1}, True),
        ("'support' in principal.groups && principal.uid == 1000 && principal.client == 'desk'", {}, True),
        ("skill.id == 'a.b' && skill.upstream == 'a' && skill.name == 'b'", {}, True),
        ("session.id == 's' && session.calls == 3 && 'private' in session.labels", {}, True),
        ("now > timestamp('2023-11-14T00:00:00Z') && now.getHours() == 22", {}, True),
        ("arguments.l.exists(x, x > 2)", {"l": [1, 2, 3]}, True),
        ("arguments.a == 0.5", {"a": Decimal("0.50")}, True),
        ("!has(arguments.a)", {"a": None}, False),
    ],
)
def test_when_reads_the_call(expression: str, arguments: Any, holds: bool) -> None:
    """CEL sees arguments, principal, skill, session and the time."""
    facts = Facts(frozenset({"private"}), 3, NOW.now)
    assert (effect({"effect": "allow", "when": expression}, arguments=arguments, facts=facts) == "allow") is holds


def test_hints_are_what_was_pinned() -> None:
    """A rule with `readOnly: true` speaks for skills that say exactly that."""
    of = policy({"effect": "allow", "hints": {"readOnly": True}})
    says = [True, False, None, "true", 1]
    found = [of.decide(ANNA, skill("a.b", readOnlyHint=said), {}, "s", NOW).effect for said in says]
    assert found == ["allow", "deny", "deny", "deny", "deny"]


def test_obligations_combine_to_the_strictest() -> None:
    """Masks, rates and labels add up, the least time and size win, and storing nothing beats storing masked."""
    of = policy(
        {"effect": "allow"},
        obligations=[
            {"skills": ["*"], "mask": ["pii"], "timeout": "60s", "rate": "60/min", "record": "none"},
            {"skills": ["a.*"], "mask": ["secrets"], "timeout": "500ms", "max_result": "64KiB", "labels": ["x"]},
            {"skills": ["a.b"], "who": {"groups": ["other"]}, "timeout": "1ms", "record": "masked", "labels": ["y"]},
            {"skills": ["a.b"], "who": {"groups": ["support"]}, "rate": "5/s", "labels": ["z"]},
        ],
    )
    owed = decide(of).obligations
    assert owed.mask == {"pii", "secrets"}
    assert (owed.timeout_s, owed.max_result_bytes, owed.record) == (0.5, 65536, "none")
    assert sorted((rate.count, rate.per_s) for rate in owed.rates) == [(5, 1.0), (60, 60.0)]
    assert owed.labels == {"x", "z"}
    assert of.obligations("a.b").timeout_s == 0.001
    assert decide(of, who=Principal("local", "bob", ("other",))).obligations.labels == {"x", "y"}


def test_nothing_said_means_the_defaults() -> None:
    """Without obligations, results are masked for personal data and secrets and recorded."""
    owed = decide(policy({"effect": "allow"})).obligations
    assert owed.mask == {"pii", "secrets"}
    assert owed.record == "masked"


def test_several_asks_combine_to_terms_that_satisfy_all() -> None:
    """The largest quorum, the shortest expiry, and only approvers that every rule names."""
    of = policy(
        {"effect": "ask", "approval": {"approvers": {"groups": ["leads", "security"]}, "expires": "30m"}},
        {"effect": "ask", "approval": {"approvers": {"groups": ["leads"], "subjects": ["zoe"]}, "quorum": 2}},
        {"effect": "ask", "approval": {"expires": "5m"}},
    )
    assert decide(of).terms == ApprovalTerms(frozenset({"leads"}), frozenset(), 2, 300.0)


def test_asks_that_nobody_could_satisfy_are_denied() -> None:
    """Disjoint approvers never widen to "any operator"."""
    of = policy(
        {"effect": "ask", "approval": {"approvers": {"groups": ["leads"]}}},
        {"effect": "ask", "approval": {"approvers": {"subjects": ["zoe"]}}},
    )
    decision = decide(of)
    assert decision.effect is Effect.DENY
    assert decision.terms is None
    assert len(decision.rules) == 2


@pytest.mark.parametrize(
    ("rules", "otherwise", "offered"),
    [
        ([], [], False),
        ([{"effect": "allow"}], [], True),
        ([{"effect": "ask"}], [], True),
        ([{"effect": "allow"}, {"effect": "deny"}], [], False),
        ([{"effect": "allow"}, {"effect": "deny", "when": "true"}], [], True),
        ([{"effect": "allow"}, {"effect": "deny", "arguments": {}}], [], True),
        ([{"effect": "allow"}, {"effect": "deny", "who": {"groups": ["other"]}}], [], True),
        ([{"effect": "allow", "who": {"groups": ["other"]}}], [], False),
        ([{"effect": "allow", "when": "false"}], [], True),
        ([{"effect": "deny", "when": "false"}], [{"effect": "ask"}], True),
        ([{"effect": "deny"}], [{"effect": "allow"}], False),
        ([{"effect": "allow", "when": "true"}], [{"effect": "deny"}], True),
        ([], [{"effect": "deny"}], False),
        ([{"effect": "allow", "hints": {"readOnly": True}}], [], False),
        ([{"effect": "allow"}, {"effect": "deny", "hints": {"destructive": True}}], [], False),
    ],
)
def test_offered_is_what_some_call_could_get(rules: list[Any], otherwise: list[Any], offered: bool) -> None:
    """An unconditional deny hides a skill; a deny that depends on the call does not."""
    rest = [{"id": f"rest-{place}", "skills": ["*"], **rule} for place, rule in enumerate(otherwise)]
    assert policy(*rules, otherwise=rest).offers(ANNA, skill("a.b")) is offered


def test_starter_allows_reads_and_asks_for_the_rest() -> None:
    """Read-only skills pass, everything else asks, personal data and secrets are masked, everything is recorded."""
    of = starter()
    reads = of.decide(ANNA, skill("a.b", readOnlyHint=True), {}, "s", NOW)
    writes = of.decide(ANNA, skill("a.b"), {}, "s", NOW)
    assert (reads.effect, writes.effect) == (Effect.ALLOW, Effect.ASK)
    assert writes.terms == ApprovalTerms()
    assert reads.rules[0].file == "builtin:starter"
    assert reads.obligations.mask == {"pii", "secrets"}
    assert reads.obligations.record == "masked"


def test_starter_imports_no_expression_engine() -> None:
    """Only policies that use `when` pay for CEL, only those that use `arguments` for JSON Schema."""
    probe = (
        "import sys; from interposer.policy.engine import starter; starter();"
        "print(sorted({'cel', 'jsonschema_rs', 'jsonschema', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_digest_is_of_what_the_policy_says() -> None:
    """Another rule, another digest; another comment, the same."""
    text = "version: 1\nrules:\n  - {id: a, effect: allow, skills: [a.b]}\n"
    assert load(text, "p").digest == load("# why\n" + text, "elsewhere").digest
    assert load(text, "p").digest != load(text.replace("a.b", "a.c"), "p").digest
    assert decide(load(text, "p")).policy == load(text, "p").digest


def test_a_value_nested_beyond_bounds_counts_against_the_caller() -> None:
    """Depth that would overflow a native engine's stack ends in deny, not in a dead process."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    of = policy(
        {"effect": "allow", "arguments": {"required": ["x"]}},
        {"effect": "allow", "when": "has(arguments.x)"},
    )
    assert decide(of, {"x": deep}).effect is Effect.DENY
    while deep:
        deep = deep.pop()


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "amount", "path"]) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
_CONDITIONS: list[dict[str, Any]] = [
    {},
    {"arguments": {"required": ["a"], "properties": {"a": {"type": "number", "maximum": 5, "multipleOf": 0.5}}}},
    {"arguments": {"properties": {"path": {"pattern": "^/tmp/"}}, "additionalProperties": False}},
    {"arguments": {"properties": {"a": {"enum": [1, "x", None, 1.5]}, "b": {"uniqueItems": True}}}},
    {"arguments": {"properties": {"a": {"format": "uri"}, "b": {"format": "date-time"}}}},
    {"when": "arguments.a > arguments.b"},
    {"when": "arguments.a == arguments.b"},
    {"when": "size(arguments) > 2 || arguments.path.startsWith('/')"},
    {"when": "arguments.exists(k, k == 'a') && now.getHours() < 30"},
    {"hints": {"readOnly": True}},
    {"who": {"groups": ["g"]}},
]
_rule = st.builds(
    lambda effect, condition, more: {"effect": effect, **condition, **more},
    st.sampled_from(["allow", "ask", "deny"]),
    st.sampled_from(_CONDITIONS),
    st.sampled_from(_CONDITIONS),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(_rule, max_size=4),
    st.lists(_json, min_size=1, max_size=6),
    st.dictionaries(st.just("readOnlyHint"), _json),
    st.text(),
    st.floats(),
)
def test_decide_is_total(
    rules: list[dict[str, Any]], calls: list[Any], annotations: dict[str, Any], who: str, now: float
) -> None:
    """For any JSON it returns a decision of its own policy, the same twice, and raises nothing."""
    of = policy(*rules)
    principal = Principal(who, who, (who, "g"))
    for arguments in calls:
        facts = Facts(frozenset({who}), 3, now)
        first = of.decide(principal, skill("a.b", **annotations), arguments, who, facts)
        again = of.decide(principal, skill("a.b", **annotations), arguments, who, facts)
        assert first == again
        assert first.policy == of.digest
        assert (first.effect is Effect.ASK) is (first.terms is not None)
        if first.effect is Effect.ALLOW:
            assert first.rules


@settings(max_examples=60, deadline=None)
@given(st.lists(_rule, max_size=5), _json, st.randoms(use_true_random=False))
def test_order_of_rules_decides_nothing(rules: list[dict[str, Any]], arguments: Any, random: Any) -> None:
    """Shuffled rules give the same effect, the same rules and the same terms."""
    named = [{"id": f"r{place}", "skills": ["*"], **rule} for place, rule in enumerate(rules)]
    shuffled = random.sample(named, len(named))
    first, second = (decide(policy(*each), arguments) for each in (named, shuffled))
    assert first.effect is second.effect
    assert first.terms == second.terms
    assert {rule.id for rule in first.rules} == {rule.id for rule in second.rules}


def test_a_thousand_rules_for_other_skills_cost_nothing() -> None:
    """Rules are found by skill: a call pays for those that name its own."""
    rule = {"effect": "allow", "skills": ["a.b"]}
    few, many = policy(rule), policy(rule, *({"effect": "allow", "skills": [f"x{n}.*"]} for n in range(1000)))

    def seconds(of: Policy) -> float:
        started = time.perf_counter()
        for _ in range(500):
            decide(of)
        return time.perf_counter() - started

    seconds(few), seconds(many)
    assert min(seconds(many) for _ in range(5)) < 3 * min(seconds(few) for _ in range(5))


def test_a_fault_of_the_engine_itself_ends_in_deny() -> None:
    """Whatever goes wrong inside of `decide`, the answer is no."""
    of = policy({"effect": "allow"})
    broken: Any = object()
    decision = of.decide(broken, broken, {}, "s", NOW)
    assert decision.effect is Effect.DENY
    assert decision.policy == of.digest
