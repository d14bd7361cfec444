"""Decodes an input record as a worker would: an order, or the reason why not. Pure."""

from aiokafka import ConsumerRecord

from contracts.events import DeadLetterCode
from worker.core.decode import Decoded, Invalid, decode, decode_former
from worker.kafka.consuming.unreadable import UnreadableRecord


def decode_record(record: ConsumerRecord, max_bytes: int) -> Decoded | Invalid:
    """As `decode`; one that no client unpacks is none, whatever its value holds."""
    if type(record) is UnreadableRecord:
        return Invalid(DeadLetterCode.UNREADABLE, record.why, "")
    return decode(record.value, max_bytes, record.headers)


def decode_kept(record: ConsumerRecord, max_bytes: int) -> Decoded | Invalid:
    """As `decode_record`; also what an earlier version may have decided, and this one refuses."""
    decoded = decode_record(record, max_bytes)
    if isinstance(decoded, Decoded) or type(record) is UnreadableRecord:
        return decoded
    return decode_former(record.value, max_bytes, record.headers)
