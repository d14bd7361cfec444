"""The Kafka edge out: what was decided of a partition, and its offset, in one Kafka transaction."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata

from worker.core.clocks import CLOCKS_APART_SECONDS
from worker.core.dead_letter import is_letter
from worker.core.settlement import Publication
from worker.core.steps import Reached, Step
from worker.kafka.limits.adapted import adapted, attempt, order_of, place_of
from worker.kafka.limits.naming import adapting, raised, refused
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.limits.refusals import RefusalRemedy, RefusedByKafkaError, remedy
from worker.kafka.limits.topic_limits import TopicLimits
from worker.kafka.offset_mark import MARK
from worker.kafka.producing.lease import MAX_BATCH_BYTES, Lease
from worker.kafka.producing.transaction import Transaction, transaction

log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """An outcome that its topic refuses, with its size as a batch of its own."""

    publication: Publication
    size_bytes: int
    error: RefusedByKafkaError


class OutcomesRefusedError(Exception):
    """These outcomes stay refused as they are; those behind them can be published without them."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__(str(refusals[0].error))
        self.refusals = refusals


class Publisher:
    """Publishes for the partitions that this worker has a lease of."""

    def __init__(self, group_id: str, limits: OutputLimits, timeout_seconds: float, reached: Reached) -> None:
        """`timeout_seconds`: of one transaction, before the broker ends it."""
        self.limits = limits
        self._group_id = group_id
        self._timeout_seconds = timeout_seconds
        self._reached = reached
        self._has_compared_clocks = False

    async def publish(
        self, lease: Lease, publications: list[Publication], next_offset: int, metadata: str = MARK
    ) -> None:
        """Publish all of it, which may be nothing, and commit the offset, as one step.

        Takes the publications out of the list: what is packed for Kafka need not be kept beside it.

        After any error nobody knows whether that step happened: drop the lease, take the partition over
        again, and go on from the offset that is committed then. Never abort and go on with the same lease.
        AdaptedError: Kafka refused something, which the next attempt makes good; it needs no pause.
        OutcomesRefusedError: single outcomes stay refused. RefusedByKafkaError: all of it does, until
        somebody changes what the error names.
        """
        self.limits.read_now_and_then()
        sent: list[_Sent] = []
        outputs: set[TopicPartition] = set()
        began = time.time()
        try:
            async with transaction(lease.producer, self._timeout_seconds) as opened:
                of_topics = _by_topic(publications)
                publications.clear()
                while of_topics:
                    topic, of_topic = of_topics.popitem()
                    output = lease.places[topic]
                    outputs.add(output)
                    limits = self.limits.of(topic)
                    batches = _batches(of_topic, limits)
                    del of_topic  # `batches` alone has it now, and nobody once it is packed
                    for batch, first in batches:
                        sent.append(await _send(opened, output, batch, first, limits))
                        self._reached(Step.AFTER_SEND)
                # Kafka may have undone the transaction before and left it open where it wrote, until another
                # one ends there: this one (ARCHITECTURE.md, last section).
                for output in set().union(*lease.outputs) - outputs:
                    opened.join(output)
                await opened.acknowledged()
                self._compare_clocks(sent, began)
                self._reached(Step.AFTER_SENDS)
                await opened.commit_offset(
                    self._group_id, lease.partition, OffsetAndMetadata(next_offset, metadata)
                )
                self._reached(Step.BEFORE_KAFKA_COMMIT)
        except Exception:
            await self._make_good(sent)
            raise
        lease.outputs.append(outputs)
        for one in sent:
            place, end = lease.places[one.topic], one.future.result().offset + one.records
            lease.ends[place] = max(lease.ends[place], end)
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

    async def _make_good(self, sent: Sequence["_Sent"]) -> None:
        """Where Kafka refused for good what was sent: see to what helps with the next attempt, and raise."""
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
        """OutcomesRefusedError, or AdaptedError where a topic takes more by now than it did."""
        known_before = {one.topic: self.limits.of(one.topic) for one, _ in stays}
        await self.limits.read()
        if any(not known_before[one.topic].fits(one.size) and self._may_fit(one) for one, _ in stays):
            return raised(stays[0][0].topic)
        return OutcomesRefusedError(
            [
                Refusal(one.sole, one.size, _named(one, refusal, self.limits.of(one.topic)))
                for one, refusal in stays
                if one.sole
            ]
        )

    def _may_fit(self, one: "_Sent") -> bool:
        limits = self.limits.of(one.topic)
        return limits.is_read and limits.fits(one.size)


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
