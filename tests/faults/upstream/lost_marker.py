"""Kafka 4.3.1: the marker of a committed transaction is lost over a crash.

    python -m tests.faults.upstream.lost_marker [TRIES] [--killed apart]

Commits one record in a transaction, kills the broker with SIGKILL at once, starts it, commits another record,
restarts the broker in order, and reads `read_committed`. Ends with 1 at the first record that is committed,
stored, and never shown. More likely the busier the machine is: run several side by side.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.faults.cluster import TRANSACTIONS, LocalKafkaCluster
from tests.faults.site import broker_apart
from worker.kafka.topic_metadata import until_all_brokers_know
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka

SHOWN_WITHIN_SECONDS = 20.0


async def create(servers: str, topic: str, partitions: int = 1) -> None:
    """On every broker there is."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, servers.count(",") + 1)])
    await until_all_brokers_know(admin, {topic: partitions})
    await admin.close()


async def commit_one(servers: str, topic: str, transactional_id: str) -> None:
    """One record, whose commit Kafka has answered."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=transactional_id)
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(topic, b"committed")
    await producer.stop()


async def is_shown(servers: str, topic: str, isolation_level: str) -> bool:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", isolation_level=isolation_level
    )
    await consumer.start()
    try:
        await asyncio.wait_for(consumer.getone(), SHOWN_WITHIN_SECONDS)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        await consumer.stop()


def main(tries: int, killed: str) -> int:
    with running(killed) as kafka:
        servers = kafka.bootstrap_servers
        asyncio.run(create(servers, "first"))
        asyncio.run(commit_one(servers, "first", "first"))  # from now on there are coordinators
        for number in range(1, tries + 1):
            topic = f"topic-{number}"
            asyncio.run(create(servers, topic))
            victims = []
            if killed == "coordinator":
                # Asked before, as the commit is to be the last thing before the crash.
                victims = [kafka.coordinator_of(TRANSACTIONS, f"{topic}-before")]
            asyncio.run(commit_one(servers, topic, f"{topic}-before"))
            kafka.crash(*victims)
            kafka.start(*victims)
            asyncio.run(commit_one(servers, topic, f"{topic}-between"))
            kafka.restart(*victims)
            if not asyncio.run(is_shown(servers, topic, "read_committed")):
                stored = asyncio.run(is_shown(servers, topic, "read_uncommitted"))
                print(f"try {number}: committed, {'stored' if stored else 'not stored'}, never shown")
                return 1
            print(f"try {number}: shown", flush=True)
    return 0


@contextmanager
def running(killed: str) -> Iterator[Any]:
    with data_folder() as folder, ExitStack() as stack:
        kafka: Any
        if killed == "apart":
            kafka = stack.enter_context(broker_apart(folder))
        else:
            kafka = LocalKafka(folder) if killed == "single" else LocalKafkaCluster(folder)
            stack.callback(kafka.abandon)
        kafka.start()
        yield kafka


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults.upstream.lost_marker")
    parser.add_argument("tries", nargs="?", type=int, default=20)
    parser.add_argument(
        "--killed",
        choices=("single", "apart", "coordinator", "all-three"),
        default="single",
        help="a broker that is alone; one whose controller lives on; of three, the coordinator or all",
    )
    arguments = parser.parse_args()
    sys.exit(main(arguments.tries, arguments.killed))
