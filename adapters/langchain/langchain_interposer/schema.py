"""From a skill's definition to what LangChain and model APIs accept: an argument schema and a tool name."""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

NAME_LIMIT = 64
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def args_schema(input_schema: object) -> dict[str, Any]:
    """The skill's schema as it is, with the two things that LangChain looks up: an object, with `properties`.

    LangChain does not check arguments against it: the broker does.
    """
    schema: dict[str, Any] = copy.deepcopy(input_schema) if isinstance(input_schema, dict) else {}
    schema.setdefault("type", "object")
    if not isinstance(schema.get("properties"), dict):
        schema["properties"] = {}
        schema.setdefault("additionalProperties", True)
    return schema


def tool_names(skills: Sequence[str]) -> dict[str, str]:
    """Skill name -> a name that model APIs accept: `[a-zA-Z0-9_-]`, at most 64 long, no two the same.

    MCP allows dots and 128 characters. A name that has to change keeps its look where that is unambiguous; where it is
    not, it ends in a piece of its own digest, whatever the order of the list.
    """
    plain = {skill: _NOT_IN_A_NAME.sub("_", skill) for skill in skills}
    wanted = Counter(plain.values())
    return {skill: _name(skill, name, alone=wanted[name] == 1) for skill, name in plain.items()}


def _name(skill: str, plain: str, *, alone: bool) -> str:
    if 0 < len(plain) <= NAME_LIMIT and (alone or plain == skill):
        return plain
    digest = hashlib.sha256(skill.encode()).hexdigest()[:8]
    return f"{plain[: NAME_LIMIT - len(digest) - 1]}_{digest}"
