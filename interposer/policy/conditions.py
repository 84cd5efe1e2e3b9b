"""What a rule can ask of a call: its arguments (JSON Schema) and its hints; `when` has a file of its own.

A condition holds, does not hold, or cannot be evaluated; the third raises `Unevaluable` and never guesses. Patterns
run on linear-time engines only, and nothing is ever fetched.
"""

from __future__ import annotations

from typing import Any, Protocol

from interposer.model import Facts, Json, JsonObject, Principal, Skill

MAX_DEPTH = 64
"""The native engines recurse, and a value nested 200,000 deep ends the process; `canonical` has the same bound."""

FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What the engines raise for a value they cannot judge."""


class Unevaluable(Exception):
    """The condition can be judged neither true nor false; the text is for operators and holds no values."""


class BadCondition(ValueError):
    """The condition itself is wrong. `path` leads to the place inside of it."""

    def __init__(self, message: str, path: list[str | int] | None = None) -> None:
        super().__init__(message)
        self.path = path or []


class Evidence:
    """One call as conditions see it; converted for an engine only when a condition reads it, and once."""

    __slots__ = ("_bounded", "arguments", "converted", "facts", "principal", "session", "skill")

    def __init__(self, principal: Principal, skill: Skill, arguments: JsonObject, session: str, facts: Facts) -> None:
        self.principal = principal
        self.skill = skill
        self.arguments = arguments
        self.session = session
        self.facts = facts
        self._bounded: bool | None = None
        self.converted: dict[str, Any] = {}
        """What an engine has been given already; only the engine's own file reads it."""

    def bounded(self) -> JsonObject:
        """The arguments, when they are shallow enough to give to an engine."""
        if self._bounded is None:
            self._bounded = shallow(self.arguments)
        if not self._bounded:
            raise Unevaluable("the arguments are nested too deeply")
        return self.arguments


def shallow(value: Json) -> bool:
    """Whether a value is nested no deeper than `MAX_DEPTH`."""
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
        except FAULTS as error:
            raise BadCondition(f"not a JSON Schema that can be compiled: {error}") from None

    def holds(self, evidence: Evidence) -> bool:
        arguments = evidence.bounded()
        try:
            return bool(self._validator.is_valid(arguments))
        except FAULTS as error:
            raise Unevaluable(f"the schema could not be applied ({type(error).__name__})") from None

    def why_not(self, evidence: Evidence) -> str:
        arguments = evidence.bounded()
        try:
            errors = [_place(error) for _, error in zip(range(3), self._validator.iter_errors(arguments), strict=False)]
        except FAULTS:
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
    if path and path[-1] == "format":
        return "unknown format: JSON Schema 2020-12 names date-time, email, uri and others; see validation §7.3"
    first = str(error.message).split("\n", 1)[0]
    return f"not a JSON Schema (2020-12): {first}"
