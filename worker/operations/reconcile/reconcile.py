"""`reconcile`: proves that nothing of a window is missing, or lists each discrepancy with its fix.

    committed offsets, window     what is not committed is not judged yet
    copy                          input, outcomes, dead letters → temporary tables, in portions
    judge                         each record, its publication, its order; strays; the ledger; the stock
    repair                        publish what was decided and never published, if asked to

This order makes it correct while workers run: the committed offsets first, then the ends of the output
topics, which by then hold every result of those offsets, and the ledger last, which holds everything that was
published.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncSession

from db.reconciliation import tables
from db.reconciliation.tables import UnreadableRow
from db.worker.skips import SkippedSpan, list_skips
from worker.errors import CommandError, UsageError
from worker.kafka import group
from worker.kafka.clients import kafka_admin
from worker.kafka.consuming.reading import Spans, TopicReader
from worker.kafka.consuming.unreadable import UnreadableCount
from worker.kafka.offsets import TopicSelection, bounds_of, partitions_of, topic_reader, window
from worker.kafka.stable_ends import Say
from worker.operations.one_session import one_session
from worker.operations.reconcile.conflicts import drop_reordered
from worker.operations.reconcile.discrepancies import REPAIRED, Discrepancy, discrepancy
from worker.operations.reconcile.repair import end_hanging_transactions, repair
from worker.operations.reconcile.spans import (
    DeletedSpan,
    InputRead,
    LettersRead,
    OutputRead,
    input_read,
    judged_spans,
    letters_since,
    outcomes_since,
)
from worker.operations.reconcile.topic_copies import (
    Outputs,
    compacted_topics,
    find_blocks,
    output_spans,
    read_inputs,
    read_letters,
    read_outcomes,
)
from worker.operations.screen import progress
from worker.settings import Settings

# Records that one statement judges: enough to be fast, and few enough for a database that others use.
_PORTION: Final = 10_000
RESULTS: Final = ("confirmed", "rejected", "duplicate", "dead_letter")
REMARKS: Final = (
    *("republished", "letter_again", "letter_of_nothing", "order_deleted", "earlier_topic"),
    *("input_deleted", "outcome_deleted", "letter_deleted"),
    *("skipped", "input_unreadable"),
)


@dataclass(frozen=True, slots=True)
class ReconcileRequest:
    """What an operator asks for. Times are aware; None: from the first record, to the committed offsets."""

    start: datetime | None = None
    end: datetime | None = None
    repair: bool = False
    execute: bool = False
    quiet: bool = False
    """no progress bars"""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found. `records` are those judged, `waiting` those not committed yet; counts are by name.

    `skips` are spans of the window that nobody decides, `deleted` those that were deleted before they were
    decided and of which no worker has made a note yet, `unreadable` what cannot be unpacked of all topics.
    """

    topic: str
    group_id: str
    start: datetime | None
    end: datetime | None
    records: int
    waiting: int
    results: Mapping[str, int]
    remarks: Mapping[str, int]
    discrepancies: Mapping[str, int]
    repaired: int | None  # None: nothing was to be done
    skips: tuple[SkippedSpan, ...] = ()
    deleted: tuple[DeletedSpan, ...] = ()
    unreadable: tuple[UnreadableCount, ...] = ()

    @property
    def left(self) -> int:
        """Discrepancies that are not repaired. What somebody else published meanwhile is."""
        done = 0 if self.repaired is None else self.discrepancies.get(REPAIRED, 0)
        return sum(self.discrepancies.values()) - done


@dataclass(frozen=True, slots=True)
class Reconciled:
    """A reconciliation that can be asked for its discrepancies until its block ends."""

    summary: Reconciliation
    session: AsyncSession

    async def discrepancies(self, limit: int | None = None) -> AsyncIterator[Discrepancy]:
        """All of them, or the first, by code and place."""
        async for finding in tables.stream_findings(self.session, limit):
            yield discrepancy(finding)


@asynccontextmanager
async def reconciled(settings: Settings, asked: ReconcileRequest, say: Say) -> AsyncIterator[Reconciled]:
    """The window, reconciled and, if asked for, repaired.

    Raises UsageError for a window that is none, CommandError where a server does not let us.
    """
    if asked.start and asked.end and asked.start > asked.end:
        raise UsageError("--from is later than --to")
    async with one_session(settings, "reconcile", tables.prepare) as session:
        async with topic_reader(settings, *settings.topics.all) as consumer:
            summary = await _reconcile(consumer, session, settings, asked, say)
        yield Reconciled(summary, session)


async def _reconcile(
    consumer: TopicReader, session: AsyncSession, settings: Settings, asked: ReconcileRequest, say: Say
) -> Reconciliation:
    if asked.execute:
        await end_hanging_transactions(settings)
    inputs, waiting = await _window(consumer, settings, asked)
    await read_inputs(consumer, session, settings, inputs, with_headers=asked.repair, quiet=asked.quiet)
    outputs = await _read_outputs(consumer, session, settings, inputs, asked, say)
    await tables.add_unreadable(session, await _unreadable(consumer, inputs))
    spans = judged_spans(inputs, outputs.confirmed, outputs.rejected, outputs.letters)
    await tables.set_spans(session, settings.order_placed_topic, spans)
    await tables.index(session)
    await session.commit()
    counts = await _judge(session, settings, inputs, outputs, quiet=asked.quiet)
    counts["duplicate"] += await drop_reordered(
        consumer, session, list(inputs.spans), settings.message_max_bytes
    )
    found = await tables.count_findings(session)
    skips = inputs.skips_in_window(await list_skips(session, settings.order_placed_topic))
    await session.commit()
    repaired = None
    if asked.execute and REPAIRED in found:
        topics = {
            settings.order_confirmed_topic: outputs.confirmed,
            settings.order_rejected_topic: outputs.rejected,
        }
        repaired = await repair(
            consumer, session, settings, topics, list(inputs.spans), found[REPAIRED], say, quiet=asked.quiet
        )
    return Reconciliation(
        topic=settings.order_placed_topic,
        group_id=settings.group_id,
        start=asked.start,
        end=asked.end,
        records=counts["records"],
        waiting=waiting,
        results={name: counts[name] for name in RESULTS},
        remarks={name: counts[name] for name in REMARKS if counts[name]},
        discrepancies=found,
        repaired=repaired,
        skips=skips,
        deleted=inputs.deleted(skips),
        unreadable=tuple(consumer.met.counts()),
    )


async def _window(
    consumer: TopicReader, settings: Settings, asked: ReconcileRequest
) -> tuple[InputRead, int]:
    """What is judged, and how many records of the window are not committed yet."""
    partitions = await partitions_of(consumer, TopicSelection(settings.order_placed_topic))
    async with kafka_admin(settings) as admin:
        # Before the topics are read: what is committed now has its outcomes in them.
        offsets = await group.committed(admin, settings.group_id, partitions)
        members = await group.members(admin, settings.group_id)
    bounds = await bounds_of(consumer, partitions)
    spans = await window(consumer, partitions, asked.start, asked.end)
    inputs = input_read(bounds, spans, offsets, from_first=asked.start is None)
    waiting = sum(end - inputs.spans[p][1] for p, (_, end) in spans.items())
    # If the group has members, it is the right one, and has only just begun.
    if waiting and not members and all(offset is None for offset in offsets.values()):
        raise CommandError(
            f"the group {settings.group_id} has committed nothing of {settings.order_placed_topic}, so there"
            " is nothing to prove: start a worker, or set ORDER_WORKER_GROUP_ID to the group that has"
        )
    return inputs, waiting


async def _unreadable(consumer: TopicReader, inputs: InputRead) -> list[UnreadableRow]:
    blocks = await find_blocks(consumer, inputs)
    met = [(span, False) for span in inputs.unreadable] + [(span, True) for span in blocks]
    return [UnreadableRow(s.partition.partition, s.first, s.end, s.why, waits) for s, waits in met]


async def _read_outputs(
    consumer: TopicReader,
    session: AsyncSession,
    settings: Settings,
    inputs: InputRead,
    asked: ReconcileRequest,
    say: Say,
) -> Outputs:
    # An outcome does not name its source: the ledger has the time when the first of the window was decided.
    bare = [tables.Span(p.partition, *span, False, None) for p, span in inputs.spans.items()]
    await tables.set_spans(session, settings.order_placed_topic, bare)
    first_decision = await tables.find_first_decision(session) if asked.start else None
    await session.commit()
    since = outcomes_since(first_decision, asked.start)
    compacted = await compacted_topics(settings)
    read: list[OutputRead] = []
    for topic in (settings.order_confirmed_topic, settings.order_rejected_topic):
        spans = await output_spans(consumer, settings, topic, since, say)
        outcomes = OutputRead(*spans, is_compacted=topic in compacted)
        is_confirmation = topic == settings.order_confirmed_topic
        await read_outcomes(
            consumer, session, topic, outcomes, is_confirmation=is_confirmation, quiet=asked.quiet
        )
        read.append(outcomes)
    since = letters_since(inputs, asked.start, datetime.now(UTC))
    topic = settings.dead_letter_topic
    spans = await output_spans(consumer, settings, topic, since, say)
    letters = LettersRead(*spans, is_compacted=topic in compacted)
    await read_letters(consumer, session, settings, letters, quiet=asked.quiet)
    return Outputs(read[0], read[1], letters)


async def _judge(
    session: AsyncSession, settings: Settings, inputs: InputRead, outputs: Outputs, *, quiet: bool
) -> Counter[str]:
    counts = Counter({"letter_of_nothing": outputs.letters.sourceless})
    await tables.judge_stock(session)
    counts.update(await tables.judge_ledger(session))
    await session.commit()
    topics = (settings.order_confirmed_topic, settings.order_rejected_topic)

    async def judge(partition: TopicPartition, start: int, end: int) -> None:
        counts.update(await tables.judge_records(session, partition.partition, start, end))
        counts.update(await tables.judge_published(session, partition.partition, start, end, topics))
        counts.update(await tables.judge_orders(session, partition.partition, start, end))

    async def judge_strays(partition: TopicPartition, start: int, end: int) -> None:
        topic, number = partition
        await tables.judge_stray_outcomes(session, topic == topics[0], topic, number, start, end)

    await tables.judge_unreadable(session, settings.order_placed_topic)
    await session.commit()
    await _in_portions(session, inputs.spans, judge, "comparing with the ledger", quiet)
    outcomes = {**outputs.confirmed.spans, **outputs.rejected.spans}
    await _in_portions(session, outcomes, judge_strays, "looking for strays", quiet)
    return counts


async def _in_portions(
    session: AsyncSession,
    spans: Spans,
    judge: Callable[[TopicPartition, int, int], Awaitable[None]],
    what: str,
    quiet: bool,
) -> None:
    with progress(what, sum(end - start for start, end in spans.values()), quiet=quiet) as bar:
        for partition, (start, end) in spans.items():
            for begin in range(start, end, _PORTION):
                behind = min(begin + _PORTION, end)
                await judge(partition, begin, behind)
                await session.commit()
                bar.advance(behind - begin)
