"""A Kafka broker of one module of tests, which may stop it and change its files."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from worker.sandbox.servers.folders import data_folder
from worker.sandbox.servers.kafka import LocalKafka


@contextmanager
def own_broker(**options: Any) -> Iterator[LocalKafka]:
    """It runs within the block, and is gone with its files afterwards."""
    with data_folder() as folder:
        broker = LocalKafka(folder, **options)
        try:
            broker.start()
            yield broker
        finally:
            broker.abandon()
