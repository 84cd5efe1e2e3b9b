"""What a rule can ask of a call: its arguments (JSON Schema), its hints, and `when` (CEL).

A condition holds, does not hold, or cannot be evaluated; the third raises `Unevaluable` and never guesses. Patterns
run on linear-time engines only, and nothing is ever fetched.

`when` reads `arguments`, `principal` {subject, issuer, groups, uid, client}, `skill` {id, upstream, name,
annotations}, `session` {id, labels, calls} and `now`, a CEL timestamp in UTC.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from interposer.model import Facts, Json, JsonObject, Principal, Skill

MAX_DEPTH = 64
"""The native engines recurse, and a value nested 200,000 deep ends the process; `canonical` has the same bound."""
MAX_EXPRESSION = 4096

_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What the engines raise for a value they cannot judge."""

VARIABLES = frozenset({"arguments", "principal", "skill", "session", "now"})
_TIMES = (
    "FullYear",
    "Month",
    "Date",
    "DayOfMonth",
    "DayOfWeek",
    "DayOfYear",
    "Hours",
    "Minutes",
    "Seconds",
    "Milliseconds",
)
_CONVERSIONS = ("int", "uint", "double", "string", "bytes", "timestamp", "duration", "type", "dyn")
FUNCTIONS = frozenset(
    {"size", "startsWith", "endsWith", "contains", "matches", *_CONVERSIONS, *(f"get{t}" for t in _TIMES)}
)
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*,")
_CEL_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_INT64 = 2**63


class Unevaluable(Exception):
    """The condition can be judged neither true nor false; the text is for operators and holds no values."""


class BadCondition(ValueError):
    """The condition itself is wrong. `path` leads to the place inside of it."""

    def __init__(self, message: str, path: list[str | int] | None = None) -> None:
        super().__init__(message)
        self.path = path or []


class Evidence:
    """One call as conditions see it; converted for an engine only when a condition reads it, and once."""

    __slots__ = ("_bounded", "_values", "arguments", "facts", "principal", "session", "skill")

    def __init__(self, principal: Principal, skill: Skill, arguments: JsonObject, session: str, facts: Facts) -> None:
        self.principal = principal
        self.skill = skill
        self.arguments = arguments
        self.session = session
        self.facts = facts
        self._bounded: bool | None = None
        self._values: dict[str, Any] = {}

    def bounded(self) -> JsonObject:
        """The arguments, when they are shallow enough to give to an engine."""
        if self._bounded is None:
            self._bounded = _shallow(self.arguments)
        if not self._bounded:
            raise Unevaluable("the arguments are nested too deeply")
        return self.arguments

    def value(self, name: str) -> Any:
        """A variable of `when`."""
        found = self._values.get(name)
        if found is None:
            found = self._values[name] = _BUILD[name](self)
        return found


def _shallow(value: Json) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Json] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(child for child in node.values() if isinstance(child, dict | list))
            elif isinstance(node, list):
                below.extend(child for child in node if isinstance(child, dict | list))
        if not below:
            return True
        level = below
    return False


def _for_cel(value: Json) -> Json:
    """The value in CEL's types, or `Unevaluable` where CEL would silently change it."""
    kind = type(value)
    if kind is dict:
        return {key: _for_cel(child) for key, child in value.items()}
    if kind is list:
        return [_for_cel(child) for child in value]
    if kind is int and not -_INT64 <= value < _INT64:
        raise Unevaluable("an integer is beyond 64 bits")
    if kind is Decimal:
        near = float(value)
        if Decimal(repr(near)) != value:
            raise Unevaluable("a number has more digits than a double keeps")
        return near
    return value


def _principal(evidence: Evidence) -> JsonObject:
    who = evidence.principal
    return {
        "subject": who.subject,
        "issuer": who.issuer,
        "groups": list(who.groups),
        "uid": who.uid,
        "client": who.client_id,
    }


def _skill(evidence: Evidence) -> JsonObject:
    skill = evidence.skill
    annotations = skill.annotations
    if not _shallow(annotations):
        raise Unevaluable("the skill's annotations are nested too deeply")
    return {
        "id": skill.id,
        "upstream": skill.upstream,
        "name": skill.name,
        "annotations": _for_cel(annotations),
    }


def _session(evidence: Evidence) -> JsonObject:
    facts = evidence.facts
    return {"id": evidence.session, "labels": sorted(facts.labels), "calls": facts.calls}


_BUILD: dict[str, Callable[[Evidence], Any]] = {
    "arguments": lambda evidence: _for_cel(evidence.bounded()),
    "principal": _principal,
    "skill": _skill,
    "session": _session,
    "now": lambda evidence: datetime.fromtimestamp(evidence.facts.now, UTC),
}


class Condition(Protocol):
    """One thing that must be so for a rule to speak."""

    kind: str
    """The key it stands under: `arguments`, `hints`, `match`, `when`."""

    def holds(self, evidence: Evidence) -> bool:
        """Whether it is so. Raises `Unevaluable`."""

    def why_not(self, evidence: Evidence) -> str:
        """For operators: what does not fit, without echoing values."""


class Hint:
    """An MCP annotation of the pinned definition is exactly so. An absent or odd one cannot be judged."""

    kind = "hints"
    __slots__ = ("_annotation", "_expected")

    def __init__(self, annotation: str, expected: bool) -> None:
        self._annotation = annotation
        self._expected = expected

    def holds(self, evidence: Evidence) -> bool:
        found = evidence.skill.annotations.get(self._annotation)
        if found is True or found is False:
            return found is self._expected
        raise Unevaluable(f"the skill does not say {self._annotation}")

    def why_not(self, evidence: Evidence) -> str:
        return f"the skill's {self._annotation} is not {str(self._expected).lower()}"


class Arguments:
    """The arguments validate against a JSON Schema (2020-12, formats asserted, patterns linear)."""

    kind = "arguments"
    __slots__ = ("_validator",)

    def __init__(self, schema: JsonObject) -> None:
        import jsonschema_rs

        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                schema,
                validate_formats=True,
                ignore_unknown_formats=False,
                pattern_options=jsonschema_rs.RegexOptions(),
                offline=True,
            )
        except jsonschema_rs.ValidationError as error:
            path = [step for step in error.instance_path if isinstance(step, str | int)]
            raise BadCondition(_schema_message(error, path), path) from None
        except _FAULTS as error:
            raise BadCondition(f"not a JSON Schema that can be compiled: {error}") from None

    def holds(self, evidence: Evidence) -> bool:
        arguments = evidence.bounded()
        try:
            return bool(self._validator.is_valid(arguments))
        except _FAULTS as error:
            raise Unevaluable(f"the schema could not be applied ({type(error).__name__})") from None

    def why_not(self, evidence: Evidence) -> str:
        arguments = evidence.bounded()
        try:
            errors = [_place(error) for _, error in zip(range(3), self._validator.iter_errors(arguments), strict=False)]
        except _FAULTS:
            return "the schema could not be applied"
        return "; ".join(dict.fromkeys(errors))


def _place(error: Any) -> str:
    path = "".join(f"/{step}" for step in error.instance_path)
    return f"`{path or '/'}` does not satisfy `{error.kind.name}`"


def _schema_message(error: Any, path: list[str | int]) -> str:
    if path and (path[-1] == "pattern" or "patternProperties" in path):
        return (
            "this pattern is not one that linear-time matching takes: look-around, back-references and very large "
            "repetitions are refused; rewrite it"
        )
    first = str(error.message).split("\n", 1)[0]
    return f"not a JSON Schema (2020-12): {first}"


class When:
    """A CEL expression is true."""

    kind = "when"
    __slots__ = ("_program", "_variables", "source")

    def __init__(self, source: str) -> None:
        if len(source) > MAX_EXPRESSION:
            raise BadCondition(f"the expression is longer than {MAX_EXPRESSION} characters; split it into rules")
        # 250 ms to import: only policies that use `when` pay for it.
        import cel

        try:
            self._program = cel.compile(source)
        except _FAULTS as error:
            raise BadCondition(_cel_message(str(error))) from None
        self.source = source
        self._variables = tuple(sorted(VARIABLES.intersection(self._program.variables())))
        _refuse_unknown(self._program, source)

    def holds(self, evidence: Evidence) -> bool:
        try:
            result = self._program.execute({name: evidence.value(name) for name in self._variables})
        except _FAULTS as error:
            raise Unevaluable(f"`when` could not be evaluated ({type(error).__name__})") from None
        if result is True or result is False:
            return bool(result)
        raise Unevaluable("`when` is neither true nor false")

    def why_not(self, evidence: Evidence) -> str:
        return f"`{self.source}` is false"


def _refuse_unknown(program: Any, source: str) -> None:
    bound = set(_MACRO.findall(source))
    for name in program.variables():
        if name not in VARIABLES and name not in bound:
            raise BadCondition(f"unknown variable {name!r}; expected one of {', '.join(sorted(VARIABLES))}")
    for name in program.functions():
        if name.isidentifier() and not name.startswith("_") and name not in FUNCTIONS:
            raise BadCondition(f"unknown function {name!r}; expected one of {', '.join(sorted(FUNCTIONS))}")


def _cel_message(said: str) -> str:
    found = _CEL_ERROR.search(said)
    if found is None:
        return "not a CEL expression"
    return f"not a CEL expression: character {found[2]}: {found[3][:200]}"
