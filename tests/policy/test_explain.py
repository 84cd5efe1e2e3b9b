"""Explanations: the same verdict as `decide`, its grounds with their places, and what would be needed."""

from __future__ import annotations

from interposer import canonical
from interposer.model import Facts, JsonObject, Principal, Skill
from interposer.policy.engine import Policy, load
from interposer.policy.explain import explain, text

POLICY = """version: 1
rules:
  - {id: reads, effect: allow, skills: [crm.*], who: {groups: [support]}}
  - id: small
    effect: allow
    skills: [pay.refund]
    arguments: {required: [amount], properties: {amount: {maximum: 50}}}
  - id: large
    effect: ask
    skills: [pay.refund]
    when: arguments.amount > 50
    approval: {approvers: {groups: [leads]}, quorum: 2}
otherwise:
  - {id: rest, effect: deny, skills: [crm.*], message: Not yours.}
"""


def explained(id: str, arguments: JsonObject, groups: tuple[str, ...] = (), policy: Policy | None = None) -> JsonObject:
    upstream, _, name = id.partition(".")
    skill = Skill(id, upstream, name, name, {}, "")
    return explain(policy or load(POLICY, "p.yaml"), Principal("local", "anna", groups), skill, arguments, "", Facts())


def test_matched_and_unmatched_rules_stand_with_their_places() -> None:
    """Each rule that names the skill is there, with file, line and why it did not match."""
    found = explained("pay.refund", {"amount": 60})
    assert [(rule["id"], rule["file"], rule["line"]) for rule in found["matched"]] == [("large", "p.yaml", 8)]
    ((why,),) = [[rule["why"]] for rule in found["not_matched"]]
    assert why == "arguments: `/amount` does not satisfy `maximum`"
    assert found["needed"] == ["2 yes from group leads, within 1800 s"]
    assert (found["approval"]["groups"], found["approval"]["quorum"]) == (["leads"], 2)


def test_all_terms_of_an_approval_are_shown() -> None:
    """Who, when, and to how much: each on a line of its own."""
    more = "{at_least: {dba: 1}, grant: {for: 8h}, hours: [{from: 22:00, to: 06:00, zone: UTC}], read_for: 5s}"
    found = explained(
        "pay.refund",
        {"amount": 60},
        policy=load(POLICY.replace("{approvers: {groups: [leads]}, quorum: 2}", more), "p"),
    )
    shown = text(found).split("needed:\n")[1].splitlines()
    assert shown[0] == "  1 yes from group dba, with at least 1 of group dba, within 1800 s"
    assert "22:00-06:00 the day after UTC" in shown[1]
    assert "for 5 s" in shown[2]
    assert "at most 28800 s" in shown[3]
    assert found["approval"]["at_least"] == {"dba": 1}


def test_doubt_is_shown() -> None:
    """A rule that matched because it could not be judged says so."""
    found = explained("pay.refund", {})
    assert "counts against the caller" in found["matched"][0]["doubt"]


def test_otherwise_is_shown_as_not_consulted() -> None:
    """Rules under `otherwise` say why they were silent."""
    found = explained("crm.x", {}, ("support",))
    assert found["effect"] == "allow"
    assert "otherwise" in found["not_matched"][0]["why"]
    assert found["needed"] == ["nothing"]


def test_denied_by_a_rule_names_the_rule() -> None:
    """What stands in the way is named."""
    found = explained("crm.x", {})
    assert found["needed"] == ["rule rest (p.yaml:14) would have to change"]
    assert found["message"] == "Not yours."


def test_denied_by_silence_says_what_is_missing() -> None:
    """Where no rule matched, the rules that could have say what they wanted; where none names the skill, that."""
    near = explained("pay.refund", {"amount": 50.5}, policy=load(POLICY.replace("> 50", "> 99"), "p.yaml"))
    assert near["needed"] == [
        "for rule small to allow: arguments: `/amount` does not satisfy `maximum`",
        "for rule large to ask: when: `arguments.amount > 99` is false",
    ]
    assert explained("web.fetch", {})["needed"] == ["a rule that allows or asks for web.fetch: none names it"]


def test_text_and_json_hold_no_argument() -> None:
    """What is printed for operators names paths, not values, and is JSON where asked."""
    found = explained("pay.refund", {"amount": 60, "card": "4111111111111111"})
    assert "4111" not in text(found)
    assert "4111" not in canonical.encode(found).decode()
    assert text(found).startswith("ask: pay.refund as anna\n")
    assert "ask   large  p.yaml:8" in text(found)
