"""Kafka 4.3.1, one broker: the marker of a committed transaction is lost over a crash.

    python -m tests.faults.upstream.lost_marker [TRIES]

Commits one record in a transaction, kills the broker with SIGKILL at once, starts it, commits another record,
restarts the broker in order, and reads `read_committed`. Ends with 1 at the first record that is committed,
stored, and never shown. More likely the busier the machine is: run several side by side.
"""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from worker.local.services import running_services

SHOWN_WITHIN_SECONDS = 20.0


async def create(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
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


def main(tries: int) -> int:
    with running_services(announce=print) as running:
        servers, kafka = running.kafka_bootstrap_servers, running.kafka
        assert kafka is not None
        for number in range(1, tries + 1):
            topic = f"topic-{number}"
            asyncio.run(create(servers, topic))
            asyncio.run(commit_one(servers, topic, f"{topic}-before"))
            kafka.crash()
            kafka.start()
            asyncio.run(commit_one(servers, topic, f"{topic}-between"))
            kafka.restart()
            if not asyncio.run(is_shown(servers, topic, "read_committed")):
                stored = asyncio.run(is_shown(servers, topic, "read_uncommitted"))
                print(f"try {number}: committed, {'stored' if stored else 'not stored'}, never shown")
                return 1
            print(f"try {number}: shown")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
