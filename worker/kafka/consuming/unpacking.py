"""Unpacks a broker's answer up to a record that cannot be unpacked or claims an impossible offset."""

import logging
from itertools import islice, takewhile
from operator import attrgetter
from typing import Final

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import FetchResult

from worker.kafka.internals import unpacked_records, unpacked_to
from worker.observability.events import Event, about

log = logging.getLogger(__name__)

_OFFSET: Final = attrgetter("offset")


def unpack(
    partition: TopicPartition, result: FetchResult, room: int | None, highwater: int | None
) -> tuple[list[ConsumerRecord], int, bool]:
    """At most so many records, the position after them, and whether unpacking can continue."""
    began = unpacked_to(result)
    records: list[ConsumerRecord] = []
    is_whole = True
    try:
        # A list keeps what it was extended by when the iterator raises.
        records.extend(islice(unpacked_records(result), room))
    except Exception as error:  # of a codec, of text, of a checksum: of whatever the bytes are not
        extra = about(Event.RECORDS_UNREADABLE, partition, offset=unpacked_to(result))
        log.debug("%s cannot be unpacked at %d: %r", partition, unpacked_to(result), error, extra=extra)
        is_whole = False
    # No checksum covers the offset that a batch claims. A wrong one would move the position back, or beyond
    # the log, and the records behind that batch would be lost with it.
    position = max(began, unpacked_to(result))
    if highwater is not None and max(map(_OFFSET, records), default=-1) >= highwater:
        records = list(takewhile(lambda record: record.offset < highwater, records))
        return records, records[-1].offset + 1 if records else began, False
    return records, position, is_whole and unpacked_to(result) >= began
