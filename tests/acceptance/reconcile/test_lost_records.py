"""`order-worker reconcile`: what was deleted or skipped is named, and not reported as missing."""

import pytest

from tests.acceptance.reconcile.reports import drain, found, judged
from tests.support.builders import line, order_value
from tests.support.order_worker import OrderWorker, Result
from tests.support.promises import Scene
from tests.support.topic_changes import delete_records, set_option
from tests.support.topic_names import TopicNames
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_3


def found_id(result: Result) -> str:
    """Of the one discrepancy there is."""
    (one,) = result.document["found"]
    return str(one["order_id"])


def skip_offsets(scene: Scene, kind: str, first: int, end: int, who: str, note: str) -> None:
    """As a command or a worker records it, of partition 0."""
    scene.shop.sql(
        "INSERT INTO skips (topic, partition, kind, from_offset, to_offset, requested_by, note)"
        " VALUES ($1, 0, $2, $3, $4, $5, $6)",
        *(scene.topics.order_placed, kind, first, end, who, note),
    )


def test_what_retention_has_deleted_is_not_missing(scene: Scene, workers: Workers, reconcile: OrderWorker):
    scene.shop.stock_up({1: 1_000})
    values: list[bytes | None] = [order_value(line(1)) for _ in range(20)]
    scene.place([*values[:10], b"poison", *values[10:], b"poison"], partition=0)
    drain(scene, workers)
    delete_records(scene.kafka, scene.topics.order_placed, {0: 5})
    delete_records(scene.kafka, scene.topics.order_confirmed, {0: 8})
    delete_records(scene.kafka, scene.topics.dead_letter, {0: 1})
    answer = judged(reconcile)
    assert (answer.code, found(answer)) == (0, set())
    assert answer.document["records"] == 17
    assert answer.document["remarks"] == {"input_deleted": 5, "outcome_deleted": 3, "letter_deleted": 1}
    delete_records(scene.kafka, scene.topics.order_confirmed, {0: -1})
    assert judged(reconcile, "--from", "2026-01-01T00:00:00Z").document["remarks"]["outcome_deleted"] == 15


def test_what_compaction_may_have_removed_is_neither_missing_nor_published_again(
    scene: Scene, workers: Workers, reconcile: OrderWorker, aside: TopicNames
):
    scene.shop.stock_up({1: 1_000})
    scene.place([order_value(line(1)), order_value(line(1)), order_value(line(99))], partition=0)
    drain(scene, workers, order_confirmed_topic=aside.order_confirmed)
    assert judged(reconcile).document["discrepancies"] == {"not_told": 2}
    # Of an order that it has removed, by a record without a value, nothing is left after a day.
    set_option(scene.kafka, scene.topics.order_confirmed, "cleanup.policy", "compact,delete")
    answer = judged(reconcile, "--repair", "--execute")
    assert (answer.code, found(answer)) == (0, set())
    assert answer.document["remarks"] == {"outcome_deleted": 2}
    assert scene.confirmed() == []


def test_what_an_operator_skipped_is_counted_as_that_and_named(scene: Scene, reconcile: OrderWorker):
    scene.place([order_value(), b"poison", order_value(), order_value()], partition=0)
    scene.rewind("--to-latest")
    skip_offsets(scene, "skipped", 0, 3, "ada", "bad disk")
    skip_offsets(scene, "skipped", 90, 91, "bob", "of no concern here")
    answer = judged(reconcile)
    assert found(answer) == {("undecided", f"{scene.topics.order_placed}-0@3", found_id(answer))}
    assert answer.document["remarks"] == {"skipped": 3}
    (skip,) = answer.document["skips"]
    assert (skip["from_offset"], skip["to_offset"], skip["requested_by"]) == (0, 3, "ada")
    shown = reconcile.here().out
    assert f"{scene.topics.order_placed}-0: offsets 0 to 2 were skipped by ada at 2" in shown
    assert ": bad disk\n" in shown
    assert "skipped by an operator" in shown

    skip_offsets(scene, "skipped", 3, 4, "ada", "the rest")
    published = reconcile.here().done().out
    assert "nothing is missing but what was skipped or deleted: each of 0 records" in published


def test_what_was_deleted_before_it_was_decided_is_named(
    scene: Scene, workers: Workers, reconcile: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    scene.place([order_value(line(1)) for _ in range(10)], partition=0)
    drain(scene, workers)
    committed = scene.shop.value("SELECT begun_to FROM positions WHERE partition = 0")
    scene.place([order_value(line(1)) for _ in range(5)], partition=0)
    delete_records(scene.kafka, scene.topics.order_placed, {0: committed + 3})

    document = judged(reconcile).document
    assert document["skips"] == []
    assert document["deleted"] == [
        {"partition": 0, "from_offset": committed, "to_offset": committed + 3},
    ]
    words = f"offsets {committed} to {committed + 2} were deleted before they were decided, up to 3 records"
    assert f"{scene.topics.order_placed}-0: {words}\n" in reconcile.here().done().out

    skip_offsets(scene, "deleted", committed, committed + 3, "shop", "found at take-over")
    document = judged(reconcile).document
    assert ([skip["kind"] for skip in document["skips"]], document["deleted"]) == (["deleted"], [])
    assert f"-0: {words} (found 2" in reconcile.here().done().out
    assert judged(reconcile, "--from", "2026-01-01T00:00:00Z").document["skips"] == document["skips"]
