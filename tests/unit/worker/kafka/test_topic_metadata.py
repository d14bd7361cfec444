"""Whether every broker knows the topics, by what each reports of them."""

from collections.abc import Sequence
from typing import Any

from worker.kafka.topic_metadata import first_lacking

PARTITIONS = {"orders": 2, "outcomes": 1}


def topic(name: str, *leaders: int) -> dict[str, Any]:
    """As Kafka's metadata has it: of each partition its leader, or -1."""
    return {"topic": name, "partitions": [{"partition": n, "leader": led} for n, led in enumerate(leaders)]}


def all_known() -> list[dict[str, Any]]:
    return [topic("orders", 1, 2), topic("outcomes", 1)]


def lacking(*answer: Sequence[dict[str, Any]] | None) -> str | None:
    return first_lacking(dict(enumerate(answer, 1)), PARTITIONS)


def test_nothing_is_lacking_where_each_broker_names_a_leader_of_every_partition() -> None:
    assert lacking(all_known(), all_known()) is None
    more = [topic("orders", 1, 2, 1), topic("outcomes", 1)]
    assert lacking(all_known(), more) is None, "somebody has added a partition"


def test_a_broker_that_has_not_heard_of_all_of_it_is_named() -> None:
    unknown = [topic("orders"), topic("outcomes", 1)]
    assert lacking(all_known(), unknown) == "broker 2 knows 0 of 2 partitions of orders"
    half = [topic("orders", 1), topic("outcomes", 1)]
    assert lacking(half, all_known()) == "broker 1 knows 1 of 2 partitions of orders"
    assert lacking([topic("orders", 1, 2)], all_known()) == "broker 1 knows 0 of 1 partitions of outcomes"


def test_a_partition_without_a_leader_is_named() -> None:
    unled = [topic("orders", 1, -1), topic("outcomes", 1)]
    assert lacking(all_known(), unled) == "broker 2 knows no leader of orders-1"


def test_a_broker_that_does_not_answer_is_named() -> None:
    assert lacking(all_known(), None) == "broker 2 does not answer"
