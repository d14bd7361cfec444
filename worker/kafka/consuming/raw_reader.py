"""Reads raw what could not be unpacked, with requests for that partition only."""

import asyncio
import logging
import time
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from worker.kafka.consuming.holds import Reread
from worker.kafka.consuming.raw_batch import Fetched, RawBatch, first_offset, read_first_batch
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.internals import fetch_raw, wake
from worker.observability.events import Event, about

log = logging.getLogger(__name__)

READ_SECONDS: Final = 5.0
SEARCH_SECONDS: Final = 30.0  # some 40 requests, each of which may wait behind aiokafka's own
# Bytes that were damaged on the network are intact the next time. Bytes that are damaged on disk are read
# again now and then, because an operator may have repaired the disk.
FIRST_PAUSE_SECONDS: Final = 0.5
READS_AT_ONCE: Final = 4  # each brings up to 2 MiB
LONGEST_PAUSE_SECONDS: Final = 15.0


class RawReader:
    """Reads concurrently with the consumer's polls: only the affected partitions wait for it."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(READS_AT_ONCE)

    def read(self, partition: TopicPartition, hold: Reread) -> None:
        """Start to read, unless a read is running or it is too early; the result is put into the hold."""
        if hold.task is None and time.monotonic() >= hold.due:
            hold.task = asyncio.create_task(self._read(partition, hold))
            self._tasks.add(hold.task)
            hold.task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancel all reads, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, partition: TopicPartition, hold: Reread) -> None:
        try:
            async with self._turns:
                hold.found = await self._batch_at(partition, hold.offset)
        except (KafkaError, OSError) as error:  # a TimeoutError is an OSError
            extra = about(Event.LOOK_FAILED, partition, offset=hold.offset, error=type(error).__name__)
            log.warning("%s cannot be read raw at %d: %r", partition, hold.offset, error, extra=extra)
        except Exception as error:
            extra = about(Event.UNFORESEEN, partition, offset=hold.offset, error=type(error).__name__)
            log.exception("%s at %d: a fault in reading it raw", partition, hold.offset, extra=extra)
            why = f"{type(error).__name__}: {error}"
            span = UnreadableSpan(partition, hold.offset, hold.offset + 1, why)
            hold.found = RawBatch((), hold.offset, span)
        finally:
            hold.task = None
            hold.due = time.monotonic() + pause_seconds(hold.tries)
            hold.tries += 1
            wake(self._consumer)

    async def _batch_at(self, partition: TopicPartition, offset: int) -> RawBatch:
        async with asyncio.timeout(READ_SECONDS):
            fetched = await fetch_raw(self._consumer, partition, offset)
        if (found := read_first_batch(fetched, offset)) is not None:
            return found
        if offset < fetched.readable_end:
            async with asyncio.timeout(SEARCH_SECONDS):
                return await self._search_behind(fetched, offset)
        # It was deleted, or the partition has a new leader: the next fetch shows which.
        return RawBatch((), offset)

    async def _search_behind(self, fetched: Fetched, offset: int) -> RawBatch:
        """The leader finds nothing there, and has later records: up to the first that it does find.

        A broker finds records through a sparse index, so a search far enough ahead succeeds.
        """
        partition, end = fetched.partition, fetched.readable_end
        missed, found, step = offset, end, 1
        come_to = end
        while missed + step < end:
            at = await self._first_at(partition, missed + step)
            if at is not None:
                come_to, found = missed + step, at
                break
            missed, step = missed + step, 2 * step
        while come_to - missed > 1 and found < end:
            middle = (missed + come_to) // 2
            at = await self._first_at(partition, middle)
            if at is None:
                missed = middle
            else:
                come_to, found = middle, at
        why = f"the broker finds nothing there, and has records up to offset {end - 1}"
        return RawBatch((), offset, UnreadableSpan(partition, offset, found, why))

    async def _first_at(self, partition: TopicPartition, offset: int) -> int | None:
        """Where the first batch that the leader finds begins, or `offset` if it is in it; None: none."""
        base = first_offset(await fetch_raw(self._consumer, partition, offset, max_bytes=1))
        return None if base is None else max(base, offset)


def pause_seconds(tries: int) -> float:
    """The pause before the next attempt, after so many."""
    # With all of its tries the number would be larger than any float after some hours.
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * (1 << min(tries, 10)))
