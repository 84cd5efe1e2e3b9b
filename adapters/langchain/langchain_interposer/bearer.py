"""The access token of whoever the agent acts for: asked for anew by each request, and shown to nobody but the broker.

No text, log line or `repr` of this package holds it. A token that cannot be had is a call that is not made: the broker
would otherwise take the caller for somebody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from langchain_interposer.connection import Message
from langchain_interposer.errors import NotExecuted

Token: TypeAlias = str | Callable[[], str]

META_TOKEN = "interposer/token"  # noqa: S105 - the name of a key
TOKEN, TOKEN_FILE = "INTERPOSER_TOKEN", "INTERPOSER_TOKEN_FILE"
LIMIT_BYTES = 64 * 1024


class Bearer:
    """A token, a function that returns one, or a file that holds one; or none of them: then the broker judges by other
    means who calls."""

    def __init__(self, token: Token | None = None, file: str | Path | None = None) -> None:
        if token is not None and file is not None:
            raise ValueError("give a token or a token_file, not both")
        self._token = token
        self._file = file

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Bearer:
        """INTERPOSER_TOKEN_FILE, else INTERPOSER_TOKEN, else none."""
        path = environ.get(TOKEN_FILE)
        return cls(None if path is not None else environ.get(TOKEN), path)

    def __repr__(self) -> str:
        return f"<Bearer {'none' if self._token is None and self._file is None else 'hidden'}>"

    @property
    def waits(self) -> bool:
        """Whether it runs the program's own code, which may take its time."""
        return callable(self._token)

    def marked(self, params: Message) -> Message:
        """The parameters of a request, with the token of now. Raises `NotExecuted` if there is none to be had."""
        if self._token is None and self._file is None:
            return params
        token = self._now()
        if not isinstance(token, str) or not token or not (token.isascii() and token.isprintable()):
            raise _not_had("it is no printable ASCII text")
        return {**params, "_meta": {**params.get("_meta", {}), META_TOKEN: token}}

    def _now(self) -> object:
        if self._file is not None:
            try:
                with open(self._file, "rb") as file:
                    return file.read(LIMIT_BYTES).decode("ascii", "replace").strip()
            except OSError as fault:
                raise _not_had(f"{os.fspath(self._file)}: {fault.strerror}") from None
        if not callable(self._token):
            return self._token
        try:
            return self._token()
        except Exception as fault:  # the program's own code; its words may hold what it asked for the token with
            raise _not_had(f"the token function raised {type(fault).__name__}") from fault


def _not_had(reason: str) -> NotExecuted:
    return NotExecuted(f"The access token could not be had: {reason}. Nothing was executed.", reason=reason)
