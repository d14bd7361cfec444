"""Decodes the records of a batch, one by one. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import ConsumerRecord

from contracts.events import DeadLetterCode
from worker.core.decode import Invalid, decode
from worker.core.triage import Arrival, Arrivals
from worker.kafka.consuming.unreadable import UnreadableRecord


class DecodedBatch(NamedTuple):
    """`invalid`: the reason for each record that is not an order, by its index in the batch."""

    arrivals: Arrivals
    invalid: dict[int, Invalid]
    unknown_fields: int


def decode_all(records: Sequence[ConsumerRecord], max_bytes: int) -> DecodedBatch:
    """Never raises because of what a record holds. `max_bytes`: of a value that may be an order."""
    arrivals = Arrivals()
    invalid: dict[int, Invalid] = {}
    unknown_fields = 0
    for place, record in enumerate(records):
        if type(record) is UnreadableRecord:
            invalid[place] = Invalid(DeadLetterCode.UNREADABLE, record.why, "")
            continue
        decoded = decode(record.value, max_bytes, record.headers)
        if isinstance(decoded, Invalid):
            invalid[place] = decoded
            continue
        order, fingerprint, unknown = decoded
        arrivals.add(tuple.__new__(Arrival, (order, fingerprint, record)))  # in half the time of a call
        unknown_fields += unknown
    return DecodedBatch(arrivals, invalid, unknown_fields)
