"""`when`: a CEL expression over one call, converted exactly and evaluated within bounds.

It reads `arguments`, `principal` {subject, issuer, groups, uid, client}, `skill` {id, upstream, name, annotations},
`session` {id, labels, calls} and `now`, a CEL timestamp in UTC. Unknown names, members and functions are found at
load. A value that CEL would silently change (integers beyond 64 bits, digits beyond a double) is not evaluated.

Callers choose how much a comprehension runs over, so its cost is bounded before it starts: `all` and `exists` are
linear, `map` and `filter` quadratic (measured: 5 s for 10,000 items), and nesting multiplies.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from interposer.model import Json, JsonObject

from .conditions import FAULTS, BadCondition, Evidence, Unevaluable, shallow

MAX_EXPRESSION = 4096
MAX_STEPS = 100_000
"""Steps of a comprehension: some 20 to 60 ms."""

MEMBERS: dict[str, frozenset[str] | None] = {
    "arguments": None,
    "principal": frozenset({"subject", "issuer", "groups", "uid", "client"}),
    "skill": frozenset({"id", "upstream", "name", "annotations"}),
    "session": frozenset({"id", "labels", "calls"}),
    "now": None,
}
_CONVERSIONS = ("int", "uint", "double", "string", "bytes", "timestamp", "duration", "type", "dyn")
_DAYS = ("FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek", "DayOfYear")
_TIMES = (*_DAYS, "Hours", "Minutes", "Seconds", "Milliseconds")
_TEXTS = ("size", "startsWith", "endsWith", "contains", "matches")
FUNCTIONS = frozenset({*_TEXTS, *_CONVERSIONS, *(f"get{part}" for part in _TIMES)})

_MACROS = {"all": 1, "exists": 1, "exists_one": 1, "map": 2, "filter": 2}
"""The power of the number of values that each costs."""
_LITERAL = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
_PARENTHESIS = re.compile(r"\.\s*(all|exists|exists_one|map|filter)\s*\(|\(|\)")
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*,")
_MEMBER = re.compile(r"(?<![\w.])(principal|skill|session)\s*\.\s*([A-Za-z_][A-Za-z0-9_]*)")
_CEL_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_INT64 = 2**63
_CHARS_PER_STEP = 4096


class When:
    """A CEL expression is true."""

    kind = "when"
    __slots__ = ("_power", "_program", "_variables", "source")

    def __init__(self, source: str) -> None:
        if len(source) > MAX_EXPRESSION:
            raise BadCondition(f"the expression is longer than {MAX_EXPRESSION} characters; split it into rules")
        # 250 ms to import: only policies that use `when` pay for it.
        import cel

        try:
            self._program = cel.compile(source)
        except FAULTS as error:
            raise BadCondition(_said(str(error))) from None
        bare = _LITERAL.sub("''", source)
        _refuse_unknown(self._program, bare)
        self.source = source
        self._variables = tuple(name for name in MEMBERS if name in self._program.variables())
        self._power = power(bare)

    def holds(self, evidence: Evidence) -> bool:
        try:
            known = {name: _converted(evidence, name) for name in self._variables}
            if self._power:
                self._refuse_long(known)
            result = self._program.execute({name: value for name, (value, _, _) in known.items()})
        except FAULTS as error:
            raise Unevaluable(f"`when` could not be evaluated ({type(error).__name__})") from None
        if result is True or result is False:
            return bool(result)
        raise Unevaluable("`when` is neither true nor false")

    def why_not(self, evidence: Evidence) -> str:
        return f"`{self.source}` is false"

    def _refuse_long(self, known: dict[str, tuple[Any, int, int]]) -> None:
        values = sum(count for _, count, _ in known.values())
        chars = sum(chars for _, _, chars in known.values())
        if values**self._power * (1 + chars // _CHARS_PER_STEP) > MAX_STEPS:
            raise Unevaluable("`when` would run over too many values")


def power(bare: str) -> int:
    """How the steps of an expression without literals grow with the values it reads: 0 is constant, 1 linear."""
    most = 0
    open_: list[int] = []
    for found in _PARENTHESIS.finditer(bare):
        if found[0] != ")":
            open_.append(_MACROS.get(found[1] or "", 0))
            most = max(most, sum(open_))
        elif open_:
            open_.pop()
    return most


def _refuse_unknown(program: Any, bare: str) -> None:
    bound = set(_BOUND.findall(bare))
    for name in program.variables():
        if name not in MEMBERS and name not in bound:
            raise BadCondition(f"unknown variable {name!r}; expected one of {', '.join(sorted(MEMBERS))}")
    for name in program.functions():
        if name.isidentifier() and not name.startswith("_") and name not in FUNCTIONS:
            raise BadCondition(f"unknown function {name!r}; expected one of {', '.join(sorted(FUNCTIONS))}")
    for variable, member in _MEMBER.findall(bare):
        known = MEMBERS[variable]
        if known is not None and member not in known and variable not in bound:
            raise BadCondition(f"{variable} has no {member!r}; expected one of {', '.join(sorted(known))}")


def _said(error: str) -> str:
    found = _CEL_ERROR.search(error)
    if found is None:
        return "not a CEL expression"
    return f"not a CEL expression: line {found[1]}, character {found[2]}: {found[3][:200]}"


def _converted(evidence: Evidence, name: str) -> tuple[Any, int, int]:
    """A variable with how many values and how many characters it holds; made once for a call."""
    found: tuple[Any, int, int] | None = evidence.converted.get(name)
    if found is None:
        measure = _Measure()
        value = _MAKE[name](evidence, measure)
        found = evidence.converted[name] = (value, measure.values, measure.chars)
    return found


class _Measure:
    __slots__ = ("chars", "values")

    def __init__(self) -> None:
        self.values = 0
        self.chars = 0

    def take(self, value: Json) -> Json:
        """The value in CEL's types, or `Unevaluable` where CEL would silently change it."""
        self.values += 1
        kind = type(value)
        if kind is str:
            self.chars += len(value)
            return value
        if kind is dict:
            self.chars += sum(map(len, value))
            return {key: self.take(child) for key, child in value.items()}
        if kind is list:
            return [self.take(child) for child in value]
        if kind is int and not -_INT64 <= value < _INT64:
            raise Unevaluable("an integer is beyond 64 bits")
        if kind is Decimal:
            near = float(value)
            if Decimal(repr(near)) != value:
                raise Unevaluable("a number has more digits than a double keeps")
            return near
        return value


def _principal(evidence: Evidence, measure: _Measure) -> JsonObject:
    who = evidence.principal
    groups = measure.take(list(who.groups))
    return {
        "subject": who.subject,
        "issuer": who.issuer,
        "groups": groups,
        "uid": who.uid,
        "client": who.client_id,
    }


def _skill(evidence: Evidence, measure: _Measure) -> JsonObject:
    skill = evidence.skill
    annotations = skill.annotations
    if not shallow(annotations):
        raise Unevaluable("the skill's annotations are nested too deeply")
    return {
        "id": skill.id,
        "upstream": skill.upstream,
        "name": skill.name,
        "annotations": measure.take(annotations),
    }


def _session(evidence: Evidence, measure: _Measure) -> JsonObject:
    facts = evidence.facts
    return {"id": evidence.session, "labels": measure.take(sorted(facts.labels)), "calls": facts.calls}


_MAKE: dict[str, Callable[[Evidence, _Measure], Any]] = {
    "arguments": lambda evidence, measure: measure.take(evidence.bounded()),
    "principal": _principal,
    "skill": _skill,
    "session": _session,
    "now": lambda evidence, measure: datetime.fromtimestamp(evidence.facts.now, UTC),
}
