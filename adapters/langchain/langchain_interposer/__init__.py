"""LangChain tools whose every call goes through the interposer broker.

`InterposerToolkit` spawns or reaches a broker and hands out one `InterposerTool` per skill that the caller may use. The
broker decides, asks humans, masks and records; nothing in here does, and nothing in here holds a credential. Needs
langchain-core and the standard library, and nothing of the broker's own code.
"""

from __future__ import annotations

from langchain_interposer.client import InterposerClient
from langchain_interposer.errors import (
    ApprovalPending,
    CallRefused,
    InterposerUnavailable,
    NotExecuted,
    NotJson,
    OutcomeUnknown,
    SkillError,
    SkillFailed,
)
from langchain_interposer.tool import InterposerTool
from langchain_interposer.toolkit import InterposerToolkit

__version__ = "0.1.0"

__all__ = [
    "ApprovalPending",
    "CallRefused",
    "InterposerClient",
    "InterposerTool",
    "InterposerToolkit",
    "InterposerUnavailable",
    "NotExecuted",
    "NotJson",
    "OutcomeUnknown",
    "SkillError",
    "SkillFailed",
]
