"""A consumer that continues beside what it cannot read, on a real broker whose disk is really broken."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, Final
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchError, OffsetResetStrategy
from aiokafka.errors import ConsumerStoppedError, KafkaError, OffsetOutOfRangeError
from aiokafka.record.memory_records import MemoryRecords

from db.worker.positions import PendingBatch, Sentinel
from tests.support.broken_records import (
    ODD_NAME,
    Change,
    absurd_length,
    absurd_offset,
    break_batch,
    broken_compression,
    flip_a_byte,
    send_odd_header,
    unknown_codec,
)
from tests.support.kafka_topics import create_topics
from tests.support.own_broker import own_broker
from tests.support.topic_changes import delete_records
from worker.failures import WaitsForOperatorError
from worker.kafka.consuming.membership import FetchStoppedError
from worker.kafka.consuming.raw_reader import RawReader
from worker.kafka.consuming.reading import reader, records
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.consuming.unreadable import UnreadableRecord, UnreadableSpan
from worker.kafka.published import digest, find_published_to
from worker.sandbox.servers.kafka import LocalKafka

pytestmark = pytest.mark.guarantee_3

PATIENCE_SECONDS: Final = 30
Read = dict[TopicPartition, list[ConsumerRecord]]


@pytest.fixture(scope="module")
def kafka() -> Iterator[LocalKafka]:
    """A broker of our own: what is on its disk is ours to break."""
    with own_broker() as broker:
        yield broker


@pytest.fixture
def bad(kafka: LocalKafka) -> TopicPartition:
    """A partition of a new topic with two; the other one is `sound_of` it."""
    topic = f"read-{uuid4().hex[:8]}"
    create_topics(kafka.bootstrap_servers, {topic: None}, 2)
    return TopicPartition(topic, 0)


def sound_of(partition: TopicPartition) -> TopicPartition:
    return TopicPartition(partition.topic, 1)


async def publish(kafka: LocalKafka, partition: TopicPartition, *values: bytes, **options: Any) -> None:
    """Each value in a batch of its own."""
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, **options) as producer:
        for value in values:
            await producer.send_and_wait(partition.topic, value, partition=partition.partition)


async def publish_in_transactions(kafka: LocalKafka, partition: TopicPartition, *values: bytes) -> None:
    """Each value in a transaction of its own, which a marker ends."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id=partition.topic
    ) as producer:
        for value in values:
            async with producer.transaction():
                await producer.send_and_wait(partition.topic, value, partition=partition.partition)


def numbered(first: int, end: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, end)]


@asynccontextmanager
async def reading(
    kafka: LocalKafka, *partitions: TopicPartition, position: int = 0, **options: Any
) -> AsyncIterator[RecordConsumer]:
    consumer = RecordConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        fetch_max_wait_ms=50,
        **options,
    )
    await consumer.start()
    try:
        consumer.assign(list(partitions))
        for partition in partitions:
            consumer.seek(partition, position)
        yield consumer
    finally:
        await consumer.stop()


async def read_until(
    consumer: RecordConsumer, is_done: Callable[[Read], bool], *, max_records: int | None = None
) -> Read:
    """What polls return, each accepted, until it is enough."""
    read: Read = {partition: [] for partition in consumer.assignment()}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_done(read):
        assert time.monotonic() < deadline, (values(read), consumer.unreadable, consumer.refused)
        for partition, of_one in (await consumer.getmany(timeout_ms=50, max_records=max_records)).items():
            read[partition] += of_one
        consumer.accept()
    return read


def values(read: Read) -> dict[int, list[bytes | None]]:
    return {partition.partition: [r.value for r in of_one] for partition, of_one in read.items()}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in tasks of this loop."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 (no event reports it)
            await asyncio.sleep(0.01)


def has(count: int) -> Callable[[Read], bool]:
    return lambda read: sum(map(len, read.values())) >= count


class TestOddHeaderNames:
    @pytest.mark.parametrize("max_records", [None, 1, 7])
    async def test_the_record_comes_raw_and_in_its_place_and_costs_no_neighbour(
        self, kafka: LocalKafka, bad: TopicPartition, max_records: int | None
    ):
        sound = sound_of(bad)
        await publish(kafka, bad, *numbered(0, 5))
        assert await send_odd_header(kafka.bootstrap_servers, bad.topic, b"odd", key=b"its key") == 5
        await publish(kafka, bad, *numbered(6, 9))
        await publish(kafka, sound, *numbered(0, 40))
        async with reading(kafka, bad, sound) as consumer:
            read = await read_until(consumer, has(49), max_records=max_records)
            assert [r.offset for r in read[bad]] == list(range(9))
            assert values(read) == {0: [*numbered(0, 5), b"odd", *numbered(6, 9)], 1: numbered(0, 40)}
            (odd,) = [r for r in read[bad] if isinstance(r, UnreadableRecord)]
            assert (odd.key, odd.headers) == (b"its key", (("sound", b"1"), ("\\xff\\xfe", b"2")))
            assert "\\xff\\xfe is not UTF-8" in odd.why
            assert await consumer.position(bad) == 9
            assert not consumer.unreadable

    async def test_a_consumer_of_aiokafka_is_stuck_there(self, kafka: LocalKafka, bad: TopicPartition):
        await send_odd_header(kafka.bootstrap_servers, bad.topic)
        async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:
            consumer.assign([bad])
            consumer.seek(bad, 0)
            for _ in range(2):
                with pytest.raises(UnicodeDecodeError):
                    await consumer.getmany(timeout_ms=10_000)

    async def test_one_after_the_other_is_read(self, kafka: LocalKafka, bad: TopicPartition):
        for value in (b"0", b"1", b"2"):
            await send_odd_header(kafka.bootstrap_servers, bad.topic, value)
        async with reading(kafka, bad) as consumer:
            assert values(await read_until(consumer, has(3))) == {0: numbered(0, 3)}

    async def test_getone_returns_it_in_its_turn(self, kafka: LocalKafka, bad: TopicPartition):
        await publish(kafka, bad, b"0")
        await send_odd_header(kafka.bootstrap_servers, bad.topic, b"1")
        await publish(kafka, bad, b"2")
        async with reading(kafka, bad) as consumer, asyncio.timeout(PATIENCE_SECONDS):
            assert [(await consumer.getone()).value for _ in range(3)] == numbered(0, 3)

    async def test_a_seek_meanwhile_wins(self, kafka: LocalKafka, bad: TopicPartition):
        await send_odd_header(kafka.bootstrap_servers, bad.topic, b"0")
        await publish(kafka, bad, b"1", b"2")
        async with reading(kafka, bad) as consumer:
            await until(lambda: bad in consumer._fetcher._records)
            assert await consumer.getmany() == {}
            assert consumer._raw._tasks
            consumer.seek(bad, 2)
            assert values(await read_until(consumer, has(1))) == {0: [b"2"]}


BREAKS: Final[list[tuple[Change, str]]] = [
    (flip_a_byte, "wrong checksum"),
    (unknown_codec, "unknown codec 7"),
    (broken_compression, "no gzip"),
]


class TestUnreadableBatches:
    @pytest.mark.parametrize(("change", "why"), BREAKS, ids=lambda each: getattr(each, "__name__", None))
    async def test_its_partition_waits_and_is_named_and_the_others_continue(
        self, kafka: LocalKafka, bad: TopicPartition, change: Change, why: str
    ):
        sound = sound_of(bad)
        await publish(kafka, bad, *numbered(0, 9))
        await publish(kafka, sound, *numbered(0, 20))
        break_batch(kafka, bad.topic, 0, 5, change)
        async with reading(kafka, bad, sound) as consumer:
            read = await read_until(consumer, lambda read: has(25)(read) and bool(consumer.unreadable))
            assert values(read) == {0: numbered(0, 5), 1: numbered(0, 20)}
            span = consumer.unreadable[bad]
            assert (span.first, span.end) == (5, 6)
            assert why in span.why
            assert await consumer.position(bad) == 5

            await publish(kafka, sound, b"later")
            began = time.monotonic()
            assert values(await read_until(consumer, has(1))) == {0: [], 1: [b"later"]}
            assert time.monotonic() - began < 1

            consumer.skip_span(span)
            assert values(await read_until(consumer, has(3))) == {0: numbered(6, 9), 1: []}
            assert not consumer.unreadable

    async def test_an_empty_answer_after_a_wrong_length_is_not_the_end(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish(kafka, bad, *numbered(0, 9))
        break_batch(kafka, bad.topic, 0, 5, absurd_length)
        async with reading(kafka, bad) as consumer:
            read = await read_until(consumer, lambda _: bool(consumer.unreadable))
            assert values(read) == {0: numbered(0, 5)}
            # So small a log has no index: nothing behind that batch is found either.
            span = consumer.unreadable[bad]
            assert (span.first, span.end) == (5, 9)
            assert span.why == "the broker finds nothing there, and has records up to offset 8"
            assert await consumer.position(bad) == 5

    async def test_after_a_wrong_length_it_continues_at_the_next_batch_of_the_broker(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        """A large enough log has an index, whose next entry leads past that batch."""
        await publish(kafka, bad, *(b"%d" % n + b"x" * 1_000 for n in range(30)))
        break_batch(kafka, bad.topic, 0, 5, absurd_length)
        async with reading(kafka, bad) as consumer:
            await read_until(consumer, lambda _: bool(consumer.unreadable))
            span = consumer.unreadable[bad]
            assert 5 < span.end < 15
            consumer.skip_span(span)
            read = await read_until(consumer, has(30 - span.end))
            assert [r.offset for r in read[bad]] == list(range(span.end, 30))

    async def test_a_batch_that_claims_to_lie_beyond_the_log_moves_nothing_there(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish(kafka, bad, *numbered(0, 9))
        break_batch(kafka, bad.topic, 0, 5, absurd_offset)
        async with reading(kafka, bad) as consumer:
            read = await read_until(consumer, lambda _: bool(consumer.unreadable))
            assert [r.offset for r in read[bad]] == list(range(5))
            span = consumer.unreadable[bad]
            assert span == UnreadableSpan(bad, 5, 6, "its batch claims to go from 5000 to 5000")
            consumer.skip_span(span)
            assert values(await read_until(consumer, has(3))) == {0: numbered(6, 9)}

    async def test_what_is_mended_is_read_and_named_no_more(self, kafka: LocalKafka, bad: TopicPartition):
        await publish(kafka, bad, *numbered(0, 3))
        break_batch(kafka, bad.topic, 0, 1, flip_a_byte)
        async with reading(kafka, bad) as consumer:
            read = await read_until(consumer, lambda _: bool(consumer.unreadable))
            break_batch(kafka, bad.topic, 0, 1, flip_a_byte)
            later = await read_until(consumer, has(2))
            assert values(read)[0] + values(later)[0] == numbered(0, 3)
            assert not consumer.unreadable

    async def test_it_is_asked_for_again_with_growing_pauses(
        self, kafka: LocalKafka, bad: TopicPartition, monkeypatch: pytest.MonkeyPatch
    ):
        await publish(kafka, bad, b"0")
        break_batch(kafka, bad.topic, 0, 0, flip_a_byte)
        asked: list[float] = []
        read_raw = RawReader._read

        async def counted(self: RawReader, *arguments: Any) -> None:
            asked.append(time.monotonic())
            await read_raw(self, *arguments)

        monkeypatch.setattr(RawReader, "_read", counted)
        async with reading(kafka, bad) as consumer:
            await read_until(consumer, lambda _: len(asked) >= 4)
        pauses = [after - before for before, after in pairwise(asked)]
        assert pauses[0] >= 0.5
        assert pauses[1] >= 1.0
        assert pauses[2] >= 2.0

    async def test_a_paused_partition_stays_named_and_continues_when_it_is_resumed(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish(kafka, bad, *numbered(0, 3))
        break_batch(kafka, bad.topic, 0, 1, unknown_codec)
        async with reading(kafka, bad) as consumer:
            await read_until(consumer, lambda _: bool(consumer.unreadable))
            consumer.pause(bad)
            assert await consumer.getmany(timeout_ms=100) == {}
            assert consumer.unreadable
            consumer.resume(bad)
            consumer.skip_span(consumer.unreadable[bad])
            assert values(await read_until(consumer, has(1))) == {0: [b"2"]}


class TestTransactions:
    async def send(self, kafka: LocalKafka, bad: TopicPartition, *, commit: bool) -> None:
        """A transaction of two batches."""
        async with AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap_servers, transactional_id=f"t-{uuid4()}"
        ) as producer:
            await producer.begin_transaction()
            for value in (b"first", b"second"):
                await producer.send_and_wait(bad.topic, value, partition=0)
            await (producer.commit_transaction() if commit else producer.abort_transaction())

    async def test_what_was_aborted_stays_hidden_beside_what_cannot_be_read(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await self.send(kafka, bad, commit=False)  # 0, 1 and a marker
        await send_odd_header(kafka.bootstrap_servers, bad.topic, b"odd")  # 3
        await self.send(kafka, bad, commit=True)  # 4, 5 and a marker
        await self.send(kafka, bad, commit=False)
        await publish(kafka, bad, b"last")
        async with reading(kafka, bad) as consumer:
            read = await read_until(consumer, has(4))
            assert values(read) == {0: [b"odd", b"first", b"second", b"last"]}
            assert await consumer.getmany(timeout_ms=100) == {}

    @pytest.mark.parametrize("change", [unknown_codec, broken_compression])
    async def test_what_cannot_be_read_and_was_aborted_stops_nobody(
        self, kafka: LocalKafka, bad: TopicPartition, change: Change
    ):
        await self.send(kafka, bad, commit=False)
        break_batch(kafka, bad.topic, 0, 1, change)
        await publish(kafka, bad, b"last")
        async with reading(kafka, bad) as consumer:
            assert values(await read_until(consumer, has(1))) == {0: [b"last"]}
        async with reading(kafka, bad, position=1) as consumer:
            assert values(await read_until(consumer, has(1))) == {0: [b"last"]}

    async def test_raw_reads_leave_out_what_was_aborted(self, kafka: LocalKafka, bad: TopicPartition):
        """A wrong checksum of an aborted batch stops; mended, it is read raw, and is still aborted."""
        await self.send(kafka, bad, commit=False)
        await publish(kafka, bad, b"last")
        break_batch(kafka, bad.topic, 0, 1, flip_a_byte)
        async with reading(kafka, bad) as consumer:
            await read_until(consumer, lambda _: bool(consumer.unreadable))
            break_batch(kafka, bad.topic, 0, 1, flip_a_byte)
            assert values(await read_until(consumer, has(1))) == {0: [b"last"]}


class TestPositionsOutOfRange:
    async def test_they_are_reported_beside_sound_partitions(self, kafka: LocalKafka, bad: TopicPartition):
        sound = sound_of(bad)
        await publish(kafka, bad, *numbered(0, 3))
        await publish(kafka, sound, *numbered(0, 5))
        async with reading(kafka, bad, sound, report_out_of_range=True) as consumer:
            consumer.seek(bad, 40)
            read = await read_until(consumer, lambda read: has(5)(read) and bool(consumer.out_of_range))
            assert values(read) == {0: [], 1: numbered(0, 5)}
            assert consumer.out_of_range == {bad: 40}
            assert await consumer.position(bad) == 40
            consumer.seek(bad, 1)
            assert not consumer.out_of_range
            assert values(await read_until(consumer, has(2))) == {0: numbered(1, 3), 1: []}

    async def test_one_that_the_log_reaches_later_stays_reported_until_it_is_sought(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        """A log that was cut holds other records there than those that were read."""
        sound = sound_of(bad)
        async with reading(kafka, bad, sound, report_out_of_range=True, position=2) as consumer:
            await read_until(consumer, lambda _: len(consumer.out_of_range) == 2)
            await publish(kafka, bad, *numbered(0, 4))
            await publish(kafka, sound, *numbered(0, 4))
            consumer.seek(sound, 0)
            assert values(await read_until(consumer, has(4))) == {0: [], 1: numbered(0, 4)}
            assert consumer.out_of_range == {bad: 2}
            consumer.seek(bad, 0)
            assert values(await read_until(consumer, has(4)))[0] == numbered(0, 4)

    async def test_a_group_without_an_offset_begins_at_the_first_record(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish(kafka, bad, *numbered(0, 3))
        consumer = RecordConsumer(
            bad.topic,
            bootstrap_servers=kafka.bootstrap_servers,
            group_id=f"group-{uuid4()}",
            enable_auto_commit=False,
            report_out_of_range=True,
        )
        async with consumer:
            assert values(await read_until(consumer, has(3)))[0] == numbered(0, 3)
            assert not consumer.out_of_range

    async def test_without_a_report_it_is_raised_once_what_is_beside_it_was_returned(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        sound = sound_of(bad)
        await publish(kafka, bad, *numbered(0, 3))
        await publish(kafka, sound, *numbered(0, 5))
        delete_records(kafka.bootstrap_servers, bad.topic, {0: 2})
        async with reading(kafka, bad, sound) as consumer:
            await until(lambda: {bad, sound} <= consumer._fetcher._records.keys())
            assert values(await consumer.getmany(timeout_ms=1_000)) == {1: numbered(0, 5)}
            with pytest.raises(OffsetOutOfRangeError):
                await consumer.getmany(timeout_ms=1_000)
            assert await consumer.position(sound) == 5


class TestHandOver:
    async def test_what_was_not_accepted_comes_again(self, kafka: LocalKafka, bad: TopicPartition):
        sound = sound_of(bad)
        await publish(kafka, bad, *numbered(0, 3))
        await publish(kafka, sound, *numbered(0, 3))
        async with reading(kafka, bad, sound, accepting=True) as consumer:
            lost: Read = {}
            while not lost:
                lost = await consumer.getmany(timeout_ms=1_000)
            assert values(await read_until(consumer, has(6))) == {0: numbered(0, 3), 1: numbered(0, 3)}
            assert await consumer.getmany(timeout_ms=100) == {}

    async def test_a_seek_in_between_is_meant(self, kafka: LocalKafka, bad: TopicPartition):
        await publish(kafka, bad, *numbered(0, 3))
        async with reading(kafka, bad, accepting=True) as consumer:
            while not await consumer.getmany(timeout_ms=1_000):
                pass
            consumer.seek(bad, 2)
            assert values(await read_until(consumer, has(1))) == {0: [b"2"]}

    async def test_who_does_not_ask_for_it_needs_not_accept(self, kafka: LocalKafka, bad: TopicPartition):
        await publish(kafka, bad, *numbered(0, 3))
        async with reading(kafka, bad) as consumer:
            found: list[ConsumerRecord] = []
            while len(found) < 3:
                for of_one in (await consumer.getmany(timeout_ms=1_000, max_records=1)).values():
                    found += of_one
            assert [r.value for r in found] == numbered(0, 3)

    async def test_a_position_that_was_moved_is_rewound(self, kafka: LocalKafka, bad: TopicPartition):
        await publish(kafka, bad, *numbered(0, 9))
        async with reading(kafka, bad, accepting=True) as consumer:
            first = await read_until(consumer, has(2), max_records=2)
            consumer._subscription.seek(bad, 7)
            consumer._fetcher._records.clear()
            later = await read_until(consumer, has(7))
            assert values(first)[0] + values(later)[0] == numbered(0, 9)

    async def test_what_hands_over_no_more_passes_no_record(self, kafka: LocalKafka, bad: TopicPartition):
        await publish_in_transactions(kafka, bad, *numbered(0, 2))
        async with reading(kafka, bad, accepting=True) as consumer:
            await read_until(consumer, has(1), max_records=1)
            consumer.hand_over_no_more()
            assert await consumer.getmany(timeout_ms=300) == {}
            assert consumer.accepted_position(bad) == 1

    async def test_what_hands_over_no_more_passes_trailing_markers(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish_in_transactions(kafka, bad, *numbered(0, 1))
        async with reading(kafka, bad, accepting=True) as consumer:
            await read_until(consumer, has(1), max_records=1)
            consumer.hand_over_no_more()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while consumer.accepted_position(bad) != 2:
                    assert await consumer.getmany(timeout_ms=20) == {}


class TestOffsetsOutOfRange:
    async def test_an_answer_about_a_position_that_is_no_more_says_nothing(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish_in_transactions(kafka, bad, *numbered(0, 1))
        async with reading(kafka, bad, report_out_of_range=True) as consumer:
            # As at the end of a rebalance, where the position of the new assignment is still asked for.
            consumer._look_at_assignment()
            consumer._state_of(bad).await_reset(OffsetResetStrategy.EARLIEST)
            late = FetchError(error=OffsetOutOfRangeError(), backoff=0)
            consumer._fetcher._records[bad] = late
            await read_until(consumer, has(1))
            assert consumer.out_of_range == {}


class TestFetching:
    async def test_a_fetch_task_that_died_is_reported(self, kafka: LocalKafka, bad: TopicPartition):
        async with reading(kafka, bad) as consumer:
            task = consumer._fetcher._fetch_task
            task.cancel()
            await until(task.done)
            with pytest.raises(FetchStoppedError, match="a new consumer is needed"):
                await consumer.getmany(timeout_ms=100)

    @pytest.mark.parametrize("is_cut_off", [False, True])
    async def test_garbage_in_an_answer_costs_its_partition_only(
        self, kafka: LocalKafka, bad: TopicPartition, monkeypatch: pytest.MonkeyPatch, is_cut_off: bool
    ):
        """aiokafka raises where it takes the answer, which ends its only task, or steps one offset on."""
        sound = sound_of(bad)
        await publish(kafka, bad, b"odd 0", b"odd 1", b"odd 2")
        await publish(kafka, sound, *numbered(0, 3))

        def records_of(data: bytes) -> Any:
            if b"odd 0" not in data:
                return MemoryRecords(data)
            if is_cut_off:
                return MemoryRecords(data[:30])
            raise ValueError("garbage")

        monkeypatch.setattr(fetcher, "MemoryRecords", records_of)
        async with reading(kafka, bad, sound) as consumer:
            read = await read_until(consumer, has(6))
            assert values(read) == {0: [b"odd 0", b"odd 1", b"odd 2"], 1: numbered(0, 3)}

    async def test_what_a_broker_refuses_is_named_until_it_answers_again(
        self, kafka: LocalKafka, bad: TopicPartition, monkeypatch: pytest.MonkeyPatch
    ):
        sound = sound_of(bad)
        await publish(kafka, bad, b"0")
        await publish(kafka, sound, b"0")
        async with reading(kafka, bad, sound) as consumer:
            send, is_refusing = consumer._client.send, [True]

            async def refusing(node_id: int, request: Any, **options: Any) -> Any:
                response = await send(node_id, request, **options)
                if is_refusing[0] and type(request).__name__ == "FetchRequest":
                    response.topics = [
                        (topic, [(p, -1 if p == 0 else code, *rest) for p, code, *rest in partitions])
                        for topic, partitions in response.topics
                    ]
                return response

            monkeypatch.setattr(consumer._client, "send", refusing)
            read = await read_until(consumer, lambda read: has(1)(read) and bool(consumer.refused))
            assert (values(read), consumer.refused) == ({0: [], 1: [b"0"]}, {bad: "UnknownError"})
            is_refusing[0] = False
            assert values(await read_until(consumer, has(1))) == {0: [b"0"], 1: []}
            assert not consumer.refused

    async def test_a_stopped_consumer_says_so(self, kafka: LocalKafka, bad: TopicPartition):
        async with reading(kafka, bad) as consumer:
            await consumer.stop()
            with pytest.raises(ConsumerStoppedError):
                await consumer.getmany()

    async def test_a_poll_that_is_cut_short_leaves_nothing_behind(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        async with reading(kafka, bad) as consumer:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(consumer.getmany(timeout_ms=10_000), 0.1)
            assert consumer._subscription.fetcher_idle_time > 0
            assert not consumer._fetcher._fetch_waiters


def test_the_name_is_really_no_utf_8():
    with pytest.raises(UnicodeDecodeError):
        ODD_NAME.decode()
    assert issubclass(FetchStoppedError, KafkaError)


class TestReading:
    """`worker.kafka.consuming.reading` continues past what cannot be unpacked."""

    @pytest.mark.parametrize("change", [change for change, _ in BREAKS])
    async def test_portions_skip_what_cannot_be_unpacked(
        self, kafka: LocalKafka, bad: TopicPartition, change: Change
    ):
        sound = sound_of(bad)
        await publish(kafka, bad, *numbered(0, 9))
        await publish(kafka, sound, *numbered(0, 9))
        break_batch(kafka, bad.topic, 0, 5, change)
        met: list[UnreadableSpan] = []
        async with reader({"bootstrap_servers": kafka.bootstrap_servers}) as consumer:
            read = [r async for r in records(consumer, {bad: (0, 9), sound: (2, 4)}, met.append)]
            by_partition = [
                (r.partition, r.value) for r in sorted(read, key=lambda r: (r.partition, r.offset))
            ]
            assert by_partition == [
                *((0, value) for value in (*numbered(0, 5), *numbered(6, 9))),
                *((1, value) for value in numbered(2, 4)),
            ]
            assert [(span.first, span.end) for span in met] == [(5, 6)]
            assert [(count.first_offset, count.records) for count in consumer.met.counts()] == [(5, 1)]

    async def test_portions_give_out_what_is_read_raw_and_know_it(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish(kafka, bad, *numbered(0, 2))
        await send_odd_header(kafka.bootstrap_servers, bad.topic, b"2")
        await publish(kafka, bad, *numbered(3, 5))
        async with reader({"bootstrap_servers": kafka.bootstrap_servers}) as consumer:
            for _ in range(2):
                read = [r async for r in records(consumer, {bad: (0, 5)})]
                assert [r.value for r in read] == numbered(0, 5)
            assert [str(count) for count in consumer.met.counts()] == [
                f"1 record of {bad.topic}-0 from offset 2 cannot be unpacked"
                " (the header name \\xff\\xfe is not UTF-8)"
            ]

    async def test_what_cannot_be_unpacked_behind_the_end_is_nobodys_matter(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish(kafka, bad, *numbered(0, 3))
        break_batch(kafka, bad.topic, 0, 2, flip_a_byte)
        async with reader({"bootstrap_servers": kafka.bootstrap_servers}) as consumer:
            read = [r async for r in records(consumer, {bad: (0, 2)})]
            assert [r.value for r in read] == numbered(0, 2)
            assert not consumer.met.counts()

    async def test_by_default_the_log_names_what_is_skipped(
        self, kafka: LocalKafka, bad: TopicPartition, caplog: pytest.LogCaptureFixture
    ):
        await publish(kafka, bad, b"0")
        break_batch(kafka, bad.topic, 0, 0, flip_a_byte)
        async with reader({"bootstrap_servers": kafka.bootstrap_servers}) as consumer:
            assert [r async for r in records(consumer, {bad: (0, 1)})] == []
        assert f"{bad.topic}-0 from offset 0 up to 0 cannot be unpacked" in caplog.text

    async def test_whether_something_was_published_is_not_guessed_where_it_may_lie_there(
        self, kafka: LocalKafka, bad: TopicPartition
    ):
        await publish(kafka, bad, b"0", b"1")
        sentinel = Sentinel(bad.topic, int(time.time() * 1_000), digest(b"key", []))
        pending = PendingBatch(2, 5, 0, sentinel)
        options = {"bootstrap_servers": kafka.bootstrap_servers}
        async with AIOKafkaProducer(**options) as producer:
            assert await find_published_to(options, producer, pending, 0) == 2
            break_batch(kafka, bad.topic, 0, 1, flip_a_byte)
            with pytest.raises(WaitsForOperatorError, match="-0 from offset 1 up to 1 cannot be unpacked"):
                await find_published_to(options, producer, pending, 0)
