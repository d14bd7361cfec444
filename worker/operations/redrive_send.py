"""Sends letters to the input topic, each as it was before it failed, in Kafka transactions."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
)

from worker.connections import largest_record_bytes, quiet_aiokafka, reason_of
from worker.errors import CommandError
from worker.settings import Settings

MAX_LETTERS: Final = 100  # of one transaction
MAX_BYTES: Final = 4 * 1024 * 1024  # of one transaction; a larger letter goes alone

_CLOSE_SECONDS: Final = 5.0
_RETRY_BACKOFF_MS: Final = 10  # as of `worker.publisher`
_HEADER_ROOM_BYTES: Final = 64 * 1024


class Parcel(NamedTuple):
    """One record to send. `redrive_id` is among the headers."""

    redrive_id: UUID
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @property
    def size(self) -> int:
        return len(self.key or b"") + len(self.value or b"")


@asynccontextmanager
async def redrive_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """The group's one producer of redrives.

    Once it is started, every transaction of an earlier one has ended, and nothing that one still sends
    counts. So what is in the input topic then is all that was ever redriven.
    """
    room = await largest_record_bytes(settings, settings.order_placed_topic) + _HEADER_ROOM_BYTES
    asyncio.get_running_loop().set_exception_handler(_overlook)
    with quiet_aiokafka():
        producer = AIOKafkaProducer(
            **settings.kafka_client_options(),
            transactional_id=f"{settings.group_id}.redrive",
            transaction_timeout_ms=settings.transaction_timeout_ms,
            retry_backoff_ms=_RETRY_BACKOFF_MS,
            max_request_size=max(1024 * 1024, room),
            acks="all",
        )
        try:
            try:
                async with asyncio.timeout(settings.transaction_timeout_ms / 1_000):
                    await producer.start()
            except (KafkaError, OSError, TimeoutError) as error:
                raise CommandError(
                    f"Kafka does not let us publish: {reason_of(error)}; nothing was sent"
                ) from error
            yield producer
        finally:
            # What was sent counts by what is committed; a producer that is fenced cannot even say goodbye.
            with suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(producer.stop(), _CLOSE_SECONDS)


def _overlook(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """aiokafka has futures of its own, which fail with a fenced producer and which nobody asks."""
    if not isinstance(context.get("exception"), KafkaError):
        loop.default_exception_handler(context)


async def send(producer: AIOKafkaProducer, settings: Settings, parcels: Sequence[Parcel]) -> dict[UUID, int]:
    """All of them in one transaction; the offset of each.

    After an error nobody knows whether it happened: the next run finds out.
    """
    try:
        # The broker ends the transaction at its timeout; give up before.
        async with asyncio.timeout(settings.transaction_timeout_ms / 2_000):
            return await _send(producer, settings.order_placed_topic, parcels)
    except (ProducerFenced, InvalidProducerEpoch, InvalidTxnState) as error:
        raise fenced(settings) from error
    except MessageSizeTooLargeError as error:
        raise CommandError(
            f"a letter is larger than {settings.order_placed_topic} takes: {reason_of(error)}; choose others"
        ) from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise CommandError(
            f"Kafka stopped taking letters: {reason_of(error)}; run the same again, and it finds out which"
            " were sent"
        ) from error


def fenced(settings: Settings) -> CommandError:
    """Somebody else redrives for the same group now."""
    return CommandError(
        f"another redrive for the group {settings.group_id} has begun, so this one stops; what it has sent"
        " stays sent, the rest is left to the other"
    )


async def _send(producer: AIOKafkaProducer, topic: str, parcels: Sequence[Parcel]) -> dict[UUID, int]:
    by_partition: dict[int, list[Parcel]] = defaultdict(list)
    for parcel in parcels:
        by_partition[parcel.partition].append(parcel)
    await producer.begin_transaction()
    sent: list[tuple[asyncio.Future[Any], list[UUID]]] = []
    try:
        for partition, of_one in by_partition.items():
            sent += await _send_to(producer, topic, partition, of_one)
        # aiokafka commits a transaction in which a send failed, so every send is awaited first.
        answers = await asyncio.gather(*(future for future, _ in sent))
        await producer.commit_transaction()
    except BaseException:
        for future, _ in sent:
            # Those that fail from now on have nobody to ask for it, which asyncio would log as errors.
            future.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise
    return {
        redrive_id: answer.offset + number
        for answer, (_, ids) in zip(answers, sent, strict=True)
        for number, redrive_id in enumerate(ids)
    }


async def _send_to(
    producer: AIOKafkaProducer, topic: str, partition: int, parcels: Sequence[Parcel]
) -> list[tuple["asyncio.Future[Any]", list[UUID]]]:
    """As batches, which take a record without key and value, unlike `send`; a future for each."""
    now_ms = int(time.time() * 1_000)
    sent: list[tuple[asyncio.Future[Any], list[UUID]]] = []
    batch, ids = producer.create_batch(), list[UUID]()
    for parcel in parcels:
        content = {"key": parcel.key, "value": parcel.value, "headers": parcel.headers, "timestamp": now_ms}
        # None: it is full. An empty one takes any record.
        if batch.append(**content) is None:
            sent.append((await producer.send_batch(batch, topic, partition=partition), ids))
            batch, ids = producer.create_batch(), []
            batch.append(**content)
        ids.append(parcel.redrive_id)
    sent.append((await producer.send_batch(batch, topic, partition=partition), ids))
    return sent
