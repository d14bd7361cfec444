"""The records that decided orders came from: where they lie, and those of them that are still there."""

import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import zip_longest
from typing import Final, NamedTuple
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition

from db.bulk.rows import LedgerRow
from worker.core.decode import Decoded
from worker.kafka.consuming.reading import Spans, TopicReader, records
from worker.kafka.offsets import Bounds, TopicSelection, bounds_of, partitions_of
from worker.operations.input_records import decode_kept
from worker.operations.temporary_files import temporary_files

PORTION: Final = 500  # orders that are read together

# So many unwanted records between two wanted ones are read, which takes less time than another seek.
_NEAR: Final = 2_000


class Origin(NamedTuple):
    """An order, and the record of the input topic that it was decided from."""

    partition: int
    offset: int
    order_id: UUID
    fingerprint: bytes


class Origins:
    """Any number of them, in the order of their records."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.count = 0

    def add(self, rows: Iterable[LedgerRow]) -> None:
        added = [(r.source_partition, r.source_offset, r.order_id.bytes, r.fingerprint) for r in rows]
        self._database.executemany("INSERT INTO origin VALUES (?, ?, ?, ?)", added)
        self.count += len(added)

    def portions(self) -> Iterator[list[Origin]]:
        cursor = self._database.execute("SELECT * FROM origin ORDER BY partition, offset")
        while rows := cursor.fetchmany(PORTION):
            yield [Origin(p, offset, UUID(bytes=key), fingerprint) for p, offset, key, fingerprint in rows]


@contextmanager
def origins() -> Iterator[Origins]:
    """None yet; they are on disk, and gone at the end of the block."""
    # The empty name: a temporary file that SQLite removes.
    with temporary_files(), closing(sqlite3.connect("", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE origin (partition INT, offset INT, id BLOB, fingerprint BLOB)")
        database.execute("BEGIN")
        yield Origins(database)


class Found(NamedTuple):
    """The order as it was published, at the place that the ledger names."""

    origin: Origin
    record: ConsumerRecord


async def read_origins(
    inputs: TopicReader, topic: str, wanted: Collection[Origin], max_bytes: int
) -> AsyncIterator[Found]:
    """Those that are still there, each partition in order. What is there now and is another order is not."""
    places = {(one.partition, one.offset): one for one in wanted}
    known = await partitions_of(inputs, TopicSelection(topic))
    numbers = {one.partition for one in wanted}
    bounds = await bounds_of(inputs, [p for p in known if p.partition in numbers])
    for spans in rounds(places, bounds):
        async for record in records(inputs, spans):
            origin = places.get((record.partition, record.offset))
            if origin and _is_the_one_decided(record, origin, max_bytes):
                yield Found(origin, record)


def rounds(places: Iterable[tuple[int, int]], bounds: Mapping[TopicPartition, Bounds]) -> Iterator[Spans]:
    """The spans in which these offsets by partition lie, as far as they are there: one a partition at a time.

    What lies near each other is one span.
    """
    by_partition: dict[TopicPartition, list[tuple[int, int]]] = {p: [] for p in bounds}
    partitions = {p.partition: p for p in bounds}
    for number, offset in sorted(places):
        partition = partitions.get(number)
        if partition is None or not bounds[partition].first <= offset < bounds[partition].end:
            continue
        spans = by_partition[partition]
        if spans and offset - spans[-1][1] <= _NEAR:
            spans[-1] = (spans[-1][0], offset + 1)
        else:
            spans.append((offset, offset + 1))
    for some in zip_longest(*by_partition.values()):
        yield {p: span for p, span in zip(by_partition, some, strict=True) if span}


def _is_the_one_decided(record: ConsumerRecord, origin: Origin, max_bytes: int) -> bool:
    decoded = decode_kept(record, max_bytes)
    if not isinstance(decoded, Decoded):
        return False
    return (decoded.order.order_id, decoded.fingerprint) == (origin.order_id, origin.fingerprint)
