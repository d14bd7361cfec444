"""Commands and the page, with one record in each topic whose header name is not UTF-8."""

import json
from uuid import uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.odd_records import publish_odd
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import Workers
from worker.operations.dead_letters.letter import UNMARKED


@pytest.fixture
def order_id(scene: Scene, workers: Workers, order_worker: OrderWorker) -> str:
    """Of a confirmed order, beside a rejected one and a dead letter; behind them all the odd records."""
    scene.shop.stock_up({1: 1_000})
    confirmed = uuid4()
    scene.place(
        [order_value(order_id=confirmed), order_value(line(999)), b"{bad"],
        partition=0,
    )
    publish_odd(scene.kafka, scene.topics.order_placed)
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0
    for topic in (scene.topics.order_confirmed, scene.topics.order_rejected, scene.topics.dead_letter):
        publish_odd(scene.kafka, topic)
    return str(confirmed)


def sentence(topic: str) -> str:
    return f"1 record of {topic}-0 from offset "


def all_of(scene: Scene) -> list[str]:
    names = scene.topics
    return [names.order_placed, names.order_confirmed, names.order_rejected, names.dead_letter]


def test_each_command_continues_past_them_and_counts_them(
    scene: Scene, order_id: str, order_worker: OrderWorker
):
    reconcile_finds_nothing_missing(scene, order_worker)
    explain_continues(scene, order_id, order_worker)
    a_rehearsal_makes_a_dead_letter_of_it(scene, order_worker)
    dead_letters_are_shown_as_others(scene, order_worker)
    lag_names_the_next_record(scene, order_worker)


def reconcile_finds_nothing_missing(scene: Scene, order_worker: OrderWorker) -> None:
    answer = order_worker.here("reconcile")
    document = order_worker.here("reconcile", "--json").document
    # Somebody else has written to the outcome topics: that is what is wrong there, and nothing else is.
    assert document["discrepancies"] == {"outcome_without_row": 2}
    assert (document["records"], document["results"]["dead_letter"]) == (4, 2)
    assert [count["topic"] for count in document["unreadable"]] == sorted(all_of(scene))
    assert {(c["partition"], c["records"], c["read_raw"]) for c in document["unreadable"]} == {(0, 1, True)}
    for topic in all_of(scene):
        assert sentence(topic) in answer.out
    assert "cannot be unpacked (the header name \\xff\\xfe is not UTF-8)." in answer.out


def explain_continues(scene: Scene, order_id: str, order_worker: OrderWorker) -> None:
    answer = order_worker.here("explain", order_id, "--scan", "all").done().out
    assert "Confirmed at " in answer
    for topic in all_of(scene):
        assert sentence(topic) in answer
    facts = order_worker.here("explain", order_id, "--scan", "all", "--json").done().document["facts"]
    assert [count["topic"] for count in facts["unreadable"]] == sorted(all_of(scene))
    assert sentence(scene.topics.order_placed) in order_worker.here("explain", order_id).done().out


def a_rehearsal_makes_a_dead_letter_of_it(scene: Scene, order_worker: OrderWorker) -> None:
    document = order_worker.here("replay", "--to-earliest", "--json").done().document
    assert document["poison_by_code"] == {"not_json": 1, "unreadable": 1}
    ((topic, offset),) = [(c["topic"], c["first_offset"]) for c in document["unreadable"]]
    assert (topic, offset) == (scene.topics.order_placed, 3)
    assert sentence(topic) in order_worker.here("replay", "--to-earliest").done().out


def dead_letters_are_shown_as_others(scene: Scene, order_worker: OrderWorker) -> None:
    answer = order_worker.here("dead-letters", "list").done().out
    assert "unreadable" in answer
    assert sentence(scene.topics.dead_letter) in answer
    groups = order_worker.here("dead-letters", "list", "--json")
    samples = {group["code"]: group["sample"] for group in groups.document}
    assert samples.keys() == {"not_json", "unreadable", UNMARKED}
    assert sentence(scene.topics.dead_letter) in groups.err
    for sample in samples.values():
        assert sample in order_worker.here("dead-letters", "show", sample).done().out
    exported = order_worker.here("dead-letters", "export", "--out", "-")
    assert len([json.loads(row)["error"]["code"] for row in exported.out.splitlines()]) == len(samples)
    assert sentence(scene.topics.dead_letter) in exported.err
    redriven = order_worker.here("dead-letters", "redrive").done()
    assert sentence(scene.topics.dead_letter) in redriven.out


def lag_names_the_next_record(scene: Scene, order_worker: OrderWorker) -> None:
    publish_odd(scene.kafka, scene.topics.order_placed)
    found = order_worker.here("lag", "--json", "--interval", "0.2").done().document
    assert found["lag"] == 1
    (remark,) = found["partitions"][0]["remarks"]
    assert remark.startswith("the next record, at offset ")
    assert "cannot be unpacked (the header name \\xff\\xfe is not UTF-8)" in remark


def test_the_page_shows_them_as_a_note(scene: Scene, order_id: str, workers: Workers):
    worker = workers.start().wait_until_ready()
    status, page = worker.get("/")
    assert status == 200
    for topic in (scene.topics.order_rejected, scene.topics.dead_letter):
        assert sentence(topic) in page
    assert worker.get(f"/explain/{order_id}")[0] == 200
