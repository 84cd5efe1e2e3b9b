"""What a call can end in other than a result, by who is told.

InterposerUnavailable        the program: the broker gave no answer. Never turned into a tool message
├── NotExecuted              no byte of the call left this process: nothing was executed
└── OutcomeUnknown           the call went out and no answer came: the effect may have happened
SkillError                   the model: the broker answered, and not with a result (a LangChain ToolException)
├── CallRefused              policy, a human, the schema check or the catalogue said no: nothing was executed
│   └── ApprovalPending      nobody has said yes yet: a ticket
└── SkillFailed              the skill itself answered with an error
NotJson                      the program: arguments that have no JSON form; nothing left this process
"""

from __future__ import annotations

from typing import Any

from langchain_core.tools import ToolException


class InterposerUnavailable(Exception):
    """The broker gave no answer to this call. `reason` is the cause alone, without what it means for the call."""

    def __init__(self, text: str, *, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason or text


class NotExecuted(InterposerUnavailable):
    """No byte of the call left this process, so it may be made again."""


class OutcomeUnknown(InterposerUnavailable):
    """The call went out and its answer did not arrive. It is never sent again: it may have taken effect."""


class SkillError(ToolException):
    """The broker's words for the model, with the same facts for programs in `artifact`."""

    def __init__(self, text: str, artifact: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.artifact: dict[str, Any] = artifact or {}
        self.tool_call_id: str | None = None
        """Which tool call of the model this answers; None when the tool was invoked with plain arguments."""


class CallRefused(SkillError):
    """The call was not made."""


class ApprovalPending(CallRefused):
    """A human has to say yes first; the identical call, repeated after that, is executed once."""

    @property
    def approval_id(self) -> str:
        return str(self.artifact.get("pending", {}).get("approval_id", ""))

    @property
    def url(self) -> str:
        """Where a person looks at the call and answers: the broker's console. Empty where it has none."""
        found = self.artifact.get("pending", {}).get("url")
        return found if isinstance(found, str) else ""

    @property
    def retry_after_s(self) -> float:
        """How long the broker asks us to wait before the call is repeated, in seconds."""
        asked = self.artifact.get("pending", {}).get("retry_after_ms")
        return asked / 1000 if isinstance(asked, int | float) and asked > 0 else 1.0


class SkillFailed(SkillError):
    """The skill was run, or its service was asked, and the answer is an error."""


class NotJson(ValueError):
    """The arguments have no JSON form: another type than JSON's, NaN, a lone surrogate, too deep. Nothing was sent."""
