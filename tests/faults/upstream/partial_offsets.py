"""Kafka 4.3.1: a broker that comes up answers for a group's offsets before it has loaded them.

    python -m tests.faults.upstream.partial_offsets [RESTARTS] [--apart]

Commits offset after offset in transactions, kills the broker with SIGKILL, starts it, and asks for what is
committed, again and again. While the coordinator loads, the answer has to be an error; now and then it is -1,
as if nothing had ever been committed, or an offset of long ago, and no error. Where somebody commits then,
as workers do, such an answer stays. Ends with 1 at the first restart after which a wrong offset was returned.

The broker is its own controller. So nobody takes its leadership away while it is dead; on its way up it leads
the offsets topic twice, once by the old and once by the new epoch, and the end of the first load marks the
coordinator of the second one as loaded (from reading the source, and its log agrees). With `--apart` the
controller is a process that lives on: no wrong offset in 26 restarts. The hour's soak has seen them so, too.
"""

import argparse
import asyncio
import logging
import sys
import threading
import time
from contextlib import nullcontext

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.faults.site import broker_apart
from worker.kafka.topic_metadata import until_all_brokers_know
from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka

PARTITIONS = 200
COMMITS = 400  # of each partition: the more there is to load, the longer the answers are wrong
ASKED_SECONDS = 15.0
ASKED = TopicPartition("topic", 0)


async def commit_all(servers: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(ASKED.topic, PARTITIONS, 1)])
    await until_all_brokers_know(admin, {ASKED.topic: PARTITIONS})
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id="upstream", retry_backoff_ms=5)
    await producer.start()
    for offset in range(1, COMMITS + 1):
        async with producer.transaction():
            offsets = {TopicPartition(ASKED.topic, p): offset for p in range(PARTITIONS)}
            await producer.send_offsets_to_transaction(offsets, "group")
    await producer.stop()


async def answers(servers: str) -> list[int]:
    """The answers from the start on, without repeats in a row."""
    answered: list[int] = []
    deadline = time.monotonic() + ASKED_SECONDS
    while time.monotonic() < deadline:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        try:
            await admin.start()
            found = await admin.list_consumer_group_offsets("group", partitions=[ASKED])
        except (KafkaError, OSError):
            continue
        finally:
            await admin.close()
        # Missing: the coordinator has said that it is loading, as it should.
        if ASKED in found and answered[-1:] != [found[ASKED].offset]:
            answered.append(found[ASKED].offset)
    return answered


def main(restarts: int, apart: bool) -> int:
    logging.disable(logging.CRITICAL)
    with data_folder() as folder, broker_apart(folder) if apart else nullcontext(LocalKafka(folder)) as kafka:
        try:
            kafka.start()
            asyncio.run(commit_all(kafka.bootstrap_servers))
            for number in range(1, restarts + 1):
                kafka.crash()
                starting = threading.Thread(target=kafka.start)
                starting.start()
                answered = asyncio.run(answers(kafka.bootstrap_servers))
                starting.join()
                print(f"restart {number}: committed is {COMMITS}, answered was {answered}", flush=True)
                if answered != [COMMITS]:
                    return 1
        finally:
            kafka.abandon()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults.upstream.partial_offsets")
    parser.add_argument("restarts", nargs="?", type=int, default=10)
    parser.add_argument("--apart", action="store_true", help="the controller is a process of its own")
    arguments = parser.parse_args()
    sys.exit(main(arguments.restarts, arguments.apart))
