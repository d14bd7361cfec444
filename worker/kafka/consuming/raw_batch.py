"""Reads a fetched record set byte by byte, and keeps the intact part of a batch that a client refuses. Pure.

Format: https://kafka.apache.org/documentation/#recordbatch (version 2; of older ones nothing is read).
The checksum covers a batch from its attributes on: not its base offset, its length and its format.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.record.util import calc_crc32c

from worker.kafka.consuming.raw_records import BrokenError, RawBytes, RawRecord
from worker.kafka.consuming.unpacked_size import MAX_UNPACKED_BYTES, is_too_large
from worker.kafka.consuming.unreadable import UnreadableRecord, UnreadableSpan

# Base offset, length, leader epoch, format, checksum, attributes, last offset delta, first and greatest
# timestamp, producer id, producer epoch, first sequence number, number of records.
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_START: Final = struct.Struct(">qiib")
_LENGTH_ENDS: Final = 12  # the length counts from here
_CHECKSUM_ENDS: Final = 21
_FORMAT: Final = 2
_CODEC: Final = 0x07
_STAMPED_BY_BROKER: Final = 0x08
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_ABORT_MARKER: Final = b"\x00\x00\x00\x00"  # the key of a marker: version, kind
_CODECS: Final[dict[int, tuple[str, Callable[[bytes], bytes]]]] = {
    1: ("gzip", gzip_decode),
    2: ("snappy", snappy_decode),
    3: ("lz4", lz4_decode),
    4: ("zstd", zstd_decode),
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the leader of a partition answered."""

    partition: TopicPartition
    record_set: bytes
    end: int
    """the high watermark: no offset of the record set can be beyond it"""
    readable_end: int
    """the same for a reader of committed records"""
    aborted: Sequence[tuple[int, int]] | None = None
    """producer id and first offset of each aborted transaction; None: uncommitted records are read"""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """`records` of a batch in order, and where reading continues: at `next_offset`, or before `span`."""

    records: Sequence[ConsumerRecord]
    next_offset: int
    span: UnreadableSpan | None = None


class _Header(NamedTuple):
    base_offset: int
    length: int
    leader_epoch: int
    version: int
    checksum: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1


class _Next(NamedTuple):
    at: int
    base_offset: int


def read_first_batch(fetched: Fetched, offset: int) -> RawBatch | None:
    """The first batch that holds `offset` or a later one, from `offset` on; None where nothing was fetched.

    Transaction markers are left out, and aborted records if committed records are read. A batch with a wrong
    checksum is not used at all.
    """
    data = fetched.record_set
    aborting = _Aborting(fetched.aborted)
    at = 0
    while at < len(data):
        if why := _what_is_wrong_with_batch(data, at, fetched.end):
            behind = _next_batch(data, at)
            if behind is None or behind.base_offset > offset:
                return _unreadable(fetched, offset, at, why)
            at = behind.at  # the broken one lies before the offset
            continue
        header = _Header(*_HEADER.unpack_from(data, at))
        body = data[at + _HEADER.size : at + _LENGTH_ENDS + header.length]
        is_left_out = aborting.leaves_out(header, body)
        if header.next_offset > offset:
            if is_left_out:
                return RawBatch((), header.next_offset)
            return _unpacked(fetched.partition, header, body, offset)
        at += _LENGTH_ENDS + header.length
    return _unreadable(fetched, offset, 0, "no batch holds it") if data else None


def first_offset(fetched: Fetched) -> int | None:
    """The first offset that the fetched bytes claim; None if there are none."""
    if len(fetched.record_set) < _LENGTH_ENDS:
        return None
    return int(struct.unpack_from(">q", fetched.record_set)[0])


@dataclass(slots=True)
class _Aborting:
    """Which batches do not hold committed records; called for the batches in order."""

    transactions: Sequence[tuple[int, int]] | None
    _producers: set[int] = field(default_factory=set)

    def leaves_out(self, header: _Header, body: bytes) -> bool:
        is_marker = bool(header.attributes & _CONTROL)
        if self.transactions is None:
            return is_marker
        pending = {producer for producer, first in self.transactions if first <= header.base_offset}
        self.transactions = [each for each in self.transactions if each[1] > header.base_offset]
        self._producers |= pending
        if is_marker:
            if _is_abort_marker(body):
                self._producers.discard(header.producer_id)
            return True
        return bool(header.attributes & _TRANSACTIONAL) and header.producer_id in self._producers


def _is_abort_marker(body: bytes) -> bool:
    try:
        reader = RawBytes(body)
        reader.varint()
        return RawRecord.of(reader).key == _ABORT_MARKER
    except BrokenError:
        return False


def _what_is_wrong_with_batch(data: bytes, at: int, limit: int) -> str:
    if at + _START.size > len(data):
        return "its batch is cut off"
    _, length, _, version = _START.unpack_from(data, at)
    if version != _FORMAT:
        return f"message format {version}"
    end = at + _LENGTH_ENDS + length
    if length < _HEADER.size - _LENGTH_ENDS or end > len(data):
        return f"its batch claims {length} bytes"
    header = _Header(*_HEADER.unpack_from(data, at))
    if calc_crc32c(data[at + _CHECKSUM_ENDS : end]) != header.checksum:
        return "its batch has a wrong checksum"
    if header.last_offset_delta < 0 or not 0 <= header.base_offset < limit:
        return f"its batch claims to go from {header.base_offset} to {header.next_offset - 1}"
    return ""


def _unreadable(fetched: Fetched, offset: int, at: int, why: str) -> RawBatch:
    end = max(offset + 1, _guessed_end(fetched.record_set[at:], offset, fetched.end))
    return RawBatch((), offset, UnreadableSpan(fetched.partition, offset, end, why))


def _guessed_end(data: bytes, offset: int, limit: int) -> int:
    """Where a batch with an unreliable header ends: before the next batch, else where it claims to."""
    if len(data) < _HEADER.size:
        return offset + 1
    behind = _next_batch(data, 0)
    if behind is not None and offset < behind.base_offset <= limit:
        return behind.base_offset
    header = _Header(*_HEADER.unpack_from(data))
    if header.version == _FORMAT and offset < header.next_offset <= limit:
        return header.next_offset
    return offset + 1


def _next_batch(data: bytes, at: int) -> _Next | None:
    """What follows a batch by its length, which may be wrong; None if that does not look like a batch."""
    if at + _START.size > len(data):
        return None
    _, length, _, version = _START.unpack_from(data, at)
    behind = at + _LENGTH_ENDS + length
    if version != _FORMAT or not at + _HEADER.size <= behind <= len(data) - _START.size:
        return None
    base_offset, _, _, version = _START.unpack_from(data, behind)
    return _Next(behind, base_offset) if version == _FORMAT else None


def _unpacked(partition: TopicPartition, header: _Header, body: bytes, offset: int) -> RawBatch:
    first = max(offset, header.base_offset)
    codec = header.attributes & _CODEC
    if codec:
        if codec not in _CODECS:
            return _cut_off(partition, header, [], first, f"its batch has the unknown codec {codec}")
        name, decompress = _CODECS[codec]
        if is_too_large(codec, body):
            most = f"{MAX_UNPACKED_BYTES >> 20} MiB"
            why = f"its batch of {len(body)} bytes of {name} unpacks to more than {most}"
            return _cut_off(partition, header, [], first, why)
        try:
            body = decompress(body)
        except Exception as error:  # each library has its own, and some are of no common kind
            return _cut_off(partition, header, [], first, f"its batch is no {name}: {error or repr(error)}")
    records: list[ConsumerRecord] = []
    next_offset = first
    try:
        for record in _records(partition, header, body):
            if record.offset >= next_offset:
                records.append(record)
                next_offset = record.offset + 1
    except BrokenError as error:
        return _cut_off(partition, header, records, next_offset, str(error))
    return RawBatch(records, header.next_offset)


def _cut_off(
    partition: TopicPartition, header: _Header, records: Sequence[ConsumerRecord], first: int, why: str
) -> RawBatch:
    """The batch up to `first`; the rest of it is unreadable."""
    if first >= header.next_offset:
        return RawBatch(records, header.next_offset)
    return RawBatch(records, first, UnreadableSpan(partition, first, header.next_offset, why))


def _records(partition: TopicPartition, header: _Header, body: bytes) -> Iterator[ConsumerRecord]:
    reader = RawBytes(body)
    for _ in range(header.record_count):
        record = RawRecord.of(reader.part(reader.varint(), "a record"))
        if not 0 <= record.offset_delta <= header.last_offset_delta:
            raise BrokenError(f"a record claims to be number {record.offset_delta} of its batch")
        yield _consumer_record(partition, header, record)
    if reader.left:
        raise BrokenError(f"{reader.left} bytes behind the {header.record_count} records its batch claims")


def _consumer_record(partition: TopicPartition, header: _Header, record: "RawRecord") -> ConsumerRecord:
    by_broker = bool(header.attributes & _STAMPED_BY_BROKER)
    fields = (
        partition.topic,
        partition.partition,
        header.base_offset + record.offset_delta,
        header.max_timestamp if by_broker else header.first_timestamp + record.timestamp_delta,
        int(by_broker),
        record.key,
        record.value,
        None,
        -1 if record.key is None else len(record.key),
        -1 if record.value is None else len(record.value),
        tuple(record.headers),
    )
    return UnreadableRecord(*fields, record.why) if record.why else ConsumerRecord(*fields)
