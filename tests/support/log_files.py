"""Kafka's files of a partition, changed while its broker is stopped: a bad disk, a copy of long ago."""

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from aiokafka.record.util import calc_crc32c

from worker.sandbox.servers.kafka import LocalKafka

Breaking = Callable[[bytearray], None]
"""changes the bytes of one batch, of which the length stays"""

# Of a batch in Kafka's format 2: https://kafka.apache.org/documentation/#recordbatch
_HEAD: Final = struct.Struct(">qi")  # first offset, bytes that follow
_CHECKSUM: Final = struct.Struct(">I")
_CHECKSUM_AT: Final = 17
_ATTRIBUTES_AT: Final = 21  # what the checksum is of begins here
_LAST_OFFSET: Final = struct.Struct(">i")
_LAST_OFFSET_AT: Final = 23
_RECORDS_AT: Final = 61
_CODEC: Final = 0b111
_GZIP: Final = 1
_UNKNOWN_CODEC: Final = 6


def folder_of(kafka: LocalKafka, topic: str, partition: int) -> Path:
    """Where the broker keeps the partition."""
    return kafka.folder / "kafka" / "data" / f"{topic}-{partition}"


def wrong_checksum(batch: bytearray) -> None:
    """Flips a bit of the last record."""
    batch[-1] ^= 0x10


def unknown_codec(batch: bytearray) -> None:
    """Marks it as compressed with an unknown codec; the checksum is right."""
    _set_codec(batch, _UNKNOWN_CODEC)


def broken_compression(batch: bytearray) -> None:
    """Marks it as gzip, which it is not; the checksum is right."""
    _set_codec(batch, _GZIP)


def break_batch(folder: Path, offset: int, breaking: Breaking) -> range:
    """Break the batch that holds the offset; the offsets that are in it."""
    for path in sorted(folder.glob("*.log")):
        content = bytearray(path.read_bytes())
        for begin, end, offsets in _batches(content):
            if offset in offsets:
                batch = content[begin:end]
                breaking(batch)
                assert len(batch) == end - begin
                path.write_bytes(content[:begin] + batch + content[end:])
                return offsets
    raise AssertionError(f"no batch in {folder} holds the offset {offset}")


def replace_folder(folder: Path, copy: Path) -> None:
    """Replace the folder by a copy, as an operator does who restores an older volume."""
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)


def _batches(content: bytes | bytearray) -> Iterator[tuple[int, int, range]]:
    """Where each batch begins and ends, and its offsets."""
    begin = 0
    while begin + _RECORDS_AT <= len(content):
        first, length = _HEAD.unpack_from(content, begin)
        if not length:
            return  # a file may be larger than what is written
        (last,) = _LAST_OFFSET.unpack_from(content, begin + _LAST_OFFSET_AT)
        end = begin + _HEAD.size + length
        yield begin, end, range(first, first + last + 1)
        begin = end


def _set_codec(batch: bytearray, codec: int) -> None:
    batch[_ATTRIBUTES_AT + 1] = batch[_ATTRIBUTES_AT + 1] & ~_CODEC | codec
    _CHECKSUM.pack_into(batch, _CHECKSUM_AT, calc_crc32c(bytes(batch[_ATTRIBUTES_AT:])))
