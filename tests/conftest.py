"""What holds for the whole suite: one canary for all workers, and a test that prints it has failed."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.boundary.installation import installation as installation
from tests.fakes import canary

# Where CI runs: the same examples every time, fewer of them where a test does not say how many.
settings.register_profile(
    "interposer",
    max_examples=50,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
if os.environ.get("CI"):
    settings.load_profile("interposer")


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", None)
    if given is not None:
        canary.agree(given["canary"])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist: what a worker is told when it starts."""
    node.workerinput["canary"] = canary.marker()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed and logged is searched here: of tests that pass it is kept nowhere."""
    report = yield
    for name, text in report.sections:
        try:
            canary.require_absent(text.encode("utf-8", "replace"), name)
        except AssertionError as leak:
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid}: {leak}"
            report.sections = []
            break
    return report
