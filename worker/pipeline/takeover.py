"""Takes partitions over: fences their owners before, finds out where to go on, and says what is wrong.

    fence      start the producers; from then on nobody else can publish or commit there
    look       committed offsets, `positions`, the log: one question each for all partitions
    resume     one case a partition (`worker.pipeline.resume`)

Nothing of a partition is decided before this has ended well. Run again at any time, it comes to the same.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from db.worker import ledger, positions, skips, withheld
from db.worker.positions import PendingBatch
from worker.failures import WaitsForOperatorError
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.consuming.reading import TopicReader, reader, records
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.descriptors import require_descriptors
from worker.kafka.offset_mark import idle_mark
from worker.kafka.producing.lease import Lease, Leases
from worker.kafka.published import published_to
from worker.observability.metrics import Metrics
from worker.pipeline.partition import Ownership
from worker.pipeline.publisher import Publisher
from worker.pipeline.resume import (
    Case,
    Evidence,
    case_of,
    database_lost,
    decided_by_another_group,
    deleted_before_decided,
    is_cut,
    may_lie_in_log,
)

log = logging.getLogger(__name__)

Offsets = Mapping[TopicPartition, int]

# Producers started side by side: each asks the broker some five times, over connections of its own.
FENCED_AT_ONCE: Final = 16
# The batches of all partitions wait for it.
LOOK_SECONDS: Final = 30.0
# A leader may tell an end that lies too low, for a moment after it was elected.
CUT_FOR_SECONDS: Final = 2.0


class LogCutError(KafkaError):  # type: ignore[misc]
    """The log ends before what was decided of it; to be looked at again before it is believed."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What Kafka and PostgreSQL say of partitions that were just fenced."""

    epochs: Mapping[TopicPartition, positions.Epoch]
    evidence: Mapping[TopicPartition, Evidence]
    other_groups: Mapping[int, Mapping[str, int]]


class Takeover:
    """Takes over partitions of one topic for one group."""

    def __init__(
        self,
        group: ConsumerGroup,
        leases: Leases,
        publisher: Publisher,
        metrics: Metrics,
        cut_for_seconds: float = CUT_FOR_SECONDS,
    ) -> None:
        self._cut_for_seconds = cut_for_seconds
        self._group = group
        self._leases = leases
        self._publisher = publisher
        self._metrics = metrics
        self._slots = asyncio.Semaphore(FENCED_AT_ONCE)
        self._cut_since: dict[TopicPartition, float] = {}  # monotonic seconds

    async def take_over(
        self, partitions: Sequence[TopicPartition], all_partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Ownership | Exception]:
        """Each partition's ownership, with the offset to go on at, or the error because of which it waits.

        `all_partitions`: of the topic. Of an error nothing stays: the partition is owned by nobody then.
        """
        taken = await asyncio.gather(*(self._take_lease(p) for p in partitions), return_exceptions=True)
        leases = {one.partition: one for one in taken if isinstance(one, Lease)}
        results: dict[TopicPartition, Ownership | Exception] = {
            p: one for p, one in zip(partitions, taken, strict=True) if isinstance(one, Exception)
        }
        try:
            if leases:
                results |= await self._resume_all(leases, all_partitions)
        except Exception as error:
            results |= dict.fromkeys(leases, error)
        finally:
            for partition, lease in leases.items():
                if not isinstance(results.get(partition), Ownership):
                    self._leases.drop(lease)
        return results

    async def _take_lease(self, partition: TopicPartition) -> Lease:
        async with self._slots:
            try:
                return await self._leases.take(partition)
            except (KafkaError, OSError):
                require_descriptors()
                raise

    async def _resume_all(
        self, leases: Mapping[TopicPartition, Lease], all_partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Ownership | Exception]:
        async with asyncio.timeout(LOOK_SECONDS):
            look = await self._look(sorted(leases), all_partitions)
        resumed = await asyncio.gather(
            *(self._resume(lease, look) for lease in leases.values()), return_exceptions=True
        )
        results: dict[TopicPartition, Ownership | Exception] = {}
        for partition, one in zip(leases, resumed, strict=True):
            if not isinstance(one, Ownership | Exception):
                raise one
            results[partition] = one
        return results

    async def _look(
        self, partitions: Sequence[TopicPartition], all_partitions: Collection[TopicPartition]
    ) -> _Look:
        # Of all, and before PostgreSQL: other workers go on meanwhile, and tell PostgreSQL first.
        commits = await self._leases.committed_offsets(sorted({*partitions, *all_partitions}))
        group_id, topic = self._group.id, self._group.topic
        async with self._group.sessions() as session:
            # Each commits by itself: two workers that took several in another order could wait in a circle.
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            epochs = {p: await positions.start_epoch(session, group_id, *p) for p in partitions}
            pending = await positions.list_pending(session, group_id, topic)
            others = await positions.list_other_groups(session, group_id, topic)
        if lost := database_lost(topic, commits, pending):
            raise WaitsForOperatorError(lost)
        known = {p: epoch.pending for p, epoch in epochs.items() if epoch.pending}
        firsts, ends, found = await self._look_at_logs(partitions, known)
        evidence = {
            p: Evidence(
                commits[p],
                epochs[p].pending,
                firsts[p],
                ends[p],
                found.get(p, not (p in known and is_cut(known[p], ends[p]))),
            )
            for p in partitions
        }
        return _Look(epochs, evidence, others)

    async def _look_at_logs(
        self, partitions: Sequence[TopicPartition], known: Mapping[TopicPartition, PendingBatch]
    ) -> tuple[Offsets, Offsets, dict[TopicPartition, bool]]:
        """The ends of each log; and of those where it can be seen, whether it is the one that was decided."""
        async with reader(self._leases.client_options, "read_uncommitted") as consumer:
            firsts = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            lasts = {p: last for p, last in known.items() if may_lie_in_log(last, firsts[p], ends[p])}
            return firsts, ends, await _known_logs(consumer, lasts)

    async def _resume(self, lease: Lease, look: _Look) -> Ownership:
        partition = lease.partition
        evidence = look.evidence[partition]
        others = list(look.other_groups.get(partition.partition, ()))
        if why := decided_by_another_group(partition, evidence, others, self._group.id):
            raise WaitsForOperatorError(why)
        owned = _as_committed(lease, look.epochs[partition], evidence)
        case = case_of(evidence)
        if case is Case.OTHER_LOG:
            self._require_certainty(partition, evidence)
            await self._begin_other_log(owned, evidence)
        else:
            self._cut_since.pop(partition, None)
        if case is Case.LOST_COMMIT and evidence.pending:
            await self._recover_commit(owned, evidence.pending)
        await self._pass_over_deleted(owned, evidence)
        async with self._group.sessions() as session:
            owned.replays = await ledger.list_replays(session, partition.topic, partition.partition)
            rows = await withheld.list_withheld(session, partition.topic, partition.partition)
        # What an operator has read again is published again, where it was published.
        again = evidence.by_operator
        owned.withheld = {str(row.order_id) for row in rows if row.published_at is None or not again}
        self._metrics.takeovers.inc()
        log.info("took over %s-%d at offset %s", partition.topic, partition.partition, owned.published_to)
        return owned

    def _require_certainty(self, partition: TopicPartition, evidence: Evidence) -> None:
        since = self._cut_since.setdefault(partition, time.monotonic())
        if time.monotonic() - since < self._cut_for_seconds:
            raise LogCutError(f"{_log_differs(partition, evidence)}; looking again")
        del self._cut_since[partition]

    async def _begin_other_log(self, owned: Ownership, evidence: Evidence) -> None:
        """Read the log from its first record on. What was published is in the ledger, and stays published."""
        partition = owned.lease.partition
        silent_to = 0 if evidence.by_operator else evidence.offset or 0
        if evidence.pending:
            silent_to = max(silent_to, await self._published_to(owned, evidence.pending))
        if silent_to > evidence.first:
            # Recorded before the offset moves: every later owner has to know it, too.
            async with self._group.sessions.begin() as session:
                spans = {partition.partition: (evidence.first, silent_to)}
                await ledger.add_replays(session, partition.topic, spans)
        log.error(
            "%s; going on at its first record, %d: what is decided already is not published again",
            *(_log_differs(partition, evidence), evidence.first),
        )
        self._metrics.other_logs.inc()
        await self._commit(owned, evidence.first)

    async def _published_to(self, owned: Ownership, pending: PendingBatch) -> int:
        return await published_to(self._leases, owned.lease, pending, owned.published_to)

    async def _recover_commit(self, owned: Ownership, pending: PendingBatch) -> None:
        partition = owned.lease.partition
        committed, resumed = owned.published_to, await self._published_to(owned, pending)
        if committed == resumed == pending.published_to:
            return  # its owner ended between PostgreSQL and Kafka: nothing is lost
        # At once, and not with the next orders: until then the group's lag would be wrong, too.
        await self._commit(owned, resumed)
        if committed is None and resumed == pending.published_to and pending.acknowledged is None:
            return  # as above, of the first batch ever
        what = "undone what it had acknowledged" if resumed < pending.published_to else "forgotten the offset"
        log.warning(
            "Kafka has %s of %s-%d: it says %s, all before %d was published; going on at %d",
            *(what, partition.topic, partition.partition, committed, pending.published_to, resumed),
        )

    async def _pass_over_deleted(self, owned: Ownership, evidence: Evidence) -> None:
        """Go on at the first record there is, and leave a lasting note of what nobody can decide any more."""
        partition = owned.lease.partition
        if owned.published_to is None or owned.published_to >= evidence.first:
            return
        if deleted := deleted_before_decided(evidence, owned.published_to):
            start, end = deleted
            async with self._group.sessions.begin() as session:
                await skips.add_skip(
                    session,
                    *(partition.topic, partition.partition, start, end),
                    requested_by=self._group.id,
                    note="deleted from the topic before a worker read it",
                    kind="deleted",
                )
            self._metrics.deleted_offsets.labels(str(partition.partition)).inc(end - start)
            log.error(
                "up to %d records of %s-%d were deleted before they were decided: offsets %d to %d, the log"
                " begins at %d; look at the topic's retention",
                *(end - start, partition.topic, partition.partition, start, end - 1, end),
            )
        await self._commit(owned, evidence.first)

    async def _commit(self, owned: Ownership, offset: int) -> None:
        await self._publisher.publish(owned.lease, [], offset, idle_mark(owned.pending_to))
        owned.published(offset)


async def _known_logs(
    consumer: TopicReader, lasts: Mapping[TopicPartition, PendingBatch]
) -> dict[TopicPartition, bool]:
    """Whether the last record that was decided of each partition is still what it was."""
    found = dict.fromkeys(lasts, False)

    def take_for_known(span: UnreadableSpan) -> None:
        # What cannot be unpacked by now is no sign of another log.
        found[span.partition] = True

    spans = {p: (b.pending_to - 1, b.pending_to) for p, b in lasts.items()}
    async for record in records(consumer, spans, take_for_known):
        partition = TopicPartition(record.topic, record.partition)
        found[partition] = record.timestamp == lasts[partition].last_timestamp_ms
    return found


def _as_committed(lease: Lease, epoch: positions.Epoch, evidence: Evidence) -> Ownership:
    """The ownership as far as Kafka's committed offset says."""
    pending_to = epoch.pending.pending_to if epoch.pending else None
    owned = Ownership(lease, epoch.number, evidence.offset, pending_to)
    if pending_to is not None and not evidence.by_operator and (evidence.offset or 0) > pending_to:
        owned.passed_over_from = pending_to
    return owned


def _log_differs(partition: TopicPartition, evidence: Evidence) -> str:
    name = f"{partition.topic}-{partition.partition}"
    if evidence.offset is not None and evidence.offset > evidence.end:
        return f"the group's offset {evidence.offset} of {name} lies beyond the log's end, {evidence.end}"
    return f"{name} holds other records than those that were decided: it was cut or made anew"
