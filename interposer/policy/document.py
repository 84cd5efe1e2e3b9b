"""A policy's text -> its rules, or every problem in it at once, each with line, column and what to do.

    version: 1
    rules, otherwise   lists of {id, effect, skills, who, hints, arguments, match, when, message, approval}
    obligations        list of {skills, who, mask, timeout, max_result, rate, labels, record}

Nothing is guessed: an unknown key, a value of another type or a condition that cannot be compiled refuses the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pkgutil import get_data

from interposer import canonical
from interposer.errors import ConfigurationError, Problem
from interposer.model import Effect, MatchedRule, Rate
from interposer.terms import ApprovalTerms

from . import units
from .approval import APPROVAL_KEYS, read_approval
from .conditions import Arguments, BadCondition, Condition, Hint
from .expressions import When
from .matchers import MATCHERS
from .reading import Reading, nearest, shown
from .rules import Document, Obligation, Rule, Who
from .schema_shape import check_shape
from .strict_yaml import Node, read

KEYS = ("version", "rules", "otherwise", "obligations")
RULE_KEYS = ("id", "effect", "skills", "who", "hints", "arguments", "match", "when", "message", "approval")
_INSIDE = dict.fromkeys(APPROVAL_KEYS, "approval")
WHO_KEYS = ("groups", "subjects", "issuers", "clients", "uids")
HINTS = {
    "readOnly": "readOnlyHint",
    "destructive": "destructiveHint",
    "idempotent": "idempotentHint",
    "openWorld": "openWorldHint",
}
OBLIGATION_KEYS = ("skills", "who", "mask", "timeout", "max_result", "rate", "labels", "record")
RECORDS = ("masked", "none")
PROFILES = ("pii", "secrets")
"""What the masker knows; with another it would withhold every answer."""


def parse(text: str, file: str) -> Document:
    """Raises `ConfigurationError` with every problem."""
    root, problems = read(text, file)
    reading = _Reading(file, problems)
    document = reading.document(root) if root is not None else None
    if document is None or reading.problems:
        raise ConfigurationError(sorted(reading.problems, key=lambda problem: (problem.line, problem.column)))
    return document


def starter_text() -> str:
    """The built-in policy, as one would copy it."""
    # importlib.resources takes 20 ms to import, pkgutil 1 ms.
    raw = get_data(__package__ or "interposer.policy", "starter.yaml")
    if raw is None:
        raise ConfigurationError([Problem("builtin:starter", 0, 0, "the package is incomplete; install it again")])
    return raw.decode("utf-8")


class _Reading(Reading):
    """One pass over a whole policy."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        super().__init__(file, problems)
        self._ids: dict[str, int] = {}

    def document(self, root: Node) -> Document | None:
        members = self.mapping(root, "the policy", KEYS)
        version = members.get("version")
        if not isinstance(root.value, dict):
            return None
        if version is None:
            self.at(root, "`version` is missing: write `version: 1`")
        elif version.value != 1 or isinstance(version.value, bool):
            self.at(version, "unknown version: this broker reads `version: 1`")
        rules = self.rules(members.get("rules"), "rules")
        otherwise = self.rules(members.get("otherwise"), "otherwise")
        obligations = self.obligations(members.get("obligations"))
        if self.problems:
            return None
        digest = canonical.digest({"policy": root.plain()})
        return Document(self.file, digest, rules, otherwise, obligations)

    def rules(self, node: Node | None, what: str) -> tuple[Rule, ...]:
        return tuple(rule for child in self.items(node, what) if (rule := self.rule(child)) is not None)

    def rule(self, node: Node) -> Rule | None:
        members = self.mapping(node, "a rule", RULE_KEYS, inside=_INSIDE)
        if not isinstance(node.value, dict):
            return None
        before = len(self.problems)
        id = self.id(node, members.get("id"))
        effect = self.effect(node, members.get("effect"))
        skills = self.skills(node, members.get("skills"))
        who = self.who(members.get("who"))
        hints = self.hints(members.get("hints"))
        conditions = (
            *self.arguments(members.get("arguments")),
            *self.matchers(members.get("match")),
            *self.when(members.get("when")),
        )
        message = self.text(members.get("message"), "`message`", limit=1000) or ""
        terms = self.approval(effect, node, members.get("approval"))
        if len(self.problems) > before or effect is None:
            return None
        spoken = MatchedRule(id, effect, self.file, node.line, message)
        loose = effect is Effect.ALLOW and "arguments" in members and _loose(members["arguments"])
        return Rule(id, effect, skills, who, hints, conditions, terms, spoken, node.column, loose)

    def id(self, rule: Node, node: Node | None) -> str:
        if node is None:
            self.at(rule, "`id` is missing: give the rule a name, it stands in the record")
            return ""
        id = self.text(node, "`id`", limit=100)
        if id is None:
            return ""
        if not id.isprintable() or id != id.strip():
            self.at(node, "`id` has no control characters and no spaces around it")
        elif id in self._ids:
            self.at(node, f"the id {id!r} is already taken on line {self._ids[id]}; ids are unique in the whole file")
        else:
            self._ids[id] = node.line
        return id

    def effect(self, rule: Node, node: Node | None) -> Effect | None:
        if node is None:
            self.at(rule, "`effect` is missing: write allow, ask or deny")
            return None
        if isinstance(node.value, str) and node.value in tuple(Effect):
            return Effect(node.value)
        self.at(node, f"unknown effect {shown(node)}: expected allow, ask or deny")
        return None

    def skills(self, owner: Node, node: Node | None) -> tuple[str, ...]:
        if node is None:
            self.at(owner, '`skills` is missing: list <upstream>.<name> patterns, or ["*"]')
            return ()
        found = self.strings(node, "`skills`", wildcard=True)
        for child, pattern in found:
            self.convert(child, "", partial(units.check_pattern, pattern))
        return tuple(pattern for _, pattern in found)

    def who(self, node: Node | None) -> Who | None:
        if node is None:
            return None
        members = self.mapping(node, "`who`", WHO_KEYS)
        if node.value == {}:
            self.at(node, f"`who` names nobody: give one of {', '.join(WHO_KEYS)}, or leave `who` out for everyone")
        return Who(
            groups=self.names(members.get("groups"), "`groups`"),
            subjects=self.names(members.get("subjects"), "`subjects`"),
            issuers=self.names(members.get("issuers"), "`issuers`"),
            clients=self.names(members.get("clients"), "`clients`"),
            uids=self.uids(members.get("uids")),
        )

    def uids(self, node: Node | None) -> frozenset[int] | None:
        if node is None:
            return None
        found = set()
        for child in self.items(node, "`uids`", empty=False):
            if type(child.value) is int and 0 <= child.value < 2**32:
                found.add(child.value)
            else:
                self.at(child, f"{shown(child)} is not a uid: expected a number from 0 up")
        return frozenset(found)

    def hints(self, node: Node | None) -> tuple[Condition, ...]:
        if node is None:
            return ()
        found: list[Condition] = []
        for key, child in self.mapping(node, "`hints`", tuple(HINTS)).items():
            if isinstance(child.value, bool):
                found.append(Hint(HINTS[key], child.value))
            else:
                self.at(child, f"`{key}` is {shown(child)}: expected true or false")
        return tuple(found)

    def arguments(self, node: Node | None) -> tuple[Condition, ...]:
        if node is None:
            return ()
        before = len(self.problems)
        check_shape(node, self.refuse)
        if len(self.problems) > before:
            return ()
        return self.compiled(node, lambda: Arguments(node.plain()))

    def matchers(self, node: Node | None) -> tuple[Condition, ...]:
        found: list[Condition] = []
        for child in self.items(node, "`match`", empty=False):
            if not isinstance(child.value, dict) or len(child.value) != 1:
                self.at(child, "expected a mapping with one key, the matcher's name")
                continue
            ((name, settings),) = child.value.items()
            make = MATCHERS.get(name)
            if make is None:
                known = ", ".join(sorted(MATCHERS)) or "none in this version; use `arguments` or `when`"
                self.refuse(*child.keys[name], f"unknown matcher {name!r}: known are {known}")
                continue
            found.extend(self.compiled(settings, partial(make, settings.plain())))
        return tuple(found)

    def when(self, node: Node | None) -> tuple[Condition, ...]:
        source = self.text(node, "`when`", limit=None)
        if node is None or source is None:
            return ()
        return self.compiled(node, lambda: When(source))

    def compiled(self, node: Node, make: Callable[[], Condition]) -> tuple[Condition, ...]:
        try:
            return (make(),)
        except BadCondition as error:
            self.at(node.at(error.path), str(error))
            return ()

    def approval(self, effect: Effect | None, rule: Node, node: Node | None) -> ApprovalTerms | None:
        if node is None:
            return ApprovalTerms() if effect is Effect.ASK else None
        if effect is not None and effect is not Effect.ASK:
            self.refuse(
                *rule.keys["approval"], f"`approval` belongs to ask rules; this one says {effect}, so remove it"
            )
        return read_approval(self, node)

    def obligations(self, node: Node | None) -> tuple[Obligation, ...]:
        return tuple(self.obligation(child) for child in self.items(node, "obligations"))

    def obligation(self, node: Node) -> Obligation:
        members = self.mapping(node, "an obligation", OBLIGATION_KEYS)
        skills = self.skills(node, members.get("skills")) if isinstance(node.value, dict) else ()
        if isinstance(node.value, dict) and not set(members) - {"skills", "who"}:
            self.at(node, f"nothing is demanded: give one of {', '.join(OBLIGATION_KEYS[2:])}")
        record = members.get("record")
        if record is not None and record.value not in RECORDS:
            self.at(record, f"unknown record {shown(record)}: expected {' or '.join(RECORDS)}")
        return Obligation(
            skills=skills,
            who=self.who(members.get("who")),
            mask=self.profiles(members.get("mask")),
            timeout_s=self.unit(members.get("timeout"), "`timeout`", units.seconds),
            max_result_bytes=self.unit(members.get("max_result"), "`max_result`", units.size),
            rate=self.rate(members.get("rate"), skills, members.get("who")),
            labels=self.names(members.get("labels"), "`labels`") or frozenset(),
            record=record.value if record is not None and record.value in RECORDS else None,
            line=node.line,
            column=node.column,
        )

    def profiles(self, node: Node | None) -> frozenset[str] | None:
        if node is None:
            return None
        found = self.strings(node, "`mask`", empty=True)
        for child, name in found:
            if name not in PROFILES:
                self.at(child, f"unknown profile {shown(child)}: {nearest(name, PROFILES)}")
        return frozenset(name for _, name in found)

    def rate(self, node: Node | None, skills: Iterable[str], who: Node | None) -> Rate | None:
        found = self.unit(node, "`rate`", units.rate)
        if node is None or found is None or self.problems:
            return None
        # Named by what it says, so that its counter outlives a reload that leaves it as it is.
        id = canonical.digest([sorted(skills), None if who is None else who.plain(), node.value])[:16]
        return Rate(id, *found)


def _loose(node: Node) -> bool:
    """JSON Schema checks a property only where it is there: `properties` without `required` lets its absence pass."""
    members = node.value if isinstance(node.value, dict) else {}
    if not {"allOf", "anyOf", "oneOf", "if"}.isdisjoint(members):
        return False
    properties = members["properties"].value if "properties" in members else {}
    required = members["required"].plain() if "required" in members else []
    return isinstance(properties, dict) and isinstance(required, list) and bool(set(properties) - set(required))
