"""`place`: publishes orders, from a file of JSON lines or made up from the catalogue."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncSession

from db import catalog
from db.engine import session_factory
from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError
from worker.kafka.clients import KAFKA_ERRORS, quiet_aiokafka, require_topics
from worker.operations.place.messages import Message, encode, random_orders, read_messages, with_twins
from worker.operations.place.order_file import file_name, readable_twice
from worker.operations.screen import Bar, progress
from worker.operations.throttle import Throttle
from worker.settings import Settings

CATALOG_LIMIT: Final = 100_000  # users, and products, that random orders choose from: what fits in memory
_WINDOW_RECORDS: Final = 4_000  # sent and not yet acknowledged
_WINDOW_BYTES: Final = 32 * 1024 * 1024
_LINGER_MS: Final = 5
_FLUSH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Placed:
    """What was published and acknowledged by all replicas in sync."""

    orders: int
    duplicates: int
    seconds: float
    last_order_id: str

    def __str__(self) -> str:
        rate = (self.orders + self.duplicates) / max(self.seconds, 1e-9)
        return (
            f"{self.orders:,} placed in {self.seconds:.2f} s ({rate:,.0f}/s),"
            f" {self.duplicates:,} duplicate{'' if self.duplicates == 1 else 's'}"
        )


@dataclass(frozen=True, slots=True)
class PlacingPace:
    """How fast to send, and which share of the orders a second time."""

    rate: float | None = None  # records a second; None: as fast as Kafka takes them
    duplicates: float = 0.0  # 0 to 1
    seed: int | None = None


async def place_random(
    settings: Settings,
    count: int,
    *,
    max_items: int = 5,
    pace: PlacingPace | None = None,
    quiet: bool = False,
) -> Placed:
    """Publish `count` orders for users and products of the database's catalogue."""
    pace = pace or PlacingPace()
    async with database_engine(settings, "order-worker place") as engine:
        await require_database(engine, settings)
        async with session_factory(engine)() as session:
            users, products = await _read_catalog(session)
    orders = random_orders(pace.seed, users, products, count, max_items=max_items)
    return await place(settings, map(encode, orders), count, pace=pace, quiet=quiet)


async def place_file(
    settings: Settings, path: Path, *, pace: PlacingPace | None = None, quiet: bool = False
) -> Placed:
    """Publish every line of the file ("-": standard input) as it is, or nothing if one is not an order."""
    with readable_twice(path) as file:
        name = file_name(path)
        count = sum(1 for _ in read_messages(file, name, settings.message_max_bytes))
        if not count:
            raise CommandError(f"{name} holds no orders")
        file.seek(0)
        messages = read_messages(file, name, settings.message_max_bytes)
        return await place(settings, messages, count, pace=pace, quiet=quiet)


async def place(
    settings: Settings,
    messages: Iterable[Message],
    count: int,
    *,
    pace: PlacingPace | None = None,
    quiet: bool = False,
) -> Placed:
    """Publish the messages, each in Kafka once however often a request had to be repeated."""
    pace = pace or PlacingPace()
    await require_topics(settings, settings.order_placed_topic)
    with progress("placing", count, quiet=quiet) as bar:
        async with _producer(settings) as producer:
            window = _Window(producer, settings.order_placed_topic, bar, Throttle(pace.rate, makes_up=True))
            started = time.monotonic()
            duplicates, last_key = 0, b""
            try:
                for message, is_twin in with_twins(messages, pace.duplicates, pace.seed):
                    await window.send(message)
                    duplicates, last_key = duplicates + is_twin, message.key
                await window.drain()
            except KAFKA_ERRORS as error:
                raise CommandError(
                    f"Kafka stopped taking orders after {window.acknowledged:,} records: {reason_of(error)}"
                ) from error
            seconds = time.monotonic() - started
    return Placed(window.acknowledged - duplicates, duplicates, seconds, last_key.decode())


class _Window:
    """Sends without waiting for each answer, but never has more on the way than fits in memory."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, bar: Bar, throttle: Throttle) -> None:
        self.acknowledged = 0
        self._producer, self._topic = producer, topic
        self._bar, self._throttle = bar, throttle
        self._on_the_way: deque[tuple[asyncio.Future[object], int]] = deque()
        self._bytes = 0

    async def send(self, message: Message) -> None:
        await self._keep_pace()
        while len(self._on_the_way) >= _WINDOW_RECORDS or self._bytes >= _WINDOW_BYTES:
            await self._await_oldest()
        future = await self._producer.send(self._topic, message.value, key=message.key)
        self._on_the_way.append((future, len(message.value)))
        self._bytes += len(message.value)

    async def drain(self) -> None:
        await self._producer.flush()
        while self._on_the_way:
            await self._await_oldest()
        self._bar.to(self.acknowledged)

    async def _await_oldest(self) -> None:
        future, size = self._on_the_way[0]
        await future
        self._on_the_way.popleft()
        self._bytes -= size
        self.acknowledged += 1
        if self.acknowledged % 500 == 0:
            self._bar.to(self.acknowledged)

    async def _keep_pace(self) -> None:
        ahead = self._throttle.pause(1, time.monotonic())
        if ahead > 0:
            # Slow paces would otherwise show nothing until the window is full.
            while self._on_the_way and self._on_the_way[0][0].done():
                await self._await_oldest()
            self._bar.to(self.acknowledged)
            await asyncio.sleep(ahead)


@asynccontextmanager
async def _producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    with quiet_aiokafka():
        producer = AIOKafkaProducer(
            **settings.kafka_client_options(),
            enable_idempotence=True,
            acks="all",
            linger_ms=_LINGER_MS,
            retry_backoff_ms=20,
            max_request_size=max(1024 * 1024, settings.message_max_bytes + 64 * 1024),
        )
        try:
            await producer.start()
            yield producer
        except KafkaError as error:
            raise CommandError(f"Kafka does not let us publish: {reason_of(error)}") from error
        finally:
            # After a failure there is nobody to flush to, and stop() would wait for the request timeout.
            with suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(producer.stop(), _FLUSH_SECONDS)


async def _read_catalog(session: AsyncSession) -> tuple[Sequence[int], Sequence[tuple[int, Decimal]]]:
    users = await catalog.list_user_ids(session, CATALOG_LIMIT)
    products = await catalog.list_prices(session, CATALOG_LIMIT)
    empty = [name for name, rows in (("users", users), ("products", products)) if not rows]
    if empty:
        raise CommandError(
            f"the catalogue has no {' and no '.join(empty)}: fill it with `order-worker catalog import PATH`"
        )
    return users, products
