"""Reads records and the tables for a rehearsal; `rehearsal` decides what they come to."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import stock
from db.bulk import orders
from db.worker import ledger
from worker.core.decode import Decoded, Invalid
from worker.core.results import Fate
from worker.core.triage import Arrival
from worker.kafka.consuming.reading import OnUnreadable, Spans, TopicReader, portions
from worker.kafka.records import cut
from worker.operations.input_records import decode_kept, decode_record
from worker.operations.replay.rehearsal import Rehearsal, RehearsalFindings, Rehearsed
from worker.operations.screen import Bar
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class RecordReader:
    """Reads spans and decides their records in a rehearsal, partition by partition, in constant memory."""

    settings: Settings
    sessions: async_sessionmaker[AsyncSession]
    consumer: TopicReader

    async def through(
        self, rehearsal: Rehearsal, spans: Spans, bar: Bar, on_unreadable: OnUnreadable | None = None
    ) -> AsyncIterator[tuple[TopicPartition, list[Rehearsed]]]:
        for partition, span in sorted(spans.items()):
            # One after the other: what a rehearsal says must not depend on which broker answers first.
            at = span[0]
            async for _, records in portions(self.consumer, {partition: span}, on_unreadable):
                rest = {partition: list(records)}
                while rest:
                    part, rest = cut(rest, self.settings.batch_max_bytes)
                    yield partition, await self.decide(rehearsal, part[partition])
                    after = part[partition][-1].offset + 1
                    bar.advance(after - at)
                    at = after

    async def decide(self, rehearsal: Rehearsal, records: Sequence[ConsumerRecord]) -> list[Rehearsed]:
        """One result per record, in their order: what `BatchProcessor.decide` would come to."""
        decoded = [await self._read(record) for record in records]
        arrivals = [
            Arrival(d.order, d.fingerprint, record)
            for record, d in zip(records, decoded, strict=True)
            if isinstance(d, Decoded)
        ]
        results = iter(rehearsal.decide(arrivals, await self._find(arrivals)))
        return [
            Rehearsed(Fate.DEAD_LETTER, (d.code.value,)) if isinstance(d, Invalid) else next(results)
            for d in decoded
        ]

    async def _read(self, record: ConsumerRecord) -> Decoded | Invalid:
        """As a worker: a record that only an earlier version accepted is an order if that has decided it."""
        decoded = decode_record(record, self.settings.message_max_bytes)
        if isinstance(decoded, Decoded):
            return decoded
        former = decode_kept(record, self.settings.message_max_bytes)
        if not isinstance(former, Decoded):
            return decoded
        async with self.sessions() as session:
            row = (await ledger.find_outcomes(session, [former.order.key])).get(former.order.order_id)
        source = (row.source_topic, row.source_partition, row.source_offset) if row else None
        return former if source == (record.topic, record.partition, record.offset) else decoded

    async def _find(self, arrivals: Sequence[Arrival]) -> RehearsalFindings:
        """In a transaction of its own, however many records there are: nothing waits for it, nor vacuum."""
        async with self.sessions() as session:
            found = await ledger.find_outcomes(session, {a.order.key for a in arrivals})
            known = {str(order_id): row for order_id, row in found.items()}
            new = [a.order for a in arrivals if a.order.key not in known]
            if not new:
                return RehearsalFindings(known, set(), set(), {})
            return RehearsalFindings(
                known,
                await orders.find_order_ids(session, {order.order_id for order in new}),
                await orders.find_user_ids(session, {order.user_id for order in new}),
                await stock.list_stock(session, {item.product_id for order in new for item in order.items}),
            )
