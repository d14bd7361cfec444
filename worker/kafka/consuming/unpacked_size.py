"""How much a compressed batch unpacks to, before it is unpacked: a small one may fill the memory. Pure.

Formats: RFC 8878 (zstd), RFC 1952 (gzip), lz4_Frame_format.md of the lz4 project.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
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
_SKIPPABLE_MAGIC: Final = 0x184D2A50  # and the fifteen after it
_LZ4_BLOCK_BYTES: Final = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_GZIP_MOST: Final = 1_032  # bytes of one
_LZ4_MOST: Final = 255
_PIECE_BYTES: Final = 1024 * 1024
_SMALL_BYTES: Final = 2_048  # of zstd, which packs best: four bytes are 128 KiB

# Positions in a batch of format 2: its length, from where that counts, its format, attributes, first record.
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

    `codec`: as the batch names it. Snappy is never too large: it makes at most 21 bytes of one. Of a broken
    body the parts before the break count, because a codec unpacks them before it finds the break.
    """
    size = 0
    try:
        for part_bytes in _PARTS.get(codec, _none)(body):
            size += part_bytes
            if size > MAX_UNPACKED_BYTES:
                return True
    except (struct.error, IndexError, zlib.error):
        pass  # broken
    return False


def _none(_body: bytes | memoryview) -> Iterator[int]:
    return iter(())


def _of_gzip(body: bytes | memoryview) -> Iterator[int]:
    """Unpacks it piece by piece, unless its length alone shows that it is small."""
    left = bytes(body) if len(body) * _GZIP_MOST > MAX_UNPACKED_BYTES else b""
    while left:  # a file may consist of several
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof and left:
            yield len(stream.decompress(left, _PIECE_BYTES))
            left = stream.unconsumed_tail
        left = stream.unused_data


def _of_zstd(body: bytes | memoryview) -> Iterator[int]:
    """By the headers of its blocks: a compressed one makes 128 KiB at most, and nearly always just that."""
    at = 0
    while at < len(body):
        at = _after_skippable(body, at)
        if struct.unpack_from("<I", body, at)[0] != _ZSTD_MAGIC:
            return
        flags = body[at + 4]
        is_single = bool(flags & 0x20)
        content_size_bytes = (int(is_single), 2, 4, 8)[flags >> 6]
        at += 5 + (not is_single) + (0, 1, 2, 4)[flags & 3] + content_size_bytes
        is_last = False
        while not is_last:
            if at + 3 > len(body):
                return
            header = int.from_bytes(body[at : at + 3], "little")
            is_last, kind, block_bytes = bool(header & 1), header >> 1 & 3, header >> 3
            yield _ZSTD_BLOCK_BYTES if kind == _ZSTD_COMPRESSED else block_bytes
            at += 3 + (1 if kind == _ZSTD_RLE else block_bytes)
        at += 4 if flags & 4 else 0


def _of_lz4(body: bytes | memoryview) -> Iterator[int]:
    """By the headers of its blocks: none makes more than the size that all have, or 255 of one byte."""
    at = 0
    while at < len(body):
        at = _after_skippable(body, at)
        magic, flags, sizes = struct.unpack_from("<IBB", body, at)
        if magic != _LZ4_MAGIC:
            return
        most = _LZ4_BLOCK_BYTES.get(sizes >> 4 & 7, 0)
        at += 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
        while block := struct.unpack_from("<I", body, at)[0]:
            block_bytes = block & 0x7FFFFFFF
            yield min(most, block_bytes * _LZ4_MOST)
            at += 4 + block_bytes + (4 if flags & 16 else 0)
        at += 4 + (4 if flags & 4 else 0)


def _after_skippable(body: bytes | memoryview, at: int) -> int:
    """After the frames that both formats let a decoder skip."""
    while struct.unpack_from("<I", body, at)[0] & 0xFFFFFFF0 == _SKIPPABLE_MAGIC:
        at += 8 + int(struct.unpack_from("<I", body, at + 4)[0])
    return at


_PARTS: Final[Mapping[int, Callable[[bytes | memoryview], Iterator[int]]]] = {
    1: _of_gzip,
    3: _of_lz4,
    4: _of_zstd,
}
"""by codec: the sizes of the parts, in order, each at most"""
