"""`order-worker reconcile --repair`: what was never published is published once, also beside workers."""

import signal
import sys
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer

from tests.acceptance.reconcile.reports import drain, found, judged
from tests.support.builders import line, order_value
from tests.support.order_worker import OrderWorker
from tests.support.promises import Scene
from tests.support.shop import run_apart
from tests.support.subscriber import read_topic
from tests.support.topic_names import TopicNames
from tests.support.worker_process import Workers
from worker.core.steps import Step
from worker.operations.reconcile import reconcile as operation
from worker.operations.reconcile.reconcile import ReconcileRequest, reconciled
from worker.operations.reconcile.repair import repair
from worker.settings import Settings

pytestmark = pytest.mark.guarantee_3


def settings(env: Mapping[str, str]) -> Settings:
    given: dict[str, Any] = {name.removeprefix("ORDER_WORKER_").lower(): value for name, value in env.items()}
    return Settings(**given, _env_file=None)


def test_outcomes_that_were_never_published_are_published_as_the_worker_would_have(
    scene: Scene, workers: Workers, reconcile: OrderWorker, aside: TopicNames
):
    scene.shop.stock_up({1: 30})
    headers: list[tuple[str, bytes | None]] = [
        ("correlation_id", "käse-1".encode()),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("other", b"\xff"),
    ]
    ids = [uuid4() for _ in range(300)]
    scene.place([order_value(line(1), order_id=i) for i in ids[:50]], headers=headers)
    scene.place([order_value(line(1), order_id=i) for i in ids[50:]])
    drain(
        scene,
        workers,
        order_confirmed_topic=aside.order_confirmed,
        order_rejected_topic=aside.order_rejected,
    )
    meant = read_topic(scene.kafka, aside.order_confirmed) + read_topic(scene.kafka, aside.order_rejected)
    assert len(meant) == 300

    answer = judged(reconcile, "--repair")
    assert {one[0] for one in found(answer)} == {"not_told"}
    assert {one[2] for one in found(answer)} == {str(i) for i in ids}
    shown = reconcile.here("--repair")
    assert shown.code == 1
    assert "with --execute 300 outcomes would be published; nothing was changed" in shown.out
    assert scene.outcomes() == []

    # Two at once, and one of them killed: the one that is fenced says so, and nothing is published twice.
    killed = reconcile.start("--repair", "--execute")
    other = reconcile("--repair", "--execute")
    killed.kill()
    killed.communicate()
    assert other.code in {0, 1}, other.err
    final = reconcile("--repair", "--execute")
    assert final.code == 0, final.out + final.err
    published = scene.outcomes()
    assert {(m.key, m.value, tuple(m.headers), m.partition) for m in published} == {
        (m.key, m.value, tuple(m.headers), m.partition) for m in meant
    }
    assert found(judged(reconcile)) == set()
    scene.assert_promises(ids)


def test_a_repair_that_was_killed_in_the_middle_of_a_transaction_is_taken_up(
    scene: Scene, workers: Workers, reconcile: OrderWorker, aside: TopicNames
):
    scene.shop.stock_up({1: 30})
    ids = [uuid4() for _ in range(10)]
    scene.place([order_value(line(1), order_id=i) for i in ids], partition=0)
    drain(scene, workers, order_confirmed_topic=aside.order_confirmed)

    async def die_over_it() -> None:
        """As a killed process leaves it: the broker holds the transaction open for a minute."""
        producer = AIOKafkaProducer(
            bootstrap_servers=scene.kafka, transactional_id=f"{scene.group_id}.reconcile"
        )
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait(scene.topics.order_confirmed, b"half", partition=0)
        await producer.client.close()
        producer._sender.sender_task.cancel()
        producer._closed = True

    run_apart(die_over_it())
    assert reconcile("--repair", "--execute").code == 0
    scene.assert_promises(ids)


def test_what_another_repair_publishes_meanwhile_is_not_published_twice(
    scene: Scene,
    workers: Workers,
    reconcile: OrderWorker,
    aside: TopicNames,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    scene.shop.stock_up({1: 30})
    ids = [uuid4() for _ in range(10)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    drain(scene, workers, order_confirmed_topic=aside.order_confirmed)

    async def repair_after_another(*args: Any, **options: Any) -> int:
        monkeypatch.undo()
        assert reconcile("--repair", "--execute").code == 0
        return await repair(*args, **options)

    monkeypatch.setattr(operation, "repair", repair_after_another)

    async def run() -> tuple[int | None, int]:
        asked = ReconcileRequest(repair=True, execute=True, quiet=True)
        async with reconciled(settings(env), asked, print) as both:
            return both.summary.repaired, both.summary.left

    assert run_apart(run()) == (0, 0)
    scene.assert_promises(ids)


def test_while_a_worker_runs_nothing_in_flight_is_reported_or_published_twice(
    scene: Scene, workers: Workers, reconcile: OrderWorker
):
    scene.shop.stock_up({1: 1_000_000})
    ids = [uuid4() for _ in range(3_000)]
    workers.start(batch_max_records="20").wait_until_ready()
    scene.place([order_value(line(1), order_id=i) for i in ids])
    seen = []
    while scene.lag() != 0:
        answer = judged(reconcile, "--repair", "--execute")
        assert (answer.code, found(answer)) == (0, set()), answer.out
        seen.append(answer.document["waiting"])
    assert any(seen), "some run saw orders on their way"
    scene.assert_promises(ids)


def test_a_worker_that_has_committed_nothing_yet_is_no_reason_to_refuse(
    scene: Scene, workers: Workers, reconcile: OrderWorker
):
    scene.shop.stock_up({1: 1_000})
    ids = [uuid4() for _ in range(30)]
    scene.place([order_value(line(1), order_id=i) for i in ids])
    step = Step.AFTER_DATABASE_COMMIT
    at_step = (sys.executable, "-m", "tests.support.worker_at_step", step.value, "SIGSTOP")
    worker = workers.start(*at_step, session_timeout_ms="60000")
    worker.wait_for_log(f"SIGSTOP at {step}")
    answer = judged(reconcile, "--repair", "--execute")
    assert (answer.code, found(answer)) == (0, set()), answer.out
    assert (answer.document["records"], answer.document["waiting"]) == (0, 30)
    worker.signal(signal.SIGCONT)
    scene.wait_until_drained()
    scene.assert_promises(ids)
