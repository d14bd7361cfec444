"""What fetching needs of private attributes of aiokafka (0.14); a test fails when they change.

`worker.kafka.client_internals` has what clients and producers need of them. No other module uses any, but for
`consuming.buffer` and classes that inherit from one of aiokafka's.

A fetcher keeps what it fetched in `_records`, one entry a partition, and fetches a partition again when its
entry is gone. A `Hold` in that place keeps a partition from being fetched, without any cost for the others.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    NoError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest

from worker.kafka.consuming.buffer import had_room, is_full
from worker.kafka.consuming.holds import Hold, Pause, Reread
from worker.kafka.consuming.raw_batch import Fetched
from worker.kafka.consuming.unpacked_size import leave_out_too_large
from worker.observability.events import Event, about
from worker.observability.log import RateLimitFilter

log = logging.getLogger(__name__)
log.addFilter(RateLimitFilter())  # a garbled answer is repeated with each request

# aiokafka asks again at once where a broker cannot read what it is asked for: some hundred times a second.
REFUSED_SECONDS: Final = 1.0
# After a batch with a wrong length a broker finds nothing, and answers without records and without an error.
# An answer that is full proves nothing: of 500 partitions it has room for twelve.
NOTHING_SECONDS: Final = 3.0
# The requested batch arrives whole, however large; the bytes after it show where a broken batch ends.
RAW_BYTES: Final = 2 * 1024 * 1024
# How often to check whether the pause of a held partition is over.
_LOOK_SECONDS: Final = 0.1
_HANDLED_BY_AIOKAFKA: Final = frozenset(
    {
        NotLeaderForPartitionError,
        UnknownTopicOrPartitionError,
        OffsetOutOfRangeError,
        TopicAuthorizationFailedError,
    }
)


class ContainedFetcher(Fetcher):  # type: ignore[misc]
    """A fetcher whose task survives any answer of a broker. `adopt` makes one of a fetcher."""

    on_seek: Callable[[TopicPartition, int | None], None]
    passed: list[tuple[TopicPartition, int]]
    """what aiokafka skips as too large, until it has done so"""

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: FetchRequest) -> bool:
        try:
            try:
                return bool(await super()._proc_fetch_request(assignment, node_id, request))
            finally:
                self._take_back(assignment)
        except Exception as error:
            extra = about(Event.UNFORESEEN, broker=str(node_id), error=type(error).__name__)
            log.warning(
                "an answer of broker %s cannot be handled: %r", node_id, error, exc_info=True, extra=extra
            )
            asked = [(TopicPartition(topic, p), at) for topic, ps in request.topics for p, at, _ in ps]
            if len(asked) > 1:
                return await self._one_by_one(assignment, node_id, asked)
            for partition, offset in asked:
                if assignment.active:
                    self._records[partition] = Reread(offset)
            return True

    def _get_actions_per_node(self, assignment: Any) -> tuple[Any, ...]:
        requests, *others = super()._get_actions_per_node(assignment)
        return ([] if is_full(self._records.values()) else requests, *others)

    async def _one_by_one(
        self, assignment: Any, node_id: int, asked: Iterable[tuple[TopicPartition, int]]
    ) -> bool:
        """Find the partition whose answer failed, by fetching each partition alone."""
        is_woken = False
        for partition, offset in asked:
            if assignment.active and partition not in self._records:
                alone = fetch_request(self, partition, offset, self._max_partition_fetch_bytes)
                is_woken |= await self._proc_fetch_request(assignment, node_id, alone)
        return is_woken

    def _set_error(self, tp: TopicPartition, error: KafkaError) -> None:
        if isinstance(error, RecordTooLargeError):
            # aiokafka moves the position by one next, whatever is there. But any fetch brings a whole batch
            # since Kafka 0.10.1: it is its length that is wrong.
            position = self._subscriptions.subscription.assignment.state_value(tp).position
            self.passed.append((tp, position))
            self._records[tp] = Reread(position)
            return
        super()._set_error(tp, error)

    def _take_back(self, assignment: Any) -> None:
        while self.passed:
            partition, position = self.passed.pop()
            assignment.state_value(partition).consumed_to(position)

    def seek_to(self, tp: TopicPartition, offset: int) -> None:
        super().seek_to(tp, offset)
        self.on_seek(tp, offset)

    def request_offset_reset(self, tps: Iterable[TopicPartition], strategy: int) -> Any:
        for partition in tps:
            self.on_seek(partition, None)
        return super().request_offset_reset(tps, strategy)


class Answers:
    """A fetcher's client that inspects the answers it passes on."""

    def __init__(self, client: Any, fetcher: Fetcher, note: Callable[[TopicPartition, str], None]) -> None:
        self._client = client
        self._fetcher = fetcher
        self._note = note
        self._had_room = True
        # Partitions with empty answers although they have records: at which offset, and since when.
        self._nothing: dict[TopicPartition, tuple[int, float]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any, **options: Any) -> Any:
        """As the client's `send`; notes each partition's answer: the name of its error, or nothing."""
        response = await self._client.send(node_id, request, **options)
        if isinstance(request, FetchRequest):
            asked = {TopicPartition(topic, p): at for topic, ps in request.topics for p, at, _ in ps}
            for partition in leave_out_too_large(response.topics or ()):
                self._fetcher._records.setdefault(partition, Reread(asked[partition]))  # which says why
            self._had_room = had_room(self._fetcher._fetch_max_bytes, response.topics or ())
            for topic, partitions in response.topics or ():
                for number, error_code, *rest in partitions:
                    partition = TopicPartition(topic, number)
                    self._look_at(partition, error_code)
                    self._look_for_nothing(partition, asked.get(partition, 0), rest)
        return response

    def _look_for_nothing(self, partition: TopicPartition, offset: int, rest: Sequence[Any]) -> None:
        if rest[-1] or offset >= _readable_end(self._fetcher, rest):
            self._nothing.pop(partition, None)
            return
        at, since = self._nothing.get(partition, (-1, 0.0))
        if at != offset:
            self._nothing[partition] = offset, time.monotonic()
        elif self._had_room and time.monotonic() - since > NOTHING_SECONDS:
            del self._nothing[partition]
            self._fetcher._records.setdefault(partition, Reread(offset))

    def _look_at(self, partition: TopicPartition, error_code: int) -> None:
        error = for_code(error_code)
        self._note(partition, "" if error is NoError else error.__name__)
        if error is not NoError and error not in _HANDLED_BY_AIOKAFKA:
            self._fetcher._records.setdefault(partition, Pause(time.monotonic() + REFUSED_SECONDS))


def adopt(
    fetcher: Fetcher,
    *,
    note: Callable[[TopicPartition, str], None],
    on_seek: Callable[[TopicPartition, int | None], None],
) -> None:
    """Make a ContainedFetcher of a fetcher whose task has not begun to run yet.

    `note` is called with each partition's answer, `on_seek` with each new position (None: to be asked for).
    """
    fetcher.__class__ = ContainedFetcher
    fetcher.on_seek = on_seek
    fetcher.passed = []
    fetcher._client = Answers(fetcher._client, fetcher, note)


def fetch_request(fetcher: Fetcher, partition: TopicPartition, offset: int, max_bytes: int) -> FetchRequest:
    """A request for what is there, without waiting for more."""
    topics = [(partition.topic, [(partition.partition, offset, max_bytes)])]
    return FetchRequest(0, 0, max_bytes, fetcher._isolation_level, topics, fetcher._client_rack or "")


def _readable_end(fetcher: Fetcher, rest: Sequence[Any]) -> int:
    """The end for this reader, from a partition's part of an answer."""
    end, stable_end = rest[0], rest[1]
    return int(stable_end if fetcher._isolation_level == READ_COMMITTED and stable_end >= 0 else end)


async def fetch_raw(
    consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int, max_bytes: int = RAW_BYTES
) -> Fetched:
    """The leader's bytes of the partition from the batch that holds the offset. Raises KafkaError."""
    client, fetcher = consumer._client, consumer._fetcher
    leader = client.cluster.leader_for_partition(partition)
    if leader is None or leader == -1:
        client.force_metadata_update()
        raise LeaderNotAvailableError(partition)
    response = await client.send(leader, fetch_request(fetcher, partition, offset, max_bytes))
    for _, partitions in response.topics or ():
        for _, error_code, *rest in partitions:
            error = for_code(error_code)
            if error is not NoError:
                raise error(partition)
            aborted = rest[3] if response.API_VERSION >= 11 else rest[-2]
            aborted = list(aborted or ()) if fetcher._isolation_level == READ_COMMITTED else None
            return Fetched(partition, bytes(rest[-1] or b""), rest[0], _readable_end(fetcher, rest), aborted)
    raise KafkaError(f"broker {leader} answered nothing of {partition}")


@contextmanager
def polling(subscription: SubscriptionState) -> Iterator[None]:
    """Mark the consumer as polling, until the block ends.

    aiokafka's own context manager is not left by an exception: the consumer would count as polling for ever.
    """
    context = subscription.fetch_context()
    context.__enter__()
    try:
        yield
    finally:
        context.__exit__(None, None, None)


async def wait_for_records(fetcher: ContainedFetcher, seconds: float) -> None:
    """Wait until something was fetched or a pause may be over, at most so long. Raises the group's errors."""
    if any(isinstance(entry, Hold) for entry in fetcher._records.values()):
        seconds = min(seconds, _LOOK_SECONDS)
    waiter = fetcher._create_fetch_waiter()
    try:
        await asyncio.wait([waiter], timeout=seconds)
        if waiter.done():
            waiter.result()
    finally:
        waiter.cancel()


def free(fetcher: Fetcher, partition: TopicPartition) -> None:
    """Drop what is buffered of a partition, so that it is fetched again."""
    del fetcher._records[partition]
    fetcher._notify(fetcher._wait_consume_future)


def wake(consumer: AIOKafkaConsumer) -> None:
    """Wake those who wait for records."""
    fetcher = consumer._fetcher
    for waiter in fetcher._fetch_waiters:
        fetcher._notify(waiter)


def unpacked_records(result: Any) -> Iterator[Any]:
    """The records of a FetchResult that are not unpacked yet; raises at one that cannot be unpacked."""
    # Not by the method that aiokafka wraps around it: that is called for each record.
    return iter(result._partition_records._records_iterator)


def unpacked_to(result: Any) -> int:
    """The offset after the unpacked records of a FetchResult."""
    return int(result._partition_records.next_fetch_offset)


def limit_partition_fetch(consumer: AIOKafkaConsumer, max_bytes: int) -> None:
    """Set the most bytes of each partition in an answer, from the next request on."""
    consumer._fetcher._max_partition_fetch_bytes = max_bytes
