"""Recovers redrives that were killed: finds out what they sent, and the results."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition

from db.statuses import RedriveStatus
from db.worker import redrives
from db.worker.redrive_records import Finish, Redrive
from worker.errors import CommandError
from worker.kafka.consuming.reading import TopicReader, portions, reader
from worker.operations.redrive.results import Results, letter_ends, redrive_id_of
from worker.settings import Settings

_AT_A_TIME: Final = 1_000
_UNKNOWABLE: Final = "it is unknown whether it was sent: the input topic no longer goes back so far"
_NO_RESULT: Final = "its result is unknown: it is neither decided nor a dead letter that still exists"


@dataclass(slots=True)
class EarlierRun:
    """What the runs before left open. Nobody sends again what they sent."""

    released: int = 0
    """claimed and not sent: free again"""
    results: dict[str, int] = field(default_factory=dict)
    """sent, by what came of it"""


async def recover(results: Results, claiming: Sequence[UUID]) -> EarlierRun:
    """Give every unfinished redrive of the group an end.

    `claiming`: the runs that had unsent claims before the group's producer was started, which ended them. The
    claims of one that has begun since are its own: it may be sending them at this moment.
    """
    earlier = EarlierRun(released=await _find_sent(results, claiming))
    while sent := await _list_sent(results):
        # From the first letter there is: where theirs lie is not written down.
        tails = await letter_ends(results.letters, results.settings, first=True)
        outcomes = await results.wait_for(sent, tails)
        known = {outcome.finish.id for outcome in outcomes}
        finished = [outcome.finish for outcome in outcomes]
        finished += [Finish(r.id, RedriveStatus.FAILED, _NO_RESULT) for r in sent if r.id not in known]
        async with results.sessions.begin() as session:
            await redrives.finish_redrives(session, finished)
        for finish in finished:
            earlier.results[finish.status] = earlier.results.get(finish.status, 0) + 1
    return earlier


async def _list_sent(results: Results) -> list[Redrive]:
    settings = results.settings
    async with results.sessions() as session:
        return await redrives.list_sent(session, settings.group_id, settings.order_placed_topic, _AT_A_TIME)


async def _find_sent(results: Results, claiming: Sequence[UUID]) -> int:
    """Mark their claimed letters that are in the input topic, and release the others; how many of these."""
    settings = results.settings
    async with results.sessions() as session:
        claimed_from = await redrives.list_claimed_from(session, claiming)
    if not claimed_from:
        return 0

    async def mark_sent(some: Sequence[ConsumerRecord]) -> None:
        await _mark_sent(results, some)

    first = await look_behind(settings, results.inputs, claimed_from, results.patience_seconds, mark_sent)
    async with results.sessions.begin() as session:
        for partition, offset in first.items():
            # What the scan could not see may have been sent: never a second time.
            await redrives.fail_unknowable(session, claiming, partition, offset, _UNKNOWABLE)
        return sum([await redrives.release_redrives(session, run_id) for run_id in claiming])


async def look_behind(
    settings: Settings,
    inputs: TopicReader,
    offsets: Mapping[int, int],
    patience_seconds: float,
    look: Callable[[Sequence[ConsumerRecord]], Awaitable[None]],
) -> dict[int, int]:
    """Give `look` all records of the input topic from there on; by partition the first offset there is.

    `offsets` are by partition. Raises CommandError where somebody's open transaction hides records for longer
    than such a transaction may take.
    """
    topic = settings.order_placed_topic
    starts = {TopicPartition(topic, p): offset for p, offset in offsets.items()}
    first = await inputs.beginning_offsets(list(starts))
    ends = await _ends(settings, list(starts))
    spans = {p: (max(start, first[p]), ends[p]) for p, start in starts.items()}
    try:
        async with asyncio.timeout(patience_seconds + settings.transaction_timeout_ms / 1_000):
            async for _, some in portions(inputs, spans):
                await look(some)
    except TimeoutError:
        raise CommandError(
            f"an open transaction of somebody else hides what is in {topic}: try again when it has ended"
        ) from None
    return {p.partition: offset for p, offset in first.items()}


async def _ends(settings: Settings, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    # The uncommitted end: the search waits for records that an open transaction of others hides.
    async with reader(settings.kafka_client_options(), "read_uncommitted") as consumer:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(list(partitions))
        return ends


async def _mark_sent(results: Results, some: Sequence[ConsumerRecord]) -> None:
    offsets: dict[UUID, int] = {}
    for record in some:
        try:
            offsets[UUID(redrive_id_of(record) or "")] = record.offset
        except ValueError:
            continue
    if offsets:
        async with results.sessions.begin() as session:
            await redrives.mark_sent(session, offsets)
