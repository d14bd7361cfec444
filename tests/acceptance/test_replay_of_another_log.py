"""`replay` where the log has lost what the group committed: cut, recreated, or shortened by retention."""

from uuid import UUID, uuid4

import pytest

from tests.support.builders import line, order_value
from tests.support.group_offsets import remember_wrongly
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.topic_changes import delete_records
from tests.support.worker_process import Workers

pytestmark = [pytest.mark.guarantee_2, pytest.mark.guarantee_3]


@pytest.fixture
def replay(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("replay")


def place(scene: Scene, ids: list[UUID], *, partition: int = 0) -> None:
    scene.place([order_value(line(1), order_id=i) for i in ids], partition=partition)


def drained(scene: Scene, workers: Workers) -> None:
    worker = workers.start()
    scene.wait_until_drained()
    assert worker.stop() == 0


def replays(scene: Scene) -> list[tuple[int, int, int]]:
    rows = scene.shop.sql("SELECT partition, from_offset, to_offset FROM replays ORDER BY id")
    return [tuple(row) for row in rows]


@pytest.fixture
def cut(scene: Scene, workers: Workers) -> list[UUID]:
    """All orders. Fifty were decided; the log holds the first ten of those again, and twenty new ones."""
    scene.shop.stock_up({1: 1_000})
    ids = [uuid4() for _ in range(50)]
    place(scene, ids)
    drained(scene, workers)
    scene.recreate_input_topic()
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 50})
    new = [uuid4() for _ in range(20)]
    place(scene, [*ids[:10], *new])
    return [*ids, *new]


def test_a_group_beyond_the_end_of_the_log_is_moved_back_and_publishes_nothing_twice(
    scene: Scene, workers: Workers, replay: OrderWorker, cut: list[UUID]
):
    said = replay.here("--to-earliest", "--json").done().document
    (partition,) = said["partitions"]
    assert partition["remark"] == "committed 50 lies 20 beyond the end 30: the log was cut or recreated"
    assert (partition["target"], partition["committed"], partition["beyond_end"]) == (0, 50, 20)
    assert (said["records"], said["decided"], said["would_confirm"]) == (30, 10, 20)
    assert (replays(scene), scene.lag()) == ([], -20), "a rehearsal changes nothing"

    done = replay("--to-earliest", "--execute")
    assert done.code == 0, done.err
    assert "lies 20 beyond the end 30" in done.out
    assert (replays(scene), scene.lag()) == ([(0, 0, 50)], 30)
    more = [uuid4() for _ in range(30)]
    place(scene, more)  # past where the group was
    drained(scene, workers)
    scene.assert_promises([*cut, *more])


def test_undecided_orders_are_not_skipped_on_the_way_back(
    scene: Scene, workers: Workers, replay: OrderWorker, cut: list[UUID]
):
    for arguments in (["--to-latest"], ["--to-offset", "11"], ["--shift-by", "-20"]):
        replay.here(*arguments, "--execute").assert_refused(1, "undecided)")
    assert replays(scene) == []
    # What `reconcile` advises: the first ten are decided.
    assert replay.here("--to-offset", "10", "--execute").code == 0
    assert (replays(scene), scene.lag()) == ([(0, 10, 50)], 20)
    drained(scene, workers)
    scene.assert_promises(cut)


def test_a_group_that_kafka_has_forgotten_as_well_is_moved_back(
    scene: Scene, workers: Workers, replay: OrderWorker, cut: list[UUID]
):
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 5})
    said = replay.here("--to-earliest", "--execute", "--json").done().document
    assert [(p["committed"], p["beyond_end"]) for p in said["partitions"]] == [(50, 20)]
    drained(scene, workers)
    scene.assert_promises(cut)


def test_records_deleted_before_they_were_decided_are_reported_and_skipped(
    scene: Scene, workers: Workers, replay: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    ids = [uuid4() for _ in range(30)]
    place(scene, ids[:10])
    place(scene, ids[10:20], partition=1)
    drained(scene, workers)
    place(scene, [uuid4() for _ in range(5)] + ids[20:])
    delete_records(scene.kafka, scene.topics.order_placed, {0: 15})

    said = replay.here("--to-earliest", "--execute", "--json").done().document
    assert [(p["partition"], p["target"], p["deleted"], p["remark"]) for p in said["partitions"]] == [
        (0, 15, 5, "5 deleted before they were decided, from 10 on"),
        (1, 0, 0, ""),
    ]
    assert scene.lag() == 20
    noted = scene.shop.sql("SELECT partition, from_offset, to_offset, kind FROM skips")
    assert [tuple(row) for row in noted] == [(0, 10, 15, "deleted")]
    drained(scene, workers)
    scene.assert_promises(ids)
