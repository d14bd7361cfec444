"""One batch, in two stages with room for one batch between them.

    decide     one PostgreSQL transaction, while the previous batch is being published
    wait       until the previous batch is published
    record     store in PostgreSQL which batch is published next, in case Kafka forgets it; in the transaction
               that decides it, if nothing is being published
    publish    one Kafka transaction, while the next batch is decided

Deciding ahead is harmless: the ledger recognises an order that it already has. Only the owner publishes,
and in order: if a batch fails, the records after it are read again.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import ProducerFenced
from sqlalchemy.ext.asyncio import AsyncSession

from db.worker import positions
from worker.core.results import Fate, RecordResult
from worker.failures import LockedRowsError, ManyRefusedError, RefusedOrderError
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.published import sentinel_of
from worker.kafka.records import Records, before, cut, firsts, joined
from worker.observability.batch import BatchInHand
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.pipeline.batch import BatchProcessor
from worker.pipeline.input import Input
from worker.pipeline.owner import Owner
from worker.pipeline.partition import Ownership, Partitions
from worker.pipeline.publisher import Outgoing, Publisher
from worker.pipeline.retries import DatabaseReplacedError, Retries
from worker.pipeline.set_aside import publish_or_set_aside, without_withheld
from worker.table_checks import TableChecks

MAX_REFUSED: Final = 5
"""so many partitions of a poll wait behind refused orders before all wait"""

_FATE_AND_CODES: Final = itemgetter(0, 2)  # of RecordResult
_FATE: Final = itemgetter(0)
_PUBLISHED: Final = frozenset({Fate.CONFIRMED, Fate.REJECTED, Fate.REDELIVERED})

Results = dict[TopicPartition, list[RecordResult]]
Owned = dict[TopicPartition, Ownership]
Times = dict[TopicPartition, list[int]]
"""milliseconds since 1970, of the records whose outcome is published"""


@dataclass(eq=False, kw_only=True, slots=True)
class Flow:
    """Decides and publishes for the partitions that are owned."""

    group: ConsumerGroup
    source: Input
    partitions: Partitions
    owner: Owner
    retries: Retries
    processor: BatchProcessor
    publisher: Publisher
    tables: TableChecks
    health: Health
    metrics: Metrics
    batch_max_bytes: int
    _publishing: asyncio.Task[None] | None = None
    _publishing_of: Collection[TopicPartition] = ()
    _refused: int = 0
    """how many partitions of this poll wait behind a refused order"""

    def in_hand(self) -> set[TopicPartition]:
        """Whose records are polled and not published yet: there is progress to expect."""
        return self.source.in_hand.union(self._publishing_of)

    async def run(self, batch: Records) -> None:
        """Decide these records of owned partitions and start to publish them; what fails is rewound."""
        owned = {p: one for p, one in self.partitions.owned().items() if p in batch}
        self._refused = 0
        while batch:
            part, batch = cut(batch, self.batch_max_bytes)
            in_hand = self.metrics.begin_batch(part)
            for partition, records in part.items():
                self.partitions[partition].in_hand(records[0])
            with in_hand.active():
                batch = await self._run(part, batch, owned, in_hand)

    async def _run(self, part: Records, rest: Records, owned: Owned, in_hand: BatchInHand) -> Records:
        """Decide one batch and start to publish it; returns what of the rest comes next."""
        try:
            results, fenced = await self._decide(part, owned)
            # Not earlier: the previous batch may have been in publication until now. If that failed, its
            # records are read again, and these after them.
            with self.metrics.phase("wait"):
                await self.wait_published()
            part, rest = self._still_owned(part, owned), self._still_owned(rest, owned)
            if fenced is None:
                fenced = await self._record_pending(part, results, owned)
        except Exception as error:
            if isinstance(error, DatabaseReplacedError):
                self.owner.drop(self.partitions.owned())  # each take-over finds out what is lost
            failed, others = joined(part, rest), {}
            if isinstance(error, ManyRefusedError):
                self.retries.leave_for_later(error.partition, error.offset)
                in_hand.given_up()
                return before(failed, error.partition, error.offset)
            if alone := self._wait_alone(error):
                others = {p: records for p, records in failed.items() if p not in alone}
                failed = {p: failed[p] for p in alone}
            self.retries.rewind(firsts(failed), error, "database", of_all=not alone)
            in_hand.failed(error)
            in_hand.given_up()
            return others
        for partition in fenced:
            self.owner.drop([partition])
            self.retries.rewind(firsts({partition: part.pop(partition)}), ProducerFenced(), "kafka")
            rest.pop(partition, None)  # read again after them
        for partition, records in part.items():
            owned[partition].decided(records[-1].offset + 1)
        if not part:
            in_hand.given_up()
            return rest
        # The others are not needed any more, and the next batch is built while this one is published.
        ends = {p: [records[0], records[-1]] for p, records in part.items()}
        times = {p: _times_of_published(records, results[p]) for p, records in part.items()}
        self._publishing_of = tuple(ends)
        self._publishing = asyncio.create_task(self._publish(ends, times, results, owned, in_hand))
        return rest

    def _wait_alone(self, error: Exception) -> Collection[TopicPartition]:
        """Behind an order that is refused, or needs a locked row, only its own partition waits: these.

        If many are refused, every order may be, and each attempt takes time: then all wait.
        """
        if isinstance(error, LockedRowsError):
            return error.partitions
        if not isinstance(error, RefusedOrderError) or self._refused == MAX_REFUSED:
            return ()
        self._refused += 1
        return (error.partition,)

    async def wait_published(self) -> None:
        """Wait until nothing is being published. Partitions that failed are rewound, without their lease."""
        publishing = self._publishing
        if publishing:
            try:
                await asyncio.shield(publishing)
            finally:
                if publishing.done():
                    self._publishing = None

    def _still_owned(self, batch: Records, owned: Owned) -> Records:
        """The records of partitions that are still owned as they were; the others are read again."""
        lost = {p: of_one for p, of_one in batch.items() if self.partitions[p].ownership is not owned[p]}
        self.retries.read_again(firsts(lost))
        return {p: records for p, records in batch.items() if p not in lost}

    async def _decide(self, batch: Records, owned: Owned) -> tuple[Results, list[TopicPartition] | None]:
        """What becomes of the records, and the result of `_record_pending`; None: that has yet to be called.

        While nothing is being published, the batch is recorded in the transaction that decides it, which
        saves a commit.
        """
        fenced: list[TopicPartition] | None = None

        async def record_too(session: AsyncSession, results: list[RecordResult]) -> None:
            nonlocal fenced
            fenced = None
            is_quiet = self._publishing is None or self._publishing.done()
            # If the previous batch has failed, its row in `positions` has to stay.
            if is_quiet and all(self.partitions[p].ownership is owned[p] for p in batch):
                fenced = await self._record_pending_in(
                    session, batch, self._by_partition(batch, results, owned), owned
                )

        # After a failure at once: it names a missing table, say, with what helps.
        await self.tables.require_unaltered(at_once=self.retries.database_failures > 0)
        replays = {p: owned[p].replays for p in batch if owned[p].replays}
        records = [r for of_one in batch.values() for r in of_one]
        results = await self.processor.decide(records, replays, self._require_same_database, record_too)
        self.retries.database_failures = 0
        return self._by_partition(batch, results, owned), fenced

    def _by_partition(self, batch: Records, results: Iterable[RecordResult], owned: Owned) -> Results:
        rest = iter(results)
        return {
            p: without_withheld(list(islice(rest, len(records))), owned[p].withheld)
            for p, records in batch.items()
        }

    async def _require_same_database(self, session: AsyncSession) -> None:
        """Raise DatabaseReplacedError if PostgreSQL lacks what the owned partitions wrote last."""
        found = await positions.list_pending_to(session, self.group.id, self.group.topic)
        for partition, owned in self.partitions.owned().items():
            if found.get(partition.partition) != owned.pending_to:
                raise DatabaseReplacedError(
                    f"PostgreSQL knows of {self.group.topic}-{partition.partition} to"
                    f" {found.get(partition.partition)}, not to {owned.pending_to}: it is that of a backup,"
                    " or its last reply was lost; taking over again, which finds out"
                )

    async def _record_pending(self, batch: Records, results: Results, owned: Owned) -> list[TopicPartition]:
        """Record in PostgreSQL what is published next; returns the partitions that have another owner."""
        if not batch:
            return []
        with self.metrics.phase("record"):
            async with self.group.sessions() as session:
                # One statement, which commits by itself: as a transaction it takes two round trips more.
                await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
                return await self._record_pending_in(session, batch, results, owned)

    async def _record_pending_in(
        self, session: AsyncSession, batch: Records, results: Results, owned: Owned
    ) -> list[TopicPartition]:
        pending = {}
        for p, records in batch.items():
            seen = next((one.publication for one in results[p] if one.publication), None)
            sentinel = sentinel_of(owned[p].lease, seen) if seen else None
            pending[p.topic, p.partition] = (owned[p].lease.epoch, owned[p].pending(records, sentinel))
        follows = {(p.topic, p.partition): owned[p].pending_to for p in batch}
        recorded = await positions.record_pending(session, self.group.id, pending, follows)
        return [p for p in batch if (p.topic, p.partition) not in recorded]

    async def _publish(
        self, ends: Records, times: Times, results: Results, owned: Owned, in_hand: BatchInHand
    ) -> None:
        """Publish what was decided, and count it. What fails is rewound.

        `ends`: the first and the last record of each partition.
        """
        count = sum(len(results[p]) for p in ends)
        left = dict(ends)
        for together in self._transactions(ends):
            try:
                with self.metrics.phase("publish"):
                    await self._publish_together(together, ends, results, owned)
            except Exception as error:
                self.owner.drop_broken()
                self.owner.drop(together)  # also where nothing was sent, so that the producer is whole
                self.retries.rewind(firsts({p: left.pop(p) for p in together}), error, "kafka")
                self.retries.read_again(firsts(left))
                in_hand.failed(error)
                break
            self._count_latency(times.pop(p) for p in together)
            for partition in together:
                del left[partition]
        self._publishing_of = ()
        in_hand.finished(count)

    def _count_latency(self, times: Iterable[list[int]]) -> None:
        self.metrics.latency.observe(chain.from_iterable(times), int(time.time() * 1_000))

    def _transactions(self, partitions: Iterable[TopicPartition]) -> list[list[TopicPartition]]:
        """All in one transaction; but partitions that failed before go alone and last, to delay no other."""
        failures = {p: self.partitions[p].failures for p in partitions}
        together = [p for p, count in failures.items() if not count]
        alone = sorted((p for p in failures if failures[p]), key=failures.__getitem__)
        return [*([together] if together else []), *([p] for p in alone)]

    async def _publish_together(
        self, partitions: Sequence[TopicPartition], ends: Records, results: Results, owned: Owned
    ) -> None:
        batch = [
            Outgoing(
                owned[p].lease,
                [one.publication for one in results[p] if one.publication],
                ends[p][-1].offset + 1,
            )
            for p in partitions
        ]
        kinds = Counter(_FATE_AND_CODES(one) for p in partitions for one in results[p])
        for partition in partitions:
            results[partition].clear()  # and so `publish` can free what it packed
        await publish_or_set_aside(self.publisher, self.group, batch)
        for partition, one in zip(partitions, batch, strict=True):
            owned[partition].published(one.next_offset)
            self.partitions[partition].published(one.next_offset)
            self.health.resumed(partition)
        self.health.progressed()
        if not self.retries.database_failures:  # else the batch behind this one was rewound meanwhile
            self.health.all_resumed()
        self.metrics.count(kinds)


def _times_of_published(records: Sequence[ConsumerRecord], results: Sequence[RecordResult]) -> list[int]:
    if set(map(_FATE, results)) <= _PUBLISHED:  # as a rule: then in 40 ns an order, which are 60 otherwise
        return [record.timestamp for record in records]
    return [r.timestamp for r, one in zip(records, results, strict=True) if one.fate in _PUBLISHED]
