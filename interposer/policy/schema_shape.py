"""What an `arguments` schema may be made of.

JSON Schema ignores keywords it does not know, so a typing error in one would silently widen a rule; here it is a
problem with a place. References stay inside the schema: nothing is fetched (JSON Schema 2020-12 core §9.4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .strict_yaml import Node

_ONE = frozenset({"not", "if", "then", "else", "items", "contains", "propertyNames"}) | {
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
}
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})
_ANY = frozenset({"type", "enum", "const", "format", "$ref", "$schema"})
_NUMBERS = frozenset({"multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"})
_STRINGS = frozenset({"maxLength", "minLength", "pattern"})
_ARRAYS = frozenset({"maxItems", "minItems", "uniqueItems", "maxContains", "minContains"})
_OBJECTS = frozenset({"maxProperties", "minProperties", "required", "dependentRequired"})
_WORDS = frozenset({"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
KEYWORDS = _ONE | _LISTS | _MAPS | _ANY | _NUMBERS | _STRINGS | _ARRAYS | _OBJECTS | _WORDS
_HINTS = {
    "definitions": "write $defs",
    "$id": "a schema in a policy has no address; remove it",
    "$anchor": "refer by #/$defs/NAME",
    "$dynamicRef": "refer by $ref to #/$defs/NAME",
    "$dynamicAnchor": "refer by $ref to #/$defs/NAME",
    "$recursiveRef": "refer by $ref to #/$defs/NAME",
    "dependencies": "write dependentRequired or dependentSchemas",
    "additionalItems": "write items, and prefixItems for the places before it",
}
_DEFS = "#/$defs/"
_SAME_PLACE = frozenset({"not", "if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas"})
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Refuse = Callable[[int, int, str], None]


def check_shape(schema: Node, refuse: Refuse) -> None:
    """Report keywords that 2020-12 does not have, references that lead elsewhere, and those that lead nowhere."""
    _check(schema, refuse)
    _refuse_loops(schema, refuse)


def _check(node: Node, refuse: Refuse) -> None:
    if isinstance(node.value, bool):
        return
    if not isinstance(node.value, dict):
        refuse(node.line, node.column, "expected a JSON Schema: a mapping, true or false")
        return
    for keyword, child in node.value.items():
        line, column = node.keys[keyword]
        if keyword not in KEYWORDS:
            hint = _HINTS.get(keyword) or _nearest(keyword)
            refuse(line, column, f"unknown JSON Schema keyword {keyword!r}: {hint}")
        elif keyword == "$ref" and not _inside(child.value):
            refuse(line, column, "a $ref leads to #/$defs/NAME in the same schema; nothing is fetched")
        elif keyword == "$schema" and child.value != _DIALECT:
            refuse(line, column, f"the dialect is 2020-12; remove $schema or write {_DIALECT}")
        else:
            for below in _subschemas(keyword, child):
                _check(below, refuse)


def _subschemas(keyword: str, node: Node) -> Iterator[Node]:
    if keyword in _ONE:
        yield node
    elif keyword in _LISTS and isinstance(node.value, list):
        yield from node.value
    elif keyword in _MAPS and isinstance(node.value, dict):
        yield from node.value.values()


def _inside(reference: object) -> bool:
    return isinstance(reference, str) and reference.startswith(_DEFS) and "/" not in reference.removeprefix(_DEFS)


def _refuse_loops(schema: Node, refuse: Refuse) -> None:
    """A definition that leads back to itself at the same place of the arguments says nothing, and validators let it
    pass (JSON Schema 2020-12 core §9.4.1: behaviour undefined)."""
    found: Node | None = schema.value.get("$defs") if isinstance(schema.value, dict) else None
    if found is None or not isinstance(found.value, dict):
        return
    leads = {name: set(_in_place(node)) for name, node in found.value.items()}
    for name in leads:
        seen: set[str] = set()
        ahead = leads[name]
        while ahead - seen:
            seen |= ahead
            ahead = {further for near in ahead for further in leads.get(near, ())}
        if name in seen:
            line, column = found.keys[name]
            refuse(line, column, f"the definition {name!r} leads back to itself without going deeper; untangle it")


def _in_place(node: Node) -> Iterator[str]:
    """The definitions that a schema applies to the same value as itself."""
    if not isinstance(node.value, dict):
        return
    for keyword, child in node.value.items():
        if keyword == "$ref" and isinstance(child.value, str):
            yield child.value.removeprefix(_DEFS)
        elif keyword in _SAME_PLACE:
            for below in _subschemas(keyword, child):
                yield from _in_place(below)


def _nearest(keyword: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(keyword, KEYWORDS, n=1)
    return f"did you mean {near[0]}?" if near else "remove it, or see JSON Schema 2020-12"
