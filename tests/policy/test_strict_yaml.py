"""Strict YAML: 1.2 core schema, positions, and nothing that two readers could read differently."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interposer import canonical
from interposer.policy.strict_yaml import read


def value(text: str) -> Any:
    node, problems = read(text, "f")
    assert node is not None
    assert problems == []
    return node.plain()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("0o17", 15),
        ("0x1F", 31),
        ("017", 17),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("0.10000000000000000001", Decimal("0.10000000000000000001")),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ('"1"', "1"),
        ("'true'", "true"),
        ("<<", "<<"),
        ("|\n  a\n  b", "a\nb\n"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, expected: Any) -> None:
    """YAML 1.2.2 §10.3.2, not 1.1: `no` is a word, and no digit is lost."""
    found = value(f"a: {text}\n")["a"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("a: &x 1\nb: 2\n", 1, 4, "anchor &x"),
        ("a: 1\nb: *x\n", 2, 4, "alias *x"),
        ("a: !!str 1\n", 1, 4, "tag"),
        ("a: !x {}\n", 1, 4, "tag"),
        ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
        ("%YAML 1.1\n---\na: 1\n", 2, 1, "directives"),
        ("a: 1\na: 2\n", 2, 1, "already there on line 1"),
        ("a: 1\n'a': 2\n", 2, 1, "already there on line 1"),
        ("1: 1\n", 1, 1, "not a string"),
        ("true: 1\n", 1, 1, "not a string"),
        ("~: 1\n", 1, 1, "not a string"),
        ("? [a]\n: 1\n", 1, 3, "cannot be a key"),
        ("a: .inf\n", 1, 4, "not a number that JSON has"),
        ("a: 1e999\n", 1, 4, "out of range"),
        ("a: b: c\n", 1, 5, "not YAML"),
        ("\ta: 1\n", 1, 1, "not YAML"),
        ("a: 'x\n", 2, 1, "not YAML"),
        ("a: 1\nb: \x07\n", 2, 4, "not allowed in YAML"),
        ('a: "\\ud800"\n', 1, 4, "lone surrogate"),
        ("[" * 100, 1, 49, "nested deeper"),
        ("", 1, 1, "empty"),
    ],
)
def test_what_could_be_misread_is_refused_with_its_place(text: str, line: int, column: int, said: str) -> None:
    """Each refusal says where and why."""
    _, problems = read(text, "f")
    assert [(problem.line, problem.column) for problem in problems] == [(line, column)], problems
    assert said in problems[0].message


def test_a_bomb_of_aliases_is_refused_unexpanded() -> None:
    """Nine levels of tenfold aliases cost as much as they are long."""
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10))
    _, problems = read(f"l0: &l0 x\n{levels}\n", "f")
    assert len(problems) == 10 + 90


def test_nodes_know_where_they_stand() -> None:
    """Values, keys and items carry line and column, counted from one."""
    node, _ = read("a:\n  - b: 1\n    c: [x,\n        y]\n", "f")
    assert node is not None
    found = node.at(["a", 0, "c", 1])
    assert (found.value, found.line, found.column) == ("y", 4, 9)
    assert node.at(["a", 0]).keys["c"] == (3, 5)
    assert node.at(["a", 7, "nowhere"]).line == 2


def test_a_file_beyond_bounds_is_refused_unread() -> None:
    """Four megabytes are enough for a policy."""
    node, problems = read("a" * 5_000_000, "f")
    assert node is None
    assert "larger" in problems[0].message


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc1 :#-", max_size=5), inner, max_size=3),
    max_leaves=15,
)


@settings(max_examples=80, deadline=None)
@given(_plain)
def test_json_is_read_as_json_reads_it(given: Any) -> None:
    """JSON is YAML 1.2: both readers agree on every value."""
    text = canonical.encode({"a": given}).decode()
    assert value(text) == canonical.parse(text.encode())


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab: -[]{}&*!|>'\"%#?\n\t,~1.\x00\ufeff\ud800"), max_size=40))
def test_any_text_gives_a_tree_or_problems(text: str) -> None:
    """No text makes the reader raise, and what it does not return it explains."""
    node, problems = read(text, "f")
    assert node is not None or problems
