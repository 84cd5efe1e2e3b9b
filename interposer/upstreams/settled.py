"""Work whose end is looked at instead of awaited: what nobody expected ends that work, and not who asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def settled(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """The work, done, in a task that has its result or its exception. Cancelled with whoever waits for it."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():
            # A loop that ends cancels every task; a second time would cut short how this one cleans up.
            if not task.cancelling():
                task.cancel()
            await asyncio.wait([task])
    return task


def fault_of(task: asyncio.Task[Any]) -> BaseException | None:
    """How it failed; being cancelled by somebody else is a failure, too."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def told(on_notice: Callable[[str, str], None], kind: str, detail: str) -> None:
    """Tell somebody whose own faults do not count here."""

    async def telling() -> None:
        on_notice(kind, detail)

    fault_of(await settled(telling()))
