"""How much waits in a worker's memory to be decided, whatever the number of its partitions."""

from typing import Final

from aiokafka import AIOKafkaConsumer

from worker.kafka.internals import limit_partition_fetch

# Enough for the largest batch: 8,000 orders of three items take 2.8 MiB. With 768 KiB for each partition two
# of them gave 4,400, for which worker, PostgreSQL and Kafka took 53 to 56 µs an order; this takes 46 to 50
# (three rounds, two processes), and 4 MiB no less.
FETCHED_AHEAD_BYTES: Final = 3 * 1024 * 1024
# Not less for any partition: an answer of the broker has whole batches of producers, and of at most one
# partition one that is larger than this. 16 partitions have 4 MiB then, and the process 181 to 188 MiB.
PARTITION_LEAST_BYTES: Final = 256 * 1024


def share_out(consumer: AIOKafkaConsumer, partitions: int) -> None:
    """Let the consumer fetch as much ahead in all as `FETCHED_AHEAD_BYTES`, from so many partitions.

    aiokafka knows a limit for each partition only, set before anybody knows how many there will be.
    """
    of_each = max(PARTITION_LEAST_BYTES, FETCHED_AHEAD_BYTES // max(1, partitions))
    limit_partition_fetch(consumer, of_each)
