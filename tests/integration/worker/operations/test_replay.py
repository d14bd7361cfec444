"""Moving a group, with others who move it at the same time, on real servers."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer
from sqlalchemy import text

from tests.support.builders import line, order_value
from tests.support.group_offsets import committed_lag, remember_wrongly
from tests.support.promises import Scene
from tests.support.publishing import publish
from worker.errors import CommandError
from worker.kafka.offsets import TopicSelection
from worker.operations.replay import replay as operation
from worker.operations.replay.plan import Target, To
from worker.operations.replay.replay import ReplayRun, replay
from worker.settings import Settings


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> Settings:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


@pytest.fixture
async def placed(scene: Scene) -> Scene:
    """Twenty orders in partition 0, of which ten were skipped and none decided."""
    await in_thread(scene.shop.stock_up, {1: 100})
    values: list[bytes | None] = [order_value(line(1)) for _ in range(20)]
    await in_thread(publish, scene.kafka, scene.topics.order_placed, values, partition=0)
    await in_thread(remember_wrongly, scene.kafka, scene.group_id, scene.topics.order_placed, {0: 10})
    return scene


async def in_thread(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return await asyncio.to_thread(function, *arguments, **named)


async def execute(scene: Scene, settings: Settings, **options: Any) -> ReplayRun:
    target = Target(To.EARLIEST)
    return await replay(
        settings, TopicSelection(scene.topics.order_placed), target, execute=True, quiet=True, **options
    )


def lag(scene: Scene) -> int | None:
    return committed_lag(scene.kafka, scene.group_id, scene.topics.order_placed)


async def test_an_owner_that_takes_a_partition_over_meanwhile_is_not_moved(placed: Scene, settings: Settings):
    def taken_over() -> None:
        ((holder,),) = placed.shop.sql("SELECT transactional_id FROM positions WHERE partition = 0")
        Producer({"bootstrap.servers": placed.kafka, "transactional.id": holder}).init_transactions(20)

    with pytest.raises(
        CommandError, match=r"perhaps not .*-0 \(a worker, or another replay, has taken it over\); stop"
    ):
        await execute(placed, settings, recorded=taken_over)
    assert await in_thread(lag, placed) == 10
    assert (await execute(placed, settings)).executed, "the next call continues"
    assert await in_thread(lag, placed) == 20


async def test_a_group_that_moved_since_it_was_rehearsed_is_not_moved(
    placed: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    rehearse = operation._rehearse

    async def and_then_it_moves(*arguments: Any) -> ReplayRun:
        result = await rehearse(*arguments)
        topic = placed.topics.order_placed
        await in_thread(remember_wrongly, placed.kafka, placed.group_id, topic, {0: 15})
        return result

    monkeypatch.setattr(operation, "_rehearse", and_then_it_moves)
    with pytest.raises(CommandError, match="from 10 to 15, since it was rehearsed; nothing was changed"):
        await execute(placed, settings)
    assert await in_thread(lag, placed) == 5
    assert await in_thread(placed.shop.value, "SELECT count(*) FROM replays") == 0


async def test_a_rehearsal_cannot_write(placed: Scene, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    async def writes(reading: Any, *_: Any) -> None:
        async with reading.sessions.begin() as session:
            await session.execute(text("INSERT INTO categories (name) VALUES ('Written')"))

    monkeypatch.setattr(operation, "_read_what_comes_again", writes)
    with pytest.raises(
        CommandError, match="PostgreSQL ended it: cannot execute INSERT in a read-only transaction"
    ):
        await replay(settings, TopicSelection(placed.topics.order_placed), Target(To.EARLIEST))
