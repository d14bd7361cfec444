"""`topics create` says what the brokers have, the moment after as well."""

from uuid import uuid4

import pytest

from tests.support.kafka_topics import admin_client, delete_topics
from tests.support.order_worker import OrderWorker, order_worker_in
from worker.sandbox.servers.services import Services

VARIABLES = ("ORDER_PLACED_TOPIC", "ORDER_CONFIRMED_TOPIC", "ORDER_REJECTED_TOPIC", "DEAD_LETTER_TOPIC")
KEPT = ("14 days", "14 days", "14 days", "30 days")
TIMES = 8


@pytest.mark.timeout(300)
def test_what_it_says_of_fresh_topics_is_true_each_of_eight_times(services: Services, env: dict[str, str]):
    for turn in range(TIMES):
        names = [f"fresh-{turn}-{number}-{uuid4().hex[:8]}" for number in range(len(VARIABLES))]
        fresh = {f"ORDER_WORKER_{v}": name for v, name in zip(VARIABLES, names, strict=True)}
        with order_worker_in(env | fresh) as order_worker:
            try:
                assert_published_truly(order_worker, services.kafka_bootstrap_servers, names)
            finally:
                delete_topics(services.kafka_bootstrap_servers, names)


def assert_published_truly(order_worker: OrderWorker, kafka: str, names: list[str]) -> None:
    rows = [
        row.split()
        for row in order_worker.here("topics", "create", "--partitions", "3").done().out.splitlines()
    ]
    answer = [(row[0], *row[1:4], " ".join(row[4:6])) for row in rows if row[0] in names]
    assert answer == [(name, "created", "3", "1", kept) for name, kept in zip(names, KEPT, strict=True)], rows
    assert all(int(row[-2].replace(",", "")) >= 1024 for row in rows if row[0] in names), rows
    there = admin_client(kafka).list_topics(timeout=10).topics
    assert [len(there[name].partitions) for name in names] == [3] * 4
    # What `run` asks first.
    missing = order_worker.here("lag", "--interval", "0.2")
    assert missing.code == 0, missing
