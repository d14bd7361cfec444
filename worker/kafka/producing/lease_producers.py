"""The transactional producer of a process, and the producers that it starts to fence others."""

import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerClosed

from worker.kafka.leaders import NoLeaderError, NotStartedError, has_leader, too_few_in_sync
from worker.kafka.limits.adapted import MAX_REQUEST_BYTES
from worker.kafka.producing.producers import RETRY_BACKOFF_MS, close_producer
from worker.kafka.producing.transaction import Transaction, end_hanging_transactions, transaction

# Few large requests: outcomes of one batch travel together. A larger record goes alone.
MAX_BATCH_BYTES: Final = 512 * 1024
# Producers started side by side, to fence others: each asks the broker some five times, over connections of
# its own.
_FENCED_AT_ONCE: Final = 16
# Remember the outputs of so many transactions. One would do if Kafka never undid two in a row. All of them
# would write a marker to the dead-letter topic with every batch, and people watch that topic's end.
OUTPUTS_KEPT: Final = 3
# How old what is known of leaders and copies in sync may be before a transaction begins.
_METADATA_MS: Final = 5_000
# Into so many parts the time of a start is divided. After each part but the last the reason is looked for.
_LOOKS: Final = 3

LeastInSync = Callable[[str], int]
"""a topic's `min.insync.replicas`, as far as it is known"""


def not_known(_topic: str) -> int:
    """One, as for a topic whose settings may not be read: its leader is enough."""
    return 1


class LeaseProducer:
    """A started producer: one transaction at a time, and none after one that failed.

    Once `is_broken`, it is unknown whether its last transaction was committed. The producer is closed, and
    every lease that was taken with it is lost.
    """

    def __init__(
        self,
        client: AIOKafkaProducer,
        timeout_seconds: float,
        close: Callable[[AIOKafkaProducer], None],
        least_in_sync: LeastInSync = not_known,
    ) -> None:
        """`timeout_seconds`: of one transaction, before the broker ends it."""
        self.client = client
        self._least_in_sync = least_in_sync
        self.is_broken = False
        self._timeout_seconds = timeout_seconds
        self._close = close
        self._one_at_a_time = asyncio.Lock()
        self._outputs: deque[AbstractSet[TopicPartition]] = deque(maxlen=OUTPUTS_KEPT)
        self._is_complete = True

    @property
    def latest_outputs(self) -> set[TopicPartition]:
        """The partitions that the latest transactions wrote to."""
        return set().union(*self._outputs)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """As the function `transaction`; if it raises, the producer is broken."""
        async with self._whole_or_broken(), transaction(self.client, self._timeout_seconds) as opened:
            yield opened
        self._is_complete = False

    def wrote_to(self, outputs: AbstractSet[TopicPartition]) -> None:
        """Remember the partitions that the transaction just committed wrote to."""
        self._outputs.append(outputs)

    async def complete(self, places: Collection[TopicPartition]) -> None:
        """Wait until the last transaction is visible to everyone, its offsets included.

        Kafka acknowledges a commit before it is visible, and begins the next transaction only afterwards, so
        this runs an empty transaction. `places`: partitions that may take part in it.
        """
        if self._is_complete:
            return
        # There Kafka may have undone an earlier one and left it open: the empty one ends it.
        await self.commit_in(self.latest_outputs or places)
        self._is_complete = True

    async def commit_in(self, places: Collection[TopicPartition]) -> None:
        """Run an empty transaction: it commits hanging transactions in these partitions."""
        for topic in {place.topic for place in places}:
            await self.client.partitions_for(topic)  # a new producer knows no leaders yet
        async with self.transaction() as opened:
            for place in places:
                self.join(opened, place)

    def join(self, opened: Transaction, place: TopicPartition) -> bool:
        """Add a partition to the transaction, to end there what hangs. False if it could take no marker."""
        return self._takes_markers(place) and opened.join(place)

    def _takes_markers(self, place: TopicPartition) -> bool:
        return not too_few_in_sync(self.client.client, {place: self._least_in_sync(place.topic)})

    async def abort_in(self, places: Iterable[TopicPartition]) -> None:
        """As `end_hanging_transactions`; if it raises, the producer is broken."""
        async with self._whole_or_broken(), asyncio.timeout(self._timeout_seconds):
            await end_hanging_transactions(self.client, filter(self._takes_markers, places))
        self._is_complete = True

    def close(self) -> None:
        """Close the producer; it cannot be used again."""
        if not self.is_broken:
            self.is_broken = True
            self._close(self.client)

    @asynccontextmanager
    async def _whole_or_broken(self) -> AsyncIterator[None]:
        async with self._one_at_a_time:
            if self.is_broken:
                raise ProducerClosed
            try:
                yield
            except BaseException:
                self.close()
                raise


class LeaseProducers:
    """Starts the producers of one process: its own, and those that fence others."""

    def __init__(
        self,
        own_id: str,
        *,
        client_options: dict[str, Any],
        topics: Sequence[str],
        transaction_timeout_ms: int,
        least_in_sync: LeastInSync = not_known,
    ) -> None:
        """`own_id`: a transactional id that no other process has. `topics`: those that are published to."""
        self.own_id = own_id
        self._least_in_sync = least_in_sync
        # The broker ends a transaction at its timeout; give up before, and find out what happened.
        self.timeout_seconds = transaction_timeout_ms / 2_000
        self._client_options = client_options
        self._topics = topics
        self._transaction_timeout_ms = transaction_timeout_ms
        self._own: LeaseProducer | None = None
        self._slots = asyncio.Semaphore(_FENCED_AT_ONCE)
        self._closing: set[asyncio.Task[None]] = set()

    async def own(self) -> LeaseProducer:
        """This process's producer; if it is broken, a new one, whose start ends its open transaction."""
        if self._own is None or self._own.is_broken:
            self._own = await self._start(self.own_id)
        return self._own

    @property
    def in_use(self) -> list[AIOKafkaProducer]:
        """The clients that live as long as this process, or until they are broken."""
        return [] if self._own is None or self._own.is_broken else [self._own.client]

    async def fence(self, transactional_ids: Iterable[str]) -> dict[str, Exception]:
        """End the open transactions of these producers, and have Kafka refuse what they still send.

        Returns the ids for which that failed, and why.
        """
        ids = sorted(set(transactional_ids))
        done = await asyncio.gather(*(self._fence(one) for one in ids), return_exceptions=True)
        return {one: error for one, error in zip(ids, done, strict=True) if isinstance(error, Exception)}

    async def end_hanging_transactions(self, transactional_ids: Iterable[str]) -> None:
        """Abort hanging transactions of these ids: Kafka considers them ended and has left them open.

        A hanging transaction hides later records from every `read_committed` reader, including the search for
        published outcomes. Starting a producer aborts only transactions that Kafka knows to be open. Another
        process that has a producer of such an id is fenced.
        """
        for transactional_id in sorted(set(transactional_ids)):
            async with self._under(transactional_id) as producer:
                await producer.abort_in(
                    [
                        TopicPartition(topic, number)
                        for topic in self._topics
                        for number in await producer.client.partitions_for(topic)
                    ]
                )

    async def commit_hanging_transactions(
        self, transactional_id: str, places: Collection[TopicPartition]
    ) -> None:
        """Commit, in these partitions, transactions of this id that Kafka has acknowledged and left open.

        Another process that has a producer of this id is fenced. Our own producer ends such transactions with
        its next ones.
        """
        if transactional_id != self.own_id:
            async with self._under(transactional_id) as producer:
                await producer.commit_in(places)

    async def close(self) -> None:
        """Close the own producer, and wait until every one that was started is closed."""
        if self._own is not None:
            self._own.close()
        while self._closing:
            await asyncio.wait(self._closing)

    async def _fence(self, transactional_id: str) -> None:
        async with self._slots, self._under(transactional_id):
            pass

    @asynccontextmanager
    async def _under(self, transactional_id: str) -> AsyncIterator[LeaseProducer]:
        if transactional_id == self.own_id:
            yield await self.own()
            return
        producer = await self._start(transactional_id)
        try:
            yield producer
        finally:
            producer.close()

    async def _start(self, transactional_id: str) -> LeaseProducer:
        client = AIOKafkaProducer(
            **self._client_options,
            transactional_id=transactional_id,
            transaction_timeout_ms=self._transaction_timeout_ms,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=MAX_BATCH_BYTES,
            acks="all",
            metadata_max_age_ms=_METADATA_MS,
        )
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self._started(client)
        except BaseException:
            self._close(client)
            raise
        return LeaseProducer(client, self.timeout_seconds, self._close, self._least_in_sync)

    async def _started(self, client: AIOKafkaProducer) -> None:
        """Start it. Raises NoLeaderError or NotStartedError if that takes long.

        Kafka ends an open transaction of this id first, and cannot do so while one of its partitions has no
        leader, or too few copies in sync.
        """
        starting, seconds = asyncio.create_task(client.start()), self.timeout_seconds / _LOOKS
        outputs: set[TopicPartition] = set()
        try:
            for _ in range(_LOOKS - 1):  # given up before the caller does, which could not say why
                if (await asyncio.wait([starting], timeout=seconds))[0]:
                    starting.result()
                    return
                outputs = await self._outputs(client)
                if unled := {one for one in outputs if not has_leader(client.client, one)}:
                    raise NoLeaderError(unled)
            raise NotStartedError(client.client, outputs, (_LOOKS - 1) * seconds)
        finally:
            starting.cancel()

    async def _outputs(self, client: AIOKafkaProducer) -> set[TopicPartition]:
        """The partitions that may be published to, as the brokers know them now."""
        await client.client.set_topics(self._topics)
        await client.client.force_metadata_update()
        cluster = client.client.cluster
        return {
            TopicPartition(topic, number)
            for topic in self._topics
            for number in cluster.partitions_for_topic(topic) or ()
        }

    def _close(self, client: AIOKafkaProducer) -> None:
        # In the background: its broker may be away, and then closing takes long.
        task = asyncio.create_task(close_producer(client))
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not self._closing:
            # An outage leaves cycles behind. The garbage collector, which `worker.runtime.serving` makes
            # run rarely, let memory grow with each outage.
            gc.collect()
