"""`replay --from-group`: a group that gets another name publishes nothing again, whatever was under way."""

import signal
import sys
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from confluent_kafka import KafkaException, Producer

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import group_members, remember_wrongly
from tests.support.json_schema import faults
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.worker_process import WorkerProcess, Workers
from worker.core.steps import Step

pytestmark = pytest.mark.guarantee_2


@pytest.fixture
def renamed(scene: Scene) -> Scene:
    """The same shop and topics, with the group's new name."""
    return replace(scene, group_id=f"{scene.group_id}-new")


@pytest.fixture
def take_over(order_worker: OrderWorker, scene: Scene, renamed: Scene) -> OrderWorker:
    """The command, as the new group."""
    env = {**order_worker.env, "ORDER_WORKER_GROUP_ID": renamed.group_id}
    return replace(order_worker, env=env).of("replay", "--from-group", scene.group_id)


def place(scene: Scene, count: int, *, partition: int = 0) -> list[UUID]:
    ids = [uuid4() for _ in range(count)]
    scene.place([order_value(line(1), order_id=i) for i in ids], partition=partition)
    return ids


def drained(scene: Scene, workers: Workers, **settings: str) -> None:
    worker = workers.start(group_id=scene.group_id, **settings)
    scene.wait_until_drained()
    assert worker.stop() == 0


def at_step(workers: Workers, step: Step, action: str, *, passed: int = 0) -> WorkerProcess:
    command = (sys.executable, "-m", "tests.support.worker_at_step", step.value, action, "1", str(passed))
    return workers.start(*command, batch_max_records="10", session_timeout_ms="2000")


def nobody_is_in_the_group(scene: Scene) -> None:
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 0, 30)


@pytest.fixture
def decided(scene: Scene, workers: Workers) -> list[UUID]:
    """Orders that the old group has decided, in two of four partitions, in two batches at least."""
    scene.shop.stock_up({1: 1_000})
    ids = place(scene, 30)
    drained(scene, workers)
    ids += place(scene, 10) + place(scene, 20, partition=1)
    drained(scene, workers)
    return ids


def test_a_group_continues_under_another_name_and_publishes_nothing_again(
    scene: Scene, renamed: Scene, workers: Workers, take_over: OrderWorker, decided: list[UUID]
):
    more = place(scene, 15)
    said = take_over.here("--json").done().document
    assert faults(said, "replay") == []
    stages = ["to be taken over"] * 2 + ["the old group has decided nothing"] * 2
    assert [p["stage"] for p in said["partitions"]] == stages
    assert [(p["old_committed"], p["old_decided_to"], p["committed"]) for p in said["partitions"][:2]] == [
        (40, 40, None),
        (20, 20, None),
    ]
    assert said["next_command"] == f"order-worker replay --from-group {scene.group_id} --execute"
    assert renamed.shop.value("SELECT count(DISTINCT group_id) FROM positions") == 1
    assert renamed.lag() == 75, "a rehearsal changes nothing"

    done = take_over("--execute")
    assert done.code == 0, done.err
    assert "done." in done.out
    assert renamed.lag() == 15
    assert "All is taken over" not in done.err
    drained(renamed, workers)
    renamed.assert_promises([*decided, *more])
    again = take_over.here("--execute", "--json").done().document
    assert {p["stage"] for p in again["partitions"]} == {"taken over", "the old group has decided nothing"}
    assert again["next_command"] == "order-worker run"
    assert renamed.lag() == 0, "what the new group has decided since stays"


def test_workers_of_the_new_name_wait_for_it_and_continue_by_themselves(
    scene: Scene, renamed: Scene, workers: Workers, take_over: OrderWorker, decided: list[UUID]
):
    more = place(scene, 15)
    worker = workers.start(group_id=renamed.group_id)
    worker.wait_for_log("replay --from-group")
    status, why = worker.get("/readyz")
    assert (status, f"order-worker replay --from-group {scene.group_id}" in why) == (503, True)
    assert take_over("--execute").code == 0
    renamed.wait_until_drained()
    assert worker.stop() == 0
    renamed.assert_promises([*decided, *more])


def test_outcomes_in_a_frozen_worker_of_the_old_group_are_not_published_twice(
    scene: Scene, renamed: Scene, workers: Workers, take_over: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    ids = place(scene, 25)
    frozen = at_step(workers, Step.BEFORE_KAFKA_COMMIT, "SIGSTOP", passed=1)
    frozen.wait_for_log("SIGSTOP at before_kafka_commit")
    nobody_is_in_the_group(scene)
    assert take_over("--execute").code == 0
    drained(renamed, workers)
    renamed.assert_promises(ids)
    frozen.kill()
    renamed.assert_promises(ids)


@pytest.mark.parametrize("answer", [None, 5], ids=["nothing", "an offset of long ago"])
def test_what_kafka_has_forgotten_of_the_old_group_is_found_out(
    scene: Scene,
    renamed: Scene,
    workers: Workers,
    take_over: OrderWorker,
    decided: list[UUID],
    answer: int | None,
):
    scene.forget_offsets()
    if answer is not None:
        remember_wrongly(scene.kafka, scene.group_id, scene.topics.order_placed, {0: answer})
    said = take_over.here("--json").done().document
    assert "its workers came to 30 at least" in said["partitions"][0]["remark"]
    assert take_over("--execute").code == 0
    assert renamed.lag() == 0
    more = place(scene, 5)
    drained(renamed, workers)
    renamed.assert_promises([*decided, *more])


def test_a_replay_of_the_old_group_that_has_not_begun_is_one_of_the_new_group(
    scene: Scene,
    renamed: Scene,
    workers: Workers,
    take_over: OrderWorker,
    order_worker: OrderWorker,
    decided: list[UUID],
):
    assert order_worker("replay", "--to-offset", "10", "--execute").code == 0
    said = take_over.here("--execute", "--json").done().document
    assert [p["committed"] for p in said["partitions"][:2]] == [10, 10]
    worker = workers.start(group_id=renamed.group_id)
    renamed.wait_until_drained()
    assert "order_worker_orders_silenced_total 40.0" in worker.get("/metrics")[1]
    assert worker.stop() == 0
    renamed.assert_promises(decided)


@pytest.mark.parametrize("started_before", [False, True], ids=["run again", "workers started instead"])
def test_a_takeover_that_was_killed_half_way_may_be_run_again_or_left(
    scene: Scene,
    renamed: Scene,
    workers: Workers,
    take_over: OrderWorker,
    decided: list[UUID],
    started_before: bool,
):
    program = (
        "import asyncio, os, signal, sys\n"
        "from worker.operations.replay.from_group import from_group\n"
        "from worker.kafka.offsets import TopicSelection\n"
        "from worker.settings import read_settings\n"
        "settings = read_settings()\n"
        "asyncio.run(from_group(settings, sys.argv[3], TopicSelection(settings.order_placed_topic),\n"
        "    execute=True, copied=lambda: os.kill(os.getpid(), signal.SIGKILL)))\n"
    )
    assert take_over.python("-c", program)().code == -signal.SIGKILL
    assert renamed.lag() == 60, "copied, and not committed"
    if not started_before:
        assert take_over("--execute").code == 0
        assert renamed.lag() == 0
    more = place(scene, 5)
    drained(renamed, workers)
    renamed.assert_promises([*decided, *more])


def test_a_try_of_the_old_group_to_publish_what_was_refused_can_be_committed_no_more(
    scene: Scene, take_over: OrderWorker, decided: list[UUID]
):
    topic = scene.topics.order_placed
    name = f"{scene.group_id}.{topic}.0.withheld"
    tried = Producer({"bootstrap.servers": scene.kafka, "transactional.id": name, "log_level": 0})
    tried.init_transactions(20)
    tried.begin_transaction()
    tried.produce(scene.topics.order_confirmed, b"outcome", partition=0)
    assert tried.flush(20) == 0
    scene.shop.sql(
        "INSERT INTO withheld_outcomes (order_id, topic, source_topic, source_partition, source_offset,"
        " headers, size_bytes, reason, what_to_do) VALUES ($1, $2, $3, 0, 0, '[]', 1, 'refused', 'wait')",
        decided[0],
        scene.topics.order_confirmed,
        topic,
    )
    take_over.here("--execute", "--json").done()
    with pytest.raises(KafkaException):
        tried.commit_transaction(20)


def test_dead_letters_that_the_old_group_redrives_go_with_it(
    scene: Scene, renamed: Scene, take_over: OrderWorker, decided: list[UUID]
):
    scene.shop.sql(
        "INSERT INTO dead_letter_redrives (id, run_id, group_id, requested_by, source_topic,"
        " source_partition, source_offset, letter_topic, letter_partition, letter_offset,"
        " error_code, error_path, input_partition, input_from)"
        " VALUES ($1, $1, $2, 'Ann', $3, 0, 0, 'letters', 0, 0, 'not_json', '', 0, 0)",
        uuid4(),
        scene.group_id,
        scene.topics.order_placed,
    )
    assert "1 dead letters that are being redriven go with it" in take_over.here().out
    take_over.here("--execute", "--json").done()
    assert scene.shop.value("SELECT group_id FROM dead_letter_redrives") == renamed.group_id


def test_the_last_of_several_earlier_names_is_asked_for_and_others_are_refused(
    scene: Scene, renamed: Scene, workers: Workers, take_over: OrderWorker, decided: list[UUID]
):
    take_over.here("--execute", "--json").done()
    more = place(scene, 15)
    drained(renamed, workers)
    last = replace(scene, group_id=f"{scene.group_id}-a-third-name")
    waiting = workers.start(group_id=last.group_id)
    waiting.wait_for_log(f"replay --from-group {renamed.group_id}`")
    assert f"--from-group {scene.group_id}`" not in waiting.log
    assert waiting.stop() == 0
    env = {**take_over.env, "ORDER_WORKER_GROUP_ID": last.group_id}
    as_last = replace(take_over, env=env, words=("replay",))
    named = f"replay --from-group {renamed.group_id}"
    as_last.here("--to-earliest").assert_refused(1, named)
    earlier = as_last.here("--from-group", scene.group_id, "--execute")
    earlier.assert_refused(1, f"{renamed.group_id} has decided {scene.topics.order_placed}-0 to 55", named)
    as_last.here("--from-group", renamed.group_id, "--execute", "--json").done()
    more += place(scene, 5)
    drained(last, workers)
    last.assert_promises([*decided, *more])


def test_what_cannot_be_taken_over_is_refused_in_one_line(
    scene: Scene,
    renamed: Scene,
    workers: Workers,
    take_over: OrderWorker,
    order_worker: OrderWorker,
    decided: list[UUID],
):
    of_itself = order_worker.here("replay", "--from-group", scene.group_id, "--execute")
    of_itself.assert_refused(2, "is ORDER_WORKER_GROUP_ID itself")
    unknown = replace(take_over, words=("replay", "--from-group", "unknown"))
    unknown.here("--execute").assert_refused(1, "the group unknown has committed nothing in")
    earliest = replace(take_over, words=("replay",)).here("--to-earliest", "--execute")
    earliest.assert_refused(1, f"replay --from-group {scene.group_id} --execute`), then run this again")

    running = workers.start().wait_until_ready()
    eventually(lambda: group_members(scene.kafka, scene.group_id) == 1)
    assert "stop its workers first" in take_over.here().out
    take_over.here("--execute").assert_refused(1, f"the group {scene.group_id} is running")
    assert running.stop() == 0

    remember_wrongly(scene.kafka, renamed.group_id, scene.topics.order_placed, {0: 7})
    own = f"has an offset of its own in {scene.topics.order_placed}-0 (offset 7, {scene.group_id}: offset 40"
    take_over.here("--execute").assert_refused(1, own)
    assert scene.shop.value("SELECT count(DISTINCT group_id) FROM positions") == 1
