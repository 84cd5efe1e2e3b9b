"""The toolkit: one broker, and a tool for each skill that this caller may use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from langchain_core.tools import BaseTool, BaseToolkit

from langchain_interposer.bearer import Token
from langchain_interposer.channel import DISCARD
from langchain_interposer.client import DEFAULT_COMMAND, InterposerClient
from langchain_interposer.schema import tool_names
from langchain_interposer.tool import InterposerTool


class InterposerToolkit(BaseToolkit):
    """Hands out the skills behind a broker as tools; after `with`, `async with` or `close()`, the broker is gone.

    Nothing is started before the first use. The tools work sync and async, in any thread and under any asyncio loop,
    and share one connection. A list that the broker has changed is asked for anew by the next `get_tools`; tools handed
    out before keep working as far as the broker lets them.

    Each constructor takes the access token of whoever the agent acts for: `token`, text or a function that returns the
    token of now, or `token_file`. It is fetched anew for each request and goes with that request.
    """

    model_config: ClassVar[Any] = {"arbitrary_types_allowed": True, "extra": "forbid"}

    client: InterposerClient
    wait_for_approval_s: float = 0.0
    """How long a call that needs a human's yes is repeated before its ticket goes to the model; 0: not at all."""
    raise_refusals: bool = False
    """Raise the SkillError of a refused or failed call instead of answering with an error message."""

    _tools: list[BaseTool] | None = None
    _edition: int = -1

    @classmethod
    def from_command(
        cls,
        command: Sequence[str] = DEFAULT_COMMAND,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        stderr: str | Path = DISCARD,
        timeout_s: float = 300.0,
        token: Token | None = None,
        token_file: str | Path | None = None,
        **options: Any,
    ) -> InterposerToolkit:
        """A broker of our own, such as `["interposer", "stdio", "--config", "interposer.yaml"]`.

        It runs under our user: that stops a misled model, not hostile code in this process. `stderr` is "discard",
        "inherit" or a file to append to.
        """
        asker = {"token": token, "token_file": token_file}
        client = InterposerClient.spawn(command, env=env, cwd=cwd, stderr=stderr, timeout_s=timeout_s, **asker)
        return cls(client=client, **options)

    @classmethod
    def from_socket(
        cls,
        path: str | Path,
        *,
        timeout_s: float = 300.0,
        token: Token | None = None,
        token_file: str | Path | None = None,
        **options: Any,
    ) -> InterposerToolkit:
        """The broker that listens on the Unix socket at `path` (`interposer serve`)."""
        client = InterposerClient.connect(path, timeout_s=timeout_s, token=token, token_file=token_file)
        return cls(client=client, **options)

    @classmethod
    def from_env(
        cls,
        *,
        timeout_s: float = 300.0,
        token: Token | None = None,
        token_file: str | Path | None = None,
        **options: Any,
    ) -> InterposerToolkit:
        """INTERPOSER_SOCKET, else INTERPOSER_URL (`unix:///path`), else INTERPOSER_COMMAND, else `interposer stdio`.

        Without a `token` or `token_file`, INTERPOSER_TOKEN_FILE or INTERPOSER_TOKEN speaks.
        """
        client = InterposerClient.from_env(timeout_s=timeout_s, token=token, token_file=token_file)
        return cls(client=client, **options)

    def get_tools(self) -> list[BaseTool]:
        """The tools for what the broker offers now. Raises InterposerUnavailable if it does not answer."""
        self.client.open()
        edition = self.client.edition  # read before the list: a change while it is fetched is not missed
        if self._tools is None or edition != self._edition:
            self._tools = self._build()
            self._edition = edition
        return list(self._tools)

    async def aget_tools(self) -> list[BaseTool]:
        """`get_tools` without blocking the event loop."""
        return await asyncio.to_thread(self.get_tools)

    def close(self) -> None:
        """End the conversation; a spawned broker is gone when this returns. Idempotent."""
        self.client.close()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> InterposerToolkit:
        self.client.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> InterposerToolkit:
        await asyncio.to_thread(self.client.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _build(self) -> list[BaseTool]:
        definitions = self.client.tools()
        names = tool_names([definition["name"] for definition in definitions])
        return [
            InterposerTool.from_definition(
                definition,
                self.client,
                name=names[definition["name"]],
                wait_for_approval_s=self.wait_for_approval_s,
                raise_refusals=self.raise_refusals,
            )
            for definition in definitions
        ]
