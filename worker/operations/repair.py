"""Announces from the ledger what was decided and never announced: the records a worker would have sent."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, ProducerFenced
from sqlalchemy.ext.asyncio import AsyncSession

from contracts.envelope import outcome_headers
from db import reconciliation
from db.models import Outcome
from db.reconciliation import Untold
from worker.connections import kafka_admin, reason_of
from worker.errors import CommandError
from worker.operations.evidence import OutputRead, read_outcomes
from worker.operations.group import committed
from worker.operations.screen import progress
from worker.operations.settled import Say, settled_bounds
from worker.operations.traces import unpack_headers
from worker.publisher import MAX_REQUEST_BYTES, RETRY_BACKOFF_MS
from worker.settings import Settings

# At most so many events are in memory. With more in one transaction the rate hardly grows.
_PORTION: Final = 200


async def end_what_hangs(settings: Settings) -> None:
    """End the transaction of a repair that was killed, which would hide what lies behind it for a minute."""
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
    """Announce every order that was found untold and is so still; returns how many that were.

    Each portion is one Kafka transaction. Interrupted at any point, the next run finds those that are left.
    Whoever runs this at the same time is fenced: the transactional id is that of the group's reconciliation.
    """
    published = 0
    try:
        # Another one can publish nothing more from here on ...
        async with _producer(settings) as producer, kafka_admin(settings) as admin:
            # ... so what was announced since the topics were read, by it or by a worker, is seen now.
            await _read_on(consumer, session, settings, outputs, say)
            await reconciliation.index_untold(session)
            await session.commit()
            with progress("announcing", total, quiet=quiet) as bar:
                async for number in _announced(producer, admin, session, settings, sources):
                    published += number
                    bar.advance(number)
    except ProducerFenced as error:
        raise CommandError(
            f"another repair took over after {published:,} were announced here: let it end, then run this"
            " again"
        ) from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise CommandError(
            f"Kafka refused after {published:,} were announced ({reason_of(error)}): run this again,"
            " it finds those that are left"
        ) from error
    return published


@asynccontextmanager
async def _producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """The one producer of the group's repairs: starting it ends what the one before had begun."""
    producer = AIOKafkaProducer(
        **settings.kafka_client_options(),
        transactional_id=f"{settings.group_id}.reconcile",
        transaction_timeout_ms=settings.transaction_timeout_ms,
        retry_backoff_ms=RETRY_BACKOFF_MS,
        max_request_size=MAX_REQUEST_BYTES,
        acks="all",
    )
    try:
        await producer.start()
        yield producer
    finally:
        await asyncio.shield(producer.stop())


async def _read_on(
    consumer: AIOKafkaConsumer,
    session: AsyncSession,
    settings: Settings,
    outputs: Mapping[str, OutputRead],
    say: Say,
) -> None:
    """Copy what came into the outcome topics since they were read."""
    for topic, read in outputs.items():
        bounds = await settled_bounds(consumer, settings, list(read.spans), say)
        rest = {p: (end, bounds[p].end) for p, (_, end) in read.spans.items()}
        is_confirmation = topic == settings.order_confirmed_topic
        newer = OutputRead(rest, frozenset())
        await read_outcomes(consumer, session, topic, newer, is_confirmation=is_confirmation, quiet=True)


async def _announced(
    producer: AIOKafkaProducer,
    admin: AIOKafkaAdminClient,
    session: AsyncSession,
    settings: Settings,
    sources: Sequence[TopicPartition],
) -> AsyncIterator[int]:
    """Announce a portion at a time; how many each had."""
    for source in sources:
        after = -1
        while True:
            # Anew each time: where an operator moves offsets back meanwhile, workers tell it themselves.
            before = (await committed(admin, settings.group_id, [source]))[source] or 0
            number = source.partition
            last = await reconciliation.find_end_of_portion(session, number, after, before, _PORTION)
            if last is None:
                break
            untold = await reconciliation.list_untold(session, number, after, last)
            await session.commit()
            if untold:
                await _announce(producer, settings, untold)
            yield len(untold)
            after = last


async def _announce(producer: AIOKafkaProducer, settings: Settings, untold: Sequence[Untold]) -> None:
    await producer.begin_transaction()
    sent = [await _send(producer, settings, one) for one in untold]
    # aiokafka commits a transaction in which a send failed, so every send is awaited first.
    await asyncio.gather(*sent)
    await producer.commit_transaction()


async def _send(producer: AIOKafkaProducer, settings: Settings, untold: Untold) -> asyncio.Future[Any]:
    """As `BatchProcessor` and `Publisher` would have sent it: key, value, headers, partition."""
    is_confirmed = untold.outcome == Outcome.CONFIRMED.value
    topic = settings.order_confirmed_topic if is_confirmed else settings.order_rejected_topic
    key = str(untold.order_id).encode()
    sent: asyncio.Future[Any] = await producer.send(
        topic,
        key=key,
        value=untold.event.encode(),
        headers=outcome_headers(
            key, f"order-{untold.outcome}", untold.decided_at, unpack_headers(untold.passed_on)
        ),
        partition=untold.partition % len(await producer.partitions_for(topic)),
        timestamp_ms=int(time.time() * 1_000),
    )
    return sent
