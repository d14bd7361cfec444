"""Unpacks a broker's answer up to a record that cannot be unpacked or claims an impossible offset."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from operator import attrgetter
from typing import Final, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import FetchResult

from worker.kafka.internals import unpacked_records, unpacked_to
from worker.observability.events import Event, about

log = logging.getLogger(__name__)

_OFFSET: Final = attrgetter("offset")
MAX_POLL_BYTES: Final = 3 * 1024 * 1024
# Records are unpacked so many at a time, so that a poll exceeds its limit of bytes by no more than these. To
# count 8,000 records takes half a millisecond, and to decide them some 400.
_PORTION: Final = 16


@dataclass(slots=True)
class Room:
    """What a poll may still return. Bytes are those of values and headers, unpacked."""

    records: int
    bytes: int

    @property
    def is_used_up(self) -> bool:
        return self.records <= 0 or self.bytes <= 0

    def take(self, records: Iterable[ConsumerRecord]) -> None:
        """These are returned."""
        for record in records:
            self.records -= 1
            self.bytes -= len(record.value or b"")
            if record.headers:
                self.bytes -= sum(len(content or b"") for _, content in record.headers)


class Unpacked(NamedTuple):
    """`records` in order, and the position after them."""

    records: list[ConsumerRecord]
    position: int
    is_whole: bool
    """whether unpacking can continue"""


def unpack(partition: TopicPartition, result: FetchResult, room: Room, highwater: int | None) -> Unpacked:
    """As many records as there is room for, which are taken from it; if room is left, all there are."""
    began = unpacked_to(result)
    records: list[ConsumerRecord] = []
    is_whole = True
    try:
        _extend(records, unpacked_records(result), room)
    except Exception as error:  # of a codec, of text, of a checksum: of whatever the bytes are not
        extra = about(Event.RECORDS_UNREADABLE, partition, offset=unpacked_to(result))
        log.debug("%s cannot be unpacked at %d: %r", partition, unpacked_to(result), error, extra=extra)
        is_whole = False
    # No checksum covers the offset that a batch claims. A wrong one would move the position back, or beyond
    # the log, and the records behind that batch would be lost with it.
    position = max(began, unpacked_to(result))
    if highwater is not None and max(map(_OFFSET, records), default=-1) >= highwater:
        records = list(takewhile(lambda record: record.offset < highwater, records))
        return Unpacked(records, records[-1].offset + 1 if records else began, is_whole=False)
    return Unpacked(records, position, is_whole and unpacked_to(result) >= began)


def _extend(records: list[ConsumerRecord], unpacked: Iterator[ConsumerRecord], room: Room) -> None:
    """Raises at a record that cannot be unpacked; `records` has those before it."""
    while not room.is_used_up:
        before = len(records)
        try:
            # A list keeps what it was extended by when the iterator raises.
            records.extend(islice(unpacked, min(_PORTION, room.records)))
        finally:
            room.take(islice(records, before, None))
        if len(records) == before:
            return
