"""The token beside the wire: as it is now, and nobody's where it is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from interposer.config import load
from interposer.errors import ConfigurationError
from interposer.presented import LIMIT_BYTES, TOKEN, TOKEN_FILE, presented
from interposer.upstreams.server import Command, environment


def aged(path: Path, text: str, age_s: float = 60) -> None:
    """The text in a new file under that name."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    when = fresh.stat().st_mtime - age_s
    os.utime(fresh, (when, when))
    fresh.replace(path)


@pytest.mark.parametrize("name", [TOKEN, TOKEN_FILE])
def test_what_is_not_presented_is_no_token(name: str) -> None:
    """Without either variable the peer is whom the kernel says; an empty one is a token, and nobody's."""
    assert presented({})() is None
    assert presented({name: ""})() == ""


def test_a_variable_is_the_token(tmp_path: Path) -> None:
    """The variable holds the token; a named file wins over it, and an option over both."""
    (tmp_path / "a").write_text("from-a\n")
    (tmp_path / "b").write_text("from-b")
    variables = {TOKEN: "from-variable"}
    assert presented(variables)() == "from-variable"
    variables[TOKEN_FILE] = str(tmp_path / "a")
    assert presented(variables)() == "from-a"
    assert presented(variables, str(tmp_path / "b"))() == "from-b"


@pytest.mark.parametrize("write", [aged, Path.write_text], ids=["renamed", "in place"])
def test_a_changed_file_is_read_again(tmp_path: Path, write: Callable[[Path, str], object]) -> None:
    """A refreshed token speaks from the next question on, also when the file looks as it looked a moment ago."""
    path = tmp_path / "token"
    token = presented({TOKEN_FILE: str(path)})
    for number in range(50):
        write(path, f"token-{number % 10}")
        assert token() == f"token-{number % 10}"


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call costs one stat."""
    path = tmp_path / "token"
    path.write_text("token")
    monkeypatch.setattr("interposer.presented.SETTLED_NS", -(10**12))
    token = presented({TOKEN_FILE: str(path)})
    assert token() == "token"
    monkeypatch.delattr(os, "open")
    assert token() == "token"


def test_a_file_that_is_gone_is_nobody(tmp_path: Path) -> None:
    """No file, a folder and a pipe are the empty token, at once; when the file is back it speaks again."""
    path = tmp_path / "token"
    token = presented({TOKEN_FILE: str(path)})
    assert token() == ""
    path.write_text("token")
    assert token() == "token"
    path.unlink()
    assert token() == ""
    path.mkdir()
    assert token() == ""
    path.rmdir()
    os.mkfifo(path)
    assert token() == ""
    path.unlink()
    path.write_text("token")
    assert token() == "token"


@pytest.mark.parametrize("content", [b"\xff" * 100, b"a" * (LIMIT_BYTES + 1), b"", b"\n\n"])
def test_whatever_is_in_the_file_is_bounded_text(tmp_path: Path, content: bytes) -> None:
    """Bytes that are no token end in a token that no issuer signs, never in an exception or unbounded memory."""
    path = tmp_path / "token"
    path.write_bytes(content)
    token = presented({TOKEN_FILE: str(path)})()
    assert token is not None
    assert len(token) <= LIMIT_BYTES


def test_no_upstream_gets_the_callers_token() -> None:
    """A child's environment is an allow list, and neither variable is on it."""
    ours = {TOKEN: "secret", TOKEN_FILE: "/somewhere", "PATH": "/bin"}
    assert environment(Command(("x",)), None, ours) == {"PATH": "/bin"}


@pytest.mark.parametrize("name", [TOKEN, TOKEN_FILE])
def test_no_configuration_hands_the_callers_token_on(tmp_path: Path, name: str) -> None:
    """`inherit` takes over any variable but these."""
    path = tmp_path / "interposer.yaml"
    path.write_text(f"version: 1\nupstreams: {{a: {{command: [x], inherit: [{name}]}}}}\n")
    with pytest.raises(ConfigurationError, match="never goes upstream"):
        load(path)
    path.write_text(f"version: 1\nupstreams: {{a: {{command: [x], inherit: [{name}S]}}}}\n")
    assert load(path).upstreams["a"].inherit == [f"{name}S"]
