"""The Kafka edge in: hands records to the batch, publishes what comes of it, and survives what goes wrong.

    handle_order_placed
     ├ take over     newly assigned partitions: fence the old owner, find out where to go on
     ├ settle        the database part (`batch`), while the batch before is still being published
     ├ published     wait until the batch before is
     ├ begin         PostgreSQL remembers what is published next, should the broker forget it
     ├ publish       one Kafka transaction per partition, side by side, beside whatever comes next
     └ set back      what failed: seek, pause, resume later

Nothing here is needed for correctness but this: a partition's records are published in order, by the
producer that was started before its committed offset was read, with the offset in the same transaction.
Settling ahead of that is harmless: the ledger knows again what is settled twice.

What needs no records of a partition (`worker.pipeline.watch` finds it out) is at the end: taking over what
hands over no records, going on behind transaction markers, passing over what an operator has given up.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from operator import itemgetter
from typing import Final, Literal

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, IllegalStateError, KafkaError, ProducerFenced
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import positions
from db.positions import Begun
from worker.core.settlement import Settled
from worker.failures import backoff_seconds, describe, is_of_database, is_outage
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.limits.refusals import AdaptedError
from worker.kafka.offset_mark import idle_mark
from worker.kafka.records import Records, by_partition, cut, fitting, joined, names
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.pipeline.batch import BatchProcessor
from worker.pipeline.fetching import share_out
from worker.pipeline.pauses import Pauses
from worker.pipeline.publisher import OwnedPartition, Publisher, witness_of
from worker.pipeline.resume import WaitsForOperatorError
from worker.pipeline.takeover import Takeover
from worker.pipeline.withheld import without_withheld

log = logging.getLogger(__name__)

# A poll that answers sooner after a batch has not waited for its records: they were fetched before.
AT_ONCE_SECONDS: Final = 0.002
# An answer of the broker takes 2 to 5 ms on two busy cores.
SINCE_TIMEOUT_MS: Final = 10
# One batch takes over so many partitions at most; the records of further ones come again with the next poll.
# A round of 32 takes about a second on two cores, and the group waits for it in a rebalance.
TAKEN_OVER_AT_ONCE: Final = 32
# What Kafka refused and is sent otherwise next needs no pause. Batches that are halved down to single records
# take ten attempts.
ADAPTED_AT_ONCE: Final = 20

_FATE_AND_CODES: Final = itemgetter(0, 2)  # of Settled

Server = Literal["database", "kafka", "worker"]
SettledRecords = dict[TopicPartition, list[Settled]]
Owned = dict[TopicPartition, OwnedPartition]
Offsets = Mapping[TopicPartition, int | None]
"""where records have to come from again; None: nobody knows yet, the take-over will tell"""


class DatabaseReplacedError(Exception):
    """PostgreSQL does not hold what this worker knows it wrote last: it is that of a backup or a standby, or
    the reply to that write was lost. Taking the partitions over again tells which."""


class OrderConsumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Handles batches in turn, one being published beside the next; a rebalance waits for both."""

    def __init__(
        self,
        *,
        processor: BatchProcessor,
        publisher: Publisher,
        takeover: Takeover,
        sessions: async_sessionmaker[AsyncSession],
        group_id: str,
        topic: str,
        metrics: Metrics,
        health: Health,
        retry_max_seconds: float,
        batch_max_records: int,
        batch_max_bytes: int,
    ) -> None:
        self._processor = processor
        self._publisher = publisher
        self._takeover = takeover
        self._sessions = sessions
        self._group_id = group_id
        self._topic = topic
        self._metrics = metrics
        self._health = health
        self._retry_max_seconds = retry_max_seconds
        self._batch_max_records = batch_max_records
        self._batch_max_bytes = batch_max_bytes
        self._consumer: Callable[[], RecordConsumer | None] = lambda: None
        self._pauses = Pauses(lambda: self._consumer())
        self._owned: Owned = {}
        # Failures in a row: of a partition alone, and of the database transaction that all share.
        self._failures: dict[TopicPartition, int] = {}
        self._database_failures = 0
        # Held across PostgreSQL, Kafka and the end of a rebalance: no probe and no endpoint may wait for it.
        self._batch_in_flight = asyncio.Lock()
        # Whose records are in hand: polled and not settled yet, or being published.
        self._handling: set[TopicPartition] = set()
        self._publishing_of: Collection[TopicPartition] = ()
        self._publishing: asyncio.Task[None] | None = None
        # Where a partition was set back to, until its next records are here: they may be later ones.
        self._awaited: dict[TopicPartition, int] = {}
        self._handled_at = float("-inf")  # monotonic seconds: when the batch before was
        # Not owned yet although nothing of them is in hand: their records would not come.
        self._without_records: set[TopicPartition] = set()

    def attach(self, consumer: Callable[[], RecordConsumer | None]) -> None:
        """Where to find the running consumer: FastStream builds it when the application starts."""
        self._consumer = consumer

    def take_no_more(self) -> None:
        """Let the batch in flight be the last."""
        if consumer := self._consumer():
            consumer.hand_over_no_more()

    def in_hand(self) -> set[TopicPartition]:
        """The partitions whose records are polled and not published yet: there is progress to expect."""
        return self._handling.union(self._publishing_of)

    def waiting_without_records(self) -> set[TopicPartition]:
        """Partitions that no record will make this worker take over again."""
        return {p for p in self._without_records if not self._pauses.is_paused(p)}

    def published_to(self) -> dict[TopicPartition, int]:
        """Of each partition that is owned: the offset below which all is published and committed."""
        return {p: o.next_offset for p, o in self._owned.items() if o.next_offset is not None}

    async def handle_order_placed(self, records: Sequence[ConsumerRecord]) -> None:
        """Decide the records and publish what was decided, or set them back to come again. Never raises."""
        # Before the first await: a poll that nobody accepts hands its records over again.
        if consumer := self._consumer():
            self._handling |= consumer.accept()
        try:
            async with self._batch_in_flight:
                try:
                    records = await self._with_those_since(records)
                    await self._handle(by_partition(records))
                except Exception as error:
                    # A fault of ours that nothing below foresaw. The records must come again all the same:
                    # FastStream would log this and go on with the next batch, and these would be lost.
                    await self.published()
                    self.release()
                    self._set_back(_firsts(by_partition(records)), error, "worker")
                self._handled_at = time.monotonic()
        finally:
            self._handling.clear()

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give the partitions up: finish the batch in flight first, so that the next owner finds it done."""
        async with self._batch_in_flight:
            await self.published()
            revoked = list(revoked)
            self.release(revoked)
            self._pauses.forget(revoked)
            for partition in revoked:
                self._awaited.pop(partition, None)
                self._without_records.discard(partition)
                self._health.goes_on(partition)
            self._health.relieved()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Nothing but what to fetch: a partition is taken over when its first records are here."""
        numbers = sorted(p.partition for p in assigned)
        if consumer := self._consumer():
            share_out(consumer, len(numbers))
        self._health.assigned(numbers)
        log.info("assigned partitions: %s", ", ".join(map(str, numbers)) or "none")

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
                self._handling |= consumer.accept()
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
                if isinstance(error, DatabaseReplacedError):
                    self.release()  # each take-over finds out what is lost
                self._set_back(_firsts(joined(part, batch)), error, "database")
                return
            for partition in fenced:
                self._disown(partition)
                self._set_back(_firsts({partition: part.pop(partition)}), ProducerFenced(), "kafka")
                batch.pop(partition, None)  # it comes again with it
            for partition, records_of_one in part.items():
                owner = owned[partition]
                owner.handed_to = owner.begun_to = records_of_one[-1].offset + 1
                owner.passed_over_from = None
            if part:
                # All that is asked of them from now on: the next batch is made beside it.
                ends = {p: [records_of_one[0], records_of_one[-1]] for p, records_of_one in part.items()}
                self._publishing_of = tuple(ends)
                self._publishing = asyncio.create_task(self._publish(ends, settled, began))

    def _still_owned(self, batch: Records, owned: Owned) -> Records:
        return {p: records for p, records in batch.items() if self._owned.get(p) is owned[p]}

    async def _settle(self, batch: Records, owned: Owned) -> SettledRecords:
        replays = {p: owned[p].replays for p in batch}
        records = [r for of_one in batch.values() for r in of_one]
        settled = await self._processor.settle(records, replays, self._require_same_database)
        self._database_failures = 0
        rest = iter(settled)
        return {
            p: without_withheld(list(islice(rest, len(records))), owned[p].withheld)
            for p, records in batch.items()
        }

    async def _require_same_database(self, session: AsyncSession) -> None:
        """What the owned partitions wrote last is still there, or DatabaseReplacedError."""
        found = await positions.list_begun_to(session, self._group_id, self._topic)
        for partition, owned in self._owned.items():
            if found.get(partition.partition) != owned.begun_to:
                raise DatabaseReplacedError(
                    f"PostgreSQL knows of {self._topic}-{partition.partition} to"
                    f" {found.get(partition.partition)}, not to {owned.begun_to}: it is that of a backup,"
                    " or its last reply was lost; taking over again, which tells"
                )

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
            follows = {(p.topic, p.partition): self._owned[p].begun_to for p in batch}
            remembered = await positions.begin(session, self._group_id, begun, follows)
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
        for partition in new[TAKEN_OVER_AT_ONCE:]:
            self._seek(partition, mine.pop(partition)[0].offset)
        await self._take_over({p: mine[p][0].offset for p in new[:TAKEN_OVER_AT_ONCE]})
        for partition in new[:TAKEN_OVER_AT_ONCE]:
            owner = self._owned.get(partition)
            if owner is None or owner.next_offset not in (None, mine[partition][0].offset):
                del mine[partition]  # it comes again from where the partition goes on
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

    async def _take_over(self, at_hand: Offsets) -> None:
        """Own these partitions, and read each on from where it has to go on; what fails is set back.

        `at_hand`: the offset of each one's first record in hand; None: none is.
        """
        consumer = self._consumer()
        if consumer is None or not at_hand:
            return
        numbers = consumer.partitions_for_topic(self._topic) or ()
        everything = [TopicPartition(self._topic, number) for number in numbers]
        taken = await self._takeover.take_over(list(at_hand), everything)
        for partition, result in taken.items():
            if isinstance(result, Exception):
                server: Server = "database" if is_of_database(result) else "kafka"
                self._set_back({partition: at_hand[partition]}, result, server)
                continue
            self._owned[partition] = result
            self._without_records.discard(partition)
            if result.next_offset is not None and at_hand[partition] != result.next_offset:
                # The old owner got further than the offset we began to read at, or a failed commit of
                # ours did happen. (Or the committed offset lies in a gap: then this costs one more fetch.)
                self._seek(partition, result.next_offset)
            if at_hand[partition] is None:
                self._failures.pop(partition, None)
                self._health.goes_on(partition)

    async def _publish(self, ends: Records, settled: SettledRecords, began: float) -> None:
        """Announce what was settled, and count it. What fails is disowned and set back.

        `ends`: the first and the last record of each partition.
        """
        count = sum(len(settled[p]) for p in ends)
        await asyncio.gather(*(self._announce(p, ends[p], settled[p]) for p in ends))
        self._publishing_of = ()
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
            self._health.goes_on(partition)
            if not self._database_failures:  # else the batch behind this one was set back meanwhile
                self._health.relieved()
            self._metrics.count(kinds)
        except Exception as error:
            self._disown(partition)
            self._set_back(_firsts({partition: ends}), error, "kafka")

    def _disown(self, partition: TopicPartition) -> None:
        owned = self._owned.pop(partition, None)
        if owned is not None:
            self._publisher.put_away(owned.producer)

    def _set_back(self, firsts: Offsets, error: BaseException, server: Server) -> None:
        """Read these partitions again from there, after a pause that grows with each failure."""
        if isinstance(error, asyncio.CancelledError):
            raise error
        consumer = self._consumer()
        if consumer is None:
            return  # stopping: what is not committed comes again to whoever owns the partition next
        for partition, first in firsts.items():
            if first is None:
                self._without_records.add(partition)
                continue
            # Not behind where it was set back to before: the batch before may have failed as well.
            awaited = min(first, self._awaited.get(partition, first))
            if self._seek(partition, awaited):
                self._awaited[partition] = awaited
        if server == "database":
            attempt, waiting = self._database_failures, list(consumer.assignment())
            self._database_failures += 1
        else:
            attempt, waiting = max(self._failures.get(p, 0) for p in firsts), list(firsts)
            self._failures.update(dict.fromkeys(firsts, attempt + 1))
        if isinstance(error, AdaptedError):
            attempt = max(0, attempt - ADAPTED_AT_ONCE)
        self._pauses.pause(waiting, backoff_seconds(attempt, self._retry_max_seconds))
        self._report(firsts, error, server)

    def _seek(self, partition: TopicPartition, offset: int) -> bool:
        """False where it is not ours any more: its new owner begins at the committed offset."""
        consumer = self._consumer()
        if consumer is None:
            return False
        try:
            consumer.seek(partition, offset)
        except IllegalStateError:
            return False
        return True

    def _report(self, firsts: Offsets, error: BaseException, server: Server) -> None:
        self._metrics.retries.labels(server).inc()
        if isinstance(error, WaitsForOperatorError):
            new = [self._health.waits(p, str(error)) for p in firsts]
            if any(new):
                log.error("%s wait: %s", names(firsts), error)
            self._health.tried(alive=True)
            return
        why = f"{server}: {describe(error)}"
        if isinstance(error, AdaptedError):
            log.warning("%s; %s will be tried again at once", error, names(firsts))
            self._health.tried(alive=True)
            return
        if isinstance(error, ProducerFenced):
            log.warning("fenced: another worker has taken over %s", names(firsts))
        elif is_outage(error) or isinstance(error, DatabaseReplacedError):
            log.warning("%s; %s will be tried again", why, names(firsts))
        else:
            log.error("unforeseen error; %s will be tried again", names(firsts), exc_info=error)
        if server == "database":
            self._health.set_back(why, alive=is_outage(error))
            return
        for partition in firsts:
            self._health.waits(partition, f"set back: {why}")
        self._health.tried(alive=is_outage(error))

    async def take_over_without_records(self, partitions: Iterable[TopicPartition]) -> None:
        """Own partitions whose records do not come: their offset may lie outside of the log."""
        async with self._batch_in_flight:
            await self.published()
            consumer = self._consumer()
            mine = consumer.assignment() if consumer else set()
            due = [p for p in partitions if p in mine and not self._pauses.is_paused(p)]
            self.release(p for p in due if p in self._owned)
            await self._take_over(dict.fromkeys(due[:TAKEN_OVER_AT_ONCE]))

    async def recover_lost_commit(
        self, partition: TopicPartition, published_to: int, committed: int | None
    ) -> None:
        """Take a resting partition over again of which Kafka says less than it has acknowledged.

        Where orders come, the next one's commit mends it, or its failure tells. Where none come, what was
        undone would stay unpublished.
        """
        async with self._batch_in_flight:
            await self.published()
            owned = self._owned.get(partition)
            if owned is None or owned.next_offset != published_to:
                return  # it moved on while Kafka was asked
            log.warning(
                "Kafka says %s of %s-%d, and all before %d was published: taking it over again",
                *(committed, partition.topic, partition.partition, published_to),
            )
            self._disown(partition)
            await self._take_over({partition: None})

    async def commit_beginning(self, partition: TopicPartition) -> int | None:
        """Commit where a partition begins that nobody has ever decided: what is deleted later shows by it.

        Returns what was committed.
        """
        async with self._batch_in_flight:
            await self.published()
            async with self._sessions() as session:
                begun = await positions.list_begun_to(session, self._group_id, self._topic)
                others = await positions.list_other_groups(session, self._group_id, self._topic)
            is_decided = begun.get(partition.partition) is not None or partition.partition in others
            if is_decided or partition in self._owned:
                return None
            if (await self._publisher.committed_offsets([partition]))[partition] is not None:
                return None  # PostgreSQL knows nothing of it: it is that of a backup
            consumer, position = self._consumer(), self._position(partition)
            if consumer is None or position is None:
                return None
            await consumer.commit({partition: (position, idle_mark(None))})
            return position

    async def go_on_behind_markers(self, partition: TopicPartition) -> bool:
        """Commit the offset behind transaction markers that nothing to decide lies before; True: done."""
        async with self._batch_in_flight:
            await self.published()
            position = self._position(partition)
            if position is not None and partition not in self._owned:
                await self._take_over({partition: position})
            owned, position = self._owned.get(partition), self._position(partition)
            if owned is None or position is None or (owned.next_offset or 0) >= position:
                return False
            return await self._commit_idle(owned, position)

    async def go_on_behind_skipped(self, partition: TopicPartition, first: int, offset: int) -> bool:
        """Go on at `offset` where it waits at `first`, which an operator has given up; True: done."""
        async with self._batch_in_flight:
            await self.published()
            if self._position(partition) == first and partition not in self._owned:
                await self._take_over({partition: first})
            owned = self._owned.get(partition)
            is_there = self._position(partition) == first and owned and owned.next_offset in (None, first)
            if not is_there or owned is None or not await self._commit_idle(owned, offset):
                return False
            self._seek(partition, offset)
            return True

    def _position(self, partition: TopicPartition) -> int | None:
        """The offset below which nothing is to be decided but what is published; None: nobody can tell now.

        Asked anew behind every await: what comes into hand meanwhile moves the consumer's position, and may
        still be dropped, to be read again.
        """
        consumer = self._consumer()
        if consumer is None or partition not in consumer.assignment() or self._pauses.is_paused(partition):
            return None
        return None if partition in self.in_hand() else consumer.settled_position(partition)

    async def _commit_idle(self, owned: OwnedPartition, offset: int) -> bool:
        before = owned.next_offset
        try:
            await self._publisher.publish(owned, [], offset, idle_mark(owned.begun_to))
        except Exception as error:
            self._disown(owned.partition)
            self._set_back({owned.partition: None}, error, "kafka")
            return False
        if owned.passed_over_from is None and before == owned.begun_to:
            owned.passed_over_from = before
        self._health.goes_on(owned.partition)
        return True


def _firsts(batch: Records) -> dict[TopicPartition, int | None]:
    return {p: records[0].offset for p, records in batch.items()}


def _begun(owned: OwnedPartition, records: Sequence[ConsumerRecord], settled: Sequence[Settled]) -> Begun:
    """The announcement of these records, which is about to begin."""
    announced_to = records[0].offset if owned.next_offset is None else owned.next_offset
    if owned.passed_over_from is not None:
        announced_to = owned.passed_over_from  # so that `positions` knows which batch this one follows
    seen = next((one.publication for one in settled if one.publication), None)
    witness = witness_of(owned, seen) if seen else None
    return Begun(announced_to, records[-1].offset + 1, records[-1].timestamp, witness)
