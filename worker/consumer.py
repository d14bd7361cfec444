"""The Kafka edge in: hands records to the batch, publishes what comes of it, and survives what goes wrong.

    handle_order_placed
     ├ take over     newly assigned partitions: fence the old owner, read the committed offset, go on there
     ├ settle        the database part (worker.batch), while the batch before is still being published
     ├ published     wait until the batch before is
     ├ begin         PostgreSQL remembers what is announced next, should the broker forget it
     ├ publish       one Kafka transaction per partition, side by side, beside whatever comes next
     └ set back      what failed: seek, pause, resume later

Nothing here is needed for correctness but this: a partition's records are published in order, by the
producer that was started before its committed offset was read, with the offset in the same transaction.
Settling ahead of that is harmless: the ledger knows again what is settled twice.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import Final, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, ProducerFenced
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import positions
from db.ledger import list_replays
from db.positions import Begun, Witness
from worker.batch import BatchProcessor
from worker.fetching import share_out
from worker.health import Health
from worker.metrics import Metrics
from worker.publisher import OwnedPartition, Publisher
from worker.recall import digest, is_forgotten
from worker.records import Records, by_partition, cut, fitting, joined, names
from worker.retry import backoff_seconds, describe, is_of_database, is_outage
from worker.settlement import Fate, Settled

log = logging.getLogger(__name__)

# A poll that answers sooner after a batch has not waited for its records: they were fetched before.
AT_ONCE_SECONDS: Final = 0.002
# An answer of the broker takes 2 to 5 ms on two busy cores.
SINCE_TIMEOUT_MS: Final = 10

_FATE_AND_CODES: Final = itemgetter(0, 2)  # of Settled
_TIMESTAMP: Final = attrgetter("timestamp_ms")

Server = Literal["database", "kafka", "worker"]
SettledRecords = dict[TopicPartition, list[Settled]]
Owned = dict[TopicPartition, OwnedPartition]


class OrderConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Handles batches in turn, one being published beside the next; a rebalance waits for both."""

    def __init__(
        self,
        *,
        processor: BatchProcessor,
        publisher: Publisher,
        sessions: async_sessionmaker[AsyncSession],
        group_id: str,
        metrics: Metrics,
        health: Health,
        retry_max_seconds: float,
        batch_max_records: int,
        batch_max_bytes: int,
    ) -> None:
        self._processor = processor
        self._publisher = publisher
        self._sessions = sessions
        self._group_id = group_id
        self._metrics = metrics
        self._health = health
        self._retry_max_seconds = retry_max_seconds
        self._batch_max_records = batch_max_records
        self._batch_max_bytes = batch_max_bytes
        self._consumer: Callable[[], AIOKafkaConsumer | None] = lambda: None
        self._owned: Owned = {}
        # Failures in a row: of a partition's Kafka transaction, or, under "database", of the one all share.
        self._failures: dict[TopicPartition | Literal["database"], int] = {}
        self._batch_in_flight = asyncio.Lock()
        self._publishing: asyncio.Task[None] | None = None
        # Where a partition was set back to, until its next records are here: they may be later ones.
        self._awaited: dict[TopicPartition, int] = {}
        self._seen_announced: dict[TopicPartition, int | None] = {}  # by the last `check_offsets`
        self._handled_at = float("-inf")  # monotonic seconds: when the batch before was

    def attach(self, consumer: Callable[[], AIOKafkaConsumer | None]) -> None:
        """Where to find the running consumer: FastStream builds it when the application starts."""
        self._consumer = consumer

    async def handle_order_placed(self, records: Sequence[ConsumerRecord]) -> None:
        """Decide the records and announce what was decided, or set them back to come again. Never raises."""
        async with self._batch_in_flight:
            try:
                records = await self._with_those_since(records)
                await self._handle(by_partition(records))
            except Exception as error:
                # A fault of ours that nothing below foresaw. The records must come again all the same:
                # FastStream would log this and go on with the next batch, and these would be lost.
                await self.published()
                self.release()
                self._set_back(by_partition(records), error, "worker")
            self._handled_at = time.monotonic()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give the partitions up: finish the batch in flight first, so that the next owner finds it done."""
        async with self._batch_in_flight:
            await self.published()
            self.release(revoked)
            for partition in revoked:
                self._awaited.pop(partition, None)
            self._health.relieved()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing but what to fetch: a partition is taken over when its first records are here."""
        numbers = sorted(p.partition for p in assigned)
        if consumer := self._consumer():
            share_out(consumer, len(numbers))
        self._health.assigned(numbers)
        log.info("assigned partitions: %s", ", ".join(map(str, numbers)) or "none")

    async def check_offsets(self) -> None:
        """Take over again what rests, and of which Kafka tells less than it has acknowledged.

        Where orders come, the next one's commit mends it, or its failure tells. Where none come, what was
        undone would stay untold. Call it now and then.
        """
        consumer = self._consumer()
        before, self._seen_announced = (
            self._seen_announced,
            {p: owned.next_offset for p, owned in self._owned.items()},
        )
        for partition, announced_to in self._seen_announced.items():
            if consumer is None or announced_to is None or before.get(partition) != announced_to:
                continue
            with suppress(IllegalStateError):  # revoked meanwhile
                told = await consumer.committed(partition)
                if told is None or told < announced_to:
                    await self._doubt(consumer, partition, announced_to, told)

    async def _doubt(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, announced_to: int, told: int | None
    ) -> None:
        async with self._batch_in_flight:
            await self.published()
            owned = self._owned.get(partition)
            if owned is None or owned.next_offset != announced_to:
                return  # it moved on while Kafka was asked
            log.warning(
                "Kafka tells %s of %s-%d, and all before %d was told: taking it over again",
                *(told, partition.topic, partition.partition, announced_to),
            )
            self._disown(partition)
            # To where records are: it is the first of them that make the partition be taken over.
            consumer.seek(partition, told or 0)

    async def published(self) -> None:
        """Wait until nothing is being published. What could not be is disowned and set back then."""
        publishing = self._publishing
        if publishing:
            try:
                await asyncio.shield(publishing)
            finally:
                if publishing.done():
                    self._publishing = None

    def release(self, partitions: Iterable[TopicPartition] | None = None) -> None:
        """Close the producers of these partitions, or of all."""
        for partition in list(self._owned) if partitions is None else partitions:
            self._failures.pop(partition, None)
            self._disown(partition)

    async def _with_those_since(self, records: Sequence[ConsumerRecord]) -> Sequence[ConsumerRecord]:
        """These, and what came while the batch before was decided, up to a whole batch.

        aiokafka fetches ahead: what a busy worker is handed was fetched when the batch before was handed
        over, and what came since would wait for one batch more.
        """
        consumer = self._consumer()
        room = fitting(records, self._batch_max_records, self._batch_max_bytes) - len(records)
        was_idle = time.monotonic() - self._handled_at > AT_ONCE_SECONDS
        if consumer is None or room <= 0 or was_idle:
            return records
        since: Records = {}
        # Within a limit of our own: while the group rebalances aiokafka would wait here for the assignment,
        # which waits for this batch. What is wrong with Kafka the next poll tells as well.
        with suppress(TimeoutError, KafkaError, ConsumerStoppedError):
            async with asyncio.timeout(2 * SINCE_TIMEOUT_MS / 1_000):
                since = await consumer.getmany(timeout_ms=SINCE_TIMEOUT_MS, max_records=room)
        return [*records, *chain.from_iterable(since.values())]

    async def _handle(self, records: Records) -> None:
        batch = await self._records_to_decide(records)
        owned = {p: self._owned[p] for p in batch}
        while batch:
            began = time.monotonic()
            part, batch = cut(batch, self._batch_max_bytes)
            try:
                settled = await self._settle(part, owned)
                # Only now: up to here the batch before may still be on its way to Kafka. Where that failed,
                # these come again behind it, and are not announced before it.
                await self.published()
                part, batch = self._still_owned(part, owned), self._still_owned(batch, owned)
                fenced = await self._begin(part, settled)
            except Exception as error:
                self._set_back(joined(part, batch), error, "database")
                return
            for partition in fenced:
                self._disown(partition)
                self._set_back({partition: part.pop(partition)}, ProducerFenced(), "kafka")
                batch.pop(partition, None)  # it comes again with it
            for partition, records_of_one in part.items():
                owned[partition].handed_to = records_of_one[-1].offset + 1
            if part:
                # All that is asked of them from now on: the next batch is made beside it.
                ends = {p: [records_of_one[0], records_of_one[-1]] for p, records_of_one in part.items()}
                self._publishing = asyncio.create_task(self._publish(ends, settled, began))

    def _still_owned(self, batch: Records, owned: Owned) -> Records:
        return {p: records for p, records in batch.items() if self._owned.get(p) is owned[p]}

    async def _settle(self, batch: Records, owned: Owned) -> SettledRecords:
        replays = {p: owned[p].replays for p in batch}
        settled = await self._processor.settle([r for of_one in batch.values() for r in of_one], replays)
        self._failures.pop("database", None)
        rest = iter(settled)
        return {p: list(islice(rest, len(records))) for p, records in batch.items()}

    async def _begin(self, batch: Records, settled: SettledRecords) -> list[TopicPartition]:
        """Write down what is announced next; returns the partitions that have another owner by now."""
        if not batch:
            return []
        async with self._sessions() as session:
            # One statement, which commits by itself: as a transaction it takes two round trips more.
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            begun = {
                (p.topic, p.partition): (self._owned[p].turn, _begun(self._owned[p], records, settled[p]))
                for p, records in batch.items()
            }
            remembered = await positions.begin(session, self._group_id, begun)
        return [p for p in batch if (p.topic, p.partition) not in remembered]

    async def _records_to_decide(self, records: Records) -> Records:
        """Those records that are ours and not decided yet; partitions not owned yet are taken over."""
        consumer = self._consumer()
        if consumer is None:
            return {}
        assigned = consumer.assignment()
        mine = {p: of_one for p, of_one in records.items() if p in assigned}
        for partition in [p for p, of_one in mine.items() if self._are_ahead(p, of_one)]:
            consumer.seek(partition, self._awaited[partition])
            del mine[partition]
        for partition in [p for p in records if p in assigned]:
            self._awaited.pop(partition, None)
        new = [p for p in mine if p not in self._owned]
        taken = await asyncio.gather(*(self._take_over(p) for p in new), return_exceptions=True)
        for partition, result in zip(new, taken, strict=True):
            if isinstance(result, BaseException):
                server: Server = "database" if is_of_database(result) else "kafka"
                self._set_back({partition: mine.pop(partition)}, result, server)
                continue
            self._owned[partition] = result
            if result.next_offset is not None and mine[partition][0].offset != result.next_offset:
                # The old owner got further than the offset we began to read at, or a failed commit of
                # ours did happen. (Or the committed offset lies in a gap: then this costs one more fetch.)
                with suppress(IllegalStateError):  # revoked while we waited
                    consumer.seek(partition, result.next_offset)
                del mine[partition]
        # Some that was owned may be so no more: the batch before failed meanwhile, and was set back.
        owned = {p: of_one for p, of_one in mine.items() if p in self._owned}
        return {p: rest for p, of_one in owned.items() if (rest := self._undecided(p, of_one))}

    def _are_ahead(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> bool:
        """Whether these were read before the partition was set back, to a record before them.

        The batch before may fail while they are on their way here. Taking over would ask for those before
        them, unless Kafka knows no offset and the batch is not remembered: then the first record at hand
        counts. Asked for once: what was to come may have been deleted meanwhile.
        """
        awaited = self._awaited.get(partition)
        return awaited is not None and records[0].offset > awaited

    def _undecided(self, partition: TopicPartition, records: list[ConsumerRecord]) -> list[ConsumerRecord]:
        owned = self._owned[partition]
        # What is still being published is decided, too: should that fail, it is owned anew.
        decided_to = owned.next_offset if owned.handed_to is None else owned.handed_to
        if decided_to is None or records[0].offset >= decided_to:
            return records
        return [record for record in records if record.offset >= decided_to]

    async def _take_over(self, partition: TopicPartition) -> OwnedPartition:
        owned = await self._publisher.take_over(partition)
        place = (partition.topic, partition.partition)
        try:
            async with self._sessions.begin() as session:
                owned.replays = await list_replays(session, *place)
                turn = await positions.take_turn(session, self._group_id, *place)
            owned.turn = turn.number
            if turn.begun and is_forgotten(owned.next_offset, owned.moved, turn.begun):
                await self._recall(owned, turn.begun)
        except BaseException:
            self._publisher.put_away(owned.producer)
            raise
        self._metrics.takeovers.inc()
        log.info("took over %s-%d at offset %s", partition.topic, partition.partition, owned.next_offset)
        return owned

    async def _recall(self, owned: OwnedPartition, begun: Begun) -> None:
        told, recalled = owned.next_offset, await self._publisher.recall(owned, begun)
        if recalled is None:
            return  # a new topic of the same name: what Kafka tells of it is true
        # At once, and not with the next orders: until then the group's lag would be wrong, too.
        await self._publisher.publish(owned, [], recalled)
        what = "undone what it had acknowledged" if recalled < begun.announced_to else "forgotten the offset"
        log.warning(
            "Kafka has %s of %s-%d: it tells %s, all before %d was told; going on at %d",
            *(what, owned.partition.topic, owned.partition.partition, told, begun.announced_to, recalled),
        )

    async def _publish(self, ends: Records, settled: SettledRecords, began: float) -> None:
        """Announce what was settled, and count it. What fails is disowned and set back.

        `ends`: the first and the last record of each partition.
        """
        count = sum(len(settled[p]) for p in ends)
        await asyncio.gather(*(self._announce(p, ends[p], settled[p]) for p in ends))
        self._metrics.batches.inc()
        self._metrics.batch_records.observe(count)
        self._metrics.batch_seconds.observe(time.monotonic() - began)

    async def _announce(
        self, partition: TopicPartition, ends: list[ConsumerRecord], settled: list[Settled]
    ) -> None:
        publications = [s.publication for s in settled if s.publication]
        kinds = Counter(map(_FATE_AND_CODES, settled))
        settled.clear()  # and so `publish` can free what it packed, beside which the next batch is made
        try:
            await self._publisher.publish(self._owned[partition], publications, ends[-1].offset + 1)
            self._failures.pop(partition, None)
            self._health.progressed()
            if "database" not in self._failures:  # else the batch behind this one was set back meanwhile
                self._health.relieved()
            self._count(kinds)
        except Exception as error:
            self._disown(partition)
            self._set_back({partition: ends}, error, "kafka")

    def _disown(self, partition: TopicPartition) -> None:
        owned = self._owned.pop(partition, None)
        if owned is not None:
            self._publisher.put_away(owned.producer)

    def _set_back(self, batch: Records, error: BaseException, server: Server) -> None:
        """Make the consumer deliver these records again, after a pause that grows with each failure."""
        if isinstance(error, asyncio.CancelledError):
            raise error
        consumer = self._consumer()
        if consumer is None:
            return  # stopping: what is not committed comes again to whoever owns the partition next
        self._report(batch, error, server)
        for partition, records in batch.items():
            # Not behind where it was set back to before: the batch before may have failed as well.
            awaited = min(records[0].offset, self._awaited.get(partition, records[0].offset))
            # Where it is not ours any more, its new owner begins at the committed offset.
            with suppress(IllegalStateError):
                consumer.seek(partition, awaited)
                self._awaited[partition] = awaited
        waiting = list(consumer.assignment() if server == "database" else batch)
        failing: Sequence[TopicPartition | Literal["database"]] = (
            ["database"] if server == "database" else list(batch)
        )
        attempt = max(self._failures.get(one, 0) for one in failing)
        self._failures.update(dict.fromkeys(failing, attempt + 1))
        for partition in waiting:
            with suppress(IllegalStateError):
                consumer.pause(partition)
        pause_seconds = backoff_seconds(attempt, self._retry_max_seconds)
        asyncio.get_running_loop().call_later(pause_seconds, self._resume, waiting)

    def _resume(self, partitions: Sequence[TopicPartition]) -> None:
        consumer = self._consumer()
        if consumer is not None:
            consumer.resume(*(p for p in partitions if p in consumer.assignment()))

    def _report(self, batch: Records, error: BaseException, server: Server) -> None:
        self._metrics.retries.labels(server).inc()
        why = f"{server}: {describe(error)}"
        if isinstance(error, ProducerFenced):
            log.warning("fenced: another worker has taken over %s", names(batch))
        elif is_outage(error):
            log.warning("%s; %s will be tried again", why, names(batch))
        else:
            log.error("unforeseen error; %s will be tried again", names(batch), exc_info=error)
        self._health.set_back(why, alive=is_outage(error))

    def _count(self, kinds: Counter[tuple[Fate, tuple[str, ...]]]) -> None:
        metrics = self._metrics
        counters = {
            Fate.CONFIRMED: metrics.confirmed,
            Fate.REJECTED: metrics.rejected,
            Fate.REDELIVERED: metrics.redelivered,
            Fate.SILENCED: metrics.silenced,
            Fate.DUPLICATE: metrics.duplicates,
        }
        # Added up before: each increment of a metric takes a lock.
        for (fate, codes), count in kinds.items():
            if fate is Fate.DEAD_LETTER:
                metrics.dead_letters.labels(codes[0]).inc(count)
                continue
            counters[fate].inc(count)
            for code in codes:
                metrics.reasons.labels(code).inc(count)


def _begun(owned: OwnedPartition, records: Sequence[ConsumerRecord], settled: Sequence[Settled]) -> Begun:
    """The announcement of these records, which is about to begin."""
    announced_to = records[0].offset if owned.next_offset is None else owned.next_offset
    witness = None
    if publications := [one.publication for one in settled if one.publication]:
        # An outcome where there is one: a dead letter may be of long ago, and would be looked for since then.
        seen = max(publications, key=_TIMESTAMP)
        witness = Witness(seen.topic, seen.timestamp_ms, digest(seen.key, seen.headers))
    return Begun(announced_to, records[-1].offset + 1, records[-1].timestamp, witness)
