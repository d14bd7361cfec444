"""Outcomes and progress as one step, on real Kafka: what is seen after a run was cut off at worst."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced

from db.bulk.rows import LedgerRow
from tests.support.deadline import eventually
from tests.support.subscriber import read_topic
from tests.support.topic_names import TopicNames
from worker.kafka.clients import kafka_admin
from worker.kafka.producing.transaction import Transaction
from worker.operations.republish.progress import Progress, find_progress
from worker.operations.republish.send import Republisher, progress_place, republisher
from worker.settings import Settings, read_settings

pytestmark = pytest.mark.guarantee_2

START = Progress(datetime(2026, 11, 23, tzinfo=UTC), total=6)


@pytest.fixture
def settings(env: dict[str, str], topics: TopicNames) -> Settings:
    return read_settings(**{name.removeprefix("ORDER_WORKER_").lower(): value for name, value in env.items()})


@pytest.fixture
def name() -> str:
    return f"republish-{uuid4()}"


def rows(count: int, event: str = "{}") -> list[LedgerRow]:
    return [
        LedgerRow(uuid4(), "confirmed", b"", "order-placed", i % 4, i, event, START.frozen_at)
        for i in range(count)
    ]


def behind(progress: Progress, published: Sequence[LedgerRow]) -> Progress:
    return progress.behind(published[-1].order_id, len(published))


async def assert_seen(settings: Settings, published: Sequence[LedgerRow]) -> None:
    """Subscribers of committed records see each of these once, or soon: a commit is acknowledged first."""
    wanted = Counter(row.order_id for row in published)

    def seen() -> Counter[UUID]:
        messages = read_topic(settings.kafka_bootstrap_servers, settings.order_confirmed_topic)
        return Counter(UUID(message.header("ce_subject")) for message in messages)

    await asyncio.to_thread(eventually, lambda: seen() == wanted, 10, lambda: str(seen()))


async def reached(settings: Settings, name: str) -> Progress | None:
    async with kafka_admin(settings) as admin:
        return await find_progress(admin, name, progress_place(settings))


async def send_without_commit(publishing: Republisher, unseen: Sequence[LedgerRow]) -> None:
    """As a run that is killed just before its commit."""
    await publishing.producer.begin_transaction()
    opened = Transaction(publishing.producer)
    for row in unseen:
        await publishing._send(opened, row)
    await opened.wait_acknowledged()
    place, offset = progress_place(publishing.settings), behind(START, unseen).as_offset()
    await opened.commit_offsets(publishing.name, {place: offset})


async def test_nothing_is_known_of_a_selection_that_never_began(settings: Settings, name: str):
    assert await reached(settings, name) is None


async def test_outcomes_and_progress_are_committed_together(settings: Settings, name: str):
    first, second = rows(3), rows(3)
    async with republisher(settings, name) as publishing:
        await publishing.publish(first, behind(START, first))
        progress = behind(behind(START, first), second)
        await publishing.publish(second, progress)
    await assert_seen(settings, first + second)
    async with republisher(settings, name):
        assert await reached(settings, name) == progress


async def test_a_run_cut_off_before_its_commit_publishes_nothing_and_hides_nothing(
    settings: Settings, name: str
):
    first, cut_off = rows(2), rows(4)
    async with republisher(settings, name) as dying:
        await dying.publish(first, behind(START, first))
        await send_without_commit(dying, cut_off)
        async with republisher(settings, name) as publishing:
            assert await reached(settings, name) == behind(START, first)
            await publishing.publish(cut_off, behind(behind(START, first), cut_off))
            # All of it, although the other transaction was open in the same partitions.
            await assert_seen(settings, first + cut_off)
        with pytest.raises(ProducerFenced):
            await dying.producer.commit_transaction()
    await assert_seen(settings, first + cut_off)


async def test_of_a_transaction_in_which_one_record_is_refused_nothing_is_seen(settings: Settings, name: str):
    too_large = rows(1, event=f'"{"x" * 2_000_000}"')
    unseen = [*rows(2), *too_large]
    async with republisher(settings, name) as publishing:
        with pytest.raises(MessageSizeTooLargeError):
            await publishing.publish(unseen, behind(START, unseen))
    async with republisher(settings, name):
        assert await reached(settings, name) is None
        await assert_seen(settings, [])
