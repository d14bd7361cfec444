"""Records with a header whose NAME is not UTF-8, which Kafka takes and few clients can write or read.

As a program, python -m tests.support.odd_records BOOTSTRAP TOPIC PARTITION COMPRESSION: writes one batch,
of the values in the JSON list on standard input. null stands for an odd record.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer

ODD_NAME: Final = b"\xff\xfe"
ODD_VALUE: Final = b"{}"

_ROOT: Final = Path(__file__).parent.parent.parent
_SECONDS: Final = 30


class _OddName(str):
    """Has a length of two characters, and is encoded to bytes that are not UTF-8."""

    __slots__ = ()

    def encode(self, *_arguments: Any, **_options: Any) -> bytes:
        return ODD_NAME


def publish_odd(
    bootstrap_servers: str,
    topic: str,
    values: Sequence[bytes | None] = (None,),
    *,
    partition: int = 0,
    compression: str = "none",
) -> None:
    """Publish one batch; None among the values stands for an odd record."""
    publishing = start_publishing_odd(
        bootstrap_servers, topic, values, partition=partition, compression=compression
    )
    assert publishing.wait(_SECONDS) == 0


def start_publishing_odd(
    bootstrap_servers: str,
    topic: str,
    values: Sequence[bytes | None] = (None,),
    *,
    partition: int = 0,
    compression: str = "none",
) -> "subprocess.Popen[bytes]":
    """As `publish_odd`, for callers in an event loop."""
    # aiokafka's compiled part encodes names itself; the choice is made at its import.
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, bootstrap_servers, topic, str(partition), compression],
        cwd=_ROOT,
        env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"},
        stdin=subprocess.PIPE,
    )
    assert process.stdin
    with process.stdin as given:
        given.write(json.dumps([value and value.decode() for value in values]).encode())
    return process


async def _publish(
    bootstrap_servers: str, topic: str, partition: int, compression: str, values: list[str | None]
) -> None:
    compression_type = None if compression == "none" else compression
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, compression_type=compression_type, max_batch_size=900_000
    ) as producer:
        batch = producer.create_batch()
        for value in values:
            headers = [(_OddName("AA"), b"1")] if value is None else []
            content = ODD_VALUE if value is None else value.encode()
            assert batch.append(timestamp=None, key=None, value=content, headers=headers)
        await (await producer.send_batch(batch, topic, partition=partition))


if __name__ == "__main__":
    servers, name, number, codec = sys.argv[1:]
    asyncio.run(_publish(servers, name, int(number), codec, json.load(sys.stdin)))
