"""What is placed, when and where: a schedule, pure and the same for the same seed, and its producer.

Among the orders are exact repeats of some, half of them on another partition; broken messages, each of
another kind; and a few orders that come back under their id with other content.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner

from contracts.events import DeadLetterCode, OrderedItem, OrderPlaced
from contracts.examples import Hostile, hostile_values
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.sandbox.demo.retailer import PRICES_SEEN_EVERY, Invoice
from worker.settings import Settings

DUPLICATE_SHARE: Final = 0.04
BROKEN: Final = 40
CONFLICTS: Final = 5
BROKEN_MAX_BYTES: Final = 32 * 1024  # a megabyte of brackets proves nothing more and slows the picture down

_LINGER_MS: Final = 2
# Repeats follow their original within this share of the time, as an upstream that retries would send them.
_REPEAT_WITHIN: Final = 0.15


class RecordKind(Enum):
    """What a record is meant to be; the worker does not know it."""

    ORDER = "order"
    DUPLICATE = "duplicate"  # byte for byte as before
    BROKEN = "broken"  # not an order
    CONFLICT = "conflict"  # the id of an order, but another content


@dataclass(frozen=True, slots=True)
class Placement:
    """One record to place `due_seconds` after the start. `code`: the dead letter it must become."""

    due_seconds: float
    kind: RecordKind
    key: bytes
    value: bytes | None
    partition: int
    code: DeadLetterCode | None = None


@dataclass(frozen=True, slots=True)
class PlacedRecord:
    """A placement that Kafka has acknowledged. `placed_ms` is the record's CreateTime."""

    placement: Placement
    partition: int
    offset: int
    placed_ms: int


def schedule(
    invoices: Sequence[Invoice], *, started_at: datetime, seconds: float, partitions: int, seed: int
) -> list[Placement]:
    """Every placement by the time it is due: the same arguments give the same records, byte for byte.

    Orders keep the order of the invoices. A repeat comes after its original; a conflict also lies after
    it in the same partition, so that the original is the one that is decided.
    """
    rng = random.Random(seed)
    orders = _orders(invoices, started_at, seconds, partitions)
    repeated = rng.sample(orders, round(len(orders) * DUPLICATE_SHARE))
    duplicates = [_duplicate(o, n, partitions, seconds, rng) for n, o in enumerate(repeated)]
    conflicts = [_conflict(o, seconds, rng) for o in rng.sample(orders, min(CONFLICTS, len(orders)))]
    broken = [
        Placement(
            due_seconds=rng.uniform(0, seconds),
            kind=RecordKind.BROKEN,
            key=f"broken-{n}".encode(),
            value=hostile.value,
            partition=n % partitions,
            code=hostile.code,
        )
        for n, hostile in enumerate(_broken(rng))
    ]
    return sorted([*orders, *duplicates, *conflicts, *broken], key=lambda placement: placement.due_seconds)


def _orders(
    invoices: Sequence[Invoice], started_at: datetime, seconds: float, partitions: int
) -> list[Placement]:
    choose, all_partitions = DefaultPartitioner(), list(range(partitions))
    orders = []
    for number, invoice in enumerate(invoices):
        due = seconds * number / len(invoices)
        key = str(invoice.order_id).encode()
        order = _order(invoice, started_at + timedelta(seconds=due), number % PRICES_SEEN_EVERY == 0)
        partition = choose(key, all_partitions, all_partitions)
        orders.append(Placement(due, RecordKind.ORDER, key, _value(order), partition))
    return orders


def _order(invoice: Invoice, placed_at: datetime, with_prices: bool) -> OrderPlaced:
    return OrderPlaced(
        order_id=invoice.order_id,
        user_id=invoice.user_id,
        placed_at=placed_at,
        items=tuple(
            OrderedItem(
                product_id=line.product_id,
                quantity=line.quantity,
                unit_price=line.price if with_prices else None,
            )
            for line in invoice.lines
        ),
    )


def _value(order: OrderPlaced) -> bytes:
    return order.model_dump_json(exclude_none=True).encode()


def _duplicate(
    order: Placement, number: int, partitions: int, seconds: float, rng: random.Random
) -> Placement:
    partition = (order.partition + number % 2) % partitions
    return Placement(_later(order, seconds, rng), RecordKind.DUPLICATE, order.key, order.value, partition)


def _conflict(order: Placement, seconds: float, rng: random.Random) -> Placement:
    assert order.value is not None
    original = OrderPlaced.model_validate_json(order.value)
    first, *rest = original.items
    one_more = first.model_copy(update={"quantity": first.quantity + 1})
    other = original.model_copy(update={"items": (one_more, *rest)})
    return Placement(
        _later(order, seconds, rng),
        RecordKind.CONFLICT,
        order.key,
        _value(other),
        order.partition,
        DeadLetterCode.ORDER_ID_CONFLICT,
    )


def _later(order: Placement, seconds: float, rng: random.Random) -> float:
    # Never at the same moment: sorting must leave it behind its original.
    return order.due_seconds + rng.uniform(0.01, 1) * _REPEAT_WITHIN * seconds


def _broken(rng: random.Random) -> list[Hostile]:
    fitting = [h for h in hostile_values() if h.value is None or len(h.value) <= BROKEN_MAX_BYTES]
    # Half of all kinds concern single fields: without this the other codes would hardly be seen.
    rare = [h for h in fitting if h.code is not DeadLetterCode.INVALID_ORDER]
    usual = [h for h in fitting if h.code is DeadLetterCode.INVALID_ORDER]
    chosen = rng.sample(rare, BROKEN // 2) + rng.sample(usual, BROKEN - BROKEN // 2)
    rng.shuffle(chosen)
    return chosen


async def place_paced(
    settings: Settings, placements: Iterable[Placement], acknowledged: Callable[[PlacedRecord], None]
) -> None:
    """Place each record when it is due; `acknowledged` hears of each once all replicas have it.

    Returns when every record is acknowledged. Each is in Kafka once, however often a request was repeated.
    """
    producer = AIOKafkaProducer(
        **settings.kafka_client_options(), enable_idempotence=True, acks="all", linger_ms=_LINGER_MS
    )
    try:
        await producer.start()
        await _place(producer, settings.order_placed_topic, placements, acknowledged)
    except (KafkaError, OSError, TimeoutError) as error:
        raise CommandError(f"Kafka stopped taking orders: {reason_of(error)}") from error
    finally:
        await producer.stop()


async def _place(
    producer: AIOKafkaProducer,
    topic: str,
    placements: Iterable[Placement],
    acknowledged: Callable[[PlacedRecord], None],
) -> None:
    async with asyncio.TaskGroup() as waiting:
        started = time.monotonic()
        for placement in placements:
            ahead = started + placement.due_seconds - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            now_ms = time.time_ns() // 1_000_000
            answer = await producer.send(
                topic,
                value=placement.value,
                key=placement.key,
                partition=placement.partition,
                timestamp_ms=now_ms,
            )
            waiting.create_task(_acknowledge(answer, placement, now_ms, acknowledged))


async def _acknowledge(
    answer: "asyncio.Future[object]",
    placement: Placement,
    placed_ms: int,
    acknowledged: Callable[[PlacedRecord], None],
) -> None:
    metadata = await answer
    acknowledged(PlacedRecord(placement, metadata.partition, metadata.offset, placed_ms))  # type: ignore[attr-defined]
