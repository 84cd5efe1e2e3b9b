"""Where calls are worked on: one asyncio task per call, at a third of what a task group's costs.

A task group of anyio gives every task a handle, an event and two cancel scopes: 25 µs of the 100 that a call may take
(docs/adr/0006). The structure stays: nothing outlives `async with Crew(...)`, and a task that ends with a fault ends
the crew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")


class Crew:
    """Implements `Tasks` on asyncio (or uvloop)."""

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        """`on_fault` hears of an exception that left a task: one that nobody expected."""
        self._on_fault = on_fault
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop

    def start_soon(self, work: Callable[[Unpack[Ts]], Coroutine[Any, Any, object]], *args: *Ts) -> asyncio.Task[Any]:
        task = self._loop.create_task(work(*args))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def __aenter__(self) -> Crew:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, where: TracebackType | None
    ) -> None:
        """Cancel what still works, and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self._on_fault(fault)
