"""The results of redriven dead letters: waits for the workers, then reads ledger and topic."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.bulk.rows import LedgerRow
from db.statuses import RedriveStatus
from db.worker import ledger
from db.worker.redrive_records import Finish, Redrive
from worker.core.dead_letter import REDRIVE_HEADER
from worker.core.decode import Decoded, Invalid, decode
from worker.core.same_order import is_same
from worker.core.triage import Source
from worker.kafka.consuming.reading import portions, records
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of
from worker.operations.dead_letters.letter import Letter, read_letter
from worker.operations.redrive.handled import POLL_SECONDS, Patience, until_handled
from worker.settings import Settings


class RedriveOutcome(NamedTuple):
    """What came of one redrive. `letter`: the dead letter it became."""

    finish: Finish
    letter: Letter | None = None


Tails = dict[TopicPartition, int]
"""partition of the dead letters' topic → the offset from which new letters are to be looked for"""


@dataclass(frozen=True, slots=True)
class Results:
    """Looks after what was sent. `patience_seconds`: how long without progress is too long."""

    settings: Settings
    sessions: async_sessionmaker[AsyncSession]
    letters: AIOKafkaConsumer
    inputs: AIOKafkaConsumer
    admin: AIOKafkaAdminClient
    patience_seconds: float

    async def wait_for(self, sent: Sequence[Redrive], tails: Tails) -> list[RedriveOutcome]:
        """Wait until the workers have handled these; returns the known results, in any order.

        Moves the tails on. Raises CommandError when they make no progress.
        """
        places = {_source(self.settings, redrive): redrive for redrive in sent}
        await until_handled(self.settings, self.admin, list(places), self.patience_seconds)
        found, decided = await self._read(places)
        failed = await self._new_letters(found - decided.keys(), tails)
        return list(decided.values()) + [
            RedriveOutcome(Finish(places[place].id, RedriveStatus.FAILED, _why(letter)), letter)
            for place, letter in failed.items()
        ]

    async def _read(self, places: dict[Source, Redrive]) -> tuple[set[Source], dict[Source, RedriveOutcome]]:
        """Which records were sent, out of the input topic, which says so for certain; and what was decided.

        Some at a time: the orders of a step would not all fit into memory.
        """
        spans: dict[TopicPartition, tuple[int, int]] = {}
        for place in sorted(places):
            partition = TopicPartition(place.topic, place.partition)
            spans[partition] = (spans.get(partition, (place.offset, 0))[0], place.offset + 1)
        bounds = await bounds_of(self.inputs, list(spans))
        left = {p: (max(s, bounds[p].first), min(e, bounds[p].end)) for p, (s, e) in spans.items()}
        found: set[Source] = set()
        decided: dict[Source, RedriveOutcome] = {}
        async for _, some in portions(self.inputs, left):
            sent = {
                place: decode(record.value, self.settings.message_max_bytes, record.headers)
                for record in some
                if (place := Source(record.topic, record.partition, record.offset)) in places
                and redrive_id_of(record) == str(places[place].id)
            }
            found |= sent.keys()
            decided |= await self._decided(places, sent)
        return found, decided

    async def _decided(
        self, places: dict[Source, Redrive], sent: dict[Source, Decoded | Invalid]
    ) -> dict[Source, RedriveOutcome]:
        orders = {place: read for place, read in sent.items() if isinstance(read, Decoded)}
        async with self.sessions() as session:
            known = await ledger.find_outcomes(session, {read.order.order_id for read in orders.values()})
        return {
            place: RedriveOutcome(_finish(places[place], place, row))
            for place, read in orders.items()
            if (row := known.get(read.order.order_id)) and is_same(read.order, read.fingerprint, row)
        }

    async def _new_letters(self, places: set[Source], tails: Tails) -> dict[Source, Letter]:
        """The dead letters that these became; the others are not found within the patience."""
        found: dict[Source, Letter] = {}
        patience = Patience(self.patience_seconds)
        at = dict(tails)
        while len(found) < len(places) and not patience.is_over(len(found)):
            async for letter in self._read_on(at):
                if letter.source in places:
                    found[letter.source] = letter
                    partition = TopicPartition(self.settings.dead_letter_topic, letter.place.partition)
                    tails[partition] = letter.place.offset + 1
            await asyncio.sleep(0 if len(found) == len(places) else POLL_SECONDS)
        return found

    async def _read_on(self, at: Tails) -> AsyncIterator[Letter]:
        """The dead letters from there to the end, and the next time from that end on."""
        bounds = await bounds_of(self.letters, list(at))
        spans = {p: (max(start, bounds[p].first), bounds[p].end) for p, start in at.items()}
        async for record in records(self.letters, spans):
            yield read_letter(record)
        at.update({p: max(at[p], end) for p, (_, end) in spans.items()})


def redrive_id_of(record: ConsumerRecord) -> str | None:
    """The id of the redrive that sent this record, from its header."""
    values = [value for name, value in record.headers if name == REDRIVE_HEADER]
    return (values[-1] or b"").decode("ascii", "replace") if values else None


async def letter_ends(consumer: AIOKafkaConsumer, settings: Settings, *, first: bool = False) -> Tails:
    """The end of each partition of the dead letters' topic, or the first record there is."""
    partitions = await partitions_of(consumer, TopicSelection(settings.dead_letter_topic))
    bounds = await bounds_of(consumer, partitions)
    return {p: b.first if first else b.end for p, b in bounds.items()}


def _source(settings: Settings, redrive: Redrive) -> Source:
    assert redrive.input_offset is not None
    return Source(settings.order_placed_topic, redrive.input_partition, redrive.input_offset)


def _finish(redrive: Redrive, place: Source, row: LedgerRow) -> Finish:
    source = Source(row.source_topic, row.source_partition, row.source_offset)
    if source != place:
        before = f"{source.topic} {source.partition}:{source.offset}"
        return Finish(redrive.id, RedriveStatus.DUPLICATE, f"decided from {before}: {row.outcome}")
    codes = {reason["code"] for reason in json.loads(row.event or "{}").get("reasons", ())}
    why = f": {', '.join(sorted(codes))}" if codes else ""
    return Finish(redrive.id, RedriveStatus.DECIDED, row.outcome + why)


def _why(letter: Letter) -> str:
    where = f" at {letter.path}" if letter.path else ""
    return f"{letter.code}{where}: {letter.message} (dead letter {letter.place})"
