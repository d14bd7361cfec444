"""A downstream service, as anybody could write it: reads outcomes and dead letters, committed ones only."""

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from contracts.dead_letters import read_letter_headers
from worker.kafka.clients import kafka_admin
from worker.settings import Settings

_POLL_MS: Final = 100


@dataclass(frozen=True, slots=True)
class SeenOutcome:
    """One outcome as the subscriber saw it. `seen_ms` is the time when it was handed to the subscriber."""

    outcome: str
    value: bytes
    event_id: str
    seen_ms: int


@dataclass(frozen=True, slots=True)
class SeenLetter:
    """One dead letter: its code, and the input record it names as its source."""

    code: str
    partition: int
    offset: int
    value: bytes | None


@dataclass(slots=True)
class TopicTally:
    """Everything the subscriber has seen. Nothing is dropped: a repeat would show."""

    outcomes: dict[str, list[SeenOutcome]] = field(default_factory=dict)  # by order id
    letters: list[SeenLetter] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # confirmed, rejected
    reasons: Counter[str] = field(default_factory=Counter)  # rejected orders by code; one may have several
    codes: Counter[str] = field(default_factory=Counter)  # dead letters

    def take_outcome(self, outcome: str, record: ConsumerRecord, seen_ms: int) -> None:
        headers = _headers(record)
        seen = SeenOutcome(outcome, record.value, headers.get("ce_id", ""), seen_ms)
        self.outcomes.setdefault(record.key.decode(), []).append(seen)
        self.counts[outcome] += 1
        if outcome == "rejected":
            self.reasons.update({reason["code"] for reason in json.loads(record.value)["reasons"]})

    def take_letter(self, record: ConsumerRecord) -> None:
        said = read_letter_headers(record.headers)
        if said.source is None:  # not of a worker: anybody may write into the topic
            return
        self.letters.append(SeenLetter(said.code, said.source.partition, said.source.offset, record.value))
        self.codes[said.code] += 1

    @property
    def outcomes_seen(self) -> int:
        return self.counts.total()


class Subscriber:
    """Reads the three topics from their beginning, and knows how far the workers' group has got."""

    def __init__(
        self, settings: Settings, partitions: int, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient
    ) -> None:
        self.tally = TopicTally()
        self._consumer, self._admin, self._group = consumer, admin, settings.group_id
        self._outcomes = {
            settings.order_confirmed_topic: "confirmed",
            settings.order_rejected_topic: "rejected",
        }
        read = (*self._outcomes, settings.dead_letter_topic)
        self._read = [TopicPartition(topic, p) for topic in read for p in range(partitions)]
        self._input = [TopicPartition(settings.order_placed_topic, p) for p in range(partitions)]
        consumer.assign(self._read)

    async def read_on(self) -> None:
        """Count whatever becomes visible, until cancelled."""
        while True:
            batches = await self._consumer.getmany(timeout_ms=_POLL_MS)
            # One reading for all of them: they became visible to the application at this moment.
            now_ms = time.time_ns() // 1_000_000
            for partition, records in batches.items():
                self._take(partition.topic, records, now_ms)

    async def has_read_everything(self) -> bool:
        """Whether nothing committed is left to read in the three topics."""
        ends = await self._consumer.end_offsets(self._read)
        return all([await self._consumer.position(partition) >= end for partition, end in ends.items()])

    async def lag(self) -> int | None:
        """How many input records the group has not committed yet; None while Kafka does not tell."""
        try:
            ends = await self._consumer.end_offsets(self._input)
            committed = await self._admin.list_consumer_group_offsets(self._group, partitions=self._input)
        except KafkaError:
            return None
        return sum(int(end) - _reached(committed, partition) for partition, end in ends.items())

    def _take(self, topic: str, records: list[ConsumerRecord], now_ms: int) -> None:
        outcome = self._outcomes.get(topic)
        for record in records:
            if outcome:
                self.tally.take_outcome(outcome, record, now_ms)
            else:
                self.tally.take_letter(record)


@asynccontextmanager
async def subscribed(settings: Settings, partitions: int) -> AsyncIterator[Subscriber]:
    """A subscriber that belongs to no group, so that it disturbs nobody's."""
    consumer = AIOKafkaConsumer(
        **settings.kafka_client_options(),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with kafka_admin(settings) as admin:
        try:
            await consumer.start()
            yield Subscriber(settings, partitions, consumer, admin)
        finally:
            await consumer.stop()


def _reached(committed: Mapping[TopicPartition, OffsetAndMetadata], partition: TopicPartition) -> int:
    # −1: the group has committed nothing there yet.
    return max(0, committed[partition].offset) if partition in committed else 0


def _headers(record: ConsumerRecord) -> dict[str, str]:
    # Of two headers with one name the last counts: ours come after those that were passed on.
    return {name: value.decode(errors="replace") for name, value in record.headers if value is not None}
