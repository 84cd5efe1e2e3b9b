"""Whether arguments fit a skill's JSON Schema, said without ever repeating a value.

One validator says yes at full speed; only where it says no does the other one find the words. Where they disagree the
call is refused. No reference leaves the schema, and no pattern can stall the broker: backtracking is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import jsonschema_rs

from .errors import InvalidArguments
from .model import Json, JsonObject

MAX_SCHEMA_BYTES = 256 * 1024
BACKTRACK_LIMIT = 10_000
"""Steps of one regular expression on one value; beyond it the value counts as not matching."""
EXPLAINED_NODES = 500
"""Arguments with more values than these are refused in fewer words."""
MOST_LINES = 5
DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""Where a schema names none (MCP 2025-11-25, JSON Schema usage)."""


class UnusableSchema(ValueError):
    """The schema cannot be compiled as it stands: a remote reference, a broken pattern, an unknown type."""


class Arguments:
    """The compiled argument schema of one skill. Making one costs milliseconds: keep it."""

    def __init__(self, schema: JsonObject) -> None:
        """Raises `UnusableSchema`."""
        self._schema = schema
        self._fast = compiled(schema)

    def check(self, arguments: JsonObject) -> None:
        """Raises `InvalidArguments`, which names the place and the rule."""
        try:
            if self._fast.is_valid(arguments):
                return
        except ValueError:
            raise InvalidArguments("The arguments could not be checked against the skill's schema.") from None
        raise InvalidArguments("; ".join(_explained(self._schema, self._fast, arguments)))


def compiled(schema: Json) -> Any:
    """A validator that fetches nothing and whose patterns are bounded. Raises `UnusableSchema`."""
    try:
        return jsonschema_rs.validator_for(
            schema if isinstance(schema, dict) and "$schema" in schema else _with_dialect(schema),
            retriever=_nothing_is_fetched,
            validate_formats=False,
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT),
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise UnusableSchema(str(error)) from None


def _with_dialect(schema: Json) -> Json:
    return {"$schema": DIALECT, **schema} if isinstance(schema, dict) else schema


def _nothing_is_fetched(uri: str) -> Json:
    # MCP 2026-07-28, tools: schemas MUST NOT be dereferenced over the network.
    raise ValueError("a reference leaves the schema")


def _explained(schema: JsonObject, fast: Any, arguments: JsonObject) -> list[str]:
    """At most five lines `at /path: rule`. The words come from the schema, never from the values; whoever shows them
    masks them, for the schema may hold what callers were not shown."""
    from jsonschema.exceptions import SchemaError

    found: list[str] = []
    # The other validator takes a thousand times as long, and its time grows with the square of what it is given.
    if _size(arguments) <= EXPLAINED_NODES:
        try:
            found = list(islice(_slow(schema, arguments), MOST_LINES))
        except (SchemaError, ValueError, TypeError, ArithmeticError, RecursionError):
            found = []
    return list(dict.fromkeys(found)) or [_first(fast, arguments)]


def _first(fast: Any, arguments: JsonObject) -> str:
    """The first rule that is broken: asked for all of them, the fast validator makes an object of each."""
    try:
        fast.validate(arguments)
    except jsonschema_rs.ValidationError as error:
        return _line(error.instance_path, str(error.kind.name), None)
    return "they do not fit"


def _size(value: Json) -> int:
    """Values in a value; the texts in it count by their length."""
    size = 0
    waiting = [value]
    while waiting and size <= EXPLAINED_NODES:
        node = waiting.pop()
        size += 1 + (len(node) >> 4 if isinstance(node, str) else 0)
        if isinstance(node, dict):
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
    return size


def _slow(schema: JsonObject, arguments: JsonObject) -> Iterator[str]:
    from jsonschema.validators import extend, validator_for

    base = validator_for(_with_dialect(schema))
    # Patterns are left to the bounded engine: the standard library's backtracks without a limit.
    quiet = {"pattern": _silent, "patternProperties": _silent, "uniqueItems": _silent}
    kind = extend(base, quiet)  # type: ignore[no-untyped-call]
    for error in kind(schema).iter_errors(arguments):
        yield _line(error.absolute_path, str(error.validator), error.validator_value)


def _silent(*_: Any) -> Iterator[Any]:
    return iter(())


def _line(path: Any, rule: str, value: Json) -> str:
    where = "/" + "/".join(str(step)[:64] for step in path)
    wanted = _wanted(rule, value)
    return f"at {where}: {wanted}"


def _wanted(rule: str, value: Json) -> str:
    """The rule in words, with the schema's own parameters where they are short."""
    if rule == "required" and isinstance(value, list):
        return f"required: {', '.join(str(name)[:64] for name in value[:10])}"
    if rule == "additionalProperties":
        return "a property that the schema does not have (additionalProperties)"
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return f"{rule}: {str(value)[:64]}"
    if rule in ("enum", "type") and isinstance(value, list):
        return f"{rule}: {', '.join(str(item)[:32] for item in value[:10])}"
    return f"does not satisfy {rule}"
