"""The sender: at least once, in order, further and further apart, and nobody waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from interposer.channels import sender
from interposer.channels.notice import Notice
from interposer.channels.sender import Answer, Delivery, Sender
from interposer.errors import RecordFault
from interposer.model import QuestionState

from .questions import QUESTION, HandTurned, link, voted

AGAIN = Answer("again", "503")


class Post:
    """A receiver that answers as it is told, and notes when it was asked."""

    def __init__(self, clock: HandTurned, answers: Callable[[Notice, int], Answer]) -> None:
        self.clock = clock
        self.answers = answers
        self.asked: list[tuple[float, str, str]] = []

    async def __call__(self, notice: Notice) -> Answer:
        self.asked.append((self.clock.at, notice.question.id, notice.event))
        await anyio.lowlevel.checkpoint()
        return self.answers(notice, len(self.asked))


class Told:
    """What `on_delivery` heard."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.ended: list[Delivery] = []
        self.fault = fault
        self._changed = anyio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        self.ended.append(delivery)
        self._changed.set()
        self._changed = anyio.Event()
        if self.fault is not None:
            raise self.fault

    async def until(self, count: int) -> list[Delivery]:
        with anyio.fail_after(5):
            while len(self.ended) < count:
                await self._changed.wait()
        return self.ended


def made(clock: HandTurned, post: Post, told: Told, *, give_up_s: float = 3600.0, jitter: float = 1.0) -> Sender:
    return Sender(
        "webhook-1",
        post,
        link,
        told,
        clock,
        timeout_s=5.0,
        give_up_s=give_up_s,
        jitter=lambda: jitter,
        wait=clock.wait,
    )


@asynccontextmanager
async def running(channel: Sender) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.run)
        yield
        tasks.cancel_scope.cancel()


async def test_failing_receiver_is_told_again_further_and_further_apart(caplog: pytest.LogCaptureFixture) -> None:
    """One second, two, four, … and never more than five minutes between two attempts; operators hear of it once."""
    clock, told = HandTurned(), Told()
    post = Post(clock, lambda notice, nth: AGAIN if nth <= 11 else Answer("delivered", "200"))
    channel = made(clock, post, told)
    async with running(channel):
        await channel.announce(QUESTION)
        (ended,) = await told.until(1)
    times = [at for at, _, _ in post.asked]
    assert [b - a for a, b in pairwise(times)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert ended.code == "delivered"
    assert ended.payload["attempts"] == 12
    assert (ended.payload["channel"], ended.payload["status"]) == ("webhook-1", "200")
    assert [record.message for record in caplog.records].count(
        f"webhook-1: cannot be told ({AGAIN.status}); tried again until it can"
    ) == 1


async def test_jitter_takes_up_to_half() -> None:
    """Brokers that lost the same receiver do not all come back at once."""
    clock, told = HandTurned(), Told()
    post = Post(clock, lambda notice, nth: AGAIN if nth == 1 else Answer("delivered", "200"))
    channel = made(clock, post, told, jitter=0.0)
    async with running(channel):
        await channel.announce(QUESTION)
        await told.until(1)
    assert [at for at, _, _ in post.asked] == [0.0, 0.5]


async def test_sender_gives_up_when_the_time_is_over() -> None:
    """After `give_up_s` the receiver is left alone, and that is said."""
    clock, told = HandTurned(), Told()
    post = Post(clock, lambda notice, nth: AGAIN)
    channel = made(clock, post, told, give_up_s=10.0)
    async with running(channel):
        await channel.announce(QUESTION)
        (ended,) = await told.until(1)
    assert (ended.code, ended.payload["attempts"], ended.payload["status"]) == ("gave_up", 4, "503")
    assert clock.at <= 10.0


async def test_refusal_is_final() -> None:
    """A receiver that says that it will not have it is not asked again."""
    clock, told = HandTurned(), Told()
    channel = made(clock, post := Post(clock, lambda notice, nth: Answer("refused", "410")), told)
    async with running(channel):
        await channel.announce(QUESTION)
        (ended,) = await told.until(1)
    assert (ended.code, len(post.asked)) == ("gave_up", 1)


@pytest.mark.parametrize(("wish", "kept"), [(30.0, 30.0), (0.0, 1.0), (1e9, sender.RETRY_AFTER_S)])
async def test_receivers_wish_is_kept_within_bounds(wish: float, kept: float) -> None:
    """Who asks to be left alone for a while is, for ten minutes at most."""
    clock, told = HandTurned(), Told()
    post = Post(clock, lambda n, nth: Answer("again", "429", wish) if nth == 1 else Answer("delivered", "200"))
    channel = made(clock, post, told)
    async with running(channel):
        await channel.announce(QUESTION)
        await told.until(1)
    assert [at for at, _, _ in post.asked] == [0.0, kept]


async def test_one_questions_news_stay_in_order_and_hold_up_no_other() -> None:
    """Nobody hears of the end before the beginning; another question does not wait for this one's retries."""
    clock, told = HandTurned(), Told()
    post = Post(clock, lambda n, nth: AGAIN if n.question.id == "q_1" and clock.at < 3 else Answer("delivered", "200"))
    channel = made(clock, post, told)
    async with running(channel):
        await channel.announce(QUESTION)
        await channel.announce(replace(QUESTION, state=QuestionState.EXPIRED))
        await channel.announce(replace(QUESTION, id="q_2"))
        ended = await told.until(3)
    assert [(one.question.id, one.payload["event"]) for one in ended] == [
        ("q_2", "opened"),
        ("q_1", "opened"),
        ("q_1", "expired"),
    ]


async def test_announcing_waits_for_nobody_and_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """With a receiver that never answers, telling the channel takes no time, and what is too much is said once."""
    clock, told = HandTurned(), Told()
    channel = made(clock, Post(clock, lambda notice, nth: AGAIN), told)
    for number in range(sender.QUEUE + 50):
        await channel.announce(replace(QUESTION, id=f"q_{number}"))
    assert channel.dropped == 50
    assert len([one for one in caplog.records if "dropped" in one.message]) == 1


async def test_broken_glass_is_told_however_much_waits() -> None:
    """It takes the place of the newest other notice, never of the one that is being told, and of no other of its own
    kind; the news of the one that made room stay in order."""
    clock, told, asked = HandTurned(), Told(), anyio.Event()
    heard: list[tuple[str, str]] = []

    async def slow(notice: Notice) -> Answer:
        heard.append((notice.question.id, notice.event))
        if not asked.is_set():
            asked.set()
            await anyio.sleep_forever()
        return Answer("delivered", "200")

    channel = Sender("w", slow, link, told, clock, timeout_s=0.05, give_up_s=60, jitter=lambda: 1.0, wait=clock.wait)
    broken = [
        voted(replace(QUESTION, id=f"q_b{number}", state=QuestionState.GRANTED), broke_glass=True)
        for number in range(sender.QUEUE + 1)
    ]
    async with running(channel):
        await channel.announce(QUESTION)
        with anyio.fail_after(5):
            await asked.wait()
        for number in range(sender.QUEUE - 1):
            clock.at += 0.001
            await channel.announce(replace(QUESTION, id=f"q_{number + 2}"))
        for each in broken:
            await channel.announce(each)
        ended = await told.until(sender.QUEUE + 2)
    assert heard[0] == (QUESTION.id, "opened")
    assert [id for id, event in heard[1:] if event == "broke_glass"] == [each.id for each in broken]
    assert {one.question.id for one in ended} == {QUESTION.id, *(each.id for each in broken)}
    assert channel.dropped == len(broken)


@pytest.mark.parametrize(
    "fault",
    [RuntimeError("WriteUnixTransport closed"), EOFError(), KeyError("x"), anyio.ClosedResourceError()],
    ids=lambda fault: type(fault).__name__,
)
async def test_no_fault_of_a_receiver_leaves_the_channel(fault: Exception) -> None:
    """Whatever event loops and libraries raise is an attempt that failed, and in the end given up and recorded."""
    clock, told = HandTurned(), Told()

    async def faulty(notice: Notice) -> Answer:
        raise fault

    channel = Sender("w", faulty, link, told, clock, timeout_s=5, give_up_s=2, jitter=lambda: 1.0, wait=clock.wait)
    async with running(channel):
        await channel.announce(QUESTION)
        (ended,) = await told.until(1)
    assert (ended.code, ended.payload["status"]) == ("gave_up", type(fault).__name__)


async def test_attempt_that_never_ends_is_ended() -> None:
    """A receiver that takes and never answers costs its time-out, not the channel."""
    told = Told()
    clock = HandTurned()
    attempts: list[str] = []

    async def stuck(notice: Notice) -> Answer:
        attempts.append(notice.delivery)
        if len(attempts) == 1:
            await anyio.sleep_forever()
        return Answer("delivered", "200")

    channel = Sender("w", stuck, link, told, clock, timeout_s=0.01, give_up_s=60, jitter=lambda: 1.0, wait=clock.wait)
    async with running(channel):
        await channel.announce(QUESTION)
        (ended,) = await told.until(1)
    assert (ended.code, ended.payload["attempts"]) == ("delivered", 2)
    assert attempts[0] == attempts[1]


async def test_fault_on_the_way_is_tried_again() -> None:
    """A key that cannot be had just now, or a program that is being replaced, is no end."""
    clock, told = HandTurned(), Told()
    faults = [OSError("gone"), RecordFault("not now")]

    async def faulty(notice: Notice) -> Answer:
        if faults:
            raise faults.pop()
        return Answer("delivered", "200")

    channel = Sender("w", faulty, link, told, clock, timeout_s=5, give_up_s=60, jitter=lambda: 1.0, wait=clock.wait)
    async with running(channel):
        await channel.announce(QUESTION)
        (ended,) = await told.until(1)
    assert ended.payload["attempts"] == 3


async def test_record_that_cannot_be_written_stops_no_channel() -> None:
    """The end of one delivery is lost with a log line; the next is told all the same."""
    clock, told = HandTurned(), Told(RecordFault("disk full"))
    channel = made(clock, Post(clock, lambda notice, nth: Answer("delivered", "200")), told)
    async with running(channel):
        await channel.announce(QUESTION)
        await channel.announce(voted(QUESTION))
        ended = await told.until(2)
    assert [one.payload["event"] for one in ended] == ["opened", "voted"]
