"""Sends letters to the input topic, each as it was before it failed, in Kafka transactions."""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple
from uuid import UUID

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.clients import KAFKA_ERRORS, largest_record_bytes
from worker.kafka.producing.exclusive_producer import exclusive_producer, is_fenced
from worker.kafka.producing.transaction import Sent, Transaction, transaction
from worker.settings import Settings

MAX_LETTERS: Final = 100  # of one transaction
MAX_BYTES: Final = 4 * 1024 * 1024  # of one transaction; a larger letter goes alone

_HEADER_ROOM_BYTES: Final = 64 * 1024


class Parcel(NamedTuple):
    """One record to send. `id` is among the headers, or the key."""

    id: UUID
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @property
    def size(self) -> int:
        return len(self.key or b"") + len(self.value or b"")


@asynccontextmanager
async def input_producer(settings: Settings, command: str) -> AsyncIterator[AIOKafkaProducer]:
    """The group's one producer of this command.

    Once it is started, every transaction of an earlier one has ended, and nothing that one still sends
    counts. So what is in the input topic then is all that the command has ever sent.
    """
    room = await largest_record_bytes(settings, settings.order_placed_topic) + _HEADER_ROOM_BYTES
    async with exclusive_producer(
        settings,
        f"{settings.group_id}.{command}",
        settings.transaction_timeout_ms,
        max_request_size=max(1024 * 1024, room),
    ) as producer:
        yield producer


async def send(producer: AIOKafkaProducer, settings: Settings, parcels: Sequence[Parcel]) -> dict[UUID, int]:
    """All of them in one transaction; the offset of each.

    After an error nobody knows whether it happened: the next run finds out.
    """
    try:
        return await send_at_once(producer, settings, parcels)
    except MessageSizeTooLargeError as error:
        raise CommandError(
            f"a letter is larger than {settings.order_placed_topic} takes: {reason_of(error)}; choose others"
        ) from error
    except KAFKA_ERRORS as error:
        if is_fenced(error):
            raise fenced(settings) from error
        raise CommandError(
            f"Kafka stopped taking letters: {reason_of(error)}; run the same again, and it finds out which"
            " were sent"
        ) from error


async def send_at_once(
    producer: AIOKafkaProducer, settings: Settings, parcels: Sequence[Parcel]
) -> dict[UUID, int]:
    """As `send`, with Kafka's errors as they are."""
    # The broker ends the transaction at its timeout; give up before.
    async with transaction(producer, settings.transaction_timeout_ms / 2_000) as opened:
        sent = await _send(opened, settings.order_placed_topic, parcels)
    return {
        parcel_id: future.result().offset + number
        for future, ids in sent
        for number, parcel_id in enumerate(ids)
    }


def fenced(settings: Settings) -> CommandError:
    """Somebody else redrives for the same group now."""
    return CommandError(
        f"another redrive for the group {settings.group_id} has begun, so this one stops; what it has sent"
        " stays sent; run it again when the other has ended, and it finds what is left"
    )


async def _send(opened: Transaction, topic: str, parcels: Sequence[Parcel]) -> list[tuple[Sent, list[UUID]]]:
    by_partition: dict[int, list[Parcel]] = defaultdict(list)
    for parcel in parcels:
        by_partition[parcel.partition].append(parcel)
    sent: list[tuple[Sent, list[UUID]]] = []
    for number, of_one in by_partition.items():
        sent += await _send_to(opened, TopicPartition(topic, number), of_one)
    return sent


async def _send_to(
    opened: Transaction, place: TopicPartition, parcels: Sequence[Parcel]
) -> list[tuple[Sent, list[UUID]]]:
    """As batches, which take a record without key and value, unlike `send`; a future for each."""
    now_ms = int(time.time() * 1_000)
    sent: list[tuple[Sent, list[UUID]]] = []
    batch, ids = opened.producer.create_batch(), list[UUID]()
    for parcel in parcels:
        content = {"key": parcel.key, "value": parcel.value, "headers": parcel.headers, "timestamp": now_ms}
        # `append` returns None if the batch is full; an empty batch takes any record.
        if batch.append(**content) is None:
            sent.append((await opened.send_batch(batch, place), ids))
            batch, ids = opened.producer.create_batch(), []
            batch.append(**content)
        ids.append(parcel.id)
    sent.append((await opened.send_batch(batch, place), ids))
    return sent
