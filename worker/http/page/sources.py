"""Queries Kafka and PostgreSQL for the page: bounded reads, through connections of its own."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from contracts.topics import Topics
from db.engine import session_factory
from db.statuses import OrderStatus
from db.worker import sales
from db.worker.order_pages import list_order_entries
from db.worker.skips import list_skips
from worker.http.outcomes import LettersOfOrders, letters_of_orders
from worker.http.page.lists import (
    ORDERS_ON_A_PAGE,
    LettersFound,
    OrdersFound,
    RejectionsFound,
    letters_found,
    orders_found,
    rejections_found,
)
from worker.http.page.overview import (
    LONGEST_WINDOW,
    LetterGroups,
    Rejections,
    StoredOrders,
    letter_groups,
    rejections,
    stored_orders,
)
from worker.http.page.parameters import Edges, LetterQuery, OrderQuery, RejectionQuery
from worker.http.page.tail import Tail, read_page, read_tail
from worker.http.queries import Inquiries, NoAnswerError
from worker.kafka.consuming.reading import TopicReader, nothing_more, portions, reader
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of
from worker.operations.dead_letters.known import look_up
from worker.operations.dead_letters.letter import LetterPlace, read_letter
from worker.operations.explain.collect import collect, collect_rows
from worker.operations.explain.explanation import Explanation
from worker.operations.explain.search import Reach
from worker.operations.lag.look import LOOKS_KEPT, group_view
from worker.operations.lag.measure import GroupLag, Look, measure
from worker.operations.skip.sentences import Skips
from worker.settings import Settings

# The event loop also decides batches: one view may parse at most this much, which takes some 30 ms.
MOST_REJECTIONS: Final = 1_000
MOST_REJECTIONS_BYTES: Final = 1024 * 1024
MOST_LETTERS: Final = 400
MOST_LETTERS_BYTES: Final = 2 * 1024 * 1024
LISTED: Final = 100  # on a page of a list
MOST_LOOKED_AT: Final = 2_000  # for it: of what a filter leaves out only a header or a word is read
MOST_ORDERS: Final = 50_000  # counted by PostgreSQL along an index
# Records are handed on as a broker sends them: small portions leave the batch its turns.
FETCH_BYTES: Final = 256 * 1024
NEAR: Final = Reach(records=5_000, waiting=20_000, fetch_bytes=FETCH_BYTES)
_SALES_SECONDS: Final = 1.0
_LOOKS_SECONDS: Final = 60.0  # a rate over more than this says little of now
_BETWEEN_LOOKS_SECONDS: Final = 0.5
_REQUEST_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Sources:
    """The queries of the page. Each method raises the server's errors.

    Connections to Kafka are opened for each query, because the page may not be opened for hours.
    """

    client_options: Mapping[str, Any]
    settings: Settings
    inquiries: Inquiries
    _looks: deque[Look] = field(default_factory=lambda: deque(maxlen=LOOKS_KEPT))

    @property
    def topics(self) -> Topics:
        return self.settings.topics

    async def lag(self) -> GroupLag:
        """Measures twice the first time, because a rate needs two measurements."""
        group_id, topic, looks = self.settings.group_id, self.topics.placed, self._looks
        while looks and time.monotonic() - looks[0].clock > _LOOKS_SECONDS:
            looks.popleft()
        async with (
            self._admin() as admin,
            self._reader() as consumer,
            group_view(admin, consumer, self._options(), group_id, topic) as view,
        ):
            if not looks:
                looks.append(await view.look())
                await asyncio.sleep(_BETWEEN_LOOKS_SECONDS)
            looks.append(await view.look())
        return measure(group_id, topic, looks, await self._skips())

    async def _skips(self) -> Skips:
        try:
            async with self.inquiries.session() as session:
                return Skips(await list_skips(session, self.topics.placed))
        except NoAnswerError as error:
            return Skips(trouble=str(error))

    async def rejections(self) -> Rejections:
        async with self._reader() as consumer:
            tail = await read_tail(consumer, self.topics.rejected, MOST_REJECTIONS, MOST_REJECTIONS_BYTES)
        return rejections(tail)

    async def letters(self) -> LetterGroups:
        async with self._reader() as consumer:
            tail = await read_tail(consumer, self.topics.dead_letter, MOST_LETTERS, MOST_LETTERS_BYTES)
        return letter_groups(tail)

    async def open_letters(self) -> Counter[str]:
        """By code: the newest dead letters that were neither redriven nor settled."""
        async with self._reader() as consumer:
            tail = await read_tail(consumer, self.topics.dead_letter, MOST_LETTERS, MOST_LETTERS_BYTES)
        found = [(read_letter(record), record) for record in tail.records[:MOST_LETTERS]]
        async with self.inquiries.session() as session:
            known = await look_up(session, self.topics.dead_letter, found)
        return Counter(
            letter.code for letter, _ in found if not known.redrive(letter) and not known.settled(letter)
        )

    async def letters_of_orders(self) -> LettersOfOrders:
        async with self._reader() as consumer:
            tail = await read_tail(consumer, self.topics.dead_letter, MOST_LETTERS, MOST_LETTERS_BYTES)
        return letters_of_orders(tail)

    async def orders(self) -> StoredOrders:
        since = datetime.now(UTC) - LONGEST_WINDOW
        async with self.inquiries.session() as session:
            by_second = await sales.list_orders_by_second(session, since, MOST_ORDERS)
        return stored_orders(by_second, MOST_ORDERS)

    async def order(self, order_id: UUID) -> Explanation:
        """Everything that is near."""
        sessions = session_factory(self.inquiries.engine)
        options = self._options()
        return await collect(
            order_id, sessions, options, self.settings, reach=NEAR, sales_seconds=_SALES_SECONDS
        )

    async def rows_of(self, order_id: UUID) -> Explanation | None:
        """What PostgreSQL alone knows; None: nothing."""
        sessions = session_factory(self.inquiries.engine)
        return await collect_rows(order_id, sessions, self.settings.group_id, _SALES_SECONDS)

    async def listed_orders(self, query: OrderQuery) -> OrdersFound:
        """One page of the stored orders."""
        status = OrderStatus(query.status) if query.status else None
        async with self.inquiries.session() as session:
            return orders_found(
                await list_order_entries(
                    session,
                    user_id=query.user,
                    status=status,
                    since=query.since,
                    until=query.until,
                    after=query.after,
                    limit=ORDERS_ON_A_PAGE + 1,
                )
            )

    async def listed_rejections(self, query: RejectionQuery) -> RejectionsFound:
        """One page of the rejections that are still in their topic."""

        def takes(record: ConsumerRecord) -> bool:
            # As text: whole events are read of those alone that have it.
            return query.reason is None or query.reason.encode() in (record.value or b"")

        tail = await self._page(self.topics.rejected, query.before, takes)
        return rejections_found(tail, query.reason)

    async def listed_letters(self, query: LetterQuery) -> LettersFound:
        """One page of the dead letters, with their state, if PostgreSQL answers."""
        topic = self.topics.dead_letter
        tail = await self._page(topic, query.before, lambda record: query.choice.takes(read_letter(record)))
        letters = [(read_letter(record), record) for record in tail.records]
        try:
            async with self.inquiries.session() as session:
                return letters_found(tail, await look_up(session, topic, letters))
        except NoAnswerError as error:
            return letters_found(tail, None, str(error))

    async def _page(self, topic: str, before: Edges | None, takes: Callable[[ConsumerRecord], bool]) -> Tail:
        async with self._reader() as consumer:
            return await read_page(
                consumer,
                topic,
                before,
                takes,
                at_most=LISTED,
                look_at=MOST_LOOKED_AT,
                max_bytes=MOST_LETTERS_BYTES,
            )

    async def record(self, topic: str, place: LetterPlace) -> ConsumerRecord | None:
        """The record at that offset of one of the four topics; None: there is none."""
        partition = TopicPartition(topic, place.partition)
        async with self._reader() as consumer:
            if partition not in await partitions_of(consumer, TopicSelection(partition.topic)):
                return None
            bounds = (await bounds_of(consumer, [partition]))[partition]
            if not bounds.first <= place.offset < bounds.end:
                return None
            span = {partition: (place.offset, place.offset + 1)}
            found = [record async for _, records in portions(consumer, span) for record in records]
        return found[0] if found else None

    def _options(self) -> dict[str, Any]:
        """Kafka options with short timeouts."""
        return {**self.client_options, "request_timeout_ms": _REQUEST_MS}

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[TopicReader]:
        options = {**self._options(), "max_partition_fetch_bytes": FETCH_BYTES}
        async with reader(options, on_unreadable=nothing_more) as consumer:
            yield consumer

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        async with AsyncExitStack() as stack:
            admin = AIOKafkaAdminClient(**self._options(), retry_backoff_ms=200)
            stack.push_async_callback(admin.close)
            await admin.start()
            yield admin
