"""Takes partitions over: fences their owners before, finds out where to go on, and says what is wrong.

    fence      start the producers; from then on nobody else can publish or commit there
    look       committed offsets, `positions`, the log: one question each for all partitions
    resume     one case a partition (`worker.pipeline.resume`)

Nothing of a partition is decided before this has ended well. Run again at any time, it comes to the same.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import ledger, positions, skips, withheld
from db.positions import Begun
from worker.kafka.consuming.reading import TopicReader, reader, records
from worker.kafka.consuming.unreadable import UnreadableSpan
from worker.kafka.descriptors import require_descriptors
from worker.kafka.offset_mark import idle_mark
from worker.observability.metrics import Metrics
from worker.pipeline.publisher import OwnedPartition, Publisher
from worker.pipeline.resume import (
    Case,
    Evidence,
    WaitsForOperatorError,
    case_of,
    database_lost,
    decided_by_another_group,
    deleted_before_decided,
    is_cut,
    may_lie_in_log,
)

log = logging.getLogger(__name__)

Offsets = Mapping[TopicPartition, int]

# Producers started side by side: each asks the broker some five times, over connections of its own.
FENCED_AT_ONCE: Final = 16
# The batches of all partitions wait for it.
LOOK_SECONDS: Final = 30.0
# A leader may tell an end that lies too low, for a moment after it was elected.
CUT_FOR_SECONDS: Final = 2.0


class LogCutError(KafkaError):  # type: ignore[misc]
    """The log ends before what was decided of it; to be looked at again before it is believed."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What Kafka and PostgreSQL say of partitions that were just fenced."""

    turns: Mapping[TopicPartition, positions.Turn]
    evidence: Mapping[TopicPartition, Evidence]
    other_groups: Mapping[int, Mapping[str, int]]


class Takeover:
    """Takes over partitions of one topic for one group."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        sessions: async_sessionmaker[AsyncSession],
        group_id: str,
        topic: str,
        client_options: Mapping[str, Any],
        metrics: Metrics,
        cut_for_seconds: float = CUT_FOR_SECONDS,
    ) -> None:
        self._cut_for_seconds = cut_for_seconds
        self._publisher = publisher
        self._sessions = sessions
        self._group_id = group_id
        self._topic = topic
        self._options = client_options
        self._metrics = metrics
        self._slots = asyncio.Semaphore(FENCED_AT_ONCE)
        self._cut_since: dict[TopicPartition, float] = {}  # monotonic seconds

    async def take_over(
        self, partitions: Sequence[TopicPartition], all_partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OwnedPartition | Exception]:
        """Each partition's ownership, with the offset to go on at, or the error because of which it waits.

        `all_partitions`: of the topic. Of an error nothing stays: the partition is owned by nobody then.
        """
        fenced = await asyncio.gather(*(self._fence(p) for p in partitions), return_exceptions=True)
        results: dict[TopicPartition, OwnedPartition | Exception] = {}
        owned: dict[TopicPartition, OwnedPartition] = {}
        for partition, one in zip(partitions, fenced, strict=True):
            if isinstance(one, OwnedPartition):
                owned[partition] = one
            elif isinstance(one, Exception):
                results[partition] = one
        try:
            if owned:
                results |= await self._resume_all(owned, all_partitions)
        except Exception as error:
            results |= dict.fromkeys(owned, error)
        except BaseException:
            self._let_go(owned.values())
            raise
        self._let_go(one for p, one in owned.items() if results[p] is not one)
        return results

    async def _fence(self, partition: TopicPartition) -> OwnedPartition:
        async with self._slots:
            try:
                return await self._publisher.fence(partition)
            except (KafkaError, OSError):
                require_descriptors()
                raise

    def _let_go(self, owned: Iterable[OwnedPartition]) -> None:
        for one in owned:
            self._publisher.put_away(one.producer)

    async def _resume_all(
        self, owned: Mapping[TopicPartition, OwnedPartition], all_partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OwnedPartition | Exception]:
        async with asyncio.timeout(LOOK_SECONDS):
            look = await self._look(sorted(owned), all_partitions)
        resumed = await asyncio.gather(
            *(self._resume(one, look) for one in owned.values()), return_exceptions=True
        )
        results: dict[TopicPartition, OwnedPartition | Exception] = {}
        for (partition, one), error in zip(owned.items(), resumed, strict=True):
            if error is not None and not isinstance(error, Exception):
                raise error
            results[partition] = error or one
        return results

    async def _look(
        self, partitions: Sequence[TopicPartition], all_partitions: Collection[TopicPartition]
    ) -> _Look:
        # Of all, and before PostgreSQL: other workers go on meanwhile, and tell PostgreSQL first.
        commits = await self._publisher.committed_offsets(sorted({*partitions, *all_partitions}))
        async with self._sessions() as session:
            # Each commits by itself: two workers that took several in another order could wait in a circle.
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            turns = {
                p: await positions.take_turn(session, self._group_id, p.topic, p.partition)
                for p in partitions
            }
            begun = await positions.list_begun(session, self._group_id, self._topic)
            others = await positions.list_other_groups(session, self._group_id, self._topic)
        if lost := database_lost(self._topic, commits, begun):
            raise WaitsForOperatorError(lost)
        known = {p: turn.begun for p, turn in turns.items() if turn.begun}
        firsts, ends, found = await self._look_at_logs(partitions, known)
        evidence = {
            p: Evidence(
                commits[p],
                turns[p].begun,
                firsts[p],
                ends[p],
                found.get(p, not (p in known and is_cut(known[p], ends[p]))),
            )
            for p in partitions
        }
        return _Look(turns, evidence, others)

    async def _look_at_logs(
        self, partitions: Sequence[TopicPartition], known: Mapping[TopicPartition, Begun]
    ) -> tuple[Offsets, Offsets, dict[TopicPartition, bool]]:
        """The ends of each log; and of those where it can be seen, whether it is the one that was decided."""
        async with reader(self._options, "read_uncommitted") as consumer:
            firsts = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            lasts = {p: begun for p, begun in known.items() if may_lie_in_log(begun, firsts[p], ends[p])}
            return firsts, ends, await _known_logs(consumer, lasts)

    async def _resume(self, owned: OwnedPartition, look: _Look) -> None:
        partition = owned.partition
        turn, evidence = look.turns[partition], look.evidence[partition]
        if why := decided_by_another_group(
            partition, evidence, list(look.other_groups.get(partition.partition, ())), self._group_id
        ):
            raise WaitsForOperatorError(why)
        owned.turn, owned.begun_to = turn.number, turn.begun.begun_to if turn.begun else None
        owned.next_offset = evidence.offset
        if turn.begun and not evidence.by_operator and (evidence.offset or 0) > turn.begun.begun_to:
            owned.passed_over_from = turn.begun.begun_to
        case = case_of(evidence)
        if case is Case.OTHER_LOG:
            self._require_certainty(partition, evidence)
            await self._begin_other_log(owned, evidence)
        else:
            self._cut_since.pop(partition, None)
        if case is Case.LOST_COMMIT and evidence.begun:
            await self._recover_commit(owned, evidence.begun)
        await self._pass_over_deleted(owned, evidence)
        async with self._sessions() as session:
            owned.replays = await ledger.list_replays(session, partition.topic, partition.partition)
            rows = await withheld.list_withheld(session, partition.topic, partition.partition)
        # What an operator has read again is published again, where it was published.
        again = evidence.by_operator
        owned.withheld = {str(row.order_id) for row in rows if row.published_at is None or not again}
        self._metrics.takeovers.inc()
        log.info("took over %s-%d at offset %s", partition.topic, partition.partition, owned.next_offset)

    def _require_certainty(self, partition: TopicPartition, evidence: Evidence) -> None:
        since = self._cut_since.setdefault(partition, time.monotonic())
        if time.monotonic() - since < self._cut_for_seconds:
            raise LogCutError(f"{_log_differs(partition, evidence)}; looking again")
        del self._cut_since[partition]

    async def _begin_other_log(self, owned: OwnedPartition, evidence: Evidence) -> None:
        """Read the log from its first record on. What was published is in the ledger, and stays published."""
        partition = owned.partition
        silent_to = 0 if evidence.by_operator else evidence.offset or 0
        if evidence.begun:
            silent_to = max(silent_to, await self._publisher.recall(owned, evidence.begun))
        if silent_to > evidence.first:
            # Recorded before the offset moves: every later owner has to know it, too.
            async with self._sessions.begin() as session:
                spans = {partition.partition: (evidence.first, silent_to)}
                await ledger.add_replays(session, partition.topic, spans)
        log.error(
            "%s; going on at its first record, %d: what is decided already is not published again",
            *(_log_differs(partition, evidence), evidence.first),
        )
        self._metrics.other_logs.inc()
        await self._commit(owned, evidence.first)

    async def _recover_commit(self, owned: OwnedPartition, begun: Begun) -> None:
        committed, resumed = owned.next_offset, await self._publisher.recall(owned, begun)
        if committed == resumed == begun.announced_to:
            return  # its owner ended between PostgreSQL and Kafka: nothing is lost
        # At once, and not with the next orders: until then the group's lag would be wrong, too.
        await self._commit(owned, resumed)
        if committed is None and resumed == begun.announced_to and begun.acknowledged is None:
            return  # as above, of the first batch ever
        what = "undone what it had acknowledged" if resumed < begun.announced_to else "forgotten the offset"
        log.warning(
            "Kafka has %s of %s-%d: it says %s, all before %d was published; going on at %d",
            *(what, owned.partition.topic, owned.partition.partition, committed, begun.announced_to, resumed),
        )

    async def _pass_over_deleted(self, owned: OwnedPartition, evidence: Evidence) -> None:
        """Go on at the first record there is, and leave a lasting note of what nobody can decide any more."""
        if owned.next_offset is None or owned.next_offset >= evidence.first:
            return
        if deleted := deleted_before_decided(evidence, owned.next_offset):
            start, end = deleted
            async with self._sessions.begin() as session:
                await skips.add_skip(
                    session,
                    owned.partition.topic,
                    owned.partition.partition,
                    start,
                    end,
                    requested_by=self._group_id,
                    note="deleted from the topic before a worker read it",
                    kind="deleted",
                )
            self._metrics.deleted_offsets.labels(str(owned.partition.partition)).inc(end - start)
            log.error(
                "up to %d records of %s-%d were deleted before they were decided: offsets %d to %d, the log"
                " begins at %d; look at the topic's retention",
                *(end - start, owned.partition.topic, owned.partition.partition, start, end - 1, end),
            )
        await self._commit(owned, evidence.first)

    async def _commit(self, owned: OwnedPartition, offset: int) -> None:
        await self._publisher.publish(owned, [], offset, idle_mark(owned.begun_to))


async def _known_logs(
    consumer: TopicReader, lasts: Mapping[TopicPartition, Begun]
) -> dict[TopicPartition, bool]:
    """Whether the last record that was decided of each partition is still what it was."""
    found = dict.fromkeys(lasts, False)

    def take_for_known(span: UnreadableSpan) -> None:
        # What cannot be unpacked by now is no sign of another log.
        found[span.partition] = True

    spans = {p: (b.begun_to - 1, b.begun_to) for p, b in lasts.items()}
    async for record in records(consumer, spans, take_for_known):
        partition = TopicPartition(record.topic, record.partition)
        found[partition] = record.timestamp == lasts[partition].last_timestamp_ms
    return found


def _log_differs(partition: TopicPartition, evidence: Evidence) -> str:
    name = f"{partition.topic}-{partition.partition}"
    if evidence.offset is not None and evidence.offset > evidence.end:
        return f"the group's offset {evidence.offset} of {name} lies beyond the log's end, {evidence.end}"
    return f"{name} holds other records than those that were decided: it was cut or made anew"
