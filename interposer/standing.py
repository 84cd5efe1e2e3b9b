"""The policy in force: read at start, read again when its file changes or on SIGHUP, all of it or nothing."""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from .config import STARTER, read_text
from .errors import ConfigurationError, InterposerError
from .model import MatchedRule
from .ownership import require_ours
from .policy import engine
from .policy.document import starter_text

log = logging.getLogger(__name__)
POLL_S = 1.0
_RULE_LINES = 60


class StandingPolicy:
    """Holds one `Policy`; a file that cannot be read or is wrong leaves the old one standing, loudly."""

    def __init__(self, source: str, reloaded: Callable[[], Awaitable[None]] | None = None) -> None:
        """`source` is a path or `builtin:starter`. Raises `ConfigurationError`: no start without a policy."""
        self._source = source
        self.reloaded = reloaded
        self._seen = self._stamp()
        self._text = ""
        self.current = self._read()

    @property
    def source(self) -> str:
        return self._source

    def text_of(self, rule: MatchedRule) -> str:
        """The rule as it stands in the policy in force; empty where that is another policy."""
        document = self.current.document
        starts = sorted(
            {each.spoken.line for each in (*document.rules, *document.otherwise)}
            | {each.line for each in document.obligations}
        )
        if not any(each.spoken == rule for each in (*document.rules, *document.otherwise)):
            return ""
        lines = self._text.splitlines()
        following = next((line for line in starts if line > rule.line), len(lines) + 1)
        shown = lines[rule.line - 1 : following - 1]
        while len(shown) > 1 and (not shown[-1].strip() or not shown[-1][:1].isspace()):
            shown.pop()  # what stands between this rule and the next section
        return textwrap.dedent("\n".join(shown[:_RULE_LINES]))

    async def reload(self) -> bool:
        """Read again; whether another policy is in force now. Raises `ConfigurationError`, and the old one stands."""
        self._seen = self._stamp()
        fresh = self._read()
        if fresh.digest == self.current.digest:
            return False
        self.current = fresh
        log.warning("policy %s is in force, digest %s", self._source, fresh.digest[:16])
        if self.reloaded is not None:
            await self.reloaded()
        return True

    async def watch(self) -> None:
        """Reload when the file changes; never returns."""
        while True:
            await anyio.sleep(POLL_S)
            if self._stamp() != self._seen:
                await self.try_reload()

    async def try_reload(self) -> None:
        try:
            await self.reload()
        except ConfigurationError as error:
            log.error("the policy was not reloaded, the old one stands:\n%s", error)
        except InterposerError as error:
            log.error("the policy was reloaded, but not all of what follows was done: %s", error)

    def _read(self) -> engine.Policy:
        if self._source == STARTER:
            self._text = starter_text()
            return engine.starter()
        require_ours(self._source)
        text = read_text(Path(self._source))
        policy = engine.load(text, self._source)
        self._text = text
        return policy

    def _stamp(self) -> tuple[int, int, int] | None:
        if self._source == STARTER:
            return None
        try:
            stat = os.stat(self._source)
        except OSError:
            return (0, 0, 0)
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
