"""The faults a run may meet, by name, and the short list of them that every push meets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.faults.arena import Arena
from tests.faults.strikes import Strike, broker, cluster, database, network, processes, topics, volume
from worker.core.steps import Step


@dataclass(frozen=True)
class Fault:
    """The strike of a run, and the servers that it needs."""

    strike: Strike
    networked: bool = False
    """its workers reach their servers through the site's networks"""
    three_brokers: bool = False
    with_standby: bool = False
    """PostgreSQL has a standby; networked: and a pooler is between"""
    needs_root: bool = False

    @property
    def summary(self) -> str:
        return (self.strike.__doc__ or "").strip().splitlines()[0]


def mixed(arena: Arena) -> None:
    """Some of the others, one after the other, in an order of the seed's."""
    chosen = [
        processes.kill_at_random,
        processes.stop_at_random,
        processes.rebalance_storm,
        processes.zombie_at(Step.AFTER_SENDS),
        database.terminate_backends,
        database.crash,
        database.freeze,
        database.locked_products,
        network.cut(network.to_database),
        network.cut(network.to_kafka),
        network.lost_commit_replies,
        broker.freeze,
    ]
    for strike in arena.chance.sample(chosen, 4):
        strike(arena)


def _named(step: Step) -> str:
    return step.value.replace("_", "-")


FAULTS: Final[Mapping[str, Fault]] = {
    "none": Fault(processes.nothing),
    **{f"crash-{_named(step)}": Fault(processes.crash_at(step)) for step in Step},
    **{f"zombie-{_named(step)}": Fault(processes.zombie_at(step)) for step in Step},
    "late-commit": Fault(processes.late_commit),
    "small-batches": Fault(processes.small_batches),
    "stall": Fault(processes.stall),
    "transaction-timeout": Fault(processes.transaction_timeout),
    "kill": Fault(processes.kill_at_random),
    "terminate": Fault(processes.stop_at_random),
    "rebalance": Fault(processes.rebalance_storm),
    "one-name": Fault(processes.one_name),
    "rewind": Fault(processes.rewind_to_the_beginning),
    "rewind-by-time": Fault(processes.rewind_by_time),
    "backends": Fault(database.terminate_backends),
    "database-crash": Fault(database.crash),
    "database-immediate": Fault(database.immediate_stop),
    "database-restart": Fault(database.restart),
    "database-freeze": Fault(database.freeze),
    "database-freeze-kill": Fault(database.kill_while_frozen),
    "database-failover": Fault(database.fail_over, with_standby=True),
    "database-failover-pooled": Fault(database.fail_over, with_standby=True, networked=True),
    "database-cut": Fault(network.cut(network.to_database), networked=True),
    "database-half-open": Fault(network.half_open(network.to_database), networked=True),
    "database-slow": Fault(network.slow(network.to_database), networked=True),
    "database-commit-reply": Fault(network.lost_commit_replies, networked=True),
    "database-full-disk": Fault(database.full_disk, needs_root=True),
    "locks": Fault(database.locked_products),
    "reverse-locks": Fault(database.reverse_lockers),
    "alter-table": Fault(database.alter_table),
    "constraint": Fault(database.impossible_constraint),
    "trigger-leaves-out": Fault(database.trigger_that_leaves_out),
    "trigger-raises": Fault(database.trigger_that_raises),
    "asynchronous-commits": Fault(database.asynchronous_commits),
    "broker-crash": Fault(broker.crash),
    "broker-restart": Fault(broker.restart),
    "broker-freeze": Fault(broker.freeze),
    "broker-cut": Fault(network.cut(network.to_kafka), networked=True),
    "broker-half-open": Fault(network.half_open(network.to_kafka), networked=True),
    "broker-slow": Fault(network.slow(network.to_kafka), networked=True),
    "broker-replies": Fault(network.lost_kafka_replies, networked=True),
    "leader-killed": Fault(cluster.leader_killed, three_brokers=True),
    "cluster-crash": Fault(broker.crash, three_brokers=True),
    "forgotten-offsets": Fault(broker.forgotten_offsets),
    "refused-sends": Fault(broker.refused_sends),
    "refused-sends-in-parts": Fault(broker.refused_sends_in_parts),
    "odd-header-names": Fault(topics.odd_header_names),
    "broken-batches": Fault(volume.broken_batches),
    "restored-volume": Fault(volume.restored_volume),
    "settings-changed": Fault(topics.settings_changed),
    "partitions-added": Fault(topics.partitions_added),
    "deleted-records": Fault(topics.deleted_records),
    "group-renamed": Fault(topics.group_renamed),
    "foreign-consumer": Fault(topics.foreign_consumer),
    "clocks": Fault(topics.clocks_are_off),
    "mixed": Fault(mixed, networked=True),
}

# Every kind of fault, the quick ones of each: three seeds of these are what CI has the time for.
SHORT: Final = (
    "crash-after-database-commit",
    "crash-after-send",
    "crash-before-kafka-commit",
    "zombie-after-sends",
    "kill",
    "rebalance",
    "rewind",
    "backends",
    "database-crash",
    "database-failover",
    "database-commit-reply",
    "broker-crash",
    "broker-cut",
    "locks",
    "constraint",
    "odd-header-names",
    "settings-changed",
)
