"""Replay: what the agent of one session saw, in order, with what was decided and who approved, from the record alone.

Pure reading. Nothing here can reach an upstream, and nothing is decided again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from . import canonical
from .chain import Link
from .model import Json, JsonObject, Kind


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened in a session."""

    seq: int
    at: float
    kind: str
    text: str
    """One sentence; may hold foreign text, so it is escaped where it is shown."""
    invocation: str = ""
    skill: str = ""
    principal: str = ""
    effect: str = ""
    rules: tuple[str, ...] = ()
    code: str = ""
    question: str = ""
    arguments: Json = None
    """Masked, as they were recorded."""
    saw: Json = None
    """What the agent was given: the masked result or error, or the text of a refusal."""
    masked: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    """A human's reason; or why there is nothing to show."""

    def as_json(self) -> JsonObject:
        """Every field that says something; `seq`, `at`, `kind` and `text` always."""
        always = {"seq": self.seq, "at": self.at, "kind": self.kind, "text": self.text}
        rest = {name: getattr(self, name) for name in _OPTIONAL}
        rest["rules"] = list(self.rules)
        rest["masked"] = dict(self.masked)
        return always | {name: value for name, value in rest.items() if value not in (None, "", [], {})}


_OPTIONAL = (
    *("invocation", "skill", "principal", "effect", "rules", "code", "question"),
    *("arguments", "saw", "masked", "note"),
)


def story(links: Iterable[Link], subjects: Mapping[str, JsonObject]) -> list[Step]:
    """The rows of a session as steps, in the order in which they happened."""
    return [_step(link, subjects) for link in links]


def name_of(pseudonym: str, subjects: Mapping[str, JsonObject]) -> str:
    """`issuer:subject`; the pseudonym where the name was erased; empty where nobody was known."""
    principal = subjects.get(pseudonym)
    if principal is None:
        return f"erased:{pseudonym[:8]}" if pseudonym else ""
    return f"{principal.get('issuer', '')}:{principal.get('subject', '')}"


def _step(link: Link, subjects: Mapping[str, JsonObject]) -> Step:
    row = link.row
    body, note = _body(link)
    who = name_of(row.principal, subjects)
    counts = body.get("masked")
    rules = _rules(row.rules)
    return Step(
        seq=row.seq,
        at=row.at,
        kind=row.kind,
        text=_text(row.kind, row.skill, row.code, row.effect, rules, who),
        invocation=row.invocation,
        skill=row.skill,
        principal=who,
        effect=row.effect,
        rules=rules,
        code=row.code,
        question=row.question,
        arguments=body.get("arguments"),
        saw=_seen(row.kind, body),
        masked=counts if isinstance(counts, dict) else {},
        note=note or _note(body) or _bounds(row.kind, body),
    )


def _body(link: Link) -> tuple[JsonObject, str]:
    if link.payload is None:
        return {}, "erased" if link.row.commitment else ""
    try:
        body = canonical.parse(link.payload)
    except canonical.Malformed:
        return {}, "the stored payload is not JSON"
    if not isinstance(body, dict):
        return {}, ""
    if body.get("capped") is True:
        part = "arguments" if link.row.kind in (Kind.INTENDED, Kind.ASKED) else "result"
        note = f"{body.get('size')} bytes, of which the first are kept; SHA-256 {body.get('sha256')}"
        return {part: body.get("head")}, note
    return body, ""


def _note(body: JsonObject) -> str:
    found = next((body[part] for part in ("reason", "why", "note", "client", "peer") if part in body), "")
    return found if isinstance(found, str) else canonical.encode(found).decode()


def _bounds(kind: str, body: JsonObject) -> str:
    """What a standing grant is good for: the one that was given, or the one that is on the table."""
    grants: Mapping[str, Json] = {Kind.GRANT_GIVEN: body, Kind.AMENDED: body.get("grant")}
    grant = grants.get(kind)
    if not isinstance(grant, dict) or "uses" not in grant:
        return ""
    bounds = ["any number of calls" if grant["uses"] is None else f"calls: {grant['uses']}"]
    if isinstance(grant.get("for_s"), int | float):
        bounds.append(f"for {grant['for_s']:g} s")
    if grant.get("session"):
        bounds.append("of this session")
    if grant.get("schema") or grant.get("schema_sha256"):
        bounds.append("whose arguments match a schema")
    return ", ".join(bounds)


def _seen(kind: str, body: JsonObject) -> Json:
    if kind in (Kind.ANSWERED, Kind.FAILED, Kind.IN_DOUBT, Kind.LATE):
        return body.get("result", body.get("error"))
    return body.get("said") if kind in (Kind.REFUSED, Kind.TICKETED) else None


def _rules(text: str) -> tuple[str, ...]:
    try:
        found = canonical.parse(text.encode())
    except (canonical.Malformed, UnicodeEncodeError):
        return ()
    return tuple(str(rule) for rule in found) if isinstance(found, list) else ()


_TEXTS: Mapping[str, str] = {
    Kind.SESSION_OPENED: "connected{over}",
    Kind.SESSION_CLOSED: "session over{why}",
    Kind.ASKED: "calls {skill}: {decided}",
    Kind.INTENDED: "calls {skill}: {decided}; sent",
    Kind.REFUSED: "calls {skill}: refused{why}{by}; nothing was executed",
    Kind.TICKETED: "{skill}: told to come back, nobody has answered yet",
    Kind.WITHDRAWN: "{skill}: given up before it was sent{why}",
    Kind.ANSWERED: "{skill} answered{why}",
    Kind.FAILED: "{skill} was not run{why}",
    Kind.IN_DOUBT: "{skill}: outcome unknown{why}; it may have taken effect",
    Kind.LATE: "{skill} answered too late; nobody was told",
    Kind.QUESTION_OPENED: "a human is asked about {skill}",
    Kind.VOTED: "{who} says {code}",
    Kind.GRANTED: "approved by {who}",
    Kind.QUESTION_DENIED: "denied by {who}",
    Kind.EXPIRED: "the question expired",
    Kind.CONSUMED: "the approval is used",
    Kind.QUESTION_WITHDRAWN: "the question is withdrawn{why}",
    Kind.AMENDED: "{who} puts something else on the table",
    Kind.BROKE_GLASS: "{who} breaks glass",
    Kind.GRANT_GIVEN: "{who} gives a standing grant for {skill}",
    Kind.GRANT_USED: "a use of a standing grant for {skill}",
    Kind.GRANT_SPENT: "the standing grant is used up",
    Kind.GRANT_EXPIRED: "the standing grant expired",
    Kind.GRANT_REVOKED: "the standing grant is taken back by {who}",
    Kind.ALARM: "alarm{why}",
}


def _text(kind: str, skill: str, code: str, effect: str, rules: tuple[str, ...], who: str) -> str:
    by = f" by {', '.join(rules)}" if rules else ""
    if kind == Kind.SESSION_OPENED and code == "introduced":
        return "introduced itself"
    return _TEXTS.get(kind, kind).format(
        skill=skill or "something",
        code=code,
        who=who or "somebody",
        by=by,
        why=f" ({code})" if code else "",
        over=f" over {code}" if code else "",
        decided=f"{effect or 'no decision'}{by}",
    )
