"""Looks at the group every few seconds: how far it is, what stands still, and what no record would mend.

    look    Kafka alone, as few requests for many partitions as for one: lag, owners, what is hidden
    mend    what the looks have found, in a task of its own: it may wait for the batch in hand

A look asks nothing that waits for a batch, so that `/readyz` tells within seconds what is wrong.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import positions, skips
from db.skips import SkippedSpan
from worker.failures import describe
from worker.kafka import group
from worker.kafka.consuming.record_consumer import RecordConsumer
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.descriptors import descriptor_shortage
from worker.kafka.offset_mark import idle_mark
from worker.observability.health import Health, is_refusal
from worker.observability.metrics import Metrics
from worker.pipeline.consumer import OrderConsumer
from worker.pipeline.resume import database_lost

log = logging.getLogger(__name__)

MEND_INTERVAL_SECONDS: Final = 0.5
# Asked less often: who owns what, and whether PostgreSQL still knows all that was committed.
GROUP_INTERVAL_SECONDS: Final = 10.0
# A rebalance takes this long at most as a rule; meanwhile nobody owns anything.
UNOWNED_FOR_SECONDS: Final = 10.0
# A partition with orders waiting and no reason known may only wait for its turn.
STILL_FOR_SECONDS: Final = 60.0

# Of the time that a supervisor gives a worker to stop.
LOOK_BACK_SECONDS: Final = 2.0

Offsets = Mapping[TopicPartition, int]
Commits = dict[TopicPartition, OffsetAndMetadata | None]


@dataclass(slots=True)
class _Seen:
    """What the looks have found so far. Times are monotonic seconds."""

    commits: Commits = field(default_factory=dict)
    behind: dict[TopicPartition, int] = field(default_factory=dict)  # published to, and Kafka says less
    lost: dict[TopicPartition, int] = field(default_factory=dict)  # behind, as in the look before
    moved: dict[TopicPartition, tuple[int, float]] = field(default_factory=dict)  # published to, since when
    unowned_since: dict[TopicPartition, float] = field(default_factory=dict)
    unowned: frozenset[TopicPartition] = frozenset()  # for long enough
    asked_group_at: float = float("-inf")
    asked_database_at: float = float("-inf")
    unreadable: frozenset[TopicPartition] = frozenset()


class Watch:
    """Watches over one worker's group and topic."""

    def __init__(
        self,
        *,
        orders: OrderConsumer,
        consumer: Callable[[], RecordConsumer | None],
        sessions: async_sessionmaker[AsyncSession],
        client_options: Mapping[str, Any],
        group_id: str,
        topic: str,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self._orders = orders
        self._consumer = consumer
        self._sessions = sessions
        self._options = client_options
        self._group_id = group_id
        self._topic = topic
        self._health = health
        self._metrics = metrics
        self._admin: AIOKafkaAdminClient | None = None
        self._seen = _Seen()

    async def look(self) -> None:
        """See how far the group is. Raises what Kafka or the way to it says where it does not answer."""
        consumer = self._consumer()
        if consumer is None:
            return
        try:
            numbers = consumer.partitions_for_topic(self._topic) or ()
            everything = [TopicPartition(self._topic, number) for number in numbers]
            self._look_at_surroundings(is_there=bool(everything))
            admin = await self._asking()
            published = self._orders.published_to()
            # Before the ends, and each in one request: what is committed meanwhile is not past them.
            self._seen.commits = await group.commits(admin, self._group_id, everything)
            self._look_for_lost_commits(published)
            ends = await consumer.end_offsets(everything) if everything else {}
            firsts = await self._firsts(consumer, everything)
            await self._look_at_owners(admin, everything)
        except BaseException:
            self._metrics.lag.clear()
            self._health.lags(None)
            await self.close()
            raise
        self._tell(consumer, ends, firsts)

    def _look_at_surroundings(self, *, is_there: bool) -> None:
        """Name a topic that is gone, and files that run short: there is no partition to name with them."""
        gone = (
            f"Kafka knows no topic {self._topic}: was it deleted? Make it with `order-worker topics create`"
        )
        for what, why in (("topic", None if is_there else gone), ("files", descriptor_shortage())):
            if why is None:
                self._health.answered(what)
            elif self._health.failed(what, why):
                log.error("%s", why)

    def _look_for_lost_commits(self, published: Offsets) -> None:
        """Twice in a row, because a commit need not show at once when it is acknowledged."""
        seen, commits = self._seen, self._seen.commits
        behind = {p: to for p, to in published.items() if p in commits and _offset(commits[p]) < to}
        seen.lost = {p: to for p, to in behind.items() if seen.behind.get(p) == to}
        seen.behind = behind

    async def look_back(self) -> None:
        """Before the group is left: commit behind what holds nothing to decide. What fails costs nothing."""
        consumer = self._consumer()
        with suppress(Exception):
            async with asyncio.timeout(LOOK_BACK_SECONDS):
                await self.look()
                if consumer is not None:
                    await self._go_on_behind_markers(consumer)

    async def _firsts(self, consumer: RecordConsumer, everything: Iterable[TopicPartition]) -> Offsets:
        """The first offset of each partition of which nothing was ever committed."""
        unknown = [p for p in everything if self._seen.commits.get(p) is None]
        found: Offsets = await consumer.beginning_offsets(unknown) if unknown else {}
        return found

    async def _look_at_owners(self, admin: AIOKafkaAdminClient, everything: Iterable[TopicPartition]) -> None:
        seen, now = self._seen, time.monotonic()
        if now - seen.asked_group_at < (GROUP_INTERVAL_SECONDS if not seen.unowned_since else 0):
            return
        owned = {p for member in await group.members(admin, self._group_id) for p in member.partitions}
        seen.asked_group_at = now
        seen.unowned_since = {p: seen.unowned_since.get(p, now) for p in everything if p not in owned}
        long = {p for p, since in seen.unowned_since.items() if now - since >= UNOWNED_FOR_SECONDS}
        seen.unowned = frozenset(long)
        self._metrics.unowned.set(len(long))
        if long:
            self._health.failed("group", f"no worker owns {_names(long)}", alive=True)
        else:
            self._health.answered("group")

    def _tell(self, consumer: RecordConsumer, ends: Offsets, firsts: Offsets) -> None:
        assigned, published = consumer.assignment(), self._published(firsts)
        self._metrics.lag.clear()
        for partition in assigned - self._orders.in_hand():
            # Behind transaction markers, too: they are not to be decided.
            position = consumer.settled_position(partition)
            published[partition] = max(published.get(partition, 0), position or 0)
        lags = {
            p: max(0, end - published.get(p, 0))
            for p, end in ends.items()
            if p in assigned or p in self._seen.unowned_since
        }
        for partition, lag in lags.items():
            self._metrics.lag.labels(str(partition.partition)).set(lag)
        for partition in assigned:
            high, stable = consumer.highwater(partition), consumer.last_stable_offset(partition)
            hidden = 0 if high is None or stable is None else max(0, high - stable)
            self._metrics.hidden.labels(str(partition.partition)).set(hidden)
        self._look_for_standstill(lags, published, assigned)
        self._tell_unreadable(consumer)
        self._metrics.waiting.set(len(self._health.waiting()))
        self._health.lags(sum(lags.values()), busy=bool(self._orders.in_hand()))

    def _published(self, firsts: Offsets) -> dict[TopicPartition, int]:
        committed = {p: c.offset for p, c in self._seen.commits.items() if c is not None}
        return {**firsts, **committed, **self._orders.published_to()}

    def _look_for_standstill(
        self, lags: Offsets, published: Offsets, assigned: Iterable[TopicPartition]
    ) -> None:
        """Name what has orders and does not go on, for a reason that nothing else has named."""
        moved, now = self._seen.moved, time.monotonic()
        for partition in [p for p in moved if p not in lags]:
            del moved[partition]
        for partition in assigned:
            offset = published.get(partition, 0)
            if not lags.get(partition) or moved.get(partition, (None, 0.0))[0] != offset:
                moved[partition] = (offset, now)
            elif now - moved[partition][1] > STILL_FOR_SECONDS and self._health.is_silent_on(partition):
                self._health.waits(partition, f"{lags[partition]:,} records wait from offset {offset} on")

    def _tell_unreadable(self, consumer: RecordConsumer) -> None:
        self._metrics.unreadable.clear()
        standing = frozenset((*consumer.unreadable, *consumer.refused))
        for partition in self._seen.unreadable - standing:
            self._health.goes_on(partition)
        self._seen.unreadable = standing
        for partition, span in consumer.unreadable.items():
            self._metrics.unreadable.labels(str(partition.partition)).set(span.end - span.first)
            if self._health.waits(partition, _unreadable(span)):
                log.error("%s", _unreadable(span))
        for partition, why in consumer.refused.items():
            if self._health.waits(partition, f"Kafka refuses to serve it: {why}"):
                log.error("Kafka refuses to serve %s-%d: %s", partition.topic, partition.partition, why)

    async def mend(self) -> None:
        """Until cancelled: mend what the looks have found. What fails is found again by the next look."""
        while True:
            await asyncio.sleep(MEND_INTERVAL_SECONDS)
            try:
                if consumer := self._consumer():
                    await self._mend(consumer)
            except Exception as error:
                if is_refusal(error):
                    log.info("looking after the group: %s", describe(error))
                else:
                    log.exception("unforeseen error while looking after the group")

    async def _mend(self, consumer: RecordConsumer) -> None:
        for partition, published_to in self._seen.lost.items():
            committed = self._seen.commits[partition]
            await self._orders.recover_lost_commit(
                partition, published_to, None if committed is None else committed.offset
            )
        await self._pass_over_skipped(consumer)
        if outside := {*consumer.out_of_range, *self._orders.waiting_without_records()}:
            await self._orders.take_over_without_records(outside)
        await self._go_on_behind_markers(consumer)
        await self._look_at_database()

    async def _pass_over_skipped(self, consumer: RecordConsumer) -> None:
        """Go on behind what nobody can unpack, or Kafka cannot serve, and an operator has given up."""
        heads = {p: span.first for p, span in consumer.unreadable.items()}
        heads |= {p: at for p in consumer.refused if (at := consumer.settled_position(p)) is not None}
        if not heads:
            return
        async with self._sessions() as session:
            given_up = [s for s in await skips.list_skips(session, self._topic) if s.kind == "skipped"]
        for partition, first in heads.items():
            skip = next((s for s in given_up if _covers(s, partition, first)), None)
            if skip and await self._orders.go_on_behind_skipped(partition, first, skip.to_offset):
                skipped = self._metrics.skipped_offsets.labels(str(partition.partition))
                skipped.inc(skip.to_offset - first)
                log.warning(
                    "passed over offsets %d to %d of %s-%d, as %s asked: %s",
                    *(first, skip.to_offset - 1, partition.topic, partition.partition),
                    *(skip.requested_by, skip.note),
                )
        self._tell_unreadable(consumer)

    async def _go_on_behind_markers(self, consumer: RecordConsumer) -> None:
        """Let the committed offset reach the end where only markers are left: other tools take it for lag."""
        for partition in consumer.assignment() - self._orders.in_hand():
            position = consumer.settled_position(partition)
            commit = self._seen.commits.get(partition)
            published = self._orders.published_to().get(partition, commit.offset if commit else None)
            if position is None or partition not in self._seen.commits:
                continue
            if published is None:
                begins = await self._orders.commit_beginning(partition)
                if begins is not None:
                    self._seen.commits[partition] = OffsetAndMetadata(begins, idle_mark(None))
            elif published < position:
                await self._orders.go_on_behind_markers(partition)

    async def _look_at_database(self) -> None:
        """PostgreSQL may be that of a backup also where no orders come that would show it."""
        commits, now = self._seen.commits, time.monotonic()
        if not commits or now - self._seen.asked_database_at < GROUP_INTERVAL_SECONDS:
            return
        self._seen.asked_database_at = now
        async with self._sessions() as session:
            begun = await positions.list_begun(session, self._group_id, self._topic)
        if lost := database_lost(self._topic, commits, begun):
            if self._health.failed("ledger", lost):
                log.error("%s", lost)
        else:
            self._health.answered("ledger")

    async def _asking(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            admin = AIOKafkaAdminClient(**self._options)
            try:
                await admin.start()
            except BaseException:
                await admin.close()
                raise
            self._admin = admin
        return self._admin

    async def close(self) -> None:
        """Close what the looks ask with."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()


def _covers(skip: SkippedSpan, partition: TopicPartition, offset: int) -> bool:
    return skip.partition == partition.partition and skip.from_offset <= offset < skip.to_offset


def _offset(commit: OffsetAndMetadata | None) -> int:
    return -1 if commit is None else int(commit.offset)


def _names(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{p.topic}-{p.partition}" for p in sorted(partitions))


def _unreadable(span: UnreadableSpan) -> str:
    name = f"{span.partition.topic}-{span.partition.partition}"
    place = f"{span.partition.topic}:{span.partition.partition}:{span.first}"
    return (
        f"offsets {span.first} to {span.end - 1} of {name} cannot be unpacked ({span.why}): orders behind"
        f" them wait; to pass over them: `order-worker skip {place} --by … --note …`"
    )
