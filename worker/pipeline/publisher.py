"""The Kafka edge out: one transactional producer per owned partition.

The transactional id names the input partition, not the worker, so that starting a producer for a
partition fences whoever owned it before: their open transaction is ended by the broker, and
nothing they still send counts. aiokafka has no KIP-447, which would fence by group generation.
"""

import asyncio
import gc
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    MessageSizeTooLargeError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata

from db.positions import Begun, Witness
from db.statuses import SilentReplay
from worker.core.dead_letter import is_letter
from worker.core.settlement import Publication
from worker.core.steps import Reached, Step
from worker.kafka.ends import end_offsets
from worker.kafka.limits.adapted import MAX_REQUEST_BYTES, adapted, attempt, order_of, place_of
from worker.kafka.limits.naming import adapting, raised, refused
from worker.kafka.limits.output_limits import OutputLimits, ReadLimits, nothing_to_read
from worker.kafka.limits.refusals import RefusedByKafkaError, Remedy, remedy
from worker.kafka.limits.topic_limits import TopicLimits
from worker.kafka.offset_mark import MARK
from worker.kafka.producers import RETRY_BACKOFF_MS, close_producer, place_in
from worker.kafka.transaction import Transaction, end_what_hangs, transaction
from worker.pipeline.recall import digest, recall

log = logging.getLogger(__name__)

# Few large requests: outcomes of one batch travel together. A larger record goes alone.
MAX_BATCH_BYTES = 512 * 1024
# Of clocks that are set by the network, none is so far off.
CLOCKS_APART_SECONDS = 10.0
# One would do, were two transactions in a row never undone. All would mark the dead letters' topic with every
# batch for ever, where people watch its end.
OUTPUTS_KEPT = 3
# Goes with every offset that a worker commits: one without it was committed by an operator.
OFFSET_METADATA = MARK


@dataclass(slots=True)
class OwnedPartition:
    """A partition this worker has taken over: its producer, and the next offset to decide.

    Records below `next_offset` are decided and announced; they are dropped when they come again.
    """

    partition: TopicPartition
    producer: AIOKafkaProducer
    next_offset: int | None  # None: nothing was ever committed, the first record at hand counts
    moved: bool = False  # an operator committed the offset at which it was taken over
    turn: int = 0  # counts the owners, in PostgreSQL
    replays: Sequence[SilentReplay] = field(default=())
    # Where the latest transactions wrote; of a new owner, wherever the one before it may have.
    outputs: deque[AbstractSet[TopicPartition]] = field(default_factory=lambda: deque(maxlen=OUTPUTS_KEPT))
    handed_to: int | None = None  # records below are settled and handed to `publish`, which may still run
    begun_to: int | None = None  # as `positions` has it
    # Where the latest batch ended, if nothing but what is passed over lies between it and `next_offset`.
    passed_over_from: int | None = None
    places: dict[str, TopicPartition] = field(default_factory=dict)  # topic → where its publications go
    # Where these places ended when this owner began, or last published there: what it publishes from now on
    # lies behind, and nothing that was published of the same before.
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    # Order ids whose outcome is not published with its batch: `worker.pipeline.withheld` sees to it.
    withheld: AbstractSet[str] = frozenset()


def witness_of(owned: OwnedPartition, seen: Publication) -> Witness:
    """What to remember of a publication that comes next, to see later whether it happened."""
    place = owned.places.get(seen.topic)
    where = (place.partition, owned.ends[place]) if place else (None, None)
    return Witness(seen.topic, seen.timestamp_ms, digest(seen.key, seen.headers), *where)


Refusals = Sequence[tuple[Publication, int, RefusedByKafkaError]]
"""outcomes that their topic refuses, each with its size as a batch of its own"""
SetAside = Callable[[OwnedPartition, Refusals], Awaitable[bool]]
"""remembers refused outcomes, so that their partition may go on without them; False: it must not"""


async def nothing_is_set_aside(_owned: OwnedPartition, _refusals: Refusals) -> bool:
    """Where nobody would publish later what is refused now."""
    return False


class Publisher:
    """Starts producers, publishes with them, and puts them away. Each call is safe under fencing."""

    def __init__(
        self,
        *,
        group_id: str,
        client_options: dict[str, Any],
        topics: Sequence[str],
        transaction_timeout_ms: int,
        reached: Reached,
        read_limits: ReadLimits = nothing_to_read,
        set_aside: SetAside = nothing_is_set_aside,
    ) -> None:
        self._group_id = group_id
        self._options = client_options
        self._topics = topics
        self.limits = OutputLimits(topics, read_limits)
        self._set_aside = set_aside
        self._transaction_timeout_ms = transaction_timeout_ms
        # The broker ends the transaction at its timeout; give up before, and find out what happened.
        self._publish_timeout_seconds = transaction_timeout_ms / 2_000
        self._reached = reached
        self._closing: set[asyncio.Task[None]] = set()
        self._has_compared_clocks = False

    async def fence(self, partition: TopicPartition) -> OwnedPartition:
        """Start the partition's producer: its owner before can publish and commit nothing from then on.

        Where to go on is not known yet. Raises KafkaError or TimeoutError; then nothing is owned.
        """
        producer = AIOKafkaProducer(
            **self._options,
            transactional_id=f"{self._group_id}.{partition.topic}.{partition.partition}",
            transaction_timeout_ms=self._transaction_timeout_ms,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            max_request_size=MAX_REQUEST_BYTES,
            max_batch_size=MAX_BATCH_BYTES,
            acks="all",
        )
        try:
            async with asyncio.timeout(self._publish_timeout_seconds):
                await producer.start()
                self._reached(Step.TAKEOVER_FENCED)
                places = {topic: await place_in(producer, topic, partition) for topic in self._topics}
                ends = await end_offsets(producer, places.values())
        except BaseException:
            self.put_away(producer)
            raise
        owned = OwnedPartition(partition, producer, None, places=places, ends=ends)
        owned.outputs.append(set(places.values()))
        return owned

    async def recall(self, owned: OwnedPartition, begun: Begun) -> int:
        """Where to go on although the broker has forgotten it: see `worker.pipeline.recall`."""
        async with asyncio.timeout(self._publish_timeout_seconds):
            await self._end_what_hangs(owned.producer)
            return await recall(self._options, owned.producer, begun, told=owned.next_offset)

    async def publish(
        self,
        owned: OwnedPartition,
        publications: list[Publication],
        next_offset: int,
        metadata: str = OFFSET_METADATA,
    ) -> None:
        """Publish all of it, which may be nothing, and commit the offset, as one step.

        Takes the publications out of the list: what is packed for Kafka need not be kept beside it.

        After any error nobody knows whether that step happened: drop the partition, take it over again,
        and go on from the offset that is committed then. Never abort and go on with the same producer.
        AdaptedError: Kafka refused something, which the next attempt makes good; it needs no pause.
        RefusedByKafkaError: it stays refused until somebody changes what the error names.
        """
        self.limits.read_now_and_then()
        sent: list[_Sent] = []
        outputs: set[TopicPartition] = set()
        began = time.time()
        try:
            async with transaction(owned.producer, self._publish_timeout_seconds) as opened:
                of_topics = _by_topic(publications)
                publications.clear()
                while of_topics:
                    topic, of_topic = of_topics.popitem()
                    output = owned.places[topic]
                    outputs.add(output)
                    limits = self.limits.of(topic)
                    batches = _batches(of_topic, limits)
                    del of_topic  # `batches` alone has it now, and nobody once it is packed
                    for batch, first in batches:
                        sent.append(await _send(opened, output, batch, first, limits))
                        self._reached(Step.AFTER_SEND)
                # Kafka may have undone the transaction before and left it open where it wrote, until another
                # one ends there: this one (ARCHITECTURE.md, last section).
                for output in set().union(*owned.outputs) - outputs:
                    opened.join(output)
                await opened.acknowledged()
                self._compare_clocks(sent, began)
                self._reached(Step.AFTER_SENDS)
                await opened.commit_offset(
                    self._group_id, owned.partition, OffsetAndMetadata(next_offset, metadata)
                )
                self._reached(Step.BEFORE_KAFKA_COMMIT)
        except Exception:
            await self._make_good(owned, sent)
            raise
        owned.next_offset = next_offset
        owned.outputs.append(outputs)
        for one in sent:
            place, end = owned.places[one.topic], one.future.result().offset + one.records
            owned.ends[place] = max(owned.ends[place], end)
        self._reached(Step.AFTER_KAFKA_COMMIT)

    def _compare_clocks(self, sent: Sequence["_Sent"], began: float) -> None:
        """Say once that Kafka's clock is another: it tells its time only where it stamps the records."""
        if self._has_compared_clocks or not sent:
            return
        stamped_ms = sent[0].future.result().timestamp
        if stamped_ms is None or stamped_ms < 0:
            return
        self._has_compared_clocks = True
        stamped = stamped_ms / 1_000
        ahead = max(0.0, began - stamped) or min(0.0, time.time() - stamped)
        if abs(ahead) > CLOCKS_APART_SECONDS:
            log.warning(
                "this worker's clock is %.0f s %s Kafka's: set the clocks of both machines right",
                *(abs(ahead), "ahead of" if ahead > 0 else "behind"),
            )

    async def _make_good(self, owned: OwnedPartition, sent: Sequence["_Sent"]) -> None:
        """Where Kafka refused for good what was sent: see to what helps with the next attempt, and raise."""
        stays: list[tuple[_Sent, BaseException]] = []
        for one in sent:
            refusal, limits = one.refusal(), self.limits.of(one.topic)
            if refusal is None:
                continue
            what = remedy(refusal, attempt(limits, one.records, one.sole, is_letter=one.is_letter))
            if what is Remedy.NAMED:
                await self.limits.read()
                raise _named(one, refusal, self.limits.of(one.topic)) from refusal
            if what is Remedy.SET_ASIDE:
                stays.append((one, refusal))
            elif what not in (Remedy.WAIT, Remedy.FENCED):
                await self.limits.learn(one.topic, what, one.size)
                raise adapting(refusal, one.topic, what) from refusal
        if stays:
            await self._set_refused_aside(owned, stays)

    async def _set_refused_aside(
        self, owned: OwnedPartition, stays: Sequence[tuple["_Sent", BaseException]]
    ) -> None:
        """Raise AdaptedError if the orders behind may go on, else what is refused."""
        known_before = {one.topic: self.limits.of(one.topic) for one, _ in stays}
        await self.limits.read()
        if any(not known_before[one.topic].fits(one.size) and self._may_fit(one) for one, _ in stays):
            raise raised(stays[0][0].topic)
        refusals = [
            (one.sole, one.size, _named(one, refusal, self.limits.of(one.topic)))
            for one, refusal in stays
            if one.sole
        ]
        if not await self._set_aside(owned, refusals):
            raise refusals[0][2] from stays[0][1]
        raise adapting(stays[0][1], stays[0][0].topic, Remedy.SET_ASIDE)

    def _may_fit(self, one: "_Sent") -> bool:
        limits = self.limits.of(one.topic)
        return limits.is_read and limits.fits(one.size)

    async def move(self, owned: OwnedPartition, offset: int, metadata: str = "") -> None:
        """Let the group go on at `offset`, if nobody has taken the partition over since we did.

        An operator's move: without our metadata, so that it is believed. Raises as `publish` does.
        """
        async with transaction(owned.producer, self._publish_timeout_seconds) as opened:
            # No output is joined: what Kafka may have left hanging there is for the next owner to end.
            await opened.commit_offset(self._group_id, owned.partition, OffsetAndMetadata(offset, metadata))

    async def _end_what_hangs(self, producer: AIOKafkaProducer) -> None:
        """Abort what Kafka may have left open of a transaction of this id that it takes for ended.

        In such a partition nobody reads on, `recall` neither: partitions that are all recalled would wait for
        each other without end. Starting the producer aborts only what Kafka knows to be open.
        """
        places = [
            TopicPartition(topic, number)
            for topic in self._topics
            for number in await producer.partitions_for(topic)
        ]
        await end_what_hangs(producer, places)

    async def committed_offsets(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed; None only where Kafka says that there is nothing.

        aiokafka's consumer says None as well while the group's coordinator loads or has moved: that error is
        one of the whole answer, and it reads those of partitions only (`tests.faults.upstream.no_offset`).
        Its admin client leaves the partition out then.
        """
        admin = AIOKafkaAdminClient(**self._options)
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets(self._group_id, partitions=list(partitions))
        finally:
            await admin.close()
        if any(p not in found for p in partitions):
            raise GroupCoordinatorNotAvailableError(
                f"the coordinator of {self._group_id} knows no offsets yet"
            )
        return {p: None if found[p].offset < 0 else found[p] for p in partitions}

    def put_away(self, producer: AIOKafkaProducer) -> None:
        """Close a producer in the background: its broker may be the very thing that is away."""
        task = asyncio.create_task(close_producer(producer))
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not self._closing:
            # An outage leaves cycles behind. The collector, which `worker.runtime.process` spares, came by
            # so seldom that memory grew with each outage.
            gc.collect()

    async def closed(self) -> None:
        """Wait until every producer that was put away is closed."""
        await self.limits.closed()
        while self._closing:
            await asyncio.wait(self._closing)


def _by_topic(publications: Iterable[Publication]) -> dict[str, list[Publication]]:
    grouped: dict[str, list[Publication]] = {}
    for publication in publications:
        grouped.setdefault(publication.topic, []).append(publication)
    return grouped


class _Sent(NamedTuple):
    """A batch that was handed to the producer. `sole`: its record, where it has only one."""

    future: "asyncio.Future[Any]"
    topic: str
    size: int
    records: int
    sole: Publication | None
    is_letter: bool

    def refusal(self) -> BaseException | None:
        """What Kafka said against it, if that is known."""
        if not self.future.done() or self.future.cancelled():
            return None
        return self.future.exception()


def _named(one: _Sent, refusal: BaseException, limits: TopicLimits) -> RefusedByKafkaError:
    place = place_of(one.sole) if one.sole else None
    order_id = order_of(one.sole) if one.sole else None
    return refused(refusal, one.topic, limits, size=one.size, place=place, order_id=order_id)


async def _send(
    opened: Transaction,
    output: TopicPartition,
    batch: BatchBuilder,
    first: Publication,
    limits: TopicLimits,
) -> _Sent:
    size, records = batch.size(), batch.record_count()
    if limits.is_read and not limits.fits(size):
        # One record, for batches are made to fit. Sent, it would be the only one that is found out about.
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(MessageSizeTooLargeError())
        opened.note(future)
    else:
        future = await opened.send_batch(batch, output)
    return _Sent(
        future, output.topic, size, records, first if records == 1 else None, is_letter(first.headers)
    )


def _batches(
    publications: list[Publication], limits: TopicLimits
) -> Iterator[tuple[BatchBuilder, Publication]]:
    """In batches that the topic takes, each with its first record.

    A future for each of them, and not for each record.
    """
    publications = adapted(publications, limits, int(time.time() * 1_000))
    max_bytes = min(MAX_BATCH_BYTES, limits.max_batch_bytes)
    batch, first = _new_batch(max_bytes), publications[0]
    for publication in publications:
        _, key, value, headers, timestamp_ms = publication
        # None: it is full. An empty one takes any record.
        if batch.append(key=key, value=value, headers=headers, timestamp=timestamp_ms) is None:
            yield batch, first
            batch, first = _new_batch(max_bytes), publication
            batch.append(key=key, value=value, headers=headers, timestamp=timestamp_ms)
    yield batch, first


def _new_batch(max_bytes: int) -> BatchBuilder:
    """As `create_batch` of a producer of transactions makes one, but for the size."""
    return BatchBuilder(max_bytes, 0, is_transactional=True)
