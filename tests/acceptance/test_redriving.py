"""Dead letters sent again: each once, a few first, and only those that were meant."""

import signal
import sys
from collections import Counter
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition

from tests.support.builders import line, order_value
from tests.support.deadline import eventually
from tests.support.group_offsets import group_members
from tests.support.kafka_topics import admin_client
from tests.support.order_worker import OrderWorker, ended
from tests.support.promises import Scene
from tests.support.publishing import publish
from tests.support.redriving import (
    FIX,
    PATH,
    assert_each_sent_once,
    assert_promises,
    is_stopped,
    killed_at,
    place_broken,
    redriven,
    statuses,
)
from tests.support.topic_changes import set_largest_record
from tests.support.worker_process import Workers

pytestmark = pytest.mark.guarantee_1


@pytest.fixture
def dead_letters(order_worker: OrderWorker) -> OrderWorker:
    return order_worker.of("dead-letters")


@pytest.fixture
def worker_runs(scene: Scene, workers: Workers) -> None:
    scene.shop.stock_up({1: 1_000_000})
    workers.start().wait_until_ready()


@pytest.mark.usefixtures("worker_runs")
def test_a_hundred_letters_with_a_mended_cause_succeed_once_each(scene: Scene, dead_letters: OrderWorker):
    ids = place_broken(scene, 60) + place_broken(scene, 40, partition=3)
    rehearsal = dead_letters.here("redrive", "--path", PATH, *FIX, "--json").document
    assert (rehearsal["selection"]["letters"], rehearsal["steps"]) == (100, [1, 2, 5, 10, 20, 50, 12])
    changes = rehearsal["selection"]["changes"]
    assert {"field": PATH, "old": "0", "new": "2"}.items() <= changes[0].items()
    assert (redriven(scene), statuses(scene)) == ([], Counter())

    done = dead_letters("redrive", "--path", PATH, *FIX, "--execute", "--by", "Ann", "--json")
    assert done.code == 0, done.err
    assert (done.document["sent"], done.document["results"]) == (100, {"decided": 100})
    assert {m.event["order_id"] for m in scene.confirmed()} == {str(i) for i in ids}
    assert scene.shop.stock() == {1: 1_000_000 - 200}
    assert_promises(scene, ids, 100, [1, 3])
    assert_each_sent_once(scene)
    (who,) = scene.shop.sql(
        "SELECT DISTINCT requested_by, changed_field, old_value, new_value, status, result"
        " FROM dead_letter_redrives"
    )
    assert tuple(who) == ("Ann", PATH, "0", "2", "decided", "confirmed")
    assert scene.shop.value("SELECT bool_and(finished_at >= requested_at) FROM dead_letter_redrives")

    dead_letters.here("redrive", *FIX, "--execute").assert_one_line(1, "100 redriven before")
    (group,) = dead_letters.here("list", "--json").document
    assert (group["count"], group["path"], group["redriven"]) == (100, PATH, {"decided": 100})
    shown = dead_letters.here("show", "1:7").out
    assert "by Ann, items.0.quantity: 0 → 2, sent as 1:" in shown
    assert "decided: confirmed" in shown


@pytest.mark.usefixtures("worker_runs")
def test_a_cause_that_is_still_there_stops_at_the_canary(scene: Scene, dead_letters: OrderWorker):
    place_broken(scene, 20)
    stopped = dead_letters("redrive", "--execute")
    stopped.assert_one_line(1, "1 of 1 dead letter failed again", f"invalid_order at {PATH}", "show 1:")
    assert "1 of 20 dead letters sent: 1 failed." in stopped.out
    assert "free for a later run: 19" in stopped.out
    assert (len(redriven(scene)), statuses(scene)) == (1, {"failed": 1})
    process = dead_letters.start("redrive", *FIX, "--execute", "--rate", "2")
    eventually(lambda: statuses(scene)["decided"] >= 2)
    process.send_signal(signal.SIGINT)
    interrupted = ended(process)
    assert (interrupted.code, interrupted.err) == (130, "")
    assert statuses(scene)["claimed"] <= 1, "what is not in doubt is free"
    # The one that failed again is a new letter, and goes with the others this time; its old place does not.
    again = dead_letters.here("redrive", *FIX, "--execute", "--json").document
    assert list(again["results"]) == ["decided"]
    assert statuses(scene) == {"decided": 20, "failed": 1}
    assert_each_sent_once(scene)
    (newest,) = [m for m in scene.dead_letters() if m.header("redrive.id")]
    assert "was sent by  the redrive of 1:0" in dead_letters.here("show", f"1:{newest.offset}").out


@pytest.mark.usefixtures("worker_runs")
def test_what_fails_or_arrives_after_the_start_is_not_in_the_set(scene: Scene, dead_letters: OrderWorker):
    place_broken(scene, 8)
    running = dead_letters.start("redrive", "--execute", "--max-failures", "1", "--rate", "4", "--json")
    eventually(lambda: statuses(scene)["failed"])
    place_broken(scene, 5, partition=2)
    done = ended(running).document
    assert (done["selection"]["letters"], done["sent"], done["results"]) == (8, 8, {"failed": 8})
    assert len(scene.dead_letters()) == 8 + 8 + 5


@pytest.mark.usefixtures("worker_runs")
def test_killed_anywhere_and_run_again_each_letter_is_sent_once(scene: Scene, dead_letters: OrderWorker):
    ids = place_broken(scene, 40) + place_broken(scene, 10, partition=2)
    for step in ("claimed 1", "committed 3", "sent 2", "marked 1"):
        assert killed_at(dead_letters, step)("redrive", *FIX, "--execute").code == -signal.SIGKILL, step
    rehearsal = dead_letters.here("redrive", *FIX, "--patience", "50").done().out
    assert "of a redrive that was interrupted" in rehearsal
    assert rehearsal.endswith(f"\norder-worker dead-letters redrive --set {PATH}=2 --patience 50 --execute\n")
    doubted = killed_at(dead_letters, "doubted 2")("redrive", *FIX, "--execute")
    doubted.assert_one_line(1, "Kafka stopped taking letters", "run the same again")
    assert statuses(scene)["claimed"] == 2
    done = dead_letters.here("redrive", *FIX, "--execute", "--json")
    assert done.code == 0, done.err
    assert done.document["earlier"] == {"released": 0, "results": {"decided": 2}}
    assert statuses(scene) == {"decided": 50}
    assert_each_sent_once(scene)
    assert_promises(scene, ids, 50, [1, 2])


@pytest.mark.usefixtures("worker_runs")
def test_a_second_redrive_ends_the_first_and_sends_nothing_twice(scene: Scene, dead_letters: OrderWorker):
    ids = place_broken(scene, 12)
    first = dead_letters.start("redrive", *FIX, "--execute", "--rate", "2")
    eventually(lambda: statuses(scene)["decided"] >= 3)
    second = dead_letters.here("redrive", *FIX, "--execute", "--json")
    assert second.code == 0, second.err
    ended(first).assert_one_line(1, "another redrive for the group", "has begun")
    assert statuses(scene) == {"decided": 12}
    assert_each_sent_once(scene)
    assert_promises(scene, ids, 12, [1])


@pytest.mark.usefixtures("worker_runs")
def test_of_commands_that_begin_at_once_one_does_what_all_were_asked_for(
    scene: Scene, dead_letters: OrderWorker
):
    ids = [order_id for partition in range(4) for order_id in place_broken(scene, 50, partition)]
    redrives = [dead_letters.start("redrive", *FIX, "--execute") for _ in range(3)]
    results = [ended(process) for process in redrives]
    assert sorted(result.code for result in results) == [0, 1, 1], results
    assert statuses(scene) == {"decided": 200}
    settle = ("settle", "--code", "invalid_order", "--note", "x", "--execute")
    settles = sorted(
        [*map(ended, [dead_letters.start(*settle) for _ in range(2)])], key=lambda result: result.code
    )
    assert "200 dead letters settled" in settles[0].out, settles
    settles[1].assert_one_line(1, "nothing to settle: 200 settled already")
    assert_each_sent_once(scene)
    assert_promises(scene, ids, 200, range(4))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows that it hangs")
@pytest.mark.usefixtures("worker_runs")
def test_a_redrive_that_hangs_frees_nothing_that_a_later_one_has_sent(
    scene: Scene, dead_letters: OrderWorker
):
    place_broken(scene, 12)
    again = ("redrive", *FIX, "--execute")
    assert killed_at(dead_letters, "claimed 1")(*again).code == -signal.SIGKILL
    hanging = killed_at(dead_letters, "recovered 1").start(*again)
    eventually(lambda: is_stopped(hanging.pid), 30)
    assert killed_at(dead_letters, "committed 3")(*again).code == -signal.SIGKILL
    hanging.send_signal(signal.SIGCONT)
    ended(hanging).assert_one_line(1, "3 redriven before", "9 claimed by a redrive that has not ended")
    done = dead_letters.here(*again, "--json").done().document
    assert done["earlier"] == {"released": 4, "results": {"decided": 5}}
    assert statuses(scene) == {"decided": 12}
    assert_each_sent_once(scene)


@pytest.mark.usefixtures("worker_runs")
def test_a_conflict_is_redriven_under_a_new_id_and_only_so(scene: Scene, dead_letters: OrderWorker):
    first, new = uuid4(), uuid4()
    values = [order_value(line(1, quantity), order_id=first) for quantity in (1, 2)]
    scene.place(values, partition=2)
    # The sender fixes this one as well, and sends it under the same id.
    (twice,) = place_broken(scene, 1)
    scene.place([order_value(line(1, 2), order_id=twice)], partition=0)
    scene.wait_until_drained()
    everything = dead_letters.here("redrive", "--set", f'order_id="{new}"', "--execute")
    everything.assert_one_line(1, "1:0", "makes it no order", "nothing was sent")
    assert redriven(scene) == []

    done = dead_letters.here("redrive", "2:0", "--set", f'order_id="{new}"', "--execute", "--json").document
    assert done["results"] == {"decided": 1}
    (sent,) = redriven(scene)
    assert (sent.key, sent.event["order_id"]) == (str(new).encode(), str(new))
    assert [name for name, _ in sent.headers] == ["redrive.id"]
    done = dead_letters.here("redrive", "1:0", *FIX, "--execute", "--json").document
    assert done["results"] == {"duplicate": 1}
    assert_promises(scene, [first, new, twice], 2, [1, 2])


def test_without_a_worker_nothing_is_sent_and_one_that_stops_is_waited_for(
    scene: Scene, workers: Workers, dead_letters: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    worker = workers.start().wait_until_ready()
    ids = place_broken(scene, 4)
    worker.signal(signal.SIGSTOP)
    stuck = dead_letters.here("redrive", *FIX, "--execute", "--patience", "1")
    stuck.assert_one_line(
        1, "make no progress", "sent and not handled: 1 (1 s without progress)", "run the same again"
    )
    assert statuses(scene) == {"sent": 1}
    worker.signal(signal.SIGCONT)
    assert worker.stop() == 0
    refused = dead_letters("redrive", *FIX, "--execute")
    refused.assert_one_line(1, "no worker of the group", "`order-worker run`", "nothing was sent")
    assert len(redriven(scene)) == 1
    workers.start().wait_until_ready()
    eventually(lambda: group_members(scene.kafka, scene.group_id))  # a worker is ready before it has joined
    done = dead_letters.here("redrive", *FIX, "--execute", "--json").document
    assert (done["earlier"]["results"], done["results"]) == ({"decided": 1}, {"decided": 3})
    assert_each_sent_once(scene)
    assert_promises(scene, ids, 4, [1])


def test_a_cut_letter_is_sent_whole_and_left_out_where_that_is_gone(
    scene: Scene, workers: Workers, dead_letters: OrderWorker
):
    scene.shop.stock_up({1: 100_000})
    set_largest_record(scene.kafka, scene.topics.dead_letter, 60_000)
    workers.start().wait_until_ready()
    ids = [uuid4(), uuid4()]
    values = [order_value(line(1, 0), *[line(1)] * 900, order_id=i, note="é" * 30_000) for i in ids]
    for number, value in enumerate(values):
        publish(
            *(scene.kafka, scene.topics.order_placed, [value]),
            partition=number,
            key=b"\xff\x00",
            headers=[("x", b"\xff")],
        )
    scene.wait_until_drained()
    shown = dead_letters("show", "0:0").out
    assert f"(cut from {len(values[0]):,} bytes)" in shown
    assert "characters more: see --json or export" in shown
    done = dead_letters.here("redrive", "0:0", *FIX, "--execute", "--json")
    assert done.document["results"] == {"decided": 1}, done.err
    (sent,) = redriven(scene)
    assert (sent.key, sent.headers[0]) == (b"\xff\x00", ("x", b"\xff"))
    assert sent.value == values[0].replace(b'"quantity": 0', b'"quantity": 2')

    place = TopicPartition(scene.topics.order_placed, 1, 1)
    admin_client(scene.kafka).delete_records([place])[place].result(10)
    gone = dead_letters.here("redrive", "1:0", *FIX, "--execute")
    gone.assert_one_line(1, "no longer whole in the input topic")

    # Killed long ago: whether the first was sent is not known any more, the other never was.
    scene.shop.sql(
        "INSERT INTO dead_letter_redrives (id, run_id, group_id, requested_by, letter_topic,"
        " letter_partition, letter_offset, source_topic, source_partition, source_offset, error_code,"
        " error_path, input_partition, input_from) SELECT gen_random_uuid(), gen_random_uuid(), $1, 'Ann',"
        " 'x', p, 9, $2, p, 9, '', '', p, 1 - p FROM generate_series(0, 1) p",
        *(scene.group_id, scene.topics.order_placed),
    )
    done = dead_letters.here("redrive", "1:0", *FIX, "--execute", "--json").document
    assert done["earlier"] == {"released": 1, "results": {}}
    assert statuses(scene) == {"decided": 1, "failed": 1}
