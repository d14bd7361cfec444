"""Writes what clients cannot unpack: odd header names by way of a broker, broken batches to its disk."""

import asyncio
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator, producer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c

from worker.sandbox.servers.kafka import LocalKafka

ODD_NAME = b"\xff\xfe"
Change = Callable[[bytearray], None]


class _OddName(str):
    """A header name that a producer takes for text and writes as `ODD_NAME`."""

    def encode(self, *_args: object, **_options: object) -> bytes:
        return ODD_NAME


def publish_odd_header(
    bootstrap_servers: str, topic: str, value: bytes | None = b"{}", *, partition: int = 0, key: bytes = b"k"
) -> int:
    """Publish a record with a header name that is not UTF-8; returns its offset."""
    return asyncio.run(send_odd_header(bootstrap_servers, topic, value, partition=partition, key=key))


async def send_odd_header(
    bootstrap_servers: str, topic: str, value: bytes | None = b"{}", *, partition: int = 0, key: bytes = b"k"
) -> int:
    """As `publish_odd_header`."""
    with _python_producer():
        async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers) as sender:
            sent = await sender.send_and_wait(
                topic, value, key, partition=partition, headers=[("sound", b"1"), (_OddName("AA"), b"2")]
            )
    return int(sent.offset)


@contextmanager
def _python_producer() -> Iterator[None]:
    """Only the Python code of aiokafka calls `encode` on a header name."""
    python = _DefaultRecordBatchBuilderPy
    with (
        patch.object(message_accumulator, "DefaultRecordBatchBuilder", python),
        patch.object(producer, "DefaultRecordBatchBuilder", python),
    ):
        yield


def break_batch(kafka: LocalKafka, topic: str, partition: int, offset: int, change: Change) -> None:
    """Change the bytes of the batch that holds the offset, on the broker's disk."""
    (segment,) = (kafka.folder / "kafka" / "data" / f"{topic}-{partition}").glob("*.log")
    data = bytearray(segment.read_bytes())
    at = 0
    while at < len(data):
        base, length = struct.unpack_from(">qi", data, at)
        (last_delta,) = struct.unpack_from(">i", data, at + 23)
        if base <= offset <= base + last_delta:
            batch = data[at : at + 12 + length]
            change(batch)
            with segment.open("r+b") as file:
                file.seek(at)
                file.write(batch)
            return
        at += 12 + length
    raise AssertionError(f"no batch holds {offset}")


def flip_a_byte(batch: bytearray) -> None:
    """The checksum is wrong then."""
    batch[-3] ^= 0xFF


def unknown_codec(batch: bytearray) -> None:
    """The change keeps the checksum right."""
    _set_codec(batch, 7)


def broken_compression(batch: bytearray) -> None:
    """It claims to be gzip, and is not; the checksum is right."""
    _set_codec(batch, 1)


def absurd_length(batch: bytearray) -> None:
    """It claims to be longer than what is there."""
    struct.pack_into(">i", batch, 8, 1 << 20)


def absurd_offset(batch: bytearray) -> None:
    """Its base offset lies beyond the log's end; the checksum does not cover that."""
    struct.pack_into(">q", batch, 0, 5_000)


def _set_codec(batch: bytearray, codec: int) -> None:
    batch[22] = batch[22] & ~0x07 | codec
    struct.pack_into(">I", batch, 17, calc_crc32c(bytes(batch[21:])))
