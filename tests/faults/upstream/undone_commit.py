"""Kafka 4.3.1: a transaction whose commit is acknowledged is undone over an orderly restart.

    python -m tests.faults.upstream.undone_commit [TRIES]

While producers commit one transaction after the other, each with one record, the broker is stopped with
SIGTERM and started again; its controller is a process of its own and lives on. Then the successor of each
producer, of the same transactional id, aborts a transaction, and the topic is read `read_committed`. Ends
with 1 at the first record whose commit was acknowledged and which nobody sees, or with a TimeoutError when a
successor cannot start, or the reader not come to the end, within 30 s. About half of the runs find one within
six tries, most of those in the first.

The broker's log says how: in its controlled shutdown, when its partitions have no leader any more, "Couldn't
find leader endpoint for partitions ... these partitions are likely deleted already and hence can be skipped".
The transaction counts as complete, and no marker was written; the abort's marker takes its records.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from tests.faults.site import broker_apart
from tests.faults.upstream.lost_marker import create
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka

PRODUCERS = 16
# The more partitions, the longer it takes from their loss of a leader to the coordinator's resignation.
IDLE_PARTITIONS = 300
SECONDS_UNTIL_STOPPED = 2.0
AFTERWARDS_SECONDS = 30.0
SKIPPED = "likely deleted already"


async def started(servers: str, transactional_id: str) -> AIOKafkaProducer:
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        transactional_id=transactional_id,
        request_timeout_ms=2_000,
        retry_backoff_ms=5,  # that is how long it waits between two transactions
    )
    await producer.start()
    return producer


async def commit_on_and_on(servers: str, topic: str, transactional_id: str, acknowledged: set[bytes]) -> None:
    """Until the broker is gone."""
    producer = await started(servers, transactional_id)
    with suppress(KafkaError, TimeoutError):
        for number in range(1_000_000):
            value = f"{transactional_id} {number}".encode()
            # Shorter than a restart: who got over it would show, with its next commit, what is undone.
            async with asyncio.timeout(1):
                await producer.begin_transaction()
                await producer.send_and_wait(topic, value, partition=0)
                await producer.commit_transaction()
            acknowledged.add(value)
    # stop() would wait for what cannot be sent any more, and its task would try for ever.
    producer._closed = True
    producer._sender.sender_task.cancel()
    await producer.client.close()


async def abort_one(servers: str, topic: str, transactional_id: str) -> None:
    producer = await started(servers, transactional_id)
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"aborted", partition=0)
    await producer.abort_transaction()
    await producer.stop()


async def shown(servers: str, topic: str) -> set[bytes]:
    """What is committed, to the end of the topic."""
    place = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await consumer.start()
    try:
        consumer.assign([place])
        end, values = (await consumer.end_offsets([place]))[place], set()
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                values |= {record.value for record in records}
        return values
    finally:
        await consumer.stop()


async def one_try(kafka: LocalKafka, topic: str) -> set[bytes]:
    """The records that were acknowledged and are not shown."""
    servers, acknowledged = kafka.bootstrap_servers, set[bytes]()
    await create(servers, topic)
    ids = [f"{topic}-{number}" for number in range(PRODUCERS)]
    producing = asyncio.gather(*(commit_on_and_on(servers, topic, one, acknowledged) for one in ids))
    await asyncio.sleep(SECONDS_UNTIL_STOPPED)
    await asyncio.to_thread(kafka.restart)
    await producing
    async with asyncio.timeout(AFTERWARDS_SECONDS):
        await asyncio.gather(*(abort_one(servers, topic, one) for one in ids))
    async with asyncio.timeout(AFTERWARDS_SECONDS):
        return acknowledged - await shown(servers, topic)


def skipped(folder: Path) -> Iterator[str]:
    """What the broker said of partitions that it took for deleted."""
    for line in (folder / "kafka.log").read_text(errors="replace").splitlines():
        if SKIPPED in line:
            yield line


def main(tries: int) -> int:
    with data_folder() as folder, broker_apart(folder, log_level="info") as kafka:
        kafka.start()
        asyncio.run(create(kafka.bootstrap_servers, "idle", IDLE_PARTITIONS))
        for number in range(1, tries + 1):
            undone = asyncio.run(one_try(kafka, f"topic-{number}"))
            if undone:
                print(f"try {number}: {len(undone)} acknowledged and undone, {sorted(undone)[0].decode()}")
                print(*list(skipped(folder))[-1:])
                return 1
            print(f"try {number}: all that was acknowledged is shown", flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults.upstream.undone_commit")
    parser.add_argument("tries", nargs="?", type=int, default=20)
    logging.disable(logging.ERROR)  # that the broker is away is no news
    sys.exit(main(parser.parse_args().tries))
