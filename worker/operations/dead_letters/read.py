"""`dead-letters list`, `show`, `export`: what lies in the dead letters' topic, read from end to end."""

import os
import sys
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.engine import session_factory
from db.worker import redrives
from db.worker.redrive_records import Redrive
from worker.core.triage import Source
from worker.database import database_engine, require_database
from worker.errors import CommandError, UsageError
from worker.failures import DATABASE_ERRORS, reason_of
from worker.kafka.consuming.reading import Spans, TopicReader, portions
from worker.kafka.consuming.unreadable import UnreadableCount, UnreadableSpan
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of, topic_reader
from worker.operations.dead_letters.letter import Choice, Group, Letter, LetterPlace, LetterTally, read_letter
from worker.operations.screen import progress, versioned
from worker.settings import Settings

Found = tuple[Letter, ConsumerRecord]


@dataclass(frozen=True, slots=True)
class Shown:
    """One dead letter with all that is known of it. Text where it is UTF-8, else base64 beside it."""

    place: str
    code: str
    path: str
    message: str
    failed_at: datetime | None
    source: dict[str, object] | None
    cut_from_bytes: int | None
    record: dict[str, object]
    redrive: Redrive | None
    """what was redriven of it"""
    redriven_from: Redrive | None
    """the redrive that made it"""


@asynccontextmanager
async def shop_sessions(settings: Settings, command: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions for one command; what PostgreSQL refuses becomes a CommandError.

    Inside of a reader: an operating system's error in the block is taken for PostgreSQL's, as Kafka's client
    has errors of its own.
    """
    async with database_engine(settings, f"order-worker dead-letters {command}") as engine:
        await require_database(engine, settings)
        try:
            yield session_factory(engine)
        except TimeoutError:  # Kafka's
            raise
        except (*DATABASE_ERRORS, OSError) as error:
            raise CommandError(f"PostgreSQL stopped answering: {reason_of(error)}; run it again") from error


async def list_groups(
    settings: Settings, choice: Choice, *, quiet: bool = False
) -> tuple[list[Group], list[UnreadableCount]]:
    """The dead letters that are there now, in groups, with what was redriven; and what cannot be unpacked."""
    tally = LetterTally()
    async with (
        topic_reader(settings, settings.dead_letter_topic) as consumer,
        shop_sessions(settings, "list") as sessions,
    ):
        spans = await letter_spans(consumer, settings, choice)
        async for found in chosen(consumer, spans, choice, "reading", quiet=quiet):
            async with sessions() as session:
                known = await redrives.find_redrives(session, sources_of(found))
            for letter, _ in found:
                redrive = known.get(letter.source) if letter.source else None
                tally.add(letter, redrive.status if redrive else None)
        return tally.groups(), consumer.met.counts()


async def show(settings: Settings, place: LetterPlace) -> Shown:
    """One dead letter, whole. Raises CommandError where there is none."""
    async with (
        topic_reader(settings, settings.dead_letter_topic) as consumer,
        shop_sessions(settings, "show") as sessions,
    ):
        spans = await letter_spans(consumer, settings, Choice(frozenset({place})))
        (found,) = [f async for some in chosen(consumer, spans, Choice(frozenset({place}))) for f in some]
        letter, record = found
        async with sessions() as session:
            known = await redrives.find_redrives(session, sources_of([found]))
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
        redrive=next(iter(known.values()), None),
        redriven_from=made_by,
    )


async def export(
    settings: Settings, choice: Choice, out: Path, *, force: bool
) -> tuple[int, list[UnreadableCount]]:
    """Write the chosen letters as JSON lines ("-": standard output), all or none.

    Returns how many there are, and what in their topic cannot be unpacked.
    """
    count = 0
    with _written(out, force) as file:
        async with topic_reader(settings, settings.dead_letter_topic) as consumer:
            spans = await letter_spans(consumer, settings, choice)
            async for found in chosen(consumer, spans, choice, "exporting"):
                for letter, record in found:
                    _write(file, to_json(versioned(_line(letter, record))) + b"\n", out)
                    count += 1
            unreadable = consumer.met.counts()
        if not count:
            raise CommandError(NOTHING)
    return count, unreadable


NOTHING = "no dead letter is like that: see `order-worker dead-letters list`"


async def letter_spans(consumer: AIOKafkaConsumer, settings: Settings, choice: Choice) -> Spans:
    """Where the chosen letters lie, up to the end as it is now: what comes later is none of them.

    Raises UsageError or CommandError that names a place where nothing can be.
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
    if choice != Choice(choice.places):
        return f"{place}: no dead letter like that is there: leave out --code, --path, --from and --to"
    return f"{place}: no dead letter is there, but a mark of Kafka's own; `export` tells the places"


def sources_of(found: Sequence[Found]) -> set[tuple[str, int, int]]:
    return {letter.source for letter, _ in found if letter.source}


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


def _line(letter: Letter, record: ConsumerRecord) -> dict[str, Any]:
    source = letter.source
    return {
        "place": str(letter.place),
        "source": source._asdict() if isinstance(source, Source) else None,
        "error": {"code": letter.code, "path": letter.path, "message": letter.message},
        "failed_at": letter.failed_at,
        "cut_from_bytes": letter.cut_from_bytes,
        **plain_record(record),
    }


@contextmanager
def _written(out: Path, force: bool) -> Iterator[IO[bytes]]:
    """A file that appears under its name when the block has ended well, and not before."""
    if str(out) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if out.exists() and not force:
        raise UsageError(f"{out} exists: choose another name, or overwrite it with --force")
    try:
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o666 & ~_umask())
                os.replace(file.name, out)
            except BaseException:
                with suppress(OSError):
                    os.unlink(file.name)
                raise
    except OSError as error:
        raise CommandError(f"cannot write {out}: {reason_of(error)}") from error


def _write(file: IO[bytes], line: bytes, out: Path) -> None:
    try:
        file.write(line)
    except OSError as error:
        raise CommandError(f"cannot write {out}: {reason_of(error)}") from error


def _umask() -> int:
    """What the user takes away from new files; a temporary file is for its owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
