"""YAML 1.2 core schema -> nodes that know where they stand, for files in which a misreading would be a hole.

Refused, each with its place: anchors and aliases, tags, directives, several documents, duplicate keys, keys that are
not strings, numbers that JSON does not have, nesting beyond `MAX_DEPTH`, texts beyond `MAX_BYTES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from math import isfinite
from typing import Any

from interposer.errors import Problem

MAX_DEPTH = 48
MAX_BYTES = 4 * 1024 * 1024

# YAML 1.2.2 §10.3.2, tag resolution of the core schema.
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(slots=True, eq=False)
class Node:
    """A value and its place. A mapping's value is dict[str, Node], a sequence's list[Node], else a scalar."""

    value: Any
    line: int
    column: int
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where each key of a mapping stands: line, column."""

    def plain(self) -> Any:
        """The JSON value, without places."""
        if type(self.value) is dict:
            return {key: child.plain() for key, child in self.value.items()}
        if type(self.value) is list:
            return [child.plain() for child in self.value]
        return self.value

    def at(self, path: list[str | int]) -> Node:
        """The node at a path, or the nearest one above it."""
        node = self
        for step in path:
            try:
                node = node.value[step]
            except (KeyError, IndexError, TypeError):
                break
        return node


class _Stop(Exception):
    """The rest of the text cannot be read."""


@dataclass(slots=True, eq=False)
class _Open:
    """A collection whose end has not been seen."""

    node: Node
    key: str | None = None
    awaits_key: bool = True
    skip: bool = False
    """The next value belongs to a key that was refused."""


def read(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """The root node (None when the text cannot be read) and everything that was refused on the way."""
    tree = _Tree(file)
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        tree.refuse(0, 0, f"the file is larger than {MAX_BYTES} bytes; split or shorten it")
        return None, tree.problems
    try:
        _walk(text, tree)
    except _Stop:
        return None, tree.problems
    if tree.root is None:
        tree.refuse(1, 1, "the file is empty: expected a mapping that starts with `version: 1`")
    return tree.root, tree.problems


def _walk(text: str, tree: _Tree) -> None:
    # ruamel.yaml takes 30 ms to import, and a broker without a policy file of its own starts without it.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            tree.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        tree.refuse(mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, f"not YAML: {said}")
        raise _Stop from None
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        tree.refuse(line, column, "this character is not allowed in YAML; write it as an escape in double quotes")
        raise _Stop from None
    except (YAMLError, RecursionError, ValueError, OverflowError):
        tree.refuse(0, 0, "not YAML that can be read")
        raise _Stop from None


class _Tree:
    """Builds nodes from parser events without recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._documents = 0

    def refuse(self, line: int, column: int, message: str) -> None:
        self.problems.append(Problem(self.file, line, column, message))

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if kind == "ScalarEvent":
            self._refuse_properties(event, line, column)
            self._scalar(event, line, column)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._refuse_properties(event, line, column)
            self._begin(Node({} if kind == "MappingStartEvent" else [], line, column))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._end()
        elif kind == "AliasEvent":
            self.refuse(line, column, f"the alias *{event.anchor} is not allowed; write the value out")
            self._place(Node(None, line, column))
        elif kind == "DocumentStartEvent":
            self._document(event, line, column)

    def _document(self, event: Any, line: int, column: int) -> None:
        self._documents += 1
        if self._documents > 1:
            self.refuse(line, column, "a second document starts here; one file holds one document")
            raise _Stop
        if event.tags or event.version not in (None, (1, 2)):
            self.refuse(line, column, "directives are not allowed; the file is read as YAML 1.2")

    def _refuse_properties(self, event: Any, line: int, column: int) -> None:
        if event.anchor is not None:
            self.refuse(line, column, f"the anchor &{event.anchor} is not allowed; write the value out")
        if event.tag is not None:
            self.refuse(line, column, f"the tag {event.tag} is not allowed; remove it")

    def _scalar(self, event: Any, line: int, column: int) -> None:
        plain = event.style is None and event.tag is None
        value = self._resolve(event.value, line, column) if plain else event.value
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            self.refuse(line, column, "a lone surrogate is not a character; write the whole character")
            value = ""
        top = self._open[-1] if self._open else None
        if top is None or type(top.node.value) is list or not top.awaits_key:
            if not event.value and top is not None and top.key is not None:
                # Nothing stands nowhere: what is to be corrected is at its key.
                line, column = top.node.keys[top.key]
            self._place(Node(value, line, column))
        else:
            self._key(top, value, event.value, line, column)

    def _resolve(self, text: str, line: int, column: int) -> Any:
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        if _INT.fullmatch(text):
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            return int(text[2:] if base != 10 else text, base)
        if _NOT_JSON.fullmatch(text):
            self.refuse(line, column, f"{text} is not a number that JSON has; quote it if it is meant as text")
            return 0
        if _FLOAT.fullmatch(text):
            return self._fraction(text, line, column)
        return text

    def _fraction(self, text: str, line: int, column: int) -> float | Decimal:
        value = float(text)
        if not isfinite(value):
            self.refuse(line, column, "this number is out of range; quote it if it is meant as text")
            return 0.0
        exact = Decimal(text)
        return value if Decimal(repr(value)) == exact else exact

    def _key(self, top: _Open, key: Any, text: str, line: int, column: int) -> None:
        top.awaits_key = False
        if not isinstance(key, str):
            self.refuse(line, column, f'the key {text or "null"} is not a string; write it in quotes: "{text}"')
            top.skip = True
        elif key in top.node.value:
            first = top.node.keys[key][0]
            self.refuse(line, column, f"the key {key!r} is already there on line {first}; keep one of the two")
            top.skip = True
        else:
            top.key = key
            top.node.keys[key] = (line, column)
            # Reserves the name, so that a duplicate is seen whatever becomes of this value.
            top.node.value[key] = Node(None, line, column)

    def _begin(self, node: Node) -> None:
        if len(self._open) >= MAX_DEPTH:
            self.refuse(node.line, node.column, f"nested deeper than {MAX_DEPTH} levels; flatten this")
            raise _Stop
        top = self._open[-1] if self._open else None
        if top is not None and type(top.node.value) is dict and top.awaits_key:
            self.refuse(node.line, node.column, "a list or mapping cannot be a key; use a string")
            raise _Stop
        self._open.append(_Open(node))

    def _end(self) -> None:
        self._place(self._open.pop().node)

    def _place(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if type(top.node.value) is list:
            top.node.value.append(node)
            return
        if top.awaits_key:
            top.awaits_key = False
            top.skip = True
            return
        if not top.skip and top.key is not None:
            top.node.value[top.key] = node
        top.awaits_key, top.skip, top.key = True, False, None
