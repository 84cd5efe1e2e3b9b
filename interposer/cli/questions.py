"""Questions and standing grants as text: fixed lines first, foreign text last, and all of it escaped."""

from __future__ import annotations

from typing import Any

from .display import duration, moment, printable, printable_json

_PREVIEW_CHARS = 100
_WEEK = 7

Question = dict[str, Any]
Grant = dict[str, Any]


def line(question: Question) -> str:
    """A question in one line; its own text comes last and cannot imitate what is before it."""
    shown = _preview(str(question["preview"]), question["bytes"])
    state = printable(question["state"]) if question["state"] != "open" else f"{duration(question['left_s'])} left"
    marks = [_said(question)] if question["state"] == "open" and _said(question) else []
    names = (printable(question["id"]), state, person(question["requester"]), printable(question["skill"]))
    return "  ".join((*names, *marks, shown))


def whole(question: Question) -> bool:
    """Whether `line` shows everything that a yes would be to."""
    text, spec = str(question["preview"]), question["spec"]
    return _preview(text, question["bytes"]) == printable_json(text.encode()) and not (spec and spec["matching"])


def _said(question: Question) -> str:
    """What has been said of an open question, in brackets; empty where nothing has."""
    agreed = sum(1 for vote in question["votes"] if vote["yes"])
    parts = [f"{agreed} of {question['quorum']} have approved"] if question["votes"] else []
    parts += ["arguments CHANGED"] if question["amended"] else []
    parts += [f"for {terms_of(question['spec'])}"] if question["spec"] else []
    return f"[{', '.join(parts)}]" if parts else ""


def verdict(question: Question) -> str:
    """What a vote made of a question, in one line."""
    id = printable(question["id"])
    if question["state"] == "open":
        agreed = sum(1 for vote in question["votes"] if vote["yes"])
        return f"{id}: {agreed} of {question['quorum']} have approved"
    if question["state"] not in ("granted", "consumed"):
        return f"{id}: {printable(question['state'])}"
    broke = [vote for vote in question["votes"] if vote["broke_glass"]]
    if broke:
        return f"{id}: GLASS BROKEN by {person(broke[-1]['by'])}, alone: {printable(broke[-1]['reason'])}"
    more = [f"for {terms_of(question['spec'])}"] if question["spec"] else []
    more += ["with CHANGED arguments"] if question["amended"] else []
    return ", ".join((f"{id}: approved", *more))


def page(question: Question) -> str:
    """Everything that an approver answers for: fixed lines first, the call last."""
    fields = [
        ("question", question["id"]),
        ("state", question["state"]),
        ("asked at", moment(question["asked_at"])),
        ("time left", duration(question["left_s"])),
        ("asked by", _person(question["requester"])),
        ("groups", ", ".join(question["requester"]["groups"])),
        ("session", question["session"]),
        ("skill", question["skill"] + ("  (destructive)" if question["destructive"] else "")),
        ("definition", question["skill_digest"]),
        ("policy", question["policy"]),
        *(field for rule in question["rules"] for field in _rule(rule)),
        *_terms(question),
        *(("vote", _vote(vote)) for vote in question["votes"]),
        ("on table", terms_of(question["spec"]) if question["spec"] else "this call, once"),
        ("kept", _kept(question["kept"]) if question["kept"] else ""),
        ("link", question["link"] or ""),
        ("digest", question["version"]),
        ("asked for", question["digest"] if question["version"] != question["digest"] else ""),
        ("arguments", f"{len(question['canonical'].encode())} bytes, SHA-256 {question['arguments_sha256'] or 'gone'}"),
    ]
    if question["amended_canonical"]:
        changed = len(question["amended_canonical"].encode())
        fields.append(("changed to", f"{changed} bytes, SHA-256 {question['amended_sha256']}"))
    always = ("groups",)
    lines = [f"{label:<10} {printable(value)}".rstrip() for label, value in fields if value or label in always]
    return "\n".join([*lines, *_exact(question)])


def _exact(question: Question) -> list[str]:
    exact = printable_json(question["canonical"].encode()) or "no longer kept: the question has ended"
    schema = (
        ["", "any arguments that match:", printable_json(question["schema"].encode())] if question["schema"] else []
    )
    if not question["amended_canonical"]:
        return [*schema, "", exact]
    amended = printable_json(question["amended_canonical"].encode())
    return [*schema, "", "asked for:", exact, "", "CHANGED by approvers to:", amended]


def _rule(rule: dict[str, Any]) -> list[tuple[str, str]]:
    said = [("", rule["message"])] if rule["message"] else []
    return [("rule", f"{rule['id']} ({rule['effect']})  {rule['file']}:{rule['line']}"), *said]


def _terms(question: Question) -> list[tuple[str, str]]:
    terms = question["approval"]
    cap, least = terms["grant"], terms["at_least"]
    wanted = [*(f"group {name}" for name in (*terms["groups"], *least)), *terms["subjects"]]
    minima = [f"at least {count} of group {group}" for group, count in least.items()]
    return [
        ("approvers", ", ".join(dict.fromkeys(wanted)) or "any operator"),
        ("quorum", ", ".join((str(terms["quorum"]), *minima))),
        *(("hours", " or ".join(_window(window) for window in some)) for some in terms["hours"]),
        ("at most", terms_of(cap) if cap else ""),
        ("reading", f"{terms['read_for_s']:g}s at least" if terms["read_for_s"] else ""),
        ("carry out", "when approved, also if the caller has left" if terms["execute_on_approve"] else ""),
        ("caller", "its own user may answer through the client" if terms["confirm"] else ""),
    ]


def terms_of(spec: dict[str, Any]) -> str:
    """How much is agreed to beyond one call, or may be, in words."""
    uses = "any number of calls" if spec["uses"] is None else f"{spec['uses']} call{'s' if spec['uses'] != 1 else ''}"
    parts = [f"{uses} within {duration(spec['for_s'])}"]
    parts += ["of this session"] if spec["session"] else []
    parts += ["with arguments that match a schema"] if spec["matching"] else []
    return ", ".join(parts)


def grant_line(grant: Grant) -> str:
    """A standing grant in one line, its schema last."""
    used = f"{grant['used']} of {'any' if grant['uses'] is None else grant['uses']} used"
    state = printable(grant["state"]) if grant["state"] != "active" else f"{duration(grant['left_s'])} left"
    given = f"given by {', '.join(printable(name) for name in grant['approvers'])} on {moment(grant['given_at'])}"
    names = (printable(grant["id"]), state, used, person(grant["requester"]), printable(grant["skill"]))
    bounds = ["session " + printable(grant["session"])] if grant["session"] else []
    shown = (
        f"matching {_preview(str(grant['schema']), grant['schema_bytes'])}"
        if grant["schema"]
        else f"arguments {printable(grant['arguments_digest'][:16])}"
    )
    return "  ".join((*names, f"of {printable(grant['question'])}", given, *bounds, shown))


def figures_page(found: dict[str, Any]) -> str:
    """How people decided: in all, by skill and by person."""
    days = found["last_days"]
    span = "last 24 hours" if days == 1 else f"last {days} days"
    lines = [f"{span}: {_tally(found['overall'])}"]
    if not found["complete"]:
        lines.append("only the newest questions are counted: there were more")
    if found["skills"]:
        lines += ["by skill", *(f"  {printable(name)}: {_tally(tally)}" for name, tally in found["skills"].items())]
    if found["people"]:
        lines += ["by person", *(f"  {printable(name)}: {_votes(votes)}" for name, votes in found["people"].items())]
    return "\n".join(lines)


def _tally(tally: dict[str, Any]) -> str:
    if not tally["asked"]:
        return "nothing was asked"
    states = ("granted", "denied", "expired", "withdrawn", "open")
    counts = [f"{tally['asked']} asked", *(f"{tally[state]} {state}" for state in states if tally[state])]
    counts += [f"GLASS BROKEN {tally['broke_glass']} times"] if tally["broke_glass"] else []
    if tally["decision_s"] is None or tally["approval_ratio"] is None:
        return ", ".join(counts)
    granted = f"{100 * tally['approval_ratio']:.0f}% of those decided were granted"
    return f"{', '.join(counts)}; {granted}, {_times(tally['decision_s'])}"


def _votes(votes: dict[str, Any]) -> str:
    said = [f"{votes['approved']} yes", f"{votes['denied']} no"]
    said += [f"BROKE THE GLASS {votes['broke_glass']} times"] if votes["broke_glass"] else []
    return f"{', '.join(said)}; {_times(votes['decision_s'])}"


def _times(times: dict[str, float]) -> str:
    return f"half of them within {_took(times['median'])}, 95 of 100 within {_took(times['p95'])}"


def _took(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else duration(seconds)


def person(principal: dict[str, Any]) -> str:
    return printable(_person(principal))


def _person(principal: dict[str, Any]) -> str:
    return f"{principal['issuer']}:{principal['subject']}"


def _preview(text: str, whole_bytes: int) -> str:
    shown = printable_json(text.encode())
    if len(shown) > _PREVIEW_CHARS or whole_bytes > len(text.encode()):
        return f"{shown[:_PREVIEW_CHARS]}… ({whole_bytes} bytes)"
    return shown


def _vote(vote: dict[str, Any]) -> str:
    reason = f": {vote['reason']}" if vote["reason"] else ""
    said = "BROKE THE GLASS, yes" if vote["broke_glass"] else "yes" if vote["yes"] else "no"
    return f"{said} by {_person(vote['by'])} at {moment(vote['at'])}{reason}"


def _kept(kept: dict[str, Any]) -> str:
    withheld = f", withheld: {kept['withheld']}" if kept["withheld"] else ""
    return f"{kept['state']}, {'told to' if kept['delivered'] else 'waits for'} its caller{withheld}"


def _window(window: dict[str, Any]) -> str:
    days = "every day" if len(window["days"]) == _WEEK else " ".join(window["days"])
    return f"{days} {window['from']}-{window['to']} {window['zone']}"
