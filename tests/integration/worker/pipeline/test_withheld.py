"""Outcomes that their topic refuses: set aside, and published once, on real Kafka and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import astuple, replace
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from contracts.topics import Topics
from db.engine import session_factory
from db.worker import ledger, positions
from db.worker.withheld import Withheld, list_withheld
from tests.support.builders import line, order_value, record
from tests.support.subscriber import Message, read_topic
from tests.support.taking_over import take_lease
from tests.support.topic_changes import recreate_topic, set_option
from tests.support.topic_names import TopicNames
from worker.core.results import Publication
from worker.core.steps import nothing_happens
from worker.kafka.clients import read_topic_limits
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.limits.output_limits import OutputLimits
from worker.kafka.limits.refusals import AdaptedError, RefusedByKafkaError
from worker.kafka.producing.lease import Leases
from worker.observability.health import Health
from worker.observability.metrics import Metrics
from worker.pipeline.batch import BatchProcessor
from worker.pipeline.partition import Ownership
from worker.pipeline.publisher import Outgoing, Publisher
from worker.pipeline.set_aside import publish_or_set_aside, without_withheld
from worker.pipeline.withheld import WithheldOutcomes
from worker.sandbox.servers.services import Services
from worker.settings import Settings

pytestmark = pytest.mark.guarantee_2

GROUP: Final = "group"
PLENTY: Final = 1024 * 1024


class Ground:
    """A worker's parts on the test's topics, of which one partition has orders."""

    def __init__(self, kafka: str, topics: TopicNames, sessions: async_sessionmaker[AsyncSession]) -> None:
        self.kafka, self.topics, self.sessions = kafka, topics, sessions
        self.source = TopicPartition(topics.order_placed, 1)
        self.metrics, self.health = Metrics(), Health()
        self.health.started()
        outputs = Topics(*astuple(topics))
        self.processor = BatchProcessor(sessions, outputs, self.metrics, nothing_happens, 256 * 1024, 30)
        names = (topics.order_confirmed, topics.order_rejected, topics.dead_letter)
        self.group = ConsumerGroup(GROUP, topics.order_placed, sessions)
        self.leases = Leases(
            self.group,
            client_options={"bootstrap_servers": kafka},
            topics=names,
            transaction_timeout_ms=20_000,
        )
        settings = Settings(kafka_bootstrap_servers=kafka)
        self.limits = OutputLimits(names, partial(read_topic_limits, settings))
        self.publisher = Publisher(GROUP, self.limits, nothing_happens)

    def outcomes(self) -> WithheldOutcomes:
        """As a worker that was just started has it."""
        return WithheldOutcomes(
            group=self.group,
            leases=self.leases,
            limits=self.limits,
            assigned=lambda: {self.source},
            health=self.health,
            metrics=self.metrics,
        )

    async def take(self, max_bytes: int) -> None:
        topic = self.topics.order_confirmed
        await asyncio.to_thread(set_option, self.kafka, topic, "max.message.bytes", str(max_bytes))

    async def take_over(self) -> Ownership:
        lease = await take_lease(self.leases, self.source)
        async with self.sessions.begin() as session:
            rows = await list_withheld(session, *self.source)
        return Ownership(lease, None, withheld={str(row.order_id) for row in rows})

    async def decide(self, values: list[bytes], owned: Ownership) -> list[Publication]:
        topic, partition = self.source
        records = [
            record(value, offset=offset, partition=partition, topic=topic)
            for offset, value in enumerate(values)
        ]
        results = without_withheld(await self.processor.decide(records, {}), owned.withheld)
        pending = {(topic, partition): (owned.lease.epoch, positions.PendingBatch(0, len(values), 0, None))}
        async with self.sessions.begin() as session:
            await positions.record_pending(session, GROUP, pending)
        return [one.publication for one in results if one.publication]

    async def publish(self, values: list[bytes]) -> int:
        """As the worker does, until all is published or set aside; how many attempts it took."""
        for attempt in range(1, 10):
            owned = await self.take_over()
            try:
                await self.attempt(await self.decide(values, owned), owned, len(values))
                return attempt
            except AdaptedError:
                continue
        raise AssertionError("never published")

    async def attempt(self, publications: list[Publication], owned: Ownership, end: int) -> None:
        await publish_or_set_aside(self.publisher, self.group, [Outgoing(owned.lease, publications, end)])

    async def rows(self) -> list[Withheld]:
        async with self.sessions() as session:
            return await list_withheld(session, self.source.topic)

    async def confirmed(self) -> list[Message]:
        return await asyncio.to_thread(read_topic, self.kafka, self.topics.order_confirmed)

    async def published(self) -> list[str]:
        return [(message.key or b"").decode() for message in await self.confirmed()]


@pytest.fixture
async def ground(
    services: Services, topics: TopicNames, engine: AsyncEngine, little_shop: None
) -> AsyncIterator[Ground]:
    ground = Ground(services.kafka_bootstrap_servers, topics, session_factory(engine))
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE products SET stock_quantity = 100000, received_quantity = 100000 + received_quantity"
                " - stock_quantity"
            )
        )
    yield ground
    await ground.limits.close()
    await ground.leases.producers.close()


def small(order_id: UUID) -> bytes:
    return order_value(line(1), order_id=order_id)


def large(order_id: UUID) -> bytes:
    return order_value(*(line(1) for _ in range(200)), order_id=order_id)


async def test_outcomes_that_are_refused_are_set_aside_and_those_behind_them_published(ground: Ground):
    await ground.take(4_000)
    ids = [uuid4() for _ in range(7)]
    values = [large(one) if number in (2, 5) else small(one) for number, one in enumerate(ids)]
    assert await ground.publish(values) <= 3, "all that are known to be too large at once"
    assert await ground.published() == [str(one) for number, one in enumerate(ids) if number not in (2, 5)]
    rows = await ground.rows()
    assert [(row.order_id, row.source_offset) for row in rows] == [(ids[2], 2), (ids[5], 5)]
    assert all(row.size_bytes > 4_000 and "raise max.message.bytes" in row.what_to_do for row in rows)


async def test_they_are_published_once_when_their_topic_takes_them_and_not_before(ground: Ground):
    await ground.take(4_000)
    ids = [uuid4() for _ in range(3)]
    await ground.publish([small(ids[0]), large(ids[1]), small(ids[2])])
    outcomes = ground.outcomes()
    await outcomes.look()
    assert await ground.published() == [str(ids[0]), str(ids[2])]
    assert str(ids[1]) in ground.health.troubles()["withheld"]

    await ground.take(PLENTY)
    for _ in range(3):
        await outcomes.look()
    assert await ground.published() == [str(ids[0]), str(ids[2]), str(ids[1])]
    assert "withheld" not in ground.health.troubles()
    message = (await ground.confirmed())[-1]
    async with ground.sessions() as session:
        row = (await ledger.find_outcomes(session, [ids[1]]))[ids[1]]
    assert message.value == (row.event or "").encode()
    assert [name for name, _ in message.headers][:2] == ["ce_specversion", "ce_id"]


@pytest.mark.parametrize(
    "dies",
    [
        "worker.pipeline.late_publication.withheld.mark_published",
        "worker.pipeline.late_publication.find_published",
    ],
)
async def test_a_worker_that_dies_before_it_knows_that_it_published_does_not_publish_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, dies: str
):
    await ground.take(4_000)
    ids = [uuid4() for _ in range(2)]
    await ground.publish([small(ids[0]), large(ids[1])])
    await ground.take(PLENTY)

    async def die(*_arguments: object) -> bool:
        raise SystemError

    with monkeypatch.context() as patched:
        patched.setattr(dies, die)
        with pytest.raises(SystemError):
            await ground.outcomes().look()
    assert await ground.published() == [str(one) for one in ids]
    assert (await ground.rows())[0].published_at is None
    await ground.outcomes().look()
    assert await ground.published() == [str(one) for one in ids]
    assert (await ground.rows())[0].published_at is not None


async def test_a_try_in_a_partition_that_is_gone_with_its_topic_is_made_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    await ground.take(4_000)
    order_id = uuid4()
    await ground.publish([large(order_id)])
    await ground.take(PLENTY)

    async def die(*_arguments: object) -> bool:
        raise SystemError

    with monkeypatch.context() as patched:
        patched.setattr("worker.pipeline.late_publication.withheld.mark_published", die)
        with pytest.raises(SystemError):
            await ground.outcomes().look()
    assert (await ground.rows())[0].tried_partition == 1
    await asyncio.to_thread(recreate_topic, ground.kafka, ground.topics.order_confirmed, 1)
    async with asyncio.timeout(30):
        while (await ground.rows())[0].published_at is None:
            await ground.outcomes().look()
    assert await ground.published() == [str(order_id)]


async def test_a_try_that_another_worker_has_under_way_can_publish_nothing_more(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    await ground.take(4_000)
    ids = [uuid4() for _ in range(2)]
    await ground.publish([small(ids[0]), large(ids[1])])
    await ground.take(PLENTY)
    stopped, go_on = asyncio.Event(), asyncio.Event()
    commit = AIOKafkaProducer.commit_transaction

    async def stop_before(producer: AIOKafkaProducer) -> None:
        stopped.set()
        await go_on.wait()
        await commit(producer)

    with monkeypatch.context() as patched:
        patched.setattr(AIOKafkaProducer, "commit_transaction", stop_before)
        zombie = asyncio.create_task(ground.outcomes().look())
        await stopped.wait()
    await ground.outcomes().look()
    go_on.set()
    await zombie
    assert await ground.published() == [str(one) for one in ids]


async def test_an_owner_before_sets_nothing_aside(ground: Ground):
    await ground.take(4_000)
    owned = await ground.take_over()
    publications = await ground.decide([large(uuid4())], owned)
    owned = replace(owned, lease=replace(owned.lease, epoch=owned.lease.epoch - 1))
    with pytest.raises(RefusedByKafkaError):
        await ground.attempt(publications, owned, 1)
    assert await ground.rows() == []


async def test_nothing_is_published_before_its_batch_is_done_with(ground: Ground):
    """Until then it comes again, and would be published with its batch as well."""
    await ground.take(4_000)
    owned = await ground.take_over()
    order_id = uuid4()
    with pytest.raises(AdaptedError):
        await ground.attempt(await ground.decide([large(order_id)], owned), owned, 1)
    await ground.take(PLENTY)
    await ground.outcomes().look()
    assert await ground.published() == []
    assert await ground.publish([large(order_id)]) == 1
    await ground.outcomes().look()
    assert await ground.published() == [str(order_id)]


async def test_too_many_are_not_set_aside(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.pipeline.set_aside.MOST_OF_A_PARTITION", 1)
    await ground.take(4_000)
    with pytest.raises(RefusedByKafkaError):
        await ground.publish([large(uuid4()), large(uuid4())])
    assert await ground.rows() == []


async def test_a_published_one_is_forgotten_once_its_batch_cannot_come_again(ground: Ground):
    await ground.take(4_000)
    await ground.publish([large(uuid4())])
    await ground.take(PLENTY)
    outcomes = ground.outcomes()
    await outcomes.look()
    assert len(await ground.rows()) == 1
    async with ground.sessions.begin() as session:
        await session.execute(text("UPDATE positions SET acknowledged_from = 1"))
    await outcomes.look()
    assert await ground.rows() == []
