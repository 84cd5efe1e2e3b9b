"""The engine against a slow oracle that shares no code with it: random policies, random calls, no difference."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from jsonschema import Draft202012Validator

from interposer import canonical
from interposer.model import Facts, Principal, Skill
from interposer.policy.engine import load

POLICIES = 120
CALLS = 40
RANK = {"allow": 0, "ask": 1, "deny": 2}
IDS = ["crm.get_user", "crm.search", "crm.get.x", "db.query", "db.Query", "web.fetch", "crm2.search", "odd"]
PATTERNS = ["*", "*.*", "crm.*", "crm.get_*", "crm.search", "*.query", "db.query", "w*.f*h", "crm.get.*", "nope.x"]
SCHEMAS: list[Any] = [
    True,
    {"required": ["amount"]},
    {"properties": {"amount": {"exclusiveMinimum": 50}}},
    {"properties": {"amount": {"type": "integer", "maximum": 5}}, "required": ["amount"]},
    {"not": {"properties": {"path": {"pattern": "^/tmp/"}}, "required": ["path"]}},
    {"anyOf": [{"required": ["path"]}, {"properties": {"amount": {"const": 1}}, "required": ["amount"]}]},
    {"additionalProperties": False, "properties": {"path": {"type": ["string", "null"]}}},
]


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


WHENS: dict[str, Callable[[dict[str, Any], Principal, Facts], Any]] = {
    "arguments.amount > 10": lambda a, p, f: _number(a["amount"]) > 10,
    "arguments.path == principal.subject": lambda a, p, f: a["path"] == p.subject,
    "'untrusted' in session.labels": lambda a, p, f: "untrusted" in f.labels,
    "session.calls >= 3": lambda a, p, f: f.calls >= 3,
    "has(arguments.path)": lambda a, p, f: "path" in a,
    "'lead' in principal.groups": lambda a, p, f: "lead" in p.groups,
    "arguments.amount": lambda a, p, f: a["amount"],
    "now > timestamp('2020-01-01T00:00:00Z')": lambda a, p, f: f.now > 1577836800,
}


def oracle(
    document: dict[str, Any], who: Principal, skill: Skill, arguments: Any, facts: Facts
) -> tuple[str, list[str]]:
    """The semantics of architecture §5, read off as plainly as possible."""
    for section in ("rules", "otherwise"):
        matched = [rule for rule in document.get(section, []) if speaks(rule, who, skill, arguments, facts)]
        if matched:
            strictest = max((rule["effect"] for rule in matched), key=lambda effect: RANK[effect])
            return strictest, [rule["id"] for rule in matched]
    return "deny", []


def speaks(rule: dict[str, Any], who: Principal, skill: Skill, arguments: Any, facts: Facts) -> bool:
    if not any(names(pattern, skill.id) for pattern in rule["skills"]):
        return False
    wanted = rule.get("who", {})
    if "groups" in wanted and not set(wanted["groups"]) & set(who.groups):
        return False
    for key, value in (
        ("subjects", who.subject),
        ("issuers", who.issuer),
        ("clients", who.client_id),
        ("uids", who.uid),
    ):
        if key in wanted and value not in wanted[key]:
            return False
    truths = [*hint_truths(rule, skill), *condition_truths(rule, who, arguments, facts)]
    if rule["effect"] == "allow":
        return all(truth is True for truth in truths)
    return all(truth is not False for truth in truths)


def names(pattern: str, id: str) -> bool:
    if pattern == "*":
        return True
    upstream, name = (re.escape(part).replace(r"\*", ".*") for part in pattern.split(".", 1))
    return "." in id and bool(re.fullmatch(upstream, id.split(".", 1)[0]) and re.fullmatch(name, id.split(".", 1)[1]))


def hint_truths(rule: dict[str, Any], skill: Skill) -> list[bool | None]:
    found = [(skill.annotations.get(f"{key}Hint"), wanted) for key, wanted in rule.get("hints", {}).items()]
    return [said == wanted if isinstance(said, bool) else None for said, wanted in found]


def condition_truths(rule: dict[str, Any], who: Principal, arguments: Any, facts: Facts) -> list[bool | None]:
    truths: list[bool | None] = []
    if "arguments" in rule:
        truths.append(Draft202012Validator(rule["arguments"]).is_valid(arguments))
    if "when" in rule:
        try:
            found = WHENS[rule["when"]](arguments, who, facts)
            truths.append(found if isinstance(found, bool) else None)
        except (KeyError, TypeError):
            truths.append(None)
    return truths


def some_rule(rng: random.Random, id: str) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": id,
        "effect": rng.choice(["allow", "allow", "ask", "deny"]),
        "skills": rng.sample(PATTERNS, rng.randint(1, 3)),
    }
    if rng.random() < 0.4:
        rule["who"] = {"groups": rng.sample(["support", "lead", "x"], rng.randint(1, 2))}
        if rng.random() < 0.3:
            rule["who"] |= rng.choice(
                [{"subjects": ["anna"]}, {"issuers": ["local"]}, {"clients": ["c"]}, {"uids": [7]}]
            )
    if rng.random() < 0.3:
        rule["arguments"] = rng.choice(SCHEMAS)
    if rng.random() < 0.3:
        rule["when"] = rng.choice(list(WHENS))
    if rng.random() < 0.15:
        rule["hints"] = {rng.choice(["readOnly", "destructive"]): rng.random() < 0.5}
    return rule


def some_call(rng: random.Random) -> tuple[Principal, Skill, dict[str, Any], Facts]:
    who = Principal(
        rng.choice(["local", "token"]),
        rng.choice(["anna", "bob"]),
        tuple(rng.sample(["support", "lead", "y"], rng.randint(0, 2))),
        rng.choice([None, 7]),
        rng.choice(["", "c"]),
    )
    id = rng.choice(IDS)
    upstream, _, name = id.partition(".")
    annotations = rng.choice([{}, {"readOnlyHint": True}, {"readOnlyHint": False}, {"destructiveHint": "yes"}])
    skill = Skill(id, upstream, name, name, {"annotations": annotations}, "")
    arguments: dict[str, Any] = {}
    if rng.random() < 0.7:
        arguments["amount"] = rng.choice([1, 1.0, 5, 5.5, 50, 51, "60", None, True, [1], -3])
    if rng.random() < 0.5:
        arguments["path"] = rng.choice(["/tmp/a", "/etc", "anna", None, 3, {"a": 1}])
    facts = Facts(frozenset(rng.sample(["untrusted", "x"], rng.randint(0, 2))), rng.randint(0, 5), 1.7e9)
    return who, skill, arguments, facts


def test_engine_agrees_with_the_oracle() -> None:
    """Thousands of random calls of random policies: the same effect and the same rules, every time."""
    rng = random.Random()
    seed = rng.randrange(2**32)
    rng.seed(seed)
    for _ in range(POLICIES):
        document = {
            "version": 1,
            "rules": [some_rule(rng, f"r{place}") for place in range(rng.randint(0, 6))],
            "otherwise": [some_rule(rng, f"o{place}") for place in range(rng.randint(0, 2))],
        }
        policy = load(canonical.encode(document).decode(), "p.yaml")
        for _ in range(CALLS):
            who, skill, arguments, facts = some_call(rng)
            decision = policy.decide(who, skill, arguments, "s", facts)
            found = (str(decision.effect), [rule.id for rule in decision.rules])
            assert found == oracle(document, who, skill, arguments, facts), (
                seed,
                document,
                who,
                skill,
                arguments,
                facts,
            )
            if decision.effect != "deny":
                assert policy.offers(who, skill), (seed, document, who, skill)
