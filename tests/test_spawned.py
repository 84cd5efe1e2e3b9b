"""What agents spawn: its words are read as the command line reads them, or left to it."""

from __future__ import annotations

import pytest

from interposer.spawned import words


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--", "npx", "-y", "x"], ({}, ["npx", "-y", "x"])),
        (["--policy", "p", "--", "a", "--", "b"], ({"--policy": "p"}, ["a", "--", "b"])),
        (["--config=c", "--policy=p"], ({"--config": "c", "--policy": "p"}, [])),
        (["--token-file", "t", "--", "a"], ({"--token-file": "t"}, ["a"])),
        ([], ({}, [])),
    ],
)
def test_plain_words_are_read(arguments: list[str], found: tuple[dict[str, str], list[str]]) -> None:
    """Options before the double dash are ours, everything behind it is the upstream's."""
    assert words(arguments) == found


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["-h"], ["--policy"], ["npx"], ["--"], ["--nosuch", "x"], ["--policy", "a", "--policy", "b"]],
)
def test_everything_else_is_left_to_the_command_line(arguments: list[str]) -> None:
    """Help, mistakes and what is ambiguous get the answers of the command line."""
    assert words(arguments) is None
