"""What a reconciliation keeps of each record: its order or what is wrong with it, and where it lies. Pure."""

import json
from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

from aiokafka import ConsumerRecord

from contracts.dead_letters import read_letter_headers
from contracts.envelope import REPUBLISHED, passed_through
from db.reconciliation.copied import LetterRow, OutcomeRow, RecordRow
from worker.core.decode import Decoded
from worker.operations.input_records import decode_kept


def record_row(record: ConsumerRecord, max_bytes: int, *, with_headers: bool) -> RecordRow:
    """An input record. `with_headers`: also those that its outcome's publication carries on."""
    decoded = decode_kept(record, max_bytes)
    place = (record.partition, record.offset, record.timestamp)
    if not isinstance(decoded, Decoded):
        return RecordRow(*place, None, None, decoded.code.value, None)
    passed_on = (
        pack_headers(passed_through(record.headers, record.value))
        if with_headers and record.headers
        else None
    )
    return RecordRow(*place, decoded.order.order_id, decoded.fingerprint, None, passed_on)


def outcome_row(record: ConsumerRecord, *, is_confirmation: bool) -> OutcomeRow:
    """A record of an outcome topic."""
    return OutcomeRow(
        is_confirmation,
        record.partition,
        record.offset,
        _order_id(record.key),
        sha256(record.value or b"").digest()[:16],
        REPUBLISHED in record.headers,
    )


def letter_row(record: ConsumerRecord, input_topic: str) -> LetterRow | None:
    """A dead letter; None: it names no record of the input topic."""
    said = read_letter_headers(record.headers)
    if said.source is None or said.source.topic != input_topic:
        return None
    return LetterRow(
        said.source.partition,
        said.source.offset,
        said.source_timestamp_ms,
        record.partition,
        record.offset,
    )


def pack_headers(headers: Sequence[tuple[str, bytes]]) -> bytes | None:
    """As bytes, for `unpack_headers`."""
    # What is passed through is UTF-8.
    return json.dumps([[name, value.decode()] for name, value in headers]).encode() if headers else None


def unpack_headers(packed: bytes | None) -> list[tuple[str, bytes]]:
    """What `pack_headers` packed."""
    return [(name, value.encode()) for name, value in json.loads(packed)] if packed else []


def _order_id(key: bytes | None) -> UUID | None:
    try:
        return UUID((key or b"").decode())
    except ValueError:
        return None
