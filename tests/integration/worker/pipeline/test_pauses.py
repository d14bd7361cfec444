"""Each partition has a time of its own, and the later one counts."""

import asyncio
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from worker.pipeline.retries import Pauses

FIRST, OTHER = (TopicPartition("placed", number) for number in (0, 1))


class Consumer:
    def __init__(self) -> None:
        self.assigned = {FIRST, OTHER}
        self.paused: set[TopicPartition] = set()

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused.update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.paused.difference_update(partitions)


@pytest.fixture
async def paused() -> Any:
    """The consumer, its pauses, and a clock that the test sets."""
    consumer, clock = Consumer(), SimpleNamespace(now=0.0)
    return SimpleNamespace(
        consumer=consumer,
        clock=clock,
        pauses=Pauses(lambda: consumer, lambda: clock.now),
    )


async def test_a_pause_of_all_is_not_cut_short_by_one_that_ends_sooner(paused: Any):
    paused.pauses.pause([FIRST, OTHER], 10)
    paused.pauses.pause([FIRST], 1)
    paused.clock.now = 2
    paused.pauses.resume_due()
    assert paused.consumer.paused == {FIRST, OTHER}
    paused.clock.now = 10
    paused.pauses.resume_due()
    assert paused.consumer.paused == set()


async def test_a_longer_pause_of_one_outlives_that_of_all(paused: Any):
    paused.pauses.pause([FIRST], 10)
    paused.pauses.pause([FIRST, OTHER], 1)
    paused.clock.now = 2
    paused.pauses.resume_due()
    assert paused.consumer.paused == {FIRST}
    assert paused.pauses.is_paused(FIRST)
    assert not paused.pauses.is_paused(OTHER)


async def test_what_was_taken_away_is_not_resumed_for_its_next_owner(paused: Any):
    paused.pauses.pause([FIRST], 10)
    paused.pauses.forget([FIRST])
    paused.pauses.pause([FIRST], 20)
    paused.clock.now = 10
    paused.pauses.resume_due()
    assert paused.consumer.paused == {FIRST}


async def test_the_timer_resumes_by_itself():
    consumer = Consumer()
    pauses = Pauses(lambda: consumer)
    pauses.pause([FIRST], 0.01)
    async with asyncio.timeout(10):
        while consumer.paused:  # noqa: ASYNC110 (what is waited for is the loop's own timer)
            await asyncio.sleep(0)


async def test_what_a_failed_batch_left_in_cycles_is_gone_when_its_pause_is_over(paused: Any):
    batch = Consumer()
    vars(batch)["itself"], left = batch, weakref.ref(batch)
    del batch
    paused.pauses.resume_due()
    assert left() is None
