"""Publishes stored outcomes again, together with how far that is, as one step."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition

from contracts.envelope import REPUBLISHED, decode_passed_on, outcome_headers
from db.bulk.rows import LedgerRow
from worker.core.results import Publication
from worker.kafka.producing.exclusive_producer import exclusive_producer
from worker.kafka.producing.lease_producers import MAX_BATCH_BYTES
from worker.kafka.producing.producers import output_of
from worker.kafka.producing.transaction import Transaction, transaction
from worker.operations.republish.progress import Progress
from worker.settings import Settings

# For so long, or until the next run, the open transaction of a killed run hides later records.
_TRANSACTION_TIMEOUT_MS: Final = 20_000
_PUBLISH_TIMEOUT_SECONDS: Final = _TRANSACTION_TIMEOUT_MS / 2_000


def progress_place(settings: Settings) -> TopicPartition:
    """Where the progress is committed: a partition that lives as long as what is published does."""
    return TopicPartition(settings.order_confirmed_topic, 0)


def publication(row: LedgerRow, topic: str, now_ms: int) -> Publication:
    """The outcome as it was published first, except for its time and the header `republished`.

    Of the order's own headers it has those that the ledger keeps (`encode_passed_on`): no trace.
    """
    assert row.event is not None, "a page of the ledger has no row without"
    key = str(row.order_id).encode()
    headers = outcome_headers(key, f"order-{row.outcome}", row.decided_at, decode_passed_on(row.passed_on))
    return Publication(topic, key, row.event.encode(), [*headers, REPUBLISHED], now_ms)


@dataclass(frozen=True, slots=True)
class Republisher:
    """Owns the transactional id of a selection: its previous owner can commit nothing more."""

    producer: AIOKafkaProducer
    settings: Settings
    name: str  # the transactional id, and the group that keeps the progress

    async def publish(self, rows: Sequence[LedgerRow], reached: Progress) -> None:
        """Publish the rows, which may be none, and commit `reached`, as one step.

        After a KafkaError or TimeoutError it is unknown whether the transaction committed, and this
        republisher must not be used again: the next one reads the committed progress.
        """
        async with transaction(self.producer, _PUBLISH_TIMEOUT_SECONDS) as opened:
            for row in rows:
                await self._send(opened, row)
            opened.commit_offsets(self.name, {progress_place(self.settings): reached.as_offset()})

    async def _send(self, opened: Transaction, row: LedgerRow) -> None:
        topic = self.settings.topics.of_outcome(row.outcome)
        place = await output_of(self.producer, topic, TopicPartition(row.source_topic, row.source_partition))
        _, key, value, headers, timestamp_ms = publication(row, topic, int(time.time() * 1_000))
        await opened.send(place, key=key, value=value, headers=headers, timestamp_ms=timestamp_ms)


@asynccontextmanager
async def republisher(settings: Settings, name: str) -> AsyncIterator[Republisher]:
    """The only republisher of this selection; every transaction of an earlier one has ended.

    Raises CommandError where Kafka refuses.
    """
    async with exclusive_producer(
        settings, name, _TRANSACTION_TIMEOUT_MS, max_batch_size=MAX_BATCH_BYTES
    ) as producer:
        yield Republisher(producer, settings, name)
