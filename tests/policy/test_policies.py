"""The ready-to-copy policies do what their decision tables say, and editors know their shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from interposer.masking.engine import PROFILES as MASKER_PROFILES
from interposer.model import Effect, Facts, Principal, Skill
from interposer.policy import approval, document
from interposer.policy.engine import load
from interposer.policy.lint import lint
from interposer.policy.strict_yaml import read
from interposer.policy.wording import as_json

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "policies").glob("*.test.yaml"))
POLICIES = sorted(path for path in (ROOT / "policies").glob("*.yaml") if not path.name.endswith(".test.yaml"))
CASE_KEYS = {"name", "skill", "as", "arguments", "annotations", "labels", "calls", "now", "expect", "rules", "approval"}


def plain(path: Path) -> Any:
    node, problems = read(path.read_text(encoding="utf-8"), path.name)
    assert node is not None
    assert problems == []
    return node.plain()


def cases() -> list[Any]:
    return [
        pytest.param(path.parent / table["policy"], case, id=f"{path.name}: {case['name']}")
        for path in TABLES
        for table in [plain(path)]
        for case in table["cases"]
    ]


@pytest.mark.parametrize(("path", "case"), cases())
def test_policy_decides_as_its_table_says(path: Path, case: dict[str, Any]) -> None:
    """Each row of a decision table holds."""
    assert not set(case) - CASE_KEYS
    who = case["as"]
    principal = Principal(
        who.get("issuer", "local"), who["subject"], tuple(who.get("groups", [])), who.get("uid"), who.get("client", "")
    )
    upstream, _, name = case["skill"].partition(".")
    skill = Skill(case["skill"], upstream, name, name, {"annotations": case.get("annotations", {})}, "")
    facts = Facts(frozenset(case.get("labels", [])), case.get("calls", 0), case.get("now", 0))
    policy = load(path.read_text(encoding="utf-8"), path.name)
    decision = policy.decide(principal, skill, case.get("arguments", {}), "s", facts)
    assert decision.effect == case["expect"], decision.reason
    if "rules" in case:
        assert [rule.id for rule in decision.rules] == case["rules"]
    if "approval" in case:
        assert decision.terms is not None
        terms = as_json(decision.terms)
        assert {key: terms[key] for key in case["approval"]} == case["approval"]


def test_every_policy_has_a_table() -> None:
    """No policy is shipped untried."""
    tried = {plain(path)["policy"] for path in TABLES}
    assert tried == {path.name for path in POLICIES}
    assert POLICIES


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: str(path.name))
def test_policies_have_no_findings(path: Path) -> None:
    """What we give people to copy says nothing in vain."""
    assert lint(load(path.read_text(encoding="utf-8"), path.name)) == []


def test_the_reference_shows_what_loads() -> None:
    """Whoever copies from the documentation gets a policy."""
    page = (ROOT / "docs/reference/policy.md").read_text(encoding="utf-8")
    whole, approval_alone = re.findall(r"(?s)```yaml\n(.*?)```", page)
    for text in (whole, f"version: 1\nrules:\n  - id: a\n    effect: ask\n    skills: [a.b]\n{approval_alone}"):
        assert lint(load(text, "policy.md")) == []
        node, _ = read(text, "policy.md")
        assert node is not None
        Draft202012Validator(schema()).validate(node.plain())


def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "schemas" / "policy.schema.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: str(path.name))
def test_editor_schema_accepts_the_policies(path: Path) -> None:
    """What loads is what the editor does not underline."""
    Draft202012Validator(schema()).validate(plain(path))


def test_editor_schema_accepts_the_starter() -> None:
    """The built-in policy can be copied into a file."""
    node, _ = read(document.starter_text(), "starter.yaml")
    assert node is not None
    Draft202012Validator(schema()).validate(node.plain())


def test_editor_schema_has_the_keys_of_the_document() -> None:
    """The schema does not drift: every object in it has exactly the keys that the reader knows."""
    found = schema()
    Draft202012Validator.check_schema(found)
    defs = found["$defs"]
    approvers = defs["approval"]["properties"]["approvers"]
    pairs = [
        (found, document.KEYS),
        (defs["rule"], document.RULE_KEYS),
        (defs["who"], document.WHO_KEYS),
        (defs["rule"]["properties"]["hints"], document.HINTS),
        (defs["approval"], approval.APPROVAL_KEYS),
        (approvers, approval.APPROVER_KEYS),
        (defs["grant"], approval.GRANT_KEYS),
        (defs["window"], approval.HOURS_KEYS),
        (defs["obligation"], document.OBLIGATION_KEYS),
    ]
    for place, keys in pairs:
        assert set(place["properties"]) == set(keys)
        assert place["additionalProperties"] is False
    assert defs["rule"]["properties"]["effect"]["enum"] == [str(effect) for effect in Effect]
    assert defs["obligation"]["properties"]["record"]["enum"] == list(document.RECORDS)
    assert defs["obligation"]["properties"]["mask"]["items"]["enum"] == list(document.PROFILES)
    assert frozenset(document.PROFILES) == MASKER_PROFILES
    assert defs["approval"]["properties"]["quorum"]["maximum"] == approval.MAX_QUORUM
    assert defs["approval"]["properties"]["at_least"]["additionalProperties"]["maximum"] == approval.MAX_QUORUM
    assert defs["grant"]["properties"]["uses"]["maximum"] == approval.MAX_USES
    assert defs["window"]["properties"]["days"]["items"]["enum"] == list(approval.DAYS)
