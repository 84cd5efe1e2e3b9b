"""What the tests of callers share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from interposer.callers.fetch import Fetcher
from tests.fakes.house import HandClock
from tests.fakes.issuer import Provider, provider


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(scope="session")
def fetcher() -> Fetcher:
    """With a deadline that a test can wait for."""
    return Fetcher(deadline_s=2.0)


@pytest.fixture
async def idp() -> AsyncIterator[Provider]:
    async with provider() as found:
        yield found
