"""aiokafka 0.14: `committed()` says None where the group's coordinator said "ask me later".

    python -m tests.faults.upstream.no_offset

From version 2 on, the answer to OffsetFetch carries errors of the whole group in a field of its own, and no
partitions then. The consumer reads the errors of partitions only, finds none, and reports that nothing was
ever committed: it begins at `auto_offset_reset`. Seen after a broker was killed or stood still, while its
coordinator loaded; here such an answer is had for certain, by asking a broker that is not the coordinator.
The admin client overlooks the error as well, but leaves the partition out. Ends with 1 if the offset is
denied.
"""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.faults.cluster import LocalKafkaCluster
from worker.kafka.topic_metadata import until_all_brokers_know
from worker.sandbox.servers.folders import data_folder

GROUP, PARTITION = "g", TopicPartition("numbers", 0)


async def main(servers: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(PARTITION.topic, 1, 3)])
    await until_all_brokers_know(admin, {PARTITION.topic: 1})
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        await producer.send_and_wait(PARTITION.topic, b"one")
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=GROUP, enable_auto_commit=False)
    await consumer.start()
    consumer.assign([PARTITION])
    await consumer.commit({PARTITION: 1})
    print(f"committed: {await consumer.committed(PARTITION)}")
    coordinator = await admin.find_coordinator(GROUP)
    other = next(node for node in (1, 2, 3) if node != coordinator)
    consumer._coordinator.coordinator_id = other  # as it is for a while when the coordinator moves
    denied = await consumer.committed(PARTITION)
    listed = await admin.list_consumer_group_offsets(GROUP, other, [PARTITION])
    print(f"asked of broker {other}, which is not the coordinator: {denied}; by the admin client: {listed}")
    await consumer.stop()
    await admin.close()
    return int(denied is None)


if __name__ == "__main__":
    with data_folder() as folder:
        cluster = LocalKafkaCluster(folder)
        try:
            cluster.start()
            sys.exit(asyncio.run(main(cluster.bootstrap_servers)))
        finally:
            cluster.abandon()
