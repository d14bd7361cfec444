"""Sends reopened orders to the input topic, and finds out what a killed run has sent."""

from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import MessageSizeTooLargeError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from contracts.envelope import SUPERSEDES
from contracts.fields import parse_order_id
from db.worker import reopenings
from db.worker.reopenings import ClaimedOrder
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.clients import KAFKA_ERRORS
from worker.kafka.consuming.reading import TopicReader
from worker.kafka.producing.exclusive_producer import is_fenced
from worker.operations.orders.origins import PORTION, Origin, read_origins
from worker.operations.orders.reopened import reopened
from worker.operations.redrive.recover import look_behind
from worker.operations.redrive.send import MAX_BYTES, MAX_LETTERS, Parcel, send_at_once
from worker.settings import Settings


async def parcels(
    settings: Settings, inputs: TopicReader, claimed: Sequence[ClaimedOrder], drop_prices: bool, most: int
) -> AsyncIterator[list[Parcel]]:
    """What is to be sent of those whose record is still there: as much as goes into one transaction."""
    together: list[Parcel] = []
    for start in range(0, len(claimed), PORTION):
        for parcel in await _packed(settings, inputs, claimed[start : start + PORTION], drop_prices):
            size = sum(one.size for one in together)
            if together and (len(together) >= min(most, MAX_LETTERS) or size + parcel.size > MAX_BYTES):
                yield together
                together = []
            together.append(parcel)
    if together:
        yield together


async def _packed(
    settings: Settings, inputs: TopicReader, claimed: Sequence[ClaimedOrder], drop_prices: bool
) -> list[Parcel]:
    by_id = {one.order_id: one for one in claimed}
    wanted = [Origin(one.partition, one.offset, one.order_id, one.fingerprint) for one in claimed]
    topic, max_bytes = settings.order_placed_topic, settings.message_max_bytes
    packed = []
    async for origin, record in read_origins(inputs, topic, wanted, max_bytes):
        one = by_id[origin.order_id]
        new = reopened(record, origin.order_id, drop_prices=drop_prices, max_bytes=max_bytes)
        if new:
            key = str(one.new_order_id).encode()
            packed.append(Parcel(one.new_order_id, one.input_partition, key, new.value, new.headers))
    return packed


async def send_all(producer: AIOKafkaProducer, settings: Settings, some: Sequence[Parcel]) -> dict[UUID, int]:
    """All of them in one transaction; the offset of each. After an error the next run finds out."""
    try:
        return await send_at_once(producer, settings, some)
    except MessageSizeTooLargeError as error:
        raise CommandError(
            f"an order is larger with its new header than {settings.order_placed_topic} takes:"
            f" {reason_of(error)}; raise its max.message.bytes, or choose others"
        ) from error
    except KAFKA_ERRORS as error:
        if is_fenced(error):
            raise fenced(settings) from error
        raise CommandError(
            f"Kafka stopped taking orders: {reason_of(error)}; run the same again, and it finds out which"
            " were sent"
        ) from error


def fenced(settings: Settings) -> CommandError:
    """Somebody else reopens for the same group now."""
    return CommandError(
        f"another reopen for the group {settings.group_id} has begun, so this one stops; what it has sent"
        " stays sent; run it again when the other has ended, and it finds what is left"
    )


async def recover(
    settings: Settings,
    sessions: async_sessionmaker[AsyncSession],
    inputs: TopicReader,
    claiming: Mapping[UUID, int],
    patience_seconds: float,
) -> tuple[int, int]:
    """Find out what was sent of claims that a killed run left, and free the others; how many of each.

    `claiming`: the runs that had unsent claims before the group's producer was started, which ended them, and
    how many. The claims of one that has begun since are its own: it may be sending them at this moment.
    """
    async with sessions() as session:
        claimed_from = await reopenings.list_claimed_from(session, claiming)
    if not claimed_from:
        return 0, 0

    async def mark(some: Sequence[ConsumerRecord]) -> None:
        offsets = {new_id: record.offset for record in some if (new_id := _reopened_in(record))}
        if offsets:
            async with sessions.begin() as session:
                await reopenings.mark_sent(session, offsets)

    await look_behind(settings, inputs, claimed_from, patience_seconds, mark)
    async with sessions.begin() as session:
        # What retention has deleted unseen may be sent again. It would be the same order, and so a duplicate.
        released = sum([await reopenings.release_reopenings(session, run_id) for run_id in claiming])
    return sum(claiming.values()) - released, released


def _reopened_in(record: ConsumerRecord) -> UUID | None:
    """The new id of an order that was placed again; None of any other record."""
    if not any(name == SUPERSEDES for name, _ in record.headers):
        return None
    return parse_order_id((record.key or b"").decode("ascii", "replace"))
