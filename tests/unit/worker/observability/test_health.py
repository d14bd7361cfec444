import asyncio
import re
import threading
from collections.abc import Callable

import pytest
from aiokafka import TopicPartition
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from worker.observability.health import (
    CHECK_INTERVAL_SECONDS,
    EXIT_REFUSED,
    EXIT_STALLED,
    Health,
    is_refusal,
    monitor,
    start_watchdog,
)

PLACED, OTHER = TopicPartition("placed", 0), TopicPartition("placed", 1)


def test_a_worker_is_ready_once_it_has_joined_and_taken_over_and_says_why_it_is_not():
    health = Health()
    assert health.troubles() == {"worker": "starting"}
    health.joining()
    assert health.troubles() == {"worker": "joining its consumer group"}
    health.assigned([0, 1])
    health.has_to_take_over([OTHER, PLACED])
    assert health.troubles() == {"worker": "taking over placed-0, placed-1"}
    health.has_to_take_over([])
    assert health.describe()["ready"] is True
    health.assigned([0])
    health.has_to_take_over([PLACED])
    assert health.describe()["ready"] is True, "a rebalance makes no worker unready that runs"
    health.failed("database", "connection refused")
    assert health.troubles() == {"database": "connection refused"}
    health.answered("database")
    assert health.describe()["ready"] is True


def test_a_worker_that_stands_by_without_partitions_is_ready_once_it_has_joined():
    health = Health()
    health.joining()
    health.has_to_take_over([])
    assert health.describe()["ready"] is False
    health.assigned([])
    assert health.describe()["ready"] is True


def test_a_worker_that_is_stopped_while_it_joins_stays_unready():
    health = Health()
    health.joining()
    health.stopping()
    health.assigned([])
    assert health.troubles() == {"worker": "stopping"}


async def test_the_monitor_looks_again_as_soon_as_the_group_is_joined():
    health, looks = Health(), asyncio.Queue[None]()

    async def look() -> None:
        looks.put_nowait(None)

    checking = asyncio.create_task(monitor(health, {"kafka": look}))
    await looks.get()
    health.assigned([0])
    async with asyncio.timeout(CHECK_INTERVAL_SECONDS / 2):
        await looks.get()
    checking.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (what is waited for is another task's next step)
        await asyncio.sleep(0)


async def test_the_monitor_notices_a_server_that_goes_and_comes_back():
    health, there = Health(), asyncio.Event()

    async def check() -> None:
        if not there.is_set():
            raise ConnectionRefusedError("refused")

    async with asyncio.timeout(10):
        first = asyncio.create_task(monitor(health, {"database": check}))
        await until(lambda: "database" in health.troubles())
        first.cancel()
        there.set()
        second = asyncio.create_task(monitor(health, {"database": check}))
        await until(lambda: "database" not in health.troubles())
        second.cancel()


def test_the_watchdog_ends_a_worker_that_shows_no_sign_of_life():
    left = threading.Event()
    codes = []

    def leave(code: int) -> None:
        codes.append(code)
        left.set()

    start_watchdog(Health(), 0.05, 100.0, leave)  # type: ignore[arg-type]
    assert left.wait(10)
    assert codes == [EXIT_STALLED]


def test_the_watchdog_ends_a_worker_whose_credentials_are_refused_for_too_long(caplog):
    left, codes = threading.Event(), list[int]()
    health = Health()
    health.refused("database", "PostgreSQL at here does not let us in")

    def leave(code: int) -> None:
        codes.append(code)
        health.answered("database")
        left.set()

    start_watchdog(health, 100.0, 0.05, leave)  # type: ignore[arg-type]
    assert left.wait(10)
    assert codes == [EXIT_REFUSED]
    assert "PostgreSQL at here does not let us in; so for" in caplog.text


def test_refusals_count_from_the_first_until_something_else_happens():
    health = Health()
    health.refused("kafka", "why")
    since = health._refused["kafka"][1]
    health.refused("kafka", "why still")
    assert health._refused["kafka"] == ("why still", since)
    assert not health.failed("kafka", "no answer within 2 s", alive=False)
    assert health.refusals(), "an answer that is late is nothing else"
    for other in (health.progressed, lambda: health.answered("kafka"), lambda: health.no_refusal("kafka")):
        health.refused("kafka", "why")
        other()
        assert not health.refusals()


@pytest.mark.parametrize("sign", ["progressed", "all_wait", "server away", "no lag"])
def test_progress_a_retry_and_an_empty_topic_are_signs_of_life(sign: str):
    health = Health()
    health._sign_of_life -= 100
    assert health.stalled_seconds() > 99
    {
        "progressed": health.progressed,
        "all_wait": lambda: health.all_wait("kafka: away", alive=True),
        "server away": lambda: health.failed("kafka", "refused"),
        "no lag": lambda: health.lags(0),
    }[sign]()
    assert health.stalled_seconds() < 10


def test_orders_that_wait_and_a_fault_of_ours_are_no_signs_of_life():
    health = Health()
    health._sign_of_life -= 100
    health.lags(5)
    health.all_wait("worker: KeyError", alive=False)
    assert health.stalled_seconds() > 99


@pytest.mark.parametrize("sign", ["no lag, but a batch in hand", "lag unknown", "answer late", "pool empty"])
def test_what_a_worker_that_hangs_shows_too_is_no_sign_of_life(sign: str):
    health = Health()
    health._sign_of_life -= 100
    {
        "no lag, but a batch in hand": lambda: health.lags(0, busy=True),
        "lag unknown": lambda: health.lags(None),
        "answer late": lambda: health.failed("kafka", "no answer within 2 s", alive=False),
        "pool empty": lambda: health.failed("database", "QueuePool", alive=is_refusal(PoolTimeoutError())),
    }[sign]()
    assert health.stalled_seconds() > 99


async def test_an_answer_that_is_late_is_reported_and_then_what_the_driver_says_of_it(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("worker.observability.health.CHECK_TIMEOUT_SECONDS", 0.01)
    health, answer = Health(), asyncio.get_running_loop().create_future()
    async with asyncio.timeout(10):
        checking = asyncio.create_task(monitor(health, {"kafka": lambda: answer}))
        await until(lambda: "no answer" in health.troubles().get("kafka", ""))
        health._sign_of_life -= 100
        answer.set_exception(ConnectionRefusedError("refused"))
        await until(lambda: health.troubles().get("kafka") == "refused")
        checking.cancel()
    assert health.stalled_seconds() < 10


def test_a_partition_that_waits_is_named_with_its_reason_and_since_when():
    health = Health()
    health.started()
    assert health.waits(PLACED, "too large")
    health.progressed()
    health.all_resumed()
    health.answered("kafka")
    assert re.fullmatch(r"too large \(since 20\d\d-\d\d-\d\d [\d:]{8}Z\)", health.troubles()["placed-0"])
    health.resumed(PLACED)
    assert health.troubles() == {}


def test_what_cannot_be_read_stays_a_reason_when_orders_before_it_are_published():
    health = Health()
    health.started()
    assert health.unread(PLACED, "a broken batch")
    assert not health.unread(PLACED, "a broken batch"), "known already"
    health.resumed(PLACED)
    assert health.has_reason(PLACED)
    assert "a broken batch" in health.troubles()["placed-0"]
    health.is_read(PLACED)
    assert health.troubles() == {}


def test_what_can_be_read_again_leaves_another_reason_to_wait():
    health = Health()
    health.started()
    health.waits(PLACED, "too large")
    health.unread(PLACED, "a broken batch")
    health.is_read(PLACED)
    assert "too large" in health.troubles()["placed-0"]
    health.unread(PLACED, "a broken batch")
    health.forget(PLACED)
    assert health.troubles() == {}, "it is not assigned any more"


def test_a_partition_that_waits_for_another_reason_has_waited_as_long():
    health = Health()
    health.waits(PLACED, "one")
    since = health.waiting()["placed-0"].since
    assert not health.waits(PLACED, "one"), "reported already"
    assert health.waits(PLACED, "another")
    assert health.waiting()["placed-0"].since == since


def test_rewound_orders_make_the_worker_unready_until_a_partition_continues():
    health = Health()
    health.started()
    health.all_wait("kafka: no coordinator", alive=True)
    health.answered("kafka")
    assert health.troubles() == {"orders": "rewound: kafka: no coordinator"}
    health.all_resumed()
    assert health.troubles() == {}
