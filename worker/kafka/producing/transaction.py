"""A Kafka transaction: subscribers see all that is sent in it, or nothing.

    async with transaction(producer, timeout_seconds) as open_transaction:
        await open_transaction.send(…)

After any error it is unknown whether the transaction committed, and the producer must not be used again. A
new producer of the same name waits for the end of this transaction; the committed offset then shows the
result. If the caller is cancelled (Ctrl-C), an incomplete transaction is aborted, and a complete one is
committed: left open, it would hide later records from subscribers.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata

from contracts.envelope import Headers
from worker.kafka.client_internals import (
    coordinator_awaited,
    end_of_transaction,
    join_transaction,
    never_awaited,
)
from worker.kafka.leaders import (
    NoCoordinatorError,
    NotTakenError,
    TooFewInSyncError,
    has_leader,
    require_leaders,
    too_few_in_sync,
)

T = TypeVar("T")
Sent = asyncio.Future[Any]
"""Kafka's answer to a record or batch that was sent"""

ABORT_TIMEOUT_SECONDS: Final = 5.0
# How long Kafka may owe an answer before we look whether its leaders are still there.
_LEADERS_SECONDS: Final = 1.0


class Transaction:
    """An open transaction, the only one of `producer`."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer = producer
        self._sent: list[Sent] = []
        self._places: dict[TopicPartition, Sent] = {}  # each with what was sent there last
        self._least_in_sync: dict[TopicPartition, int] = {}

    async def send(
        self,
        place: TopicPartition,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int,
    ) -> Sent:
        """Send one record, which has a key or a value. Raises NoLeaderError if no broker leads its place."""
        await self._enter(place)
        self._places[place] = await self.producer.send(
            place.topic,
            value,
            key,
            partition=place.partition,
            timestamp_ms=timestamp_ms,
            headers=headers,
        )
        return self.note(self._places[place])

    async def send_batch(self, batch: BatchBuilder, place: TopicPartition, least_in_sync: int = 1) -> Sent:
        """Send a batch; the answer holds the offset of its first record. Raises NoLeaderError as `send`.

        `least_in_sync`: the topic's `min.insync.replicas`, if known.
        """
        await self._enter(place)
        self._least_in_sync[place] = least_in_sync
        self._places[place] = await self.producer.send_batch(batch, place.topic, partition=place.partition)
        return self.note(self._places[place])

    async def _enter(self, place: TopicPartition) -> None:
        """Require a leader before the partition takes part: Kafka ends no transaction without it."""
        # By the known metadata, which takes no time; `wait_acknowledged` notices a leader lost since.
        if place not in self._places and not has_leader(self.producer.client, place):
            await require_leaders(self.producer.client, [place])

    def note(self, sent: Sent) -> Sent:
        """Make it a part of the transaction: if it fails, nothing is committed."""
        self._sent.append(sent)
        return sent

    def join(self, place: TopicPartition) -> bool:
        """Add a partition to the transaction, although nothing was sent there. False if no broker leads it.

        Its marker is written there. aiokafka itself adds a partition with a record only. Without a leader,
        Kafka could not end the transaction, nor begin the next one.
        """
        if is_led := has_leader(self.producer.client, place):
            join_transaction(self.producer, place)
        return is_led

    async def wait_acknowledged(self, sent: Iterable[Sent] | None = None) -> None:
        """Wait until Kafka has acknowledged what was sent, by default all and the offsets; raises its error.

        aiokafka commits a transaction in which a send failed, so this comes before each commit. Where a
        leader is lost, or a topic deleted, it tries without pause and end: this raises NoLeaderError. Where
        too few copies are in sync, it does as well: TooFewInSyncError.
        """
        pending = set(self._sent if sent is None else sent)
        while pending:
            done, pending = await asyncio.wait(
                pending, timeout=_LEADERS_SECONDS, return_when=asyncio.FIRST_EXCEPTION
            )
            for one in done:
                one.result()
            if pending:
                await self.producer.client.force_metadata_update()
                await require_leaders(self.producer.client, self._places)
                if short := too_few_in_sync(self.producer.client, self._least_in_sync):
                    raise TooFewInSyncError(self.producer.client, short)

    def commit_offsets(self, group_id: str, to: Mapping[TopicPartition, OffsetAndMetadata]) -> Sent:
        """Commit a group's offsets with it. Like a record, this is pending until `wait_acknowledged`."""
        offsets = self.producer.send_offsets_to_transaction(dict(to), group_id)
        return self.note(asyncio.ensure_future(offsets))

    def not_taken(self) -> list[TopicPartition]:
        """Where Kafka has not acknowledged yet what was sent."""
        return [place for place, sent in self._places.items() if not sent.done()]

    def ignore_failures(self) -> None:
        """Ignore later failures of what was sent, which asyncio would log as errors."""
        # A missing right makes the end of the transaction fail as well.
        end = end_of_transaction(self.producer)
        for future in (*self._sent, *never_awaited(self.producer), *([end] if end else ())):
            if isinstance(future, asyncio.Task):
                future.cancel()  # an offset, whose result aiokafka never reports once the producer is closed
            future.add_done_callback(lambda late: late.cancelled() or late.exception())


@asynccontextmanager
async def transaction(producer: AIOKafkaProducer, timeout_seconds: float) -> AsyncIterator[Transaction]:
    """An open transaction, which is committed at the end of the block.

    Raises KafkaError, or TimeoutError if it is not committed in time. The broker's own transaction timeout
    has to be later.
    """
    opened = Transaction(producer)
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    is_complete = False
    try:
        async with asyncio.timeout_at(deadline):
            await producer.begin_transaction()
            yield opened
            await opened.wait_acknowledged()
        is_complete = True
        await to_its_end(_commit(producer, deadline))
    except BaseException as error:
        not_taken, awaited = opened.not_taken(), coordinator_awaited(producer)
        opened.ignore_failures()
        if isinstance(error, asyncio.CancelledError) and not is_complete:
            await to_its_end(_abort(producer))
        # First: nothing is sent to a partition that the coordinator has not added yet.
        if isinstance(error, TimeoutError) and awaited:
            raise NoCoordinatorError(awaited, timeout_seconds) from error
        if isinstance(error, TimeoutError) and not_taken:
            raise NotTakenError(producer.client, not_taken, timeout_seconds) from error
        raise


async def end_hanging_transactions(producer: AIOKafkaProducer, places: Iterable[TopicPartition]) -> None:
    """Abort, in these partitions, a transaction that Kafka considers ended and may have left open."""
    await producer.begin_transaction()
    for place in places:
        Transaction(producer).join(place)
    await producer.abort_transaction()


async def to_its_end(step: Coroutine[Any, Any, T]) -> T:
    """The result of `step`, which is never cancelled; a cancellation of the caller is raised after it."""
    task = asyncio.create_task(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def _commit(producer: AIOKafkaProducer, deadline: float) -> None:
    async with asyncio.timeout_at(deadline):
        await producer.commit_transaction()


async def _abort(producer: AIOKafkaProducer) -> None:
    # The broker does it at the transaction's timeout, should this fail.
    with suppress(Exception):
        async with asyncio.timeout(ABORT_TIMEOUT_SECONDS):
            await producer.abort_transaction()
