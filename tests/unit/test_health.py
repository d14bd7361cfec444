import asyncio
import threading
from collections.abc import Callable

import pytest

from worker.health import EXIT_STALLED, Health, monitor, start_watchdog


def test_a_worker_is_ready_once_started_and_says_why_it_is_not():
    health = Health()
    assert health.troubles() == {"worker": "starting"}
    health.started()
    assert health.describe()["ready"] is True
    health.failed("database", "connection refused")
    assert health.troubles() == {"database": "connection refused"}
    health.answered("database")
    assert health.describe()["ready"] is True


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

    start_watchdog(Health(), 0.05, leave)  # type: ignore[arg-type]
    assert left.wait(10)
    assert codes == [EXIT_STALLED]


@pytest.mark.parametrize("sign", ["progressed", "set_back", "server away", "no lag"])
def test_progress_a_retry_and_an_empty_topic_are_signs_of_life(sign: str):
    health = Health()
    health._sign_of_life -= 100
    assert health.stalled_seconds() > 99
    {
        "progressed": health.progressed,
        "set_back": lambda: health.set_back("kafka: away", alive=True),
        "server away": lambda: health.failed("kafka", "refused"),
        "no lag": lambda: health.lags(0),
    }[sign]()
    assert health.stalled_seconds() < 10


def test_orders_that_wait_and_a_fault_of_ours_are_no_signs_of_life():
    health = Health()
    health._sign_of_life -= 100
    health.lags(5)
    health.set_back("worker: KeyError", alive=False)
    assert health.stalled_seconds() > 99


def test_orders_set_back_make_the_worker_unready_until_one_partition_goes_on_or_they_are_gone():
    health = Health()
    health.started()
    health.set_back("kafka: no coordinator", alive=True)
    health.answered("kafka")
    assert health.troubles() == {"orders": "set back: kafka: no coordinator"}
    health.relieved()
    assert health.troubles() == {}
