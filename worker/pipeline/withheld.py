"""Publishes withheld outcomes, exactly once, as soon as their topic accepts them.

    set_aside   store an outcome that its topic refuses in PostgreSQL, while we own the partition; the
                partition then continues without it
    look        every few seconds: publish what the topic accepts by now, and check that it is there

An outcome with a row is never published with its batch: only `worker.pipeline.late_publication` publishes it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from db.worker import positions, withheld
from db.worker.withheld import Withheld
from worker.error_texts import describe
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.limits.naming import withheld_sentences
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.producing.lease import Leases
from worker.observability.events import Event, about
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.pipeline.late_publication import late_publication
from worker.pipeline.resume import database_lost

log = logging.getLogger(__name__)

LOOK_INTERVAL_SECONDS: Final = 5.0
_TROUBLE: Final = "withheld"


class WithheldOutcomes:
    """Publishes the withheld outcomes of the partitions that are assigned to this worker."""

    def __init__(
        self,
        *,
        group: ConsumerGroup,
        leases: Leases,
        limits: OutputLimits,
        assigned: Callable[[], Collection[TopicPartition]],
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._group = group
        self._leases = leases
        self._limits = limits
        self._assigned = assigned
        self._health = health
        self._metrics = metrics

    async def run(self) -> None:
        """Call `look` every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_SECONDS)
            try:
                await self.look()
            except Exception as error:
                extra = about(Event.LOOK_FAILED, error=type(error).__name__)
                log.warning("withheld outcomes could not be looked at: %s", describe(error), extra=extra)

    async def look(self) -> None:
        """Publish what the topics accept by now, and report what they still refuse."""
        async with self._group.sessions() as session:
            rows = await withheld.list_withheld(session, self._group.topic)
        if rows:
            await self._publish_due(await self._find_due(rows))
            async with self._group.sessions.begin() as session:
                await withheld.remove_published(session, self._group.id, self._group.topic)
                rows = await withheld.list_withheld(session, self._group.topic)
        self._report([row for row in rows if row.published_at is None])

    async def _find_due(self, rows: Sequence[Withheld]) -> Mapping[TopicPartition, Sequence[UUID]]:
        """The order ids to publish now, by input partition."""
        await self._limits.read()
        mine = {p.partition: p for p in self._assigned()}
        committed = await self._leases.committed_offsets(list(mine.values())) if mine else {}
        async with self._group.sessions() as session:
            pending = await positions.list_pending(session, self._group.id, self._group.topic)
        if database_lost(self._group.topic, committed, pending):
            return {}  # what was published after the backup is not known here; `ledger restore` finds it
        due: dict[TopicPartition, list[UUID]] = defaultdict(list)
        for row in rows:
            partition = mine.get(row.source_partition)
            commit = committed.get(partition) if partition else None
            # Not before the offset of its batch is committed: until then its record is read again.
            if partition and commit and row.source_offset < commit.offset and self._is_due(row):
                due[partition].append(row.order_id)
        return due

    async def _publish_due(self, due: Mapping[TopicPartition, Sequence[UUID]]) -> None:
        for partition, order_ids in due.items():
            try:
                options = self._leases.client_options
                async with late_publication(partition, options, self._group, self._limits) as attempt:
                    await attempt.publish(order_ids)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning(
                    "withheld outcomes of %s-%d stay withheld: %s",
                    *(partition.topic, partition.partition, describe(error)),
                    extra=about(Event.OUTCOMES_STAY_WITHHELD, partition, error=type(error).__name__),
                )

    def _is_due(self, row: Withheld) -> bool:
        """Whether it may be published already, by an earlier attempt, or its topic may accept it by now."""
        limits = self._limits.of(row.topic)
        fits = not limits.is_read or limits.fits(row.size_bytes)
        return row.published_at is None and (fits or row.tried_from_offset is not None)

    def _report(self, rows: Sequence[Withheld]) -> None:
        """Report those of our partitions in metrics, log and readiness."""
        numbers = {p.partition for p in self._assigned()}
        mine = [row for row in rows if row.source_partition in numbers]
        self._metrics.withheld.clear()
        for number in numbers:
            count = sum(row.source_partition == number for row in mine)
            self._metrics.withheld.labels(str(number)).set(count)
        if mine:
            self._health.failed(_TROUBLE, "; ".join(withheld_sentences(mine)), alive=False)
        else:
            self._health.answered(_TROUBLE)
