"""`interposer policy`: check a policy, explain one decision, decide many. Nothing here makes a call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from interposer import canonical
from interposer.errors import ConfigurationError, Problem
from interposer.model import Decision, Effect, Facts, Json, JsonObject, Principal, Skill

if TYPE_CHECKING:
    from interposer.facts import MemoryFacts
    from interposer.policy.engine import Policy
    from interposer.policy.lint import Finding

STARTER = "builtin:starter"
MAX_LINE = 16 * 1024 * 1024

_policy_option = click.option(
    "--policy", "policy_file", metavar="FILE", help="A policy file, or builtin:starter. Default: the configuration's."
)
_config_option = click.option("--config", metavar="FILE", help="The configuration that names the policy.")


@click.group(
    name="policy",
    epilog="\b\nExample:\n  interposer policy check policy.yaml",
)
def policy() -> None:
    """Check, explain and try policies. Nothing is executed."""


@policy.command(
    epilog="\b\nExit codes: 0 fine, 1 something is said in vain, 2 a file cannot be used.\n\n"
    "\b\nExample:\n  interposer policy check policies/*.yaml",
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--skills", "skills_file", metavar="FILE", help="Known skill ids: one a line, or a JSON list.")
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
def check(files: tuple[str, ...], skills_file: str | None, as_json: bool) -> None:
    """Report everything that is wrong with policies, all at once, with line and column.

    Errors keep a policy from being used. Warnings are rules that never decide and patterns that name no known skill.
    Notes are worth a look and change no exit code.
    """
    known = None if skills_file is None else _known_skills(_read(skills_file), skills_file)
    found = [row for file in files for row in _check(file, known)]
    levels = {row["level"] for row in found}
    if as_json:
        click.echo(canonical.encode({"ok": not levels & {"error", "warning"}, "problems": found}))
    else:
        for row in found:
            place = f"{row['file']}:{row['line']}:{row['column']}" if row["line"] else row["file"]
            click.echo(f"{place}: {row['level']}: {row['message']}")
        for file in dict.fromkeys(files):
            if not any(row["file"] == file and row["level"] == "error" for row in found):
                click.echo(f"{file}: can be used")
    sys.exit(2 if "error" in levels else 1 if "warning" in levels else 0)


@policy.command(
    epilog="\b\nExample:\n  interposer policy explain --skill payments.refund --arguments '{\"amount\": 80}' "
    "--as anna:support",
)
@click.option("--skill", "skill_id", required=True, metavar="ID", help="<upstream>.<name>")
@click.option("--arguments", metavar="JSON", default="{}", help="The call's arguments. Default: {}")
@click.option("--annotations", metavar="JSON", default="{}", help="The skill's MCP annotations, such as readOnlyHint.")
@click.option("--as", "who", metavar="SUBJECT[:GROUP,GROUP]", default="", help="Who asks.")
@click.option("--issuer", default="local", show_default=True, help="Whose word it is that it is them.")
@click.option("--label", "labels", multiple=True, help="A label on the session; may be repeated.")
@_policy_option
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object.")
def explain(
    skill_id: str,
    arguments: str,
    annotations: str,
    who: str,
    issuer: str,
    labels: tuple[str, ...],
    policy_file: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Say which rules match a call, where they stand, which do not and why, and what would be needed."""
    from interposer.clock import SystemClock
    from interposer.policy.explain import explain as judged
    from interposer.policy.explain import text

    subject, _, groups = who.partition(":")
    principal = Principal(issuer, subject, tuple(group for group in groups.split(",") if group))
    skill = _skill(skill_id, _object(annotations, "--annotations"))
    facts = Facts(labels=frozenset(labels), now=SystemClock().now())
    given = _object(arguments, "--arguments")
    found = judged(_load(policy_file, config), principal, skill, given, "", facts)
    click.echo(canonical.encode(found) if as_json else text(found))


@policy.command(
    epilog="\b\nExample:\n"
    '  echo \'{"skill": "crm.search", "arguments": {}, "principal": {"subject": "anna", "groups": ["support"]}}\' \\\n'
    "    | interposer policy decide --jsonl --policy policy.yaml",
)
@click.option("--jsonl", is_flag=True, required=True, help="One JSON object a line, in and out.")
@_policy_option
@_config_option
def decide(jsonl: bool, policy_file: str | None, config: str | None) -> None:
    """Decide one call per line of standard input.

    \b
    in:  {"skill", "arguments", "principal": {"subject", "groups", "issuer", "uid", "client"}, "session"?,
          "annotations"?, "now"?}
    out: {"effect", "rules": [ids], "reason", "labels"}

    Lines of one session share labels and counters: a line that is allowed counts as a call and puts the skill's
    labels on the session. "labels" are the session's after the line. A line without "session" is one of its own.
    Rates are not applied, because lines have no times. A line that cannot be read is answered with "error" and deny,
    and the exit code is 2 at the end.
    """
    from interposer.clock import SystemClock
    from interposer.facts import MemoryFacts

    in_force = _load(policy_file, config)
    known = MemoryFacts(SystemClock(), max_sessions=1_000_000)
    out = sys.stdout.buffer
    failed = False
    for line in _lines(sys.stdin.buffer):
        answer = _decide(in_force, known, line)
        failed = failed or "error" in answer
        out.write(canonical.encode(answer) + b"\n")
        out.flush()
    sys.exit(2 if failed else 0)


def _check(file: str, known: set[str] | None) -> Iterator[JsonObject]:
    from interposer.policy.lint import lint

    try:
        loaded = _load(file, None)
    except ConfigurationError as error:
        yield from (_row(problem, "error") for problem in error.problems)
        return
    findings: list[Finding] = lint(loaded, known)
    yield from (_row(finding.problem, "note" if finding.note else "warning") for finding in findings)


def _row(problem: Problem, level: str) -> JsonObject:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "level": level,
        "message": problem.message,
    }


def _load(named: str | None, config: str | None) -> Policy:
    from interposer.policy import engine

    if named is None:
        from interposer.config import policy_text

        text, file = policy_text(None, config)
    else:
        text, file = ("", STARTER) if named == STARTER else (_read(named), named)
    return engine.starter() if file == STARTER else engine.load(text, file)


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        said = "not UTF-8 text; save it as UTF-8"
    except OSError as error:
        said = f"cannot be read ({error.strerror}); check the path and its permissions"
    raise ConfigurationError([Problem(file, 0, 0, said)])


def _known_skills(text: str, file: str) -> set[str]:
    if not text.lstrip().startswith("["):
        return {line.strip() for line in text.splitlines() if line.strip()}
    try:
        found = canonical.parse(text.encode())
    except canonical.Malformed as error:
        raise ConfigurationError([Problem(file, 0, 0, str(error))]) from None
    ids = [row.get("id") if isinstance(row, dict) else row for row in found]
    named = {id for id in ids if isinstance(id, str)}
    if not all(isinstance(id, str) for id in ids):
        raise ConfigurationError([Problem(file, 0, 0, "expected a list of skill ids, or of objects with `id`")])
    return named


def _object(text: str, option: str) -> JsonObject:
    try:
        value = canonical.parse(text.encode("utf-8", "surrogateescape"))
    except canonical.Malformed as error:
        raise click.BadParameter(f"{error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise click.BadParameter("expected a JSON object", param_hint=option)
    return value


def _skill(id: str, annotations: JsonObject) -> Skill:
    upstream, _, name = id.partition(".")
    return Skill(id, upstream, name, name, {"name": name, "annotations": annotations}, digest="")


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines without their ends; one that is too long is cut short, and so cannot be read as JSON."""
    while line := stream.readline(MAX_LINE):
        whole = line.endswith(b"\n") or len(line) < MAX_LINE
        if not whole:
            while (rest := stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
        yield line.rstrip(b"\r\n") if whole else b"{"


class _Unreadable(ValueError):
    """The text says what was expected."""


def _decide(in_force: Policy, known: MemoryFacts, line: bytes) -> JsonObject:
    try:
        principal, skill, arguments, session, now = _request(line)
    except (canonical.Malformed, _Unreadable) as error:
        return {"effect": str(Effect.DENY), "rules": [], "reason": "not decided", "labels": [], "error": str(error)}
    facts = known.facts(session) if session else Facts(now=known.facts("").now)
    if now is not None:
        facts = replace(facts, now=now)
    decision = in_force.decide(principal, skill, arguments, session, facts)
    return {
        "effect": str(decision.effect),
        "rules": [rule.id for rule in decision.rules],
        "reason": decision.reason,
        "labels": sorted(_labels(decision, facts, known, session)),
    }


def _labels(decision: Decision, facts: Facts, known: MemoryFacts, session: str) -> frozenset[str]:
    """The session's labels after the line."""
    if decision.effect is not Effect.ALLOW:
        return facts.labels
    if session:
        known.count(session)
        known.label(session, decision.obligations.labels)
    return facts.labels | decision.obligations.labels


def _request(line: bytes) -> tuple[Principal, Skill, JsonObject, str, float | None]:
    row = canonical.parse(line)
    if not isinstance(row, dict):
        raise _Unreadable("expected a JSON object")
    id = _member(row, "skill", str, "a text")
    if not id:
        raise _Unreadable("skill: expected a text")
    arguments = _member(row, "arguments", dict, "an object", {})
    annotations = _member(row, "annotations", dict, "an object", {})
    session = _member(row, "session", str, "a text", "")
    now = row.get("now")
    if now is not None and (isinstance(now, bool) or not isinstance(now, int | float | Decimal)):
        raise _Unreadable("now: expected seconds since 1970")
    return (
        _principal(_member(row, "principal", dict, "an object")),
        _skill(id, annotations),
        arguments,
        session,
        None if now is None else float(now),
    )


def _principal(row: JsonObject) -> Principal:
    groups = _member(row, "groups", list, "a list of texts", [])
    if not all(isinstance(group, str) for group in groups):
        raise _Unreadable("principal.groups: expected a list of texts")
    uid = row.get("uid")
    if uid is not None and type(uid) is not int:
        raise _Unreadable("principal.uid: expected a number")
    return Principal(
        issuer=_member(row, "issuer", str, "a text", "local"),
        subject=_member(row, "subject", str, "a text"),
        groups=tuple(groups),
        uid=uid,
        client_id=_member(row, "client", str, "a text", ""),
    )


def _member(row: JsonObject, key: str, kind: type, expected: str, default: Json = None) -> Json:
    value = row.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        raise _Unreadable(f"{key}: expected {expected}" + ("" if key in row else ", and it is missing"))
    return value
