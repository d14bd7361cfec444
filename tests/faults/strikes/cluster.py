"""Faults of a cluster of three brokers: one goes away, and the two others carry on."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.faults.arena import Arena
from tests.faults.cluster import GROUPS, TRANSACTIONS, LocalKafkaCluster


def leader_killed(arena: Arena) -> None:
    """`kill -9` of the broker that leads an input partition, then of the one in charge of the group, then of
    a transaction; the other two decide and publish what comes meanwhile.
    """
    cluster = arena.site.kafka
    assert isinstance(cluster, LocalKafkaCluster)
    placed, group = arena.scene.topics.order_placed, arena.scene.group_id
    partition = arena.chance.choice(sorted({record.partition for record in arena.workload.records}))
    victims = (
        partial(cluster.leader, placed, partition),
        partial(cluster.coordinator_of, GROUPS, group),
        partial(cluster.coordinator_of, TRANSACTIONS, f"{group}.{placed}.{partition}"),
    )
    for victim in victims:
        arena.some_progress()
        arena.feed(1 / 16)
        node_id = victim()
        cluster.crash(node_id)
        arena.injected += 1
        arena.feed(1 / 16)
        # Decided is not enough, for that takes the database alone: the offsets are in Kafka's transactions.
        arena.until(lambda: arena.scene.lag() == 0)
        # It comes back under load, and is in sync again before the next one goes: two copies are always left.
        with ThreadPoolExecutor(1) as pool:
            back = pool.submit(cluster.restart, node_id)
            for _ in range(4):
                arena.feed(1 / 64)
                arena.until(lambda: arena.scene.lag() == 0)
        back.result()
