"""Who may publish for a partition, on real Kafka and PostgreSQL: processes take leases from each other."""

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import OffsetAndMetadata
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import session_factory
from db.worker.leases import Holder, find_holders
from tests.support.subscriber import read_topic
from tests.support.taking_over import leases_of, take, take_lease
from tests.support.topic_names import TopicNames
from worker.kafka.producing.exclusive_producer import is_fenced
from worker.kafka.producing.lease import Lease, Leases, LeaseTakenError, Taken
from worker.sandbox.servers.services import Services

pytestmark = pytest.mark.guarantee_2


class Ground:
    """Processes of one group, and two partitions that they take from each other."""

    def __init__(self, kafka: str, topics: TopicNames, engine: AsyncEngine) -> None:
        self.kafka, self.topics, self.group_id = kafka, topics, f"group-{uuid4()}"
        self.first, self.other = (TopicPartition(topics.order_placed, number) for number in (0, 1))
        self.processes: list[Leases] = []
        self._engine = engine

    def process(self) -> Leases:
        topics = self.topics
        outputs = (topics.order_confirmed, topics.order_rejected, topics.dead_letter)
        leases = leases_of(self._engine, self.kafka, topics.order_placed, outputs, group_id=self.group_id)
        self.processes.append(leases)
        return leases

    async def holder(self) -> Holder:
        """Of the first partition."""
        async with session_factory(self._engine)() as session:
            return (await find_holders(session, self.group_id, self.first.topic, [0]))[0]

    async def published(self) -> list[bytes | None]:
        """What a subscriber sees."""
        seen = await asyncio.to_thread(read_topic, self.kafka, self.topics.order_confirmed)
        return [message.value for message in seen]


@pytest.fixture
async def ground(services: Services, topics: TopicNames, engine: AsyncEngine) -> AsyncIterator[Ground]:
    ground = Ground(services.kafka_bootstrap_servers, topics, engine)
    yield ground
    for process in ground.processes:
        await process.producers.close()


async def publish(lease: Lease, value: bytes, *, before_commit: Callable[[], object] = lambda: None) -> None:
    """One record, in a transaction."""
    place = next(iter(lease.places.values()))
    async with lease.producer.transaction() as opened:
        await opened.send(place, key=b"key", value=value, headers=[], timestamp_ms=1_700_000_000_000)
        await opened.wait_acknowledged()
        before = before_commit()
        if asyncio.iscoroutine(before):
            await before
    lease.producer.wrote_to({place})
    # Kafka acknowledges a commit before everybody can read what was published.
    await lease.producer.complete([place])


async def test_who_loses_a_lease_that_it_did_not_release_can_commit_nothing_more(ground: Ground):
    zombie = await take_lease(ground.process(), ground.first)
    with pytest.raises(Exception) as caught:  # noqa: PT011 (is_fenced checks it)
        await publish(zombie, b"zombie", before_commit=lambda: take(ground.process(), ground.first))
    assert is_fenced(caught.value)
    assert await ground.published() == []


async def test_a_lease_that_was_released_is_taken_without_fencing_the_owner_before(ground: Ground):
    one, another = ground.process(), ground.process()
    first, other = await take_lease(one, ground.first), await take_lease(one, ground.other)
    await publish(first, b"before")
    await one.release([first])
    assert (await ground.holder()).transactional_id is None
    taken = await take(another, ground.first)
    assert taken.is_released
    await publish(other, b"continues")
    assert await ground.published() == [b"before", b"continues"]


async def test_behind_a_release_the_offset_is_seen_that_was_committed_last(ground: Ground):
    one, another = ground.process(), ground.process()
    for offset in range(1, 20):
        lease = await take_lease(one, ground.first)
        await one.commit({lease: OffsetAndMetadata(offset, "")})
        await one.release([lease])
        committed = (await another.committed_offsets([ground.first]))[ground.first]
        assert committed is not None
        assert committed.offset == offset


async def test_who_is_fenced_by_the_way_takes_its_other_leases_again(ground: Ground):
    one, another = ground.process(), ground.process()
    await take_lease(one, ground.first)
    other = await take_lease(one, ground.other)
    await take(another, ground.first)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await publish(other, b"fenced")
    assert is_fenced(caught.value)
    assert other.producer.is_broken
    again = await take(one, ground.other)
    await publish(again.lease, b"again")
    assert await ground.published() == [b"again"]


async def test_an_owner_that_came_between_is_fenced_as_well(ground: Ground, monkeypatch: pytest.MonkeyPatch):
    late, between = ground.process(), ground.process()
    await take_lease(ground.process(), ground.first)
    came: list[Taken] = []
    fence = late.producers.fence

    async def fence_slowly(ids: set[str]) -> dict[str, Exception]:
        failed = await fence(ids)
        if not came:
            came.append(await take(between, ground.first))
        return failed

    monkeypatch.setattr(late.producers, "fence", fence_slowly)
    taken = await take(late, ground.first)
    assert taken.lease.epoch == came[0].lease.epoch + 1
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await publish(came[0].lease, b"between")
    assert is_fenced(caught.value)
    assert await ground.published() == []


async def test_a_lease_that_others_take_again_and_again_is_given_up(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    late, others = ground.process(), ground.process()

    async def fence_slowly(_ids: set[str]) -> dict[str, Exception]:
        await take(others, ground.first)
        return {}

    monkeypatch.setattr(late.producers, "fence", fence_slowly)
    with pytest.raises(LeaseTakenError):
        await take(late, ground.first)


async def test_a_lease_whose_owner_cannot_be_fenced_is_not_taken(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
):
    one, another = ground.process(), ground.process()
    await take_lease(one, ground.first)

    async def fence(ids: set[str]) -> dict[str, Exception]:
        return dict.fromkeys(ids, KafkaConnectionError("its coordinator is away"))

    monkeypatch.setattr(another.producers, "fence", fence)
    with pytest.raises(KafkaConnectionError):
        await take(another, ground.first)
    assert (await ground.holder()).transactional_id == one.producers.own_id
    assert not (await take_lease(another, ground.other)).producer.is_broken


async def test_a_transaction_that_failed_takes_the_producer_along(ground: Ground):
    process = ground.process()
    lease = await take_lease(process, ground.first)
    with pytest.raises(ZeroDivisionError):
        await publish(lease, b"never", before_commit=lambda: 1 / 0)
    assert lease.producer.is_broken
    again = await take(process, ground.first)
    assert again.is_released, "it was our own"
    assert again.lease.epoch == lease.epoch + 1
    await publish(again.lease, b"again")
    assert await ground.published() == [b"again"]
