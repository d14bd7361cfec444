"""The output side: publishes a batch's outcomes and commits its offsets in one Kafka transaction."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata

from worker.core.clocks import CLOCKS_APART_SECONDS
from worker.core.dead_letter import is_letter
from worker.core.results import Publication
from worker.core.steps import Reached, Step
from worker.kafka.leaders import LeaderReturnedError, TooFewInSyncError, require_leaders, too_few_in_sync
from worker.kafka.limits.adapted import adapted, attempt, order_of, place_of
from worker.kafka.limits.naming import adapting, raised, refused
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.limits.refusals import RefusalRemedy, RefusedByKafkaError, remedy
from worker.kafka.limits.topic_limits import TopicLimits
from worker.kafka.offset_mark import MARK
from worker.kafka.producing.lease import Lease
from worker.kafka.producing.lease_producers import MAX_BATCH_BYTES
from worker.kafka.producing.transaction import Transaction
from worker.observability.events import Event, about

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is published for one partition, which may be nothing, and the offset committed with it."""

    lease: Lease
    publications: list[Publication]
    next_offset: int
    metadata: str = MARK


class Refusal(NamedTuple):
    """An outcome that its topic refuses, with its size as a batch of its own."""

    source: TopicPartition
    publication: Publication
    size_bytes: int
    error: RefusedByKafkaError


class OutcomesRefusedError(Exception):
    """Kafka refuses these outcomes for good; those after them can be published without them."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__(str(refusals[0].error))
        self.refusals = refusals


class Publisher:
    """Publishes for the partitions that this worker holds the lease of."""

    def __init__(self, group_id: str, limits: OutputLimits, reached: Reached) -> None:
        self.limits = limits
        self._group_id = group_id
        self._reached = reached
        self._has_compared_clocks = False

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        """Publish everything and commit all offsets, or nothing. All leases belong to one producer.

        Empties the lists of publications, so that memory does not hold them twice.

        After any error it is unknown whether the transaction committed, and the producer is broken: take all
        its partitions over again, and continue from the offsets that are committed then.
        NoLeaderError, TooFewInSyncError, LeaderReturnedError: nothing was sent, and the producer may be
        whole; the partitions have to be taken over again all the same.
        AdaptedError: Kafka refused something, and the next attempt sends it differently; it needs no pause.
        OutcomesRefusedError: Kafka refuses single outcomes for good. RefusedByKafkaError: Kafka refuses
        everything until an operator changes what the error names.
        """
        self.limits.read_now_and_then()
        sent: list[_Sent] = []
        began = time.time()
        producer = batch[0].lease.producer
        to_send = [_Parcel(one.lease, _by_topic(one.publications)) for one in batch]
        for outgoing in batch:
            outgoing.publications.clear()
        await _require_leaders(to_send)
        await self._require_in_sync(producer.client.client, to_send)
        try:
            async with producer.transaction() as opened:
                # Concurrently: a partition's second batch follows as soon as its first one is sent.
                await asyncio.gather(*(self._send(opened, parcel, sent) for parcel in to_send))
                outputs = {one.output for one in sent}
                # Kafka may have undone the previous transaction and left it open in the partitions where it
                # wrote. This transaction takes part in those partitions, and so ends it
                # (docs/kafka-limits.md).
                unled = {one for one in producer.latest_outputs - outputs if not producer.join(opened, one)}
                # While the batches are sent, which saves a round trip: nothing counts before the commit.
                opened.commit_offsets(
                    self._group_id,
                    {one.lease.partition: OffsetAndMetadata(one.next_offset, one.metadata) for one in batch},
                )
                await opened.wait_acknowledged(one.future for one in sent)
                self._compare_clocks(sent, began)
                self._reached(Step.AFTER_SENDS)
                await opened.wait_acknowledged()
                self._reached(Step.BEFORE_KAFKA_COMMIT)
        except Exception:
            await self._raise_refusals(sent)
            raise
        producer.wrote_to(outputs | unled)
        for one in sent:
            end = one.future.result().offset + one.records
            one.lease.ends[one.output] = max(one.lease.ends[one.output], end)
        self._reached(Step.AFTER_KAFKA_COMMIT)

    async def _require_in_sync(self, client: AIOKafkaClient, to_send: Sequence["_Parcel"]) -> None:
        """Raise before the transaction begins: Kafka could not end it either before enough are in sync."""
        if too_few_in_sync(client, self._least_in_sync(to_send)):
            await client.force_metadata_update()
            await self.limits.read()
            if short := too_few_in_sync(client, self._least_in_sync(to_send)):
                raise TooFewInSyncError(client, short)

    def _least_in_sync(self, to_send: Iterable["_Parcel"]) -> dict[TopicPartition, int]:
        return {
            one.lease.places[topic]: self.limits.least_in_sync(topic)
            for one in to_send
            for topic in one.of_topics
        }

    async def _send(self, opened: Transaction, parcel: "_Parcel", sent: list["_Sent"]) -> None:
        lease, of_topics = parcel
        while of_topics:
            topic, of_topic = of_topics.popitem()
            limits = self.limits.of(topic)
            batches = _batches(of_topic, limits)
            del of_topic  # `batches` alone has it now, and nobody once it is packed
            for batch, first in batches:
                sent.append(await _send(opened, lease, topic, batch, first, limits))
                self._reached(Step.AFTER_SEND)

    def _compare_clocks(self, sent: Sequence["_Sent"], began: float) -> None:
        """Warn once if Kafka's clock differs from ours: it is known only where Kafka stamps the records."""
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
                extra=about(Event.CLOCK_DIFFERS, server="kafka", seconds=ahead),
            )

    async def _raise_refusals(self, sent: Sequence["_Sent"]) -> None:
        """Raise the refusal if Kafka refused for good what was sent, and prepare the next attempt."""
        stays: list[tuple[_Sent, BaseException]] = []
        for one in sent:
            refusal, limits = one.refusal(), self.limits.of(one.topic)
            if refusal is None:
                continue
            what = remedy(refusal, attempt(limits, one.records, one.sole, is_letter=one.is_letter))
            if what is RefusalRemedy.NAMED:
                await self.limits.read()
                raise _named(one, refusal, self.limits.of(one.topic)) from refusal
            if what is RefusalRemedy.SET_ASIDE:
                stays.append((one, refusal))
            elif what not in (RefusalRemedy.WAIT, RefusalRemedy.FENCED):
                await self.limits.learn(one.topic, what, one.size)
                raise adapting(refusal, one.topic, what) from refusal
        if stays:
            raise await self._refused_for_good(stays)

    async def _refused_for_good(self, stays: Sequence[tuple["_Sent", BaseException]]) -> Exception:
        """OutcomesRefusedError, or AdaptedError if a topic accepts more by now than it did."""
        known_before = {one.topic: self.limits.of(one.topic) for one, _ in stays}
        await self.limits.read()
        if any(not known_before[one.topic].fits(one.size) and self._may_fit(one) for one, _ in stays):
            return raised(stays[0][0].topic)
        return OutcomesRefusedError(
            [
                Refusal(
                    one.lease.partition, one.sole, one.size, _named(one, refusal, self.limits.of(one.topic))
                )
                for one, refusal in stays
                if one.sole
            ]
        )

    def _may_fit(self, one: "_Sent") -> bool:
        limits = self.limits.of(one.topic)
        return limits.is_read and limits.fits(one.size)


class _Parcel(NamedTuple):
    """What is sent for one partition, by topic."""

    lease: Lease
    of_topics: dict[str, list[Publication]]


async def _require_leaders(to_send: Sequence[_Parcel]) -> None:
    """Raise before the transaction begins: Kafka could not end it, and all partitions would wait for that."""
    places = {(one.lease, one.lease.places[topic]) for one in to_send for topic in one.of_topics}
    await require_leaders(to_send[0].lease.producer.client.client, {place for _, place in places})
    if unknown := {place for lease, place in places if place not in lease.ends}:
        raise LeaderReturnedError(unknown)


def _by_topic(publications: Iterable[Publication]) -> dict[str, list[Publication]]:
    grouped: dict[str, list[Publication]] = {}
    for publication in publications:
        grouped.setdefault(publication.topic, []).append(publication)
    return grouped


class _Sent(NamedTuple):
    """A batch that was handed to the producer. `sole`: its record, if it has only one."""

    future: "asyncio.Future[Any]"
    lease: Lease
    topic: str
    size: int
    records: int
    sole: Publication | None
    is_letter: bool

    @property
    def output(self) -> TopicPartition:
        return self.lease.places[self.topic]

    def refusal(self) -> BaseException | None:
        """Kafka's error, if it has refused the batch."""
        if not self.future.done() or self.future.cancelled():
            return None
        return self.future.exception()


def _named(one: _Sent, refusal: BaseException, limits: TopicLimits) -> RefusedByKafkaError:
    place = place_of(one.sole) if one.sole else None
    order_id = order_of(one.sole) if one.sole else None
    return refused(refusal, one.topic, limits, size=one.size, place=place, order_id=order_id)


async def _send(
    opened: Transaction,
    lease: Lease,
    topic: str,
    batch: BatchBuilder,
    first: Publication,
    limits: TopicLimits,
) -> _Sent:
    size, records = batch.size(), batch.record_count()
    if limits.is_read and not limits.fits(size):
        # A single record, because batches are made to fit. Not sent: its refusal would be the only one that
        # Kafka reports, and the other batches would have to be tried again to learn theirs.
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_exception(MessageSizeTooLargeError())
        opened.note(future)
    else:
        future = await opened.send_batch(batch, lease.places[topic], limits.min_in_sync)
    sole = first if records == 1 else None
    return _Sent(future, lease, topic, size, records, sole, is_letter(first.headers))


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
        # `append` returns None if the batch is full; an empty batch takes any record.
        if batch.append(key=key, value=value, headers=headers, timestamp=timestamp_ms) is None:
            yield batch, first
            batch, first = _new_batch(max_bytes), publication
            batch.append(key=key, value=value, headers=headers, timestamp=timestamp_ms)
    yield batch, first


def _new_batch(max_bytes: int) -> BatchBuilder:
    """As `create_batch` of a producer of transactions makes one, but for the size."""
    return BatchBuilder(max_bytes, 0, is_transactional=True)
