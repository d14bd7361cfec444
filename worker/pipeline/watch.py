"""Checks the group every few seconds: its lag, partitions without progress, and what no record would repair.

It asks Kafka only, with as few requests for many partitions as for one. Nothing here waits for a batch, so
`/readyz` reports within seconds what is wrong; `worker.pipeline.maintenance` repairs it.
"""

import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from worker.kafka import group
from worker.kafka.client_internals import learn_brokers
from worker.kafka.client_names import is_worker
from worker.kafka.consumer_group import ConsumerGroup
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.descriptors import descriptor_shortage
from worker.kafka.group import Member
from worker.kafka.producing.lease_producers import LeaseProducers
from worker.kafka_login import forget_errors, login_error
from worker.observability.events import Event, about
from worker.observability.health import Health
from worker.observability.history import History
from worker.observability.metrics import Metrics
from worker.observability.partition_states import PartitionState
from worker.pipeline.flow import Flow
from worker.pipeline.input import Input
from worker.pipeline.partition import Partitions
from worker.pipeline.unread import RIGHT_TO_READ, UnreadPartitions

log = logging.getLogger(__name__)

# Which worker owns what is checked less often.
GROUP_INTERVAL_SECONDS: Final = 10.0
# A rebalance rarely takes longer; meanwhile no partition has an owner.
UNOWNED_FOR_SECONDS: Final = 10.0
# A partition without progress for a shorter time may only be waiting for its turn.
STILL_FOR_SECONDS: Final = 60.0
_OF_HIDDEN: Final = (
    ": Kafka names no member of this group, although this worker is one: a consumer with"
    " group.protocol=consumer has joined it; stop that one, or give it a group id of its own"
)
Offsets = Mapping[TopicPartition, int]
Commits = dict[TopicPartition, OffsetAndMetadata | None]


@dataclass(slots=True)
class Seen:
    """What the checks have found so far. Times are monotonic seconds."""

    commits: Commits = field(default_factory=dict)
    behind: dict[TopicPartition, int] = field(default_factory=dict)  # published to, and Kafka says less
    lost: dict[TopicPartition, int] = field(default_factory=dict)  # behind, as in the check before
    moved: dict[TopicPartition, tuple[int, float]] = field(default_factory=dict)  # published to, since when
    unowned_since: dict[TopicPartition, float] = field(default_factory=dict)
    unowned: frozenset[TopicPartition] = frozenset()  # for long enough
    asked_group_at: float = float("-inf")
    lags: dict[TopicPartition, int] = field(default_factory=dict)


class Watch:
    """Watches one worker's group and topic."""

    def __init__(
        self,
        *,
        group: ConsumerGroup,
        client_options: Mapping[str, Any],
        source: Input,
        producers: LeaseProducers,
        partitions: Partitions,
        flow: Flow,
        health: Health,
        metrics: Metrics,
        history: History,
    ) -> None:
        self._group = group
        self._options = client_options
        self._source = source
        self._producers = producers
        self._partitions = partitions
        self._flow = flow
        self._health = health
        self._metrics = metrics
        self._history = history
        self._admin: AIOKafkaAdminClient | None = None
        self.seen = Seen()
        self.unread = UnreadPartitions(health, metrics)

    async def look(self) -> None:
        """Measure how far the group is. Raises the error of Kafka or the connection if there is no answer."""
        consumer = self._source.consumer
        if consumer is None:
            return
        try:
            everything = self._source.partitions_of(self._group.topic)
            self._look_at_surroundings(is_there=bool(everything))
            admin = await self._asking()
            if learn_brokers(consumer, self._producers.in_use, admin):
                extra = about(Event.BROKERS_MOVED, server="kafka")
                log.warning(
                    "no broker is where it was: continuing with those that Kafka names now", extra=extra
                )
            published = self._partitions.published_to()
            # Commits are read before the ends, so that none of them exceeds its end.
            self.seen.commits = await group.commits(admin, self._group.id, everything)
            self._look_for_lost_commits(published)
            # Without a leader, one partition would delay the answer for all until it fails.
            led = [*{*everything} - await consumer.leaderless(everything)]
            ends = await consumer.end_offsets(led) if led else {}
            firsts = await self._firsts(consumer, led)
            await self._look_at_owners(admin, everything)
        except BaseException:
            self._metrics.lag.clear()
            self._health.lags(None)
            await self.close()
            raise
        self._report(consumer, ends, firsts)

    def _look_at_surroundings(self, *, is_there: bool) -> None:
        """Report a missing topic and a shortage of file descriptors, which concern no single partition."""
        topic = self._group.topic
        gone = f"Kafka knows no topic {topic}: was it deleted? Make it with `order-worker topics create`"
        if self._source.is_hidden(topic):
            gone = f"Kafka does not let us see topic {topic}: {RIGHT_TO_READ}"
        for what, why in (("topic", None if is_there else gone), ("files", descriptor_shortage())):
            if why is None:
                self._health.answered(what)
            elif self._health.failed(what, why):
                log.error("%s", why, extra=about(Event.TROUBLE))

    def _look_for_lost_commits(self, published: Offsets) -> None:
        """Partitions behind twice in a row: an acknowledged commit need not be visible at once."""
        seen, commits = self.seen, self.seen.commits
        behind = {p: to for p, to in published.items() if p in commits and _offset(commits[p]) < to}
        seen.lost = {p: to for p, to in behind.items() if seen.behind.get(p) == to}
        seen.behind = behind

    async def _firsts(self, consumer: RecordConsumer, everything: Iterable[TopicPartition]) -> Offsets:
        """The first offset of each partition without a committed offset."""
        unknown = [p for p in everything if self.seen.commits.get(p) is None]
        found: Offsets = await consumer.beginning_offsets(unknown) if unknown else {}
        return found

    async def _look_at_owners(self, admin: AIOKafkaAdminClient, everything: Iterable[TopicPartition]) -> None:
        seen, now = self.seen, time.monotonic()
        if now - seen.asked_group_at < (GROUP_INTERVAL_SECONDS if not seen.unowned_since else 0):
            return
        members = await group.members(admin, self._group.id)
        owned = {p for one in members if is_worker(one.client_id) for p in one.partitions}
        is_hidden = not members and bool(mine := self._source.assignment())
        if is_hidden:
            owned = {*mine}
        strangers = [
            one for one in members if not is_worker(one.client_id) and {*one.partitions} & {*everything}
        ]
        seen.asked_group_at = now
        seen.unowned_since = {p: seen.unowned_since.get(p, now) for p in everything if p not in owned}
        long = {p for p, since in seen.unowned_since.items() if now - since >= UNOWNED_FOR_SECONDS}
        seen.unowned = frozenset(long)
        self._metrics.unowned.set(len(long))
        if long:
            why = f"no worker owns {_names(long)}{_OF_HIDDEN if is_hidden else _said_of(strangers)}"
            if self._health.failed("group", why, alive=True) and (strangers or is_hidden):
                log.error("%s", why, extra=about(Event.TROUBLE))
        else:
            self._health.answered("group")

    def _report(self, consumer: RecordConsumer, ends: Offsets, firsts: Offsets) -> None:
        assigned, published = consumer.assignment(), self._published(firsts)
        self._metrics.lag.clear()
        for partition in assigned - self._flow.in_hand():
            # Past transaction markers, too: they are not to be decided.
            position = consumer.accepted_position(partition)
            published[partition] = max(published.get(partition, 0), position or 0)
        lags = {
            p: max(0, end - published.get(p, 0))
            for p, end in ends.items()
            if p in assigned or p in self.seen.unowned_since
        }
        self.seen.lags = lags
        for partition, lag in lags.items():
            self._metrics.lag.labels(str(partition.partition)).set(lag)
        for partition in assigned:
            self._metrics.know_partition(partition.partition)
        self._health.has_to_take_over(
            [p for p, lag in lags.items() if lag and p in assigned and self._is_not_begun(p)]
        )
        self._look_for_standstill(lags, published, assigned)
        self.unread.report(consumer)
        self._metrics.waiting.set(len(self._health.waiting()))
        self._health.lags(sum(lags.values()), busy=bool(self._flow.in_hand()))
        self.remember(ends, published)

    def remember(self, ends: Offsets, published: Offsets) -> None:
        """Add a point to the page's charts, which show the whole group, other workers' partitions too."""
        come_to = {p: min(end, published.get(p, 0)) for p, end in ends.items()}
        done, end = sum(come_to.values()), sum(ends.values())
        self._history.saw(time.monotonic(), published=done, end=end, lag=end - done)

    def _is_not_begun(self, partition: TopicPartition) -> bool:
        """Whether it is neither taken over nor known why not."""
        return self._partitions[partition].ownership is None and not self._health.has_reason(partition)

    def _published(self, firsts: Offsets) -> dict[TopicPartition, int]:
        committed = {p: c.offset for p, c in self.seen.commits.items() if c is not None}
        return {**firsts, **committed, **self._partitions.published_to()}

    def _look_for_standstill(
        self, lags: Offsets, published: Offsets, assigned: Iterable[TopicPartition]
    ) -> None:
        """Report partitions that have orders and make no progress, if no other reason is reported."""
        moved, now = self.seen.moved, time.monotonic()
        for partition in [p for p in moved if p not in lags]:
            del moved[partition]
        for partition in assigned:
            offset = published.get(partition, 0)
            if not lags.get(partition) or moved.get(partition, (None, 0.0))[0] != offset:
                moved[partition] = (offset, now)
            elif now - moved[partition][1] > STILL_FOR_SECONDS and not self._health.has_reason(partition):
                self._health.waits(partition, f"{lags[partition]:,} records wait from offset {offset} on")

    def states(self) -> list[PartitionState]:
        """Of this worker's partitions and of those without an owner, as last measured. Sends no request."""
        assigned = self._source.assignment()
        return [self._state(p, assigned) for p in sorted({*assigned, *self.seen.unowned_since})]

    def _state(self, partition: TopicPartition, assigned: Collection[TopicPartition]) -> PartitionState:
        now, one = time.monotonic(), self._partitions[partition]
        offset, since = self.seen.moved.get(partition, (None, now))
        since = self.seen.unowned_since.get(partition, since)
        published = one.ownership.published_to if one.ownership else None
        has_moved = published is not None and offset is not None and published > offset
        waits = bool(self.seen.lags.get(partition)) and not has_moved
        stuck = now - since if waits else 0.0
        oldest_ms = one.oldest_ms()
        oldest = 0.0 if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1_000)
        owned = bool(one.ownership) if partition in assigned else None
        return PartitionState(partition.partition, owned, max(oldest, stuck), stuck)

    async def _asking(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            forget_errors(self._options)
            admin = AIOKafkaAdminClient(**self._options)
            try:
                await admin.start()
            except BaseException as error:
                await admin.close()
                if isinstance(error, KafkaError) and (why := login_error(self._options)):
                    raise why from None
                raise
            self._admin = admin
        return self._admin

    async def close(self) -> None:
        """Close the clients that the checks use."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()


def _offset(commit: OffsetAndMetadata | None) -> int:
    return -1 if commit is None else int(commit.offset)


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{p.topic}-{p.partition}" for p in sorted(partitions))


def _said_of(strangers: Sequence[Member]) -> str:
    if not strangers:
        return ""
    names = ", ".join(f"{one.client_id} at {one.host.lstrip('/')}" for one in strangers)
    return (
        f": {names} has joined this group and is no worker, so that the orders it gets are decided by nobody;"
        " stop it, or give it a group id of its own"
    )
