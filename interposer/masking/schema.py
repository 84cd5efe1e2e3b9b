"""Output schemas for masked values: whatever is valid before masking is valid against the relaxed schema after it.

Clients check `structuredContent` against the `outputSchema` that was advertised (MCP, tools: output schema), so a skill
whose answers are masked must advertise what a masked answer looks like. Every place of a value also accepts a text with
a placeholder in it, masked keys are accepted beside the named ones, and keywords that masking could turn against a
valid value (`not`, `if`, `oneOf`, `uniqueItems`, `contains`) are dropped or weakened. Keywords that are unknown stay.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from interposer.model import JsonObject

from .detectors.detector import MARK

_MARK_BYTES = MARK.encode()
_ENCODED = sorted(
    {b64encode(bytes(shift) + _MARK_BYTES).decode()[(shift * 8 + 5) // 6 : (shift + 10) * 8 // 6] for shift in range(3)}
)
PATTERN = "|".join([r"\[REDACTED:", *_ENCODED])
"""Matches every text that masking has changed: the placeholder as it is, or inside of base64 at any offset."""

_MASKED = {"type": "string", "pattern": PATTERN}
_SAMPLE = "[REDACTED:abcdefghijklmnopqrstuvwxyz_]"
_DROPPED = frozenset(
    {"not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_BASES = frozenset({"$id", "id", "$dynamicRef", "$recursiveRef"})
_SAID = ("title", "description")
_ANNOTATIONS = frozenset({"type", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", *_SAID})
_VALUES_BY_NAME = frozenset({"properties", "patternProperties"})
_VALUES = frozenset({"additionalProperties", "items", "prefixItems", "additionalItems"})
_BESIDE = frozenset({"allOf", "anyOf"})
_BY_NAME_BESIDE = frozenset({"$defs", "definitions", "dependentSchemas"})


def relax(schema: JsonObject, alters: Callable[[str], bool] = lambda key: False) -> JsonObject:
    """The schema that masked values of the given schema satisfy. `alters` says whether masking changes a key."""
    if _rebased(schema):
        # References that are resolved against another base cannot be followed from here: promise less.
        return {key: schema[key] for key in _SAID if key in schema} | {"type": "object"}
    relaxing = _Relaxing(alters)
    relaxed: JsonObject = relaxing.inner(schema, "", "")
    relaxing.point(relaxed)
    return relaxed


def _rebased(schema: object, *, root: bool = True) -> bool:
    if isinstance(schema, dict):
        found = any(isinstance(schema.get(key), str) for key in _BASES) if not root else "$dynamicRef" in schema
        return found or any(_rebased(child, root=False) for child in schema.values())
    return isinstance(schema, list) and any(_rebased(child, root=False) for child in schema)


class _Relaxing:
    """One schema on its way; remembers where each part has gone, for the references to it."""

    def __init__(self, alters: Callable[[str], bool]) -> None:
        self._alters = alters
        self._moved: dict[str, str] = {}

    def value(self, schema: Any, old: str, new: str) -> Any:
        """A schema at the place of a value: a masked text will do as well."""
        if not isinstance(schema, dict):
            self._moved[old] = new
            return schema
        if _takes_any_text(schema):
            return self.inner(schema, old, new)
        relaxed = self.inner(schema, old, new + "/anyOf/0")
        self._moved[old] = new
        said = {key: relaxed.pop(key) for key in _SAID if key in relaxed}
        return {**said, "anyOf": [relaxed, dict(_MASKED)]}

    def inner(self, schema: Any, old: str, new: str) -> Any:
        """A schema that applies beside others to the same value, or is the root."""
        self._moved[old] = new
        if not isinstance(schema, dict):
            return schema
        relaxed: dict[str, Any] = {}
        for keyword, part in schema.items():
            if keyword not in _DROPPED and keyword != "oneOf":
                kept = self._keyword(keyword, part, f"{old}/{_token(keyword)}", f"{new}/{_token(keyword)}")
                if kept is not None:
                    relaxed[keyword] = kept
        if isinstance(schema.get("oneOf"), list):
            self._one_of(schema["oneOf"], relaxed, old, new)
        if relaxed.get("additionalProperties", True) is not True:
            relaxed["patternProperties"] = {**relaxed.get("patternProperties", {}), r"\[REDACTED:": True}
        return relaxed

    def _keyword(self, keyword: str, part: Any, old: str, new: str) -> Any:
        """What becomes of one keyword; None when it goes."""
        if keyword in _VALUES_BY_NAME and isinstance(part, dict):
            return {name: self._named(keyword, name, child, old, new) for name, child in part.items()}
        if keyword in _VALUES:
            if isinstance(part, list):
                return [self.value(child, f"{old}/{i}", f"{new}/{i}") for i, child in enumerate(part)]
            return self.value(part, old, new)
        if keyword in _BESIDE and isinstance(part, list):
            return [self.inner(child, f"{old}/{i}", f"{new}/{i}") for i, child in enumerate(part)]
        if keyword in _BY_NAME_BESIDE and isinstance(part, dict):
            return {
                name: self.inner(child, f"{old}/{_token(name)}", f"{new}/{_token(name)}")
                for name, child in part.items()
            }
        if keyword == "propertyNames":
            return self.value(part, old, new)
        if keyword == "required" and isinstance(part, list):
            return [name for name in part if not (isinstance(name, str) and self._alters(name))]
        if keyword in ("dependentRequired", "dependencies") and isinstance(part, dict):
            return {
                name: self._dependency(child, f"{old}/{_token(name)}", f"{new}/{_token(name)}")
                for name, child in part.items()
            }
        if keyword in ("const", "enum"):
            options = part if keyword == "enum" and isinstance(part, list) else [part]
            return None if any(isinstance(option, dict | list) for option in options) or part is None else part
        return part

    def _named(self, keyword: str, name: str, child: Any, old: str, new: str) -> Any:
        if keyword == "patternProperties" and _may_match_mask(name):
            # A masked key may have come from one that this pattern did not speak of.
            self._moved[f"{old}/{_token(name)}"] = f"{new}/{_token(name)}"
            return True
        return self.value(child, f"{old}/{_token(name)}", f"{new}/{_token(name)}")

    def _dependency(self, part: Any, old: str, new: str) -> Any:
        if isinstance(part, list):
            return [name for name in part if not (isinstance(name, str) and self._alters(name))]
        return self.inner(part, old, new)

    def _one_of(self, options: list[Any], relaxed: dict[str, Any], old: str, new: str) -> None:
        """Masked values may fit several of them: `oneOf` becomes `anyOf`, beside the one that may be there already."""
        if "anyOf" not in relaxed:
            relaxed["anyOf"] = [
                self.inner(part, f"{old}/oneOf/{i}", f"{new}/anyOf/{i}") for i, part in enumerate(options)
            ]
            return
        every = relaxed.setdefault("allOf", [])
        at = f"{new}/allOf/{len(every)}/anyOf"
        every.append({"anyOf": [self.inner(part, f"{old}/oneOf/{i}", f"{at}/{i}") for i, part in enumerate(options)]})

    def point(self, node: Any) -> None:
        """Let every reference point to where its target has gone; one that leads elsewhere accepts anything."""
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                target = self._target(reference)
                if target is None:
                    del node["$ref"]
                else:
                    node["$ref"] = target
            for child in node.values():
                self.point(child)
        elif isinstance(node, list):
            for child in node:
                self.point(child)

    def _target(self, reference: str) -> str | None:
        if reference == "#":
            return reference
        if not reference.startswith("#/"):
            return reference if reference.startswith("#") else None
        moved = self._moved.get(unquote(reference[1:]))
        return None if moved is None else "#" + moved.replace("%", "%25")


def _takes_any_text(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return schema.keys() <= _ANNOTATIONS and (
        kind is None or kind == "string" or (isinstance(kind, list) and "string" in kind)
    )


def _may_match_mask(pattern: str) -> bool:
    try:
        return re.search(pattern, _SAMPLE) is not None
    except re.error:
        return True


def _token(name: str) -> str:
    """RFC 6901 §3."""
    return name.replace("~", "~0").replace("/", "~1")
