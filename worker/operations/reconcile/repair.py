"""Publishes from the ledger what was decided and never published: the records a worker would have sent."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import outcome_headers
from db.reconciliation import tables
from db.reconciliation.tables import Unpublished
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.clients import KAFKA_ERRORS, kafka_admin
from worker.kafka.group import committed
from worker.kafka.producing.exclusive_producer import exclusive_producer, is_fenced
from worker.kafka.producing.producers import output_of
from worker.kafka.producing.transaction import Transaction, transaction
from worker.kafka.stable_ends import Say, stable_bounds
from worker.operations.reconcile.rows import unpack_headers
from worker.operations.reconcile.spans import OutputRead
from worker.operations.reconcile.topic_copies import read_outcomes
from worker.operations.screen import progress
from worker.settings import Settings

# At most so many events are in memory. With more in one transaction the rate hardly grows.
_PORTION: Final = 200


async def end_hanging_transactions(settings: Settings) -> None:
    """End the transaction of a killed repair, which would hide later records for a minute."""
    async with _producer(settings):
        pass


async def repair(
    consumer: AIOKafkaConsumer,
    session: AsyncSession,
    settings: Settings,
    outputs: Mapping[str, OutputRead],
    sources: Sequence[TopicPartition],
    total: int,
    say: Say,
    *,
    quiet: bool,
) -> int:
    """Publish every outcome that is still missing; returns how many.

    Each portion is one Kafka transaction. If a run is interrupted, the next one finds those that are left. A
    concurrent run is fenced, because all use the transactional id of the group's reconciliation.
    """
    published = 0
    try:
        # Another one can publish nothing more from here on ...
        async with _producer(settings) as producer, kafka_admin(settings) as admin:
            # ... so what was published since the topics were read, by it or by a worker, is seen now.
            await _read_on(consumer, session, settings, outputs, say)
            await tables.index_unpublished(session)
            await session.commit()
            with progress("publishing", total, quiet=quiet) as bar:
                async for number in _published(producer, admin, session, settings, sources):
                    published += number
                    bar.advance(number)
    except KAFKA_ERRORS as error:
        if is_fenced(error):
            raise CommandError(
                f"another repair took over after {published:,} were published here: let it end, then run this"
                " again"
            ) from error
        raise CommandError(
            f"Kafka refused after {published:,} were published ({reason_of(error)}): run this again,"
            " it finds those that are left"
        ) from error
    return published


@asynccontextmanager
async def _producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """The one producer of the group's repairs: starting it ends what the one before had begun."""
    name = f"{settings.group_id}.reconcile"
    async with exclusive_producer(settings, name, settings.transaction_timeout_ms) as producer:
        yield producer


async def _read_on(
    consumer: AIOKafkaConsumer,
    session: AsyncSession,
    settings: Settings,
    outputs: Mapping[str, OutputRead],
    say: Say,
) -> None:
    """Copy what came into the outcome topics since they were read."""
    for topic, read in outputs.items():
        bounds = await stable_bounds(consumer, settings, list(read.spans), say)
        rest = {p: (end, bounds[p].end) for p, (_, end) in read.spans.items()}
        is_confirmation = topic == settings.order_confirmed_topic
        newer = OutputRead(rest, frozenset())
        await read_outcomes(consumer, session, topic, newer, is_confirmation=is_confirmation, quiet=True)


async def _published(
    producer: AIOKafkaProducer,
    admin: AIOKafkaAdminClient,
    session: AsyncSession,
    settings: Settings,
    sources: Sequence[TopicPartition],
) -> AsyncIterator[int]:
    """Publish a portion at a time; how many each had."""
    for source in sources:
        after = -1
        while True:
            # Checked each time: if an operator moves offsets back meanwhile, workers publish the outcome
            # themselves.
            before = (await committed(admin, settings.group_id, [source]))[source] or 0
            number = source.partition
            last = await tables.find_end_of_portion(session, number, after, before, _PORTION)
            if last is None:
                break
            unpublished = await tables.list_unpublished(session, number, after, last)
            await session.commit()
            if unpublished:
                await _publish(producer, settings, unpublished)
            yield len(unpublished)
            after = last


async def _publish(
    producer: AIOKafkaProducer, settings: Settings, unpublished: Sequence[Unpublished]
) -> None:
    async with transaction(producer, settings.transaction_timeout_ms / 2_000) as opened:
        for one in unpublished:
            await _send(opened, settings, one)


async def _send(opened: Transaction, settings: Settings, unpublished: Unpublished) -> None:
    """As `BatchProcessor` and `Publisher` would have sent it: key, value, headers, partition."""
    topic = settings.topics.of_outcome(unpublished.outcome)
    source = TopicPartition(settings.order_placed_topic, unpublished.partition)
    key = str(unpublished.order_id).encode()
    await opened.send(
        await output_of(opened.producer, topic, source),
        key=key,
        value=unpublished.event.encode(),
        headers=outcome_headers(
            key, f"order-{unpublished.outcome}", unpublished.decided_at, unpack_headers(unpublished.passed_on)
        ),
        timestamp_ms=int(time.time() * 1_000),
    )
