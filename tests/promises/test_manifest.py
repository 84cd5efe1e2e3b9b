"""Every claim has its tests, every promise test has its claim, and SECURITY.md says the same."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.promises.manifest import PROMISES, table

TESTS = Path(__file__).parents[1]
SECURITY = TESTS.parent / "SECURITY.md"


def named_in(file: Path) -> set[str]:
    """`path::name` of every test function of a file."""
    found = ast.walk(ast.parse(file.read_text()))
    functions = [node for node in found if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    where = file.relative_to(TESTS).as_posix()
    return {f"{where}::{function.name}" for function in functions if function.name.startswith("test_")}


def test_every_claim_has_tests_that_exist() -> None:
    """A claim without a test is no promise."""
    for promise in PROMISES:
        assert promise.tests, promise.id
        for test in promise.tests:
            assert test in named_in(TESTS / test.partition("::")[0]), f"{promise.id}: {test} does not exist"


def test_every_promise_test_has_a_claim() -> None:
    """A test under tests/promises/ that holds up no claim is lost to readers of SECURITY.md."""
    claimed = {test for promise in PROMISES for test in promise.tests}
    here = {
        test for file in Path(__file__).parent.glob("test_*.py") if file != Path(__file__) for test in named_in(file)
    }
    assert here <= claimed, f"without a claim: {sorted(here - claimed)}"


def test_ids_and_claims_are_unique() -> None:
    """One sentence, one id."""
    assert len({promise.id for promise in PROMISES}) == len(PROMISES)
    assert len({promise.claim for promise in PROMISES}) == len(PROMISES)


def test_security_document_makes_exactly_these_claims() -> None:
    """SECURITY.md shows the table of the manifest, all of it and unchanged."""
    assert f"\n{table()}\n" in SECURITY.read_text()
