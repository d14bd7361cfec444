"""How much a compressed batch unpacks to, before it is unpacked: a small one may fill the memory. Pure.

Formats: RFC 8878 (zstd), RFC 1952 (gzip), lz4_Frame_format.md of the lz4 project.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from aiokafka import TopicPartition

# aiokafka unpacks a batch whole, and has it in memory twice for a moment: one of 500 MiB, which is 125 KiB of
# zstd, took 1,098 MiB. A worker has 512 at most and needs 171; so two partitions may have such a batch.
MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024

_ZSTD_MAGIC: Final = 0xFD2FB528
_ZSTD_BLOCK_BYTES: Final = 128 * 1024
_ZSTD_RLE: Final = 1
_ZSTD_COMPRESSED: Final = 2
_LZ4_MAGIC: Final = 0x184D2204
_LZ4_BLOCK_BYTES: Final = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_GZIP_MOST: Final = 1_032  # bytes of one
_LZ4_MOST: Final = 255
_PIECE_BYTES: Final = 1024 * 1024
_SMALL_BYTES: Final = 2_048  # of zstd, which packs best: four bytes are 128 KiB

# Of a batch of format 2: where its length stands, what that counts from, format, attributes, first record.
_LENGTH_AT: Final = 8
_LENGTH_ENDS: Final = 12
_FORMAT_AT: Final = 16
_CODEC_AT: Final = 22
_CODEC: Final = 0x07
_RECORDS_AT: Final = 61


def leave_out_too_large(topics: Iterable[tuple[str, list[Any]]]) -> list[TopicPartition]:
    """Cut a broker's answer, and return the partitions of which nothing is left.

    Each partition keeps what comes before its first batch that is too large to be unpacked.
    """
    empty: list[TopicPartition] = []
    for topic, partitions in topics:
        for index, (number, *others, record_set) in enumerate(partitions):
            at = first_too_large(record_set or b"")
            if at is not None:
                partitions[index] = (number, *others, record_set[:at])
                empty += [TopicPartition(topic, number)] if at == 0 else []
    return empty


def first_too_large(record_set: bytes) -> int | None:
    """Where the first batch begins that is too large to be unpacked; None: there is none."""
    at = 0
    while at + _RECORDS_AT < len(record_set) and record_set[at + _FORMAT_AT] == 2:
        (length,) = struct.unpack_from(">i", record_set, at + _LENGTH_AT)
        end = at + _LENGTH_ENDS + length
        codec = record_set[at + _CODEC_AT] & _CODEC
        if codec and length > _SMALL_BYTES and is_too_large(codec, record_set[at + _RECORDS_AT : end]):
            return at
        at = max(end, at + _RECORDS_AT)
    return None


def is_too_large(codec: int, body: bytes | memoryview) -> bool:
    """Whether the records of a batch unpack to more than `MAX_UNPACKED_BYTES`.

    `codec`: as the batch names it; of snappy, which makes at most 21 of one byte, none is. Of a body that is
    broken, what comes before that counts: unpacking it finds the rest.
    """
    measure = _MEASURES.get(codec)
    if measure is None:
        return False
    try:
        return measure(body) > MAX_UNPACKED_BYTES
    except (struct.error, IndexError, zlib.error):
        return False


def _of_gzip(body: bytes | memoryview) -> int:
    """Unpacks it piece by piece, as far as the limit, if its length alone does not exclude that."""
    if len(body) * _GZIP_MOST <= MAX_UNPACKED_BYTES:
        return 0
    size, left = 0, bytes(body)
    while left and size <= MAX_UNPACKED_BYTES:  # one after the other: a file may consist of several
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof and left and size <= MAX_UNPACKED_BYTES:
            size += len(stream.decompress(left, _PIECE_BYTES))
            left = stream.unconsumed_tail
        left = stream.unused_data
    return size


def _of_zstd(body: bytes | memoryview) -> int:
    """By the headers of its blocks: each compressed one makes 128 KiB at most, and as a rule but the last."""
    size = at = 0
    while at < len(body) and struct.unpack_from("<I", body, at)[0] == _ZSTD_MAGIC:
        flags = body[at + 4]
        is_single = bool(flags & 0x20)
        content_size_bytes = (int(is_single), 2, 4, 8)[flags >> 6]
        at += 5 + (not is_single) + (0, 1, 2, 4)[flags & 3] + content_size_bytes
        is_last = False
        while not is_last:
            header = int.from_bytes(body[at : at + 3], "little")
            if at + 3 > len(body):
                return size
            is_last, kind, block_bytes = bool(header & 1), header >> 1 & 3, header >> 3
            size += _ZSTD_BLOCK_BYTES if kind == _ZSTD_COMPRESSED else block_bytes
            at += 3 + (1 if kind == _ZSTD_RLE else block_bytes)
        at += 4 if flags & 4 else 0
    return size


def _of_lz4(body: bytes | memoryview) -> int:
    """By the headers of its blocks: none makes more than the size that all have, or 255 of one byte."""
    magic, flags, sizes = struct.unpack_from("<IBB", body)
    if magic != _LZ4_MAGIC:
        return 0
    most = _LZ4_BLOCK_BYTES.get(sizes >> 4 & 7, 0)
    size, at = 0, 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    while block := struct.unpack_from("<I", body, at)[0]:
        block_bytes = block & 0x7FFFFFFF
        size += min(most, block_bytes * _LZ4_MOST)
        at += 4 + block_bytes + (4 if flags & 16 else 0)
    return size


_MEASURES: Final[Mapping[int, Callable[[bytes | memoryview], int]]] = {1: _of_gzip, 3: _of_lz4, 4: _of_zstd}
