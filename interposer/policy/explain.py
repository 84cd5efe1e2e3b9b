"""A decision, explained for operators: which rules matched, where they stand, which did not and why, what is needed.

The same judgements that `decide` rests on; arguments are named by path, never by value.
"""

from __future__ import annotations

from interposer.model import Decision, Effect, Facts, JsonObject, Obligations, Principal, Skill

from .engine import Judgement, Policy
from .wording import as_json, in_words


def explain(
    policy: Policy, principal: Principal, skill: Skill, arguments: JsonObject, session: str, facts: Facts
) -> JsonObject:
    """The decision and its grounds, as JSON."""
    decision = policy.decide(principal, skill, arguments, session, facts)
    judged = policy.judge(principal, skill, arguments, session, facts)
    return {
        "skill": skill.id,
        "principal": {"subject": principal.subject, "issuer": principal.issuer, "groups": list(principal.groups)},
        "effect": str(decision.effect),
        "reason": decision.reason,
        "message": decision.message,
        "matched": [_rule(each) for each in judged if each.matched and each.consulted],
        "not_matched": [_rule(each) for each in judged if not each.matched or not each.consulted],
        "offered": policy.offers(principal, skill),
        "needed": _needed(decision, judged, skill),
        "obligations": _obligations(decision.obligations),
        "approval": None if decision.terms is None else as_json(decision.terms),
        "policy": decision.policy,
    }


def text(found: JsonObject) -> str:
    """The same for a terminal."""
    who = found["principal"]
    groups = f" ({', '.join(who['groups'])})" if who["groups"] else ""
    lines = [f"{found['effect']}: {found['skill']} as {who['subject'] or 'someone unnamed'}{groups}"]
    if found["message"]:
        lines.append(f"  the caller is told: {found['message']}")
    lines.append("matched:")
    lines += [_line(rule) for rule in found["matched"]] or ["  no rule"]
    if found["not_matched"]:
        lines.append("not matched:")
        lines += [f"{_line(rule)}: {rule['why']}" for rule in found["not_matched"]]
    lines.append("needed:")
    lines += [f"  {need}" for need in found["needed"]]
    owed = found["obligations"]
    lines.append(
        f"obligations: mask {', '.join(owed['mask']) or 'nothing'}; timeout {owed['timeout_s']:g} s; "
        f"results up to {owed['max_result_bytes']} bytes; record {owed['record']}"
        + "".join(f"; at most {rate['count']} in {rate['per_s']:g} s" for rate in owed["rates"])
        + (f"; labels {', '.join(owed['labels'])}" if owed["labels"] else "")
    )
    return "\n".join(lines)


def _line(rule: JsonObject) -> str:
    doubt = f" ({rule['doubt']})" if rule["doubt"] else ""
    return f"  {rule['effect']:5} {rule['id']}  {rule['file']}:{rule['line']}{doubt}"


def _rule(judged: Judgement) -> JsonObject:
    spoken = judged.rule.spoken
    why = "" if judged.matched else f"{judged.failed}: {judged.detail}"
    if not judged.consulted:
        why = "under `otherwise`, which speaks only where no rule matched"
    return {
        "id": spoken.id,
        "effect": str(spoken.effect),
        "file": spoken.file,
        "line": spoken.line,
        "section": "otherwise" if judged.fallback else "rules",
        "why": why,
        "doubt": judged.detail if judged.matched else "",
    }


def _needed(decision: Decision, judged: list[Judgement], skill: Skill) -> list[str]:
    if decision.effect is Effect.ALLOW:
        return ["nothing"]
    if decision.terms is not None:
        return in_words(decision.terms)
    if decision.rules:
        denying = [rule for rule in decision.rules if rule.effect is Effect.DENY] or decision.rules
        return [f"rule {rule.id} ({rule.file}:{rule.line}) would have to change" for rule in denying]
    could = [each for each in judged if each.rule.effect is not Effect.DENY]
    if not could:
        return [f"a rule that allows or asks for {skill.id}: none names it"]
    return [f"for rule {each.rule.id} to {each.rule.effect}: {each.failed}: {each.detail}" for each in could]


def _obligations(owed: Obligations) -> JsonObject:
    return {
        "mask": sorted(owed.mask),
        "timeout_s": owed.timeout_s,
        "max_result_bytes": owed.max_result_bytes,
        "rates": [{"count": rate.count, "per_s": rate.per_s} for rate in owed.rates],
        "labels": sorted(owed.labels),
        "record": owed.record,
    }
