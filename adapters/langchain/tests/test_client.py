"""The client: many calls at once, lost brokers, deadlines and cancellation."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from langchain_interposer import InterposerClient, InterposerUnavailable, NotExecuted, OutcomeUnknown


def text(response: dict[str, Any]) -> str:
    return str(response["result"]["content"][0]["text"])


def test_two_threads_call_at_the_same_time(client: InterposerClient) -> None:
    """A call that waits does not hold up another thread's."""
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(client.call, "gate", {})
        assert text(client.call("release", {})) == "released"
        assert text(waiting.result(5)) == "passed"


def test_answers_find_their_calls(client: InterposerClient) -> None:
    """Of many calls in flight over two threads, each gets its own answer."""
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda n: text(client.call("echo", {"n": n})), range(200)))
    assert answers == [f'{{"n": {n}}}' for n in range(200)]


async def test_event_loop_is_not_blocked(client: InterposerClient) -> None:
    """While one call waits, the loop starts and finishes another: the first one could not end otherwise."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(client.acall("gate", {}))
        assert text(await client.acall("release", {})) == "released"
        assert text(await waiting) == "passed"


def test_one_client_serves_one_loop_after_another(client: InterposerClient) -> None:
    """Notebooks and scripts that run several event loops share the connection."""
    for n in range(2):
        assert text(asyncio.run(client.acall("echo", {"n": n}))) == f'{{"n": {n}}}'


def test_broker_that_went_away_between_calls_is_started_again(
    client: InterposerClient, log: Callable[[], list[str]], ended: Callable[[int], bool]
) -> None:
    """No byte of the second call had gone out, so a new broker gets it."""
    assert text(client.call("bids_farewell", {})) == "goodbye"
    assert ended(int(log()[0].split()[1]))
    assert text(client.call("echo", {})) == "{}"
    assert sum(line.startswith("start") for line in log()) == 2


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_call_that_kills_the_broker_is_not_made_twice(
    way: str, client: InterposerClient, log: Callable[[], list[str]]
) -> None:
    """Its bytes went out and no answer came: the outcome is unknown, and nobody repeats it behind the caller's back."""
    with pytest.raises(OutcomeUnknown, match="unknown"):
        await (client.acall("dies", {}) if way == "async" else asyncio.to_thread(client.call, "dies", {}))
    assert text(client.call("echo", {})) == "{}"
    assert log().count("call dies") == 1


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_call_without_an_answer_ends_at_its_deadline(
    way: str, client: InterposerClient, log: Callable[[], list[str]]
) -> None:
    """The caller hears that the outcome is unknown, the broker that the call was cancelled."""
    with pytest.raises(OutcomeUnknown, match=r"no answer within 0\.1 s"):
        await (
            client.acall("silent", {}, timeout_s=0.1)
            if way == "async"
            else asyncio.to_thread(client.call, "silent", {}, timeout_s=0.1)
        )
    assert text(client.call("echo", {})) == "{}"
    assert "cancelled" in log()


async def test_cancelled_task_cancels_the_call(client: InterposerClient, log: Callable[[], list[str]]) -> None:
    """Whoever cancels the task cancels the call at the broker, and the connection goes on."""
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(params: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(reached.set)

    task = asyncio.ensure_future(client.acall("gate", {}, on_progress=tell))
    async with asyncio.timeout(5):
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.acall("echo", {})
    assert "cancelled" in log()


def test_progress_is_told(client: InterposerClient) -> None:
    """A caller that gives a callback hears of the call's progress; a callback that fails ends nothing."""
    seen: list[dict[str, Any]] = []

    def fail_after(params: dict[str, Any]) -> None:
        seen.append(params)
        raise RuntimeError("the program's own mistake")

    client.call("release", {})
    assert text(client.call("gate", {}, on_progress=fail_after)) == "passed"
    assert [params["progress"] for params in seen] == [1]


def test_socket_serves_like_a_process(socket_path: Path) -> None:
    """The same calls over a Unix socket."""
    client = InterposerClient.connect(socket_path, timeout_s=5)
    assert text(client.call("echo", {"a": 1})) == '{"a": 1}'
    assert len(client.tools()) > 3
    client.close()


def test_missing_broker_is_said_and_nothing_was_executed(tmp_path: Path) -> None:
    """A command or socket that is not there is named, with what it means for the call."""
    for client in (
        InterposerClient.connect(tmp_path / "none.sock"),
        InterposerClient.spawn([str(tmp_path / "none")]),
        InterposerClient.spawn(["false"]),
        InterposerClient.spawn(["cat"]),
    ):
        with pytest.raises(NotExecuted, match="Nothing was executed"):
            client.call("echo", {})
        client.close()


def test_environment_names_the_broker(socket_path: Path, command: list[str]) -> None:
    """A socket's path, a unix URL, or a command line; another kind of URL is refused by name."""
    for environ in (
        {"INTERPOSER_SOCKET": str(socket_path)},
        {"INTERPOSER_URL": f"unix://{socket_path}"},
        {"INTERPOSER_COMMAND": " ".join(command)},
    ):
        client = InterposerClient.from_env(environ, timeout_s=5)
        assert text(client.call("echo", {})) == "{}"
        client.close()
    with pytest.raises(ValueError, match="unix:///path"):
        InterposerClient.from_env({"INTERPOSER_URL": "https://example.org"})


def test_closed_client_says_so(client: InterposerClient) -> None:
    """Closing is final and may be repeated."""
    client.open()
    client.close()
    client.close()
    with pytest.raises(NotExecuted, match="closed"):
        client.call("echo", {})


def test_closing_ends_calls_in_flight(client: InterposerClient) -> None:
    """A call that waits when the client is closed ends with what is known of it."""
    reached = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.call, "gate", {}, on_progress=lambda _: reached.set())
        assert reached.wait(5)
        client.close()
        with pytest.raises(OutcomeUnknown, match="closed"):
            waiting.result(5)


def test_pickled_client_is_refused(client: InterposerClient) -> None:
    """A connection has no meaning in another process."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(client)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_cannot_use_or_harm_the_parents_broker(client: InterposerClient) -> None:
    """In a forked child the client refuses clearly, and its exit leaves the parent's broker alone."""
    client.open()
    child = os.fork()
    if child == 0:
        try:
            client.call("echo", {})
        except InterposerUnavailable as fault:
            client.close()
            os._exit(0 if "fork" in str(fault) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert text(client.call("echo", {})) == "{}"
