"""Announces stored outcomes again, together with how far that is, as one step."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition

from contracts.envelope import REPUBLISHED, outcome_headers
from db.bulk.rows import LedgerRow
from db.statuses import Outcome
from worker.core.settlement import Publication
from worker.kafka.exclusive_producer import sole_producer
from worker.kafka.producers import ask_no_more, output_of
from worker.operations.republish.progress import Progress
from worker.pipeline.publisher import MAX_BATCH_BYTES
from worker.settings import Settings

# A run that was killed leaves a transaction open, which hides from subscribers what comes after it: so long,
# or until the next run.
_TRANSACTION_TIMEOUT_MS: Final = 20_000
_ANNOUNCE_TIMEOUT_SECONDS: Final = _TRANSACTION_TIMEOUT_MS / 2_000


def outcome_topics(settings: Settings) -> dict[str, str]:
    """Outcome → the topic it is announced in."""
    return {
        Outcome.CONFIRMED.value: settings.order_confirmed_topic,
        Outcome.REJECTED.value: settings.order_rejected_topic,
    }


def progress_place(settings: Settings) -> TopicPartition:
    """Where the progress is committed: a partition that lives as long as what is announced does."""
    return TopicPartition(settings.order_confirmed_topic, 0)


def announcement(row: LedgerRow, topic: str, now_ms: int) -> Publication:
    """The outcome as it was announced first, but for the time and the header that tells it from that.

    The ledger has no headers of the order, so there is no `correlation_id` and no `traceparent`.
    """
    key = str(row.order_id).encode()
    headers = outcome_headers(key, f"order-{row.outcome}", row.decided_at, ())
    return Publication(topic, key, row.event.encode(), [*headers, REPUBLISHED], now_ms)


@dataclass(frozen=True, slots=True)
class Announcer:
    """Owns the transactional id of a selection: whoever had it before can commit nothing more."""

    producer: AIOKafkaProducer
    settings: Settings
    name: str  # the transactional id, and the group that keeps the progress

    async def announce(self, rows: Sequence[LedgerRow], reached: Progress) -> None:
        """Announce the rows, which may be none, and commit `reached`, as one step.

        After a KafkaError or TimeoutError nobody knows whether that step happened, and this announcer must
        not be used again: the next one reads the progress that is committed then.
        """
        sent: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(_ANNOUNCE_TIMEOUT_SECONDS):
                await self.producer.begin_transaction()
                for row in rows:
                    sent.append(await self._send(row))  # noqa: PERF401 (an error on the way keeps those before)
                # aiokafka commits a transaction in which a send failed, so every send is awaited first.
                await asyncio.gather(*sent)
                offsets = {progress_place(self.settings): reached.as_offset()}
                await self.producer.send_offsets_to_transaction(offsets, self.name)
                await self.producer.commit_transaction()
        except BaseException:
            ask_no_more(sent)
            raise

    async def _send(self, row: LedgerRow) -> asyncio.Future[Any]:
        topic = outcome_topics(self.settings)[row.outcome]
        output = await output_of(self.producer, topic, TopicPartition(row.source_topic, row.source_partition))
        _, key, value, headers, timestamp_ms = announcement(row, topic, int(time.time() * 1_000))
        future: asyncio.Future[Any] = await self.producer.send(
            topic,
            value,
            key,
            partition=output.partition,
            timestamp_ms=timestamp_ms,
            headers=headers,
        )
        return future


@asynccontextmanager
async def announcer(settings: Settings, name: str) -> AsyncIterator[Announcer]:
    """An announcer that is the only one of its name; every transaction of one before it has ended.

    Raises CommandError where Kafka refuses.
    """
    async with sole_producer(
        settings, name, _TRANSACTION_TIMEOUT_MS, max_batch_size=MAX_BATCH_BYTES
    ) as producer:
        yield Announcer(producer, settings, name)
