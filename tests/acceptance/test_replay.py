"""`replay`: gaps are filled, and nothing is published again, whatever is killed on the way."""

import signal
import sys
from uuid import UUID, uuid4

import pytest
from confluent_kafka import TopicPartition

from contracts.version import __version__
from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import group_members, remember_wrongly
from tests.support.kafka_topics import admin_client
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import Workers
from worker.core.steps import Step

pytestmark = pytest.mark.guarantee_2

SCARCE, PLENTY = 1, 2


@pytest.fixture
def replay(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("replay")


def place(scene: Scene, count: int, *, partition: int = 0, product_id: int = PLENTY) -> list[UUID]:
    ids = [uuid4() for _ in range(count)]
    scene.place([order_value(line(product_id), order_id=i) for i in ids], partition=partition)
    return ids


def drained(scene: Scene, workers: Workers, **settings: str) -> None:
    worker = workers.start(**settings)
    scene.wait_until_drained()
    assert worker.stop() == 0


def die_at(workers: Workers, step: Step, *, passed: int = 0) -> None:
    at_step = (sys.executable, "-m", "tests.support.worker_at_step", step.value, "SIGKILL", "1", str(passed))
    worker = workers.start(*at_step, batch_max_records="10", session_timeout_ms="2000")
    assert worker.wait() == -signal.SIGKILL


def nobody_is_in_the_group(scene: Scene) -> None:
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 0, 30)


def replays(scene: Scene) -> list[tuple[int, int, int]]:
    rows = scene.shop.sql("SELECT partition, from_offset, to_offset FROM replays ORDER BY id")
    return [tuple(row) for row in rows]


@pytest.fixture
def gap(scene: Scene, workers: Workers) -> list[UUID]:
    """All orders. Those at the first 40 offsets of partitions 0 and 1 were skipped, and never decided."""
    scene.shop.stock_up({SCARCE: 15, PLENTY: 1_000})
    skipped = place(scene, 37) + place(scene, 19, partition=1)
    seen, last = place(scene, 20, partition=1, product_id=SCARCE), uuid4()
    later = [order_value(line(PLENTY), order_id=last), order_value(line(PLENTY, 3), order_id=uuid4())]
    scene.place([b"{", b"", later[0]], partition=0)  # poison, and what comes again further on
    scene.place([order_value(line(PLENTY, 7), order_id=last)], partition=1)  # in conflict with it
    remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: 40, 1: 40}, metadata="")
    decided = place(scene, 30) + place(scene, 25, partition=1)
    scene.place(later[:1], partition=0)
    drained(scene, workers)
    assert len(scene.outcomes()) == 56
    return [*skipped, *seen, *decided, last]


def test_a_replay_fills_the_gaps_once_although_workers_are_killed(
    scene: Scene, workers: Workers, replay: OrderWorker, gap: list[UUID]
):
    said = replay.here("--to-earliest", "--json").done().document
    assert replays(scene) == [], "a rehearsal changes nothing"
    assert scene.lag() == 0
    assert [(p["partition"], p["target"], p["committed"]) for p in said["partitions"] if p["records"]] == [
        (0, 0, 71),
        (1, 0, 65),
    ]
    assert (said["decided"], said["duplicates"], said["conflicts"], said["poison"]) == (56, 1, 1, 2)
    assert (said["would_confirm"], said["would_reject"]) == (56 + 15, 5)
    assert said["reasons"] == {"insufficient_stock": 5}
    assert said["next_command"] == "order-worker replay --to-earliest --execute"

    # As if PostgreSQL's clock had been set back since then.
    scene.shop.sql("UPDATE order_outcomes SET decided_at = decided_at + interval '1 hour'")
    done = replay("--to-earliest", "--execute", "--json").done().document
    assert done == {**said, "executed": True, "next_command": "order-worker run", "seconds": done["seconds"]}
    assert replays(scene) == [(0, 0, 71), (1, 0, 65)]
    before = scene.shop.stock()
    for step in (Step.BEFORE_KAFKA_COMMIT, Step.AFTER_DATABASE_COMMIT, Step.AFTER_KAFKA_COMMIT):
        die_at(workers, step, passed=1)
    drained(scene, workers, batch_max_records="10")

    scene.assert_promises(gap, dead_letters=3)
    after = scene.shop.stock()
    products = {p["product_id"]: p for p in said["products"]}
    assert {i: p["stock"] for i, p in products.items()} == before
    assert {i: p["left"] for i, p in products.items()} == after
    assert (products[SCARCE]["orders_short_of_it"], products[SCARCE]["contested"]) == (5, False)
    again = replay.here("--to-earliest", "--json").done().document
    assert (again["would_confirm"], again["would_reject"], again["decided"]) == (0, 0, 132)


def test_a_replay_that_was_killed_after_it_was_recorded_is_run_again(
    scene: Scene, workers: Workers, replay: OrderWorker, gap: list[UUID]
):
    program = (
        "import asyncio, os, signal\n"
        "from worker.kafka.offsets import TopicSelection\n"
        "from worker.operations.replay.replay import replay\n"
        "from worker.operations.replay.plan import Target, To\n"
        "from worker.settings import read_settings\n"
        "settings = read_settings()\n"
        "asyncio.run(replay(settings, TopicSelection(settings.order_placed_topic), Target(To.EARLIEST),\n"
        "    execute=True, recorded=lambda: os.kill(os.getpid(), signal.SIGKILL)))\n"
    )
    assert replay.python("-c", program)().code == -signal.SIGKILL
    assert (len(replays(scene)), scene.lag()) == (2, 0), "recorded, and not moved"
    more = place(scene, 5)
    drained(scene, workers)
    assert len(scene.outcomes()) == 56 + 5, "a record without a move does no harm"

    shown = replay("--to-earliest", "--execute")
    assert shown.code == 0, shown.err
    assert "Now start the workers: order-worker run" in shown.out
    drained(scene, workers)
    scene.assert_promises([*gap, *more], dead_letters=3)


def test_what_was_decided_and_not_yet_published_is_published_once_by_a_replay(
    scene: Scene, workers: Workers, replay: OrderWorker
):
    scene.shop.stock_up({PLENTY: 1_000})
    ids = place(scene, 45)
    die_at(workers, Step.AFTER_DATABASE_COMMIT, passed=2)
    published, decided = len(scene.outcomes()), scene.shop.value("SELECT count(*) FROM order_outcomes")
    assert 0 < published < decided
    nobody_is_in_the_group(scene)
    skipping_them = replay.here("--to-offset", str(decided))
    skipping_them.assert_refused(1, f"({decided - published} decided, and perhaps not published)")
    assert replay("--to-earliest", "--execute").code == 0
    drained(scene, workers)
    scene.assert_promises(ids)


def test_outcomes_that_a_frozen_worker_still_holds_are_not_published_twice(
    scene: Scene, workers: Workers, replay: OrderWorker
):
    scene.shop.stock_up({PLENTY: 1_000})
    ids = place(scene, 25)
    at_step = (
        sys.executable,
        "-m",
        "tests.support.worker_at_step",
        Step.BEFORE_KAFKA_COMMIT.value,
        "SIGSTOP",
        "1",
        "1",
    )
    frozen = workers.start(*at_step, batch_max_records="10", session_timeout_ms="2000")
    frozen.wait_for_log("SIGSTOP at before_kafka_commit")
    nobody_is_in_the_group(scene)
    assert replay("--to-earliest", "--execute").code == 0
    frozen.signal(signal.SIGCONT)  # it would commit now
    scene.wait_until_drained()
    assert frozen.stop() == 0
    assert "fenced" in frozen.log
    scene.assert_promises(ids)


def test_a_running_group_is_refused_and_named(scene: Scene, workers: Workers, replay: OrderWorker):
    scene.shop.stock_up({PLENTY: 1_000})
    ids = place(scene, 5)
    workers.start()
    scene.wait_until_drained()
    said = replay.here("--to-earliest")
    worker = f"order-worker-{__version__} at 127.0.0.1"
    assert f"The group is running ({worker}): stop its workers first." in said.out
    replay("--to-earliest", "--execute").assert_refused(1, f"is running: {worker}")
    assert replays(scene) == []
    scene.assert_promises(ids)


def test_what_cannot_be_replayed_is_refused_in_one_line(scene: Scene, workers: Workers, replay: OrderWorker):
    scene.shop.stock_up({PLENTY: 1_000})
    topic = scene.topics.order_placed
    replay.here("--to-earliest").assert_refused(1, "nothing was ever decided by the group")
    ids = place(scene, 30)
    drained(scene, workers)
    wrong: list[tuple[list[str], int, str]] = [
        (["--to-earliest", "--topic", f"{topic}:9"], 2, "has no partition 9: it has 0 to 3"),
        (["--to-earliest", "--topic", f"{topic}:3"], 1, "nothing was ever decided"),
        (["--to-offset", "31"], 2, f"{topic}-0 holds offsets 0 to 30"),
        (["--shift-by", "-31"], 2, f"{topic}-0 holds offsets 0 to 30, and 30 is committed"),
    ]
    for arguments, code, because in wrong:
        replay.here(*arguments, "--execute").assert_refused(code, because)
    deleted = admin_client(scene.kafka).delete_records([TopicPartition(topic, 0, 12)])
    for future in deleted.values():
        future.result(10)
    replay.here("--to-offset", "11").assert_refused(2, "retention has removed the 12 before")
    said = replay.here("--to-earliest", "--json").done().document["partitions"][0]
    assert (said["target"], said["records"], said["remark"]) == (12, 18, "12 before removed by retention")
    assert replays(scene) == []
    scene.forget_offsets()
    replay.here("--to-earliest", "--execute").assert_refused(1, "of the group in")
    drained(scene, workers)
    scene.assert_promises(ids)


def test_a_move_forward_never_skips_undecided_records(scene: Scene, workers: Workers, replay: OrderWorker):
    scene.shop.stock_up({PLENTY: 1_000})
    ids = place(scene, 30)
    drained(scene, workers)
    more = place(scene, 5)
    scene.place([b"{"], partition=0)
    lost = f"{scene.topics.order_placed}-0 30 to 36 (5 undecided, 1 dead letters to write)"
    for arguments in (["--to-latest"], ["--shift-by", "6"], ["--to-offset", "36"]):
        replay.here(*arguments, "--execute").assert_refused(1, lost)
    # A replay may be undone, since all that it would skip then is published, as its record says.
    assert replay.here("--shift-by", "-20", "--execute").code == 0
    replay.here("--to-latest", "--execute").assert_refused(1, "-0 10 to 36 (5 undecided, 1 dead letters")
    undone = replay("--to-offset", "30", "--execute")
    assert "forward from 10 to 30; what it skips is done with" in undone.out, undone.err
    assert scene.lag() == 6
    drained(scene, workers)
    scene.assert_promises([*ids, *more], dead_letters=1)
