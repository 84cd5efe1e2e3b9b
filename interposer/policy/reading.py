"""Reading nodes: what every part of a policy is read with. Problems are collected; what is wrong reads as not given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from interposer.errors import Problem

from .strict_yaml import Node

T = TypeVar("T")
_NONE: Mapping[str, str] = MappingProxyType({})


class Reading:
    """One pass over the nodes of a file."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems

    def refuse(self, line: int, column: int, message: str) -> None:
        self.problems.append(Problem(self.file, line, column, message))

    def at(self, node: Node, message: str) -> None:
        self.refuse(node.line, node.column, message)

    def unit(self, node: Node | None, what: str, convert: Callable[[str], T]) -> T | None:
        if node is None:
            return None
        text = node.value if isinstance(node.value, str) else ""
        return self.convert(node, f"{what} is {shown(node)}: ", lambda: convert(text))

    def convert(self, node: Node, prefix: str, convert: Callable[[], T]) -> T | None:
        try:
            return convert()
        except ValueError as error:
            self.at(node, f"{prefix}{error}")
            return None

    def names(self, node: Node | None, what: str) -> frozenset[str] | None:
        if node is None:
            return None
        return frozenset(text for _, text in self.strings(node, what))

    def strings(self, node: Node, what: str, *, wildcard: bool = False, empty: bool = False) -> list[tuple[Node, str]]:
        found = []
        for child in self.items(node, what, empty=empty):
            if not isinstance(child.value, str) or not child.value:
                self.at(child, f"{shown(child)} in {what} is not a text: put it in quotes")
            elif "*" in child.value and not wildcard:
                self.at(child, f"`*` is no wildcard in {what}: names match exactly; for everyone, leave it out")
            else:
                found.append((child, child.value))
        return found

    def items(self, node: Node | None, what: str, *, empty: bool = True) -> list[Node]:
        if node is None:
            return []
        if not isinstance(node.value, list):
            self.at(node, f"{what}: expected a list, found {shown(node)}")
            return []
        if not node.value and not empty:
            self.at(node, f"{what} is empty: name at least one, or leave it out")
        return node.value

    def text(self, node: Node | None, what: str, *, limit: int | None) -> str | None:
        if node is None:
            return None
        if not isinstance(node.value, str) or not node.value.strip():
            self.at(node, f"{what} is {shown(node)}: expected a text; put it in quotes")
            return None
        if limit is not None and len(node.value) > limit:
            self.at(node, f"{what} is longer than {limit} characters; shorten it")
            return None
        return node.value

    def mapping(
        self, node: Node, what: str, allowed: Sequence[str], *, inside: Mapping[str, str] = _NONE
    ) -> dict[str, Node]:
        """`inside`: keys that are often written here, and the key of `allowed` that they belong under."""
        if not isinstance(node.value, dict):
            self.at(node, f"{what}: expected a mapping, found {shown(node)}")
            return {}
        for key in node.value:
            if key not in allowed:
                meant = f"`{key}` belongs inside `{inside[key]}`" if key in inside else nearest(key, allowed)
                self.refuse(*node.keys[key], f"unknown key {key!r} in {what}: {meant}")
        return {key: child for key, child in node.value.items() if key in allowed}


def shown(node: Node) -> str:
    """A value as messages show it."""
    value: Any = node.value
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else str(value).lower()
    return text if len(text) <= 60 else text[:60] + "…"


def nearest(key: str, allowed: Sequence[str]) -> str:
    """What may have been meant, or else what there is."""
    from difflib import get_close_matches

    near = get_close_matches(key, allowed, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(allowed)}"
