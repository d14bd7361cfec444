"""Takes partitions over: takes their leases, and finds out where to resume or why to wait.

    lease      from then on no other process can publish or commit there
    look       read committed offsets, `positions` and the log, once for all partitions
    resume     decide what to do for each partition (`worker.pipeline.resume`)

No order of a partition is decided before this has succeeded. It can be repeated at any time.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerClosed

from db.worker import ledger, skips, withheld
from db.worker.positions import PendingBatch
from worker.failures import WaitsForOperatorError
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.descriptors import require_descriptors
from worker.kafka.offset_mark import idle_mark
from worker.kafka.producing.lease import Lease, Leases, Taken
from worker.kafka.published import find_published_to, publishers
from worker.observability.events import Event, about
from worker.observability.metrics import Metrics
from worker.pipeline.look import Look, look_at
from worker.pipeline.partition import Ownership
from worker.pipeline.publisher import Outgoing, Publisher
from worker.pipeline.resume import (
    Case,
    Evidence,
    case_of,
    decided_by_another_group,
    deleted_before_decided,
    is_all_deleted,
    is_past_markers,
)

log = logging.getLogger(__name__)

Offsets = Mapping[TopicPartition, int]

# The batches of all partitions wait for it.
LOOK_SECONDS: Final = 30.0
# Just after its election, a leader may answer with an end that is too low.
CUT_FOR_SECONDS: Final = 2.0


class LogCutError(KafkaError):  # type: ignore[misc]
    """The log ends below a decided offset; it is read once more before that counts as a truncated log."""


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
        self._cut_since: dict[TopicPartition, float] = {}  # monotonic seconds

    async def take_over(
        self, partitions: Sequence[TopicPartition], all_partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Ownership | Exception]:
        """By partition: its ownership, with the offset to resume at, or the error that it waits for.

        A partition with an error is not owned. `all_partitions`: of the topic. Call it only while nothing is
        being published.
        """
        with self._metrics.phase("take_over"):
            return await self._take_over(partitions, all_partitions)

    async def _take_over(
        self, partitions: Sequence[TopicPartition], all_partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Ownership | Exception]:
        try:
            taken = await self._leases.take(partitions)
        except Exception as error:
            if isinstance(error, KafkaError | OSError):
                require_descriptors()
            return dict.fromkeys(partitions, error)
        results: dict[TopicPartition, Ownership | Exception] = {
            p: one for p, one in taken.items() if isinstance(one, Exception)
        }
        held = {p: one for p, one in taken.items() if isinstance(one, Taken)}
        try:
            if held:
                results |= await self._resume_all(held, all_partitions)
        except Exception as error:
            results |= dict.fromkeys(held, error)
        await self._leases.release(
            one.lease for p, one in held.items() if one.is_published and isinstance(results[p], Exception)
        )
        for partition, one in held.items():
            if one.lease.producer.is_broken and isinstance(results[partition], Ownership):
                results[partition] = ProducerClosed()  # by what failed for another one
        return results

    async def _resume_all(
        self, held: Mapping[TopicPartition, Taken], all_partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Ownership | Exception]:
        async with asyncio.timeout(LOOK_SECONDS):
            look = await look_at(held, all_partitions, self._group, self._leases)
            await self._end_hanging_transactions(held, look)
        resumed = await asyncio.gather(
            *(self._resume(one, look) for one in held.values()), return_exceptions=True
        )
        results: dict[TopicPartition, Ownership | Exception] = {}
        for partition, one in zip(held, resumed, strict=True):
            if not isinstance(one, Ownership | Exception):
                raise one
            results[partition] = one
        return results

    async def _end_hanging_transactions(self, held: Mapping[TopicPartition, Taken], look: Look) -> None:
        """End hanging transactions, which Kafka considers ended: they hide later records from subscribers."""
        doubtful: set[str] = set()
        shown: dict[str, set[TopicPartition]] = defaultdict(set)
        for partition, evidence in look.evidence.items():
            if evidence.pending is None:
                continue
            if case_of(evidence) is not Case.COMMITTED:
                doubtful |= publishers(evidence.pending)
            elif not held[partition].is_released:  # a release ends them
                for one in publishers(evidence.pending):
                    shown[one].update(held[partition].lease.places.values())
        await self._leases.producers.end_hanging_transactions(doubtful)
        for transactional_id in shown.keys() - doubtful:
            await self._leases.producers.commit_hanging_transactions(
                transactional_id, shown[transactional_id]
            )

    async def _resume(self, taken: Taken, look: Look) -> Ownership:
        lease, partition = taken.lease, taken.lease.partition
        evidence = look.evidence[partition]
        others = list(look.other_groups.get(partition.partition, ()))
        if why := decided_by_another_group(partition, evidence, others, self._group.id):
            raise WaitsForOperatorError(why)
        owned = _as_committed(lease, evidence)
        is_presumed = taken.is_published or is_all_deleted(evidence)
        case = case_of(evidence)
        if case is Case.OTHER_LOG:
            self._require_certainty(partition, evidence)
            await self._begin_other_log(owned, evidence)
        else:
            self._cut_since.pop(partition, None)
        if case is Case.LOST_COMMIT and evidence.pending:
            await self._recover_commit(owned, evidence, evidence.pending, is_presumed)
        if case is Case.MOVED_ON and evidence.pending:
            await self._go_back_to_undecided(owned, evidence.pending, is_presumed)
        await self._record_deleted(owned, evidence)
        async with self._group.sessions() as session:
            # The rows stay for good, and each order is compared with all that are listed.
            owned.replays = await ledger.list_replays(
                session, partition.topic, partition.partition, owned.published_to or 0
            )
            rows = await withheld.list_withheld(session, partition.topic, partition.partition)
        # After an operator has moved the offset back, what was published is published again.
        again = evidence.was_moved and case is not Case.MOVED_ON
        owned.withheld = {str(row.order_id) for row in rows if row.published_at is None or not again}
        self._metrics.takeovers.inc()
        log.info(
            "took over %s-%d at offset %s",
            *(partition.topic, partition.partition, owned.published_to),
            extra=about(Event.PARTITION_TAKEN_OVER, partition, offset=owned.published_to),
        )
        return owned

    def _require_certainty(self, partition: TopicPartition, evidence: Evidence) -> None:
        since = self._cut_since.setdefault(partition, time.monotonic())
        if time.monotonic() - since < self._cut_for_seconds:
            raise LogCutError(f"{_log_differs(partition, evidence)}; looking again")
        del self._cut_since[partition]

    async def _begin_other_log(self, owned: Ownership, evidence: Evidence) -> None:
        """Read the log from its first record on, without publishing again what is published already."""
        partition = owned.lease.partition
        silent_to = 0 if evidence.was_moved else evidence.offset or 0
        if evidence.pending:
            # The records of its latest batch are gone, and an operator could not say where to go on.
            silent_to = max(silent_to, await self._published_to(owned, evidence.pending, is_presumed=True))
        if silent_to > evidence.first:
            # Recorded before the offset moves, so that every later owner knows it.
            async with self._group.sessions.begin() as session:
                spans = {partition.partition: (evidence.first, silent_to)}
                await ledger.add_replays(session, partition.topic, spans)
        log.error(
            "%s; continuing at its first record, %d: what is decided already is not published again",
            *(_log_differs(partition, evidence), evidence.first),
            extra=about(Event.LOG_REPLACED, partition, offset=evidence.first),
        )
        self._metrics.other_logs.inc()
        await self._commit(owned, evidence.first)

    async def _published_to(self, owned: Ownership, pending: PendingBatch, is_presumed: bool) -> int:
        async with asyncio.timeout(self._leases.producers.timeout_seconds):
            client = owned.lease.producer.client
            options = self._leases.client_options
            committed = owned.published_to
            return await find_published_to(options, client, pending, committed, is_presumed=is_presumed)

    async def _recover_commit(
        self, owned: Ownership, evidence: Evidence, pending: PendingBatch, is_presumed: bool
    ) -> None:
        partition = owned.lease.partition
        committed, resumed = owned.published_to, await self._published_to(owned, pending, is_presumed)
        if committed == resumed == pending.published_to:
            return  # its owner stopped between PostgreSQL and Kafka: nothing is lost
        if resumed == pending.published_to and is_past_markers(evidence):
            owned.skipped_from = resumed  # as above, after an idle owner had committed
            return
        # Now, and not with the next orders: until then the group's lag would be wrong.
        await self._commit(owned, resumed)
        if committed is None and resumed == pending.published_to and pending.acknowledged is None:
            return  # as above, of the first batch ever
        what = "undone what it had acknowledged" if resumed < pending.published_to else "forgotten the offset"
        log.warning(
            "Kafka has %s of %s-%d: it says %s, all before %d was published; continuing at %d",
            *(what, partition.topic, partition.partition, committed, pending.published_to, resumed),
            extra=about(Event.COMMIT_UNDONE, partition, offset=resumed),
        )

    async def _go_back_to_undecided(self, owned: Ownership, pending: PendingBatch, is_presumed: bool) -> None:
        """Go back to the first record that is not decided and published, if the group was moved past it."""
        partition, moved_to = owned.lease.partition, owned.published_to or 0
        try:
            resumed = await self._published_to(owned, pending, is_presumed)
        except WaitsForOperatorError:
            if moved_to > pending.pending_to:
                raise
            return  # by moving the group, the operator has said where to continue
        if resumed >= moved_to:
            return
        log.error(
            "the group's offset of %s-%d was moved to %d by a client that is no worker, but orders from %d on"
            " are not decided or not published: continuing there. Does another consumer use the group id %s?",
            *(partition.topic, partition.partition, moved_to, resumed, self._group.id),
            extra=about(Event.OFFSET_NOT_BELIEVED, partition, offset=resumed, end=moved_to),
        )
        await self._commit(owned, resumed)

    async def _record_deleted(self, owned: Ownership, evidence: Evidence) -> None:
        """Continue at the log's first record, and record in `skips` the offsets that were never decided."""
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
                extra=about(Event.RECORDS_DELETED, partition, offset=start, end=end, count=end - start),
            )
        await self._commit(owned, evidence.first)

    async def _commit(self, owned: Ownership, offset: int) -> None:
        await self._publisher.publish([Outgoing(owned.lease, [], offset, idle_mark(owned.pending_to))])
        owned.published(offset)


def _as_committed(lease: Lease, evidence: Evidence) -> Ownership:
    """The ownership as Kafka's committed offset has it."""
    pending_to = evidence.pending.pending_to if evidence.pending else None
    owned = Ownership(lease, evidence.offset, pending_to)
    if pending_to is not None and not evidence.was_moved and (evidence.offset or 0) > pending_to:
        owned.skipped_from = pending_to
    return owned


def _log_differs(partition: TopicPartition, evidence: Evidence) -> str:
    name = f"{partition.topic}-{partition.partition}"
    if evidence.offset is not None and evidence.offset > evidence.end:
        return f"the group's offset {evidence.offset} of {name} lies beyond the log's end, {evidence.end}"
    return f"{name} holds other records than those that were decided: it was cut, recreated or compacted"
