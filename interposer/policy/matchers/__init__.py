"""Typed matchers (`match:`): they parse an argument as what it is (SQL, a command, a path, a URL) and judge that.

A matcher is one file in this folder and one line in `MATCHERS`. Whatever it cannot parse it must report by raising
`Unevaluable`: then an allow rule does not match, and an ask or deny rule does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from interposer.model import JsonObject
from interposer.policy.conditions import Condition


class Matcher(Protocol):
    """Makes a condition from the settings under its name."""

    def __call__(self, settings: JsonObject) -> Condition:
        """The condition. Raises `BadCondition` where the settings are wrong, with the path inside of them."""


MATCHERS: Mapping[str, Matcher] = {}
"""By the name under which a policy asks for it."""
