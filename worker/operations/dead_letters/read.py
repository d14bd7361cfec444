"""`dead-letters list` and `show`: read the whole dead-letter topic."""

from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.engine import session_factory
from db.worker import redrives
from db.worker.redrive_records import Redrive
from db.worker.settled_letters import LetterSettlement
from worker.core.triage import Source
from worker.database import database_engine, require_database
from worker.error_texts import reason_of
from worker.errors import CommandError, UsageError
from worker.failures import DATABASE_ERRORS
from worker.kafka.consuming.reading import Spans, TopicReader, portions
from worker.kafka.consuming.unreadable import UnreadableCount, UnreadableSpan
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of, topic_reader
from worker.operations.dead_letters.known import Found, KnownOfLetters, look_up
from worker.operations.dead_letters.letter import Choice, Group, Letter, LetterPlace, LetterTally, read_letter
from worker.operations.screen import progress
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class LetterOrder:
    """The order id of a dead letter, and what was decided for it; None: nothing yet."""

    order_id: UUID
    outcome: str | None
    decided_at: datetime | None
    source: Source | None


@dataclass(frozen=True, slots=True)
class Listed:
    """Groups of dead letters. `settled`: how many are settled, and in the groups only where asked for."""

    groups: list[Group]
    settled: int
    unreadable: list[UnreadableCount]


@dataclass(frozen=True, slots=True)
class Shown:
    """One dead letter with its state. Values are text if they are UTF-8, else base64."""

    place: str
    code: str
    path: str
    message: str
    failed_at: datetime | None
    source: dict[str, object] | None
    cut_from_bytes: int | None
    record: dict[str, object]
    redrive: Redrive | None
    settled: LetterSettlement | None
    order: LetterOrder | None
    """its redrives"""
    redriven_from: Redrive | None
    """the redrive that made it"""


@asynccontextmanager
async def shop_sessions(settings: Settings, command: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions for one command; errors of PostgreSQL become a CommandError.

    Use it inside a reader: an OSError in the block counts as PostgreSQL's, because Kafka's client has errors
    of its own.
    """
    async with database_engine(settings, f"order-worker {command}") as engine:
        await require_database(engine, settings)
        try:
            yield session_factory(engine)
        except TimeoutError:  # Kafka's
            raise
        except (*DATABASE_ERRORS, OSError) as error:
            raise CommandError(f"PostgreSQL stopped answering: {reason_of(error)}; run it again") from error


async def list_groups(
    settings: Settings, choice: Choice, *, with_settled: bool = False, quiet: bool = False
) -> Listed:
    """The dead letters that exist now, in groups, with their state; and what is left out."""
    tally, settled = LetterTally(), 0
    async with (
        topic_reader(settings, settings.dead_letter_topic) as consumer,
        shop_sessions(settings, "dead-letters list") as sessions,
    ):
        spans = await letter_spans(consumer, settings, choice)
        async for found in chosen(consumer, spans, choice, "reading", quiet=quiet):
            async with sessions() as session:
                known = await look_up(session, settings.dead_letter_topic, found)
            for letter, _ in found:
                is_settled = known.settled(letter) is not None
                settled += is_settled
                if with_settled or not is_settled:
                    add_known(tally, letter, known)
        return Listed(tally.groups(), settled, consumer.met.counts())


def add_known(tally: LetterTally, letter: Letter, known: KnownOfLetters) -> None:
    """Count a dead letter with its state."""
    redrive, decision = known.redrive(letter), known.decision(letter)
    tally.add(
        letter,
        redrive.status if redrive else "",
        decided=decision.outcome if decision else "",
        is_settled=known.settled(letter) is not None,
    )


async def show(settings: Settings, place: LetterPlace) -> Shown:
    """One whole dead letter. Raises CommandError if there is none."""
    async with (
        topic_reader(settings, settings.dead_letter_topic) as consumer,
        shop_sessions(settings, "dead-letters show") as sessions,
    ):
        spans = await letter_spans(consumer, settings, Choice(frozenset({place})))
        (found,) = [f async for some in chosen(consumer, spans, Choice(frozenset({place}))) for f in some]
        letter, record = found
        async with sessions() as session:
            known = await look_up(session, settings.dead_letter_topic, [found])
            made_by = await _made_by(session, letter)
    return Shown(
        place=str(letter.place),
        code=letter.code,
        path=letter.path,
        message=letter.message,
        failed_at=letter.failed_at,
        source=letter.source._asdict() if letter.source else None,
        cut_from_bytes=letter.cut_from_bytes,
        record=plain_record(record),
        redrive=known.redrive(letter),
        settled=known.settled(letter),
        order=_order(letter, known),
        redriven_from=made_by,
    )


LETTERS: Final = "dead letters"  # commands that claim or settle some take turns
NOTHING = "no dead letter is like that: see `order-worker dead-letters list`"


async def letter_spans(consumer: AIOKafkaConsumer, settings: Settings, choice: Choice) -> Spans:
    """The spans of the chosen dead letters, up to the current end: later ones are not included.

    Raises UsageError or CommandError that names an impossible place.
    """
    topic = settings.dead_letter_topic
    bounds = await bounds_of(consumer, await partitions_of(consumer, TopicSelection(topic)))
    if not choice.places:
        return {p: (b.first, b.end) for p, b in bounds.items()}
    spans: dict[TopicPartition, tuple[int, int]] = {}
    for place in sorted(choice.places):
        partition = TopicPartition(topic, place.partition)
        if partition not in bounds:
            raise UsageError(f"{place}: {topic} has no partition {place.partition}")
        first, end = bounds[partition].first, bounds[partition].end
        if place.offset >= end:
            raise CommandError(
                f"{place}: no dead letter is there yet: partition {place.partition} ends at {end}"
            )
        if place.offset < first:
            raise CommandError(
                f"{place}: that dead letter is gone (retention): the first one left is at {first}"
            )
        spans[partition] = (spans.get(partition, (place.offset, 0))[0], place.offset + 1)
    return spans


async def chosen(
    consumer: TopicReader, spans: Spans, choice: Choice, what: str = "", *, quiet: bool = False
) -> AsyncIterator[list[Found]]:
    """The chosen letters, some of one partition at a time. Raises CommandError for a place without one."""
    missing = set(choice.places)
    unreadable: list[UnreadableSpan] = []
    total = sum(end - start for start, end in spans.values())
    with progress(what, total, quiet=quiet or not what) as bar:
        behind = {p: start for p, (start, _) in spans.items()}
        async for partition, records in portions(consumer, spans, unreadable.append):
            found = [(letter, r) for r in records if choice.takes(letter := read_letter(r))]
            missing -= {letter.place for letter, _ in found}
            if found:
                yield found
            # Offsets, not records: the markers of transactions are none.
            bar.advance(records[-1].offset + 1 - behind[partition])
            behind[partition] = records[-1].offset + 1
    if missing:
        raise CommandError(_no_letter(min(missing), choice, unreadable))


def _no_letter(place: LetterPlace, choice: Choice, unreadable: Sequence[UnreadableSpan]) -> str:
    for span in unreadable:
        if span.partition.partition == place.partition and span.first <= place.offset < span.end:
            return f"{place}: {span}"
    if choice != Choice(choice.places, with_settled=choice.with_settled):
        return f"{place}: no dead letter like that is there: leave out --code, --path, --from and --to"
    return f"{place}: no dead letter is there, but a transaction marker; `export` lists the places"


def _order(letter: Letter, known: KnownOfLetters) -> LetterOrder | None:
    order_id, row = known.order_id(letter), known.decision(letter)
    if order_id is None or row is None:
        return None if order_id is None else LetterOrder(order_id, None, None, None)
    source = Source(row.source_topic, row.source_partition, row.source_offset)
    return LetterOrder(order_id, row.outcome, row.decided_at, source)


async def _made_by(session: AsyncSession, letter: Letter) -> Redrive | None:
    try:
        redrive_id = UUID(letter.redrive_id or "")
    except ValueError:
        return None
    return await redrives.find_redrive(session, redrive_id)


def plain_record(record: ConsumerRecord) -> dict[str, object]:
    """The record as JSON holds it: text where it is UTF-8, else base64 under another name."""
    headers = [{"name": name, **plain("value", value)} for name, value in record.headers]
    return {"headers": headers, **plain("key", record.key), **plain("value", record.value)}


def plain(name: str, value: bytes | None) -> dict[str, object]:
    """One field, `name` or `name_base64`."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value).decode()}
